"""Where a partition stands: what outlives a restart about a source that does not remember it by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping as Dict
from typing import NamedTuple, Protocol

import msgspec


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far one partition of one mapping is done. All of it moves in one write (TW-47, SCO-1)."""

    epoch: int = 0
    """Fencing token: grows by 1 with each change of owner, never on renewal."""
    position: str
    """In the source's own words; nobody else looks inside."""
    state: bytes = b""
    """What an open window has gathered, in the words of ``pipeline/windows.py``; empty: no window is open."""
    ended: bool = False
    """The partition was finished: a tombstone until its children have positions (KIN-94)."""


class Move(NamedTuple):
    """One change of what is stored. A mapping may have had several sources, one after the other."""

    mapping: str
    """Its UUID."""
    source: str
    """The ARN: partitions of another source may have the same names."""
    partition: str
    position: Position | None
    """None: it is forgotten."""


class Positions(Protocol):
    """The positions of one mapping, by partition. StateError means that nothing of the call has happened; who gets one
    stops, since without positions records would be given up silently or repeated without bound."""

    async def load(self) -> dict[str, Position]:
        """All of them, as of the last ``move``."""
        ...

    async def move(self, moved: Dict[str, Position]) -> None:
        """One write; returns when it has happened. Concurrent calls share a write.

        Raises HoldLost, and nothing of the call has happened, when a partition is stored with a higher epoch: it is
        somebody else's now (SCO-32, SCO-33).
        """
        ...

    async def forget(self, partitions: Collection[str]) -> None:
        """They have no position any more. Twice is as once."""
        ...
