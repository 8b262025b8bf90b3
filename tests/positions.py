"""Positions that a test remembers, looks into, and lets fail."""

from __future__ import annotations

from collections.abc import Collection, Mapping as Dict

import anyio
import anyio.lowlevel

from bridge.errors import BridgeError
from bridge.position import Position


class RememberedPositions:
    """The positions of one mapping."""

    def __init__(self) -> None:
        self.stored: dict[str, Position] = {}
        self.moves: list[dict[str, Position]] = []
        """Each write, in order."""
        self.fault: BridgeError | None = None
        """What every write raises while it is set."""
        self.delay = 0.0
        """Seconds that a write takes."""

    async def load(self) -> dict[str, Position]:
        await self._work()
        return dict(self.stored)

    async def move(self, moved: Dict[str, Position]) -> None:
        await self._work()
        self.stored.update(moved)
        self.moves.append(dict(moved))

    async def forget(self, partitions: Collection[str]) -> None:
        await self._work()
        for partition in partitions:
            self.stored.pop(partition, None)

    async def _work(self) -> None:
        await anyio.sleep(self.delay)
        if self.fault:
            raise self.fault
