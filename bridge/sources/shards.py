"""What Kinesis and DynamoDB Streams have in common: shards that split and merge, positions in them, and the order in
which they may be read. Decisions only; reading is in shard_reader.py, the source around it in streams.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping as Dict
from typing import Any, Literal, NamedTuple, Protocol, Self

import msgspec

from bridge.errors import BridgeError, StateError
from bridge.position import Position
from bridge.record import Record

# Positions.

StartingPoint = Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"]


class Where(NamedTuple):
    """A place in a shard. What is stored of it is its text."""

    kind: StartingPoint
    sequence: str = ""
    """With AFTER_SEQUENCE_NUMBER; with AT_SEQUENCE_NUMBER, which is never stored."""
    at: float | None = None
    """Epoch seconds. AT_TIMESTAMP: the place itself. LATEST: the endpoint's time when that was asked for, to which it
    is resolved when it is stored (KIN-30). AFTER_SEQUENCE_NUMBER: when that record arrived, if known."""

    def __str__(self) -> str:
        if self.kind == "TRIM_HORIZON":
            return self.kind
        if self.sequence:
            return f"{self.kind} {self.sequence}" + (f" {self.at:.3f}" if self.at is not None else "")
        return f"AT_TIMESTAMP {self.at or 0.0:.3f}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises StateError for what is no such text."""
        kind, *rest = text.split(" ")
        try:
            if kind == "TRIM_HORIZON" and not rest:
                return cls("TRIM_HORIZON")
            if kind == "AT_TIMESTAMP" and len(rest) == 1:
                return cls("AT_TIMESTAMP", at=float(rest[0]))
            if kind == "AFTER_SEQUENCE_NUMBER" and 1 <= len(rest) <= 2 and rest[0].isdecimal():
                return cls("AFTER_SEQUENCE_NUMBER", rest[0], float(rest[1]) if rest[1:] else None)
        except ValueError:
            pass  # the line below says it
        raise StateError(f"the stored position {text[:100]!r} is not understood; was it written by a newer version?")

    @property
    def resolved(self) -> Self:
        """Of LATEST what it means at any later time."""
        return self._replace(kind="AT_TIMESTAMP") if self.kind == "LATEST" else self


TRIM_HORIZON = Where("TRIM_HORIZON")
TWICE = 2
"""Listings without a shard that are enough to believe that it is gone: one alone may have come too early, or between
two states of the stream."""


# What a service has to offer.


class Shard(msgspec.Struct, frozen=True):
    """One shard as the service lists it."""

    id: str
    parents: tuple[str, ...] = ()
    """As the service names them, listed or not: none, one, or of a merge two (KIN-90)."""
    first: str = ""
    """The sequence number that it starts at."""
    last: str | None = None
    """The one that it ends at; none while it is open (KIN-114)."""


class ReadPage(msgspec.Struct, frozen=True):
    """What one read of a shard gave."""

    records: tuple[Record, ...] = ()
    """In order. ``id`` is the sequence number; ``receipt`` the key (text) whose records stay in order (KIN-51). Several
    in a row may share an id: parts of one that was taken apart (KIN-45)."""
    cursor: Any = None
    """Where to go on; none: the shard is at its end (KIN-13)."""
    caught_up: bool = True
    """There was nothing more in the shard at that moment."""
    lag: float | None = None
    """Seconds behind the tip of the shard, where the service tells."""
    children: tuple[Shard, ...] = ()
    """Announced at the shard's end (KIN-92)."""
    size: int = 0
    """Bytes of the records' JSON."""
    passed: str = ""
    """The sequence number up to which nothing but these records is (KIN-101); empty where the service does not say."""


class CursorExpired(BridgeError):
    """The place in the shard is no longer valid; it must be asked for again."""


class PushUnavailable(BridgeError):
    """The endpoint does not push records: they must be asked for."""


class PositionTrimmed(BridgeError):
    """The records at this place are older than the stream keeps them."""


class StreamApi(Protocol):
    """One stream of one service, through its API. Nothing is repeated in here: faults are raised as RemoteError.

    NotFound is the stream, or of ``cursor`` and ``read`` perhaps the shard alone: who calls looks at the shards then.
    """

    what: str
    """For people: ``stream orders``."""
    idle: float
    """Seconds from one read to the next where nothing waits (KIN-20, DDB-20)."""
    pause: float
    """Seconds at least from one read of a shard to the next (KIN-21)."""
    discovery: float
    """Seconds from one look at the shards to the next (KIN-92, DDB-22)."""
    most: int
    """Records that one read may ask for (KIN-11, DDB-5)."""
    retention: float
    """Seconds for which records are kept, as far as known; inf where not."""
    filters: bool
    """``shards`` leaves out what ended before the start that it is asked for."""

    async def shards(self, start: Where | None = None) -> list[Shard]:
        """All of them, of all pages; with ``start`` the service may leave out those that have ended before it."""
        ...

    def now(self) -> float | None:
        """Epoch seconds by the service's own clock, when it gave its last answer, never later than that; none where it
        has not told."""
        ...

    async def cursor(self, shard: Shard, where: Where) -> Any:
        """Where to read. Raises PositionTrimmed."""
        ...

    async def read(self, shard: Shard, cursor: Any, limit: int) -> ReadPage:
        """What is there, at most ``limit`` records. ``shard`` is as it was listed before: it knows whether it has ended
        (KIN-112). Raises CursorExpired and PositionTrimmed."""
        ...

    def pages(self, shard: Shard, where: Where) -> AsyncGenerator[ReadPage] | None:
        """None: it is read by ``cursor`` and ``read``. Else what is pushed from there on, for as long as one
        subscription lasts (KIN-100); the one who iterates may take his time (KIN-103). Raises what ``read`` raises, and
        PushUnavailable where this endpoint cannot push."""
        ...


def end_of(shard: Shard, text: str) -> str:
    """The position of a shard that was read to its end: ``text`` unless that has no sequence number and the shard has
    one. A tombstone shall tell its shard from one of the same name."""
    number = shard.last or shard.first
    if text.startswith("AFTER_SEQUENCE_NUMBER ") or not number.isdecimal():
        return text
    return str(Where("AFTER_SEQUENCE_NUMBER", number))


def _is_of_another(shard: Shard, position: Position) -> bool:
    """Whether the position was written about an earlier shard of this name: this one begins after a record of that, or
    is open and begins after that one's end. Kinesis numbers in order of time, and shards of every stream begin with the
    same names."""
    where = Where.parse(position.position)
    if not where.sequence or not shard.first.isdecimal() or int(shard.first) <= int(where.sequence):
        return False
    return where.at is not None or (position.ended and shard.last is None)


# Which shard, and when.


class Lineage:
    """Parents before children: says which shards may be read now, and which positions may be forgotten.

    It is told what is listed, and what has been started and finished. ``positions`` are the stored ones, by shard.

    A shard is *finished* when it was read to its end (its position is a tombstone), when it is neither listed nor has a
    position (trimmed), or when it has no position but some descendant has: then the mapping began after it, or its
    tombstone was dropped.
    """

    def __init__(self, positions: Dict[str, Position]) -> None:
        self._positions = dict(positions)
        self._listed: dict[str, Shard] = {}
        self._announced: dict[str, Shard] = {}
        self._children: dict[str, set[str]] = {}
        self._absent: dict[str, int] = {}
        """Shards that should be listed -> listings in a row that they were not in."""
        self._reading: set[str] = set()

    def __repr__(self) -> str:
        ended = sum(position.ended for position in self._positions.values())
        return f"<Lineage {len(self._listed)} shards, {len(self._reading)} being read, {ended} tombstones>"

    @property
    def reading(self) -> frozenset[str]:
        """Shards that were started and have not finished."""
        return frozenset(self._reading)

    @property
    def shards(self) -> Dict[str, Shard]:
        """What is known to exist."""
        return self._listed

    def position(self, shard: str) -> Position | None:
        """What is known to be stored of it."""
        return self._positions.get(shard)

    # What happens.

    def listed(self, shards: Iterable[Shard], *, filtered: bool = False) -> None:
        """All that the service lists; ``filtered``: without those that ended before the mapping's beginning. A listing
        may be late: what was announced since counts as well, an empty one says nothing, and that a shard is gone shows
        in the second one that it is not in."""
        fresh = {shard.id: shard for shard in shards}
        if not fresh:
            return
        expected = {parent for shard in fresh.values() for parent in shard.parents} | self._positions.keys()
        self._absent = {
            name: TWICE if filtered else min(self._absent.get(name, 0) + 1, TWICE) for name in expected - fresh.keys()
        }
        self._announced = {name: shard for name, shard in self._announced.items() if name not in fresh}
        self._listed = fresh | self._announced
        self._relate()

    def announced(self, shards: Iterable[Shard]) -> None:
        """Children of a shard that has just ended."""
        for shard in shards:
            if shard.id not in self._listed:
                self._announced[shard.id] = self._listed[shard.id] = shard
        self._relate()

    def begin(self, start: Where) -> dict[str, Position]:
        """For a mapping that has no positions yet: those to be stored first, of all that is listed (KIN-25, KIN-26).

        LATEST leaves out what has ended, whatever the service was asked for (KIN-114).
        """
        text = str(start)
        skips = start.kind == "LATEST"
        return {
            shard.id: Position(position=end_of(shard, text), ended=True)
            if skips and shard.last is not None
            else Position(position=text)
            for shard in self._listed.values()
        }

    def stored(self, moved: Dict[str, Position]) -> None:
        """These positions have been written."""
        self._positions |= moved

    def started(self, shard: str) -> None:
        """Somebody reads it from now on."""
        self._reading.add(shard)

    def finished(self, shard: str) -> None:
        """It was read to its end, all of it is settled, and its tombstone is stored."""
        self._reading.discard(shard)

    def forgot(self, shards: Iterable[str]) -> None:
        """These positions have been dropped."""
        for shard in shards:
            self._positions.pop(shard, None)

    # What follows.

    def strangers(self) -> list[str]:
        """Shards whose positions are those of a stream that had the same name. Then all positions are."""
        known = ((self._listed.get(shard), position) for shard, position in self._positions.items())
        return [shard.id for shard, position in known if shard and _is_of_another(shard, position)]

    def begin_anew(self) -> dict[str, Position]:
        """For a stream that was made anew under its old name: the positions of all its shards, to be stored in place of
        those that are there. A window that is still open is ended by what follows."""
        stored = {shard: self._positions.get(shard) for shard in self._listed}
        return {
            shard: Position(
                epoch=old.epoch if old else 0,
                position=str(TRIM_HORIZON),
                state=old.state if old and not old.ended else b"",
            )
            for shard, old in stored.items()
        }

    def ready(self) -> list[Shard]:
        """Shards that may be started now: not finished, not being read, all parents finished (KIN-91). One that has a
        position and is not listed comes first: who reads it will find out whether it is gone."""
        if not self._listed:
            return []
        done = self._finished()
        unlisted = [
            Shard(shard)
            for shard, position in self._positions.items()
            if not position.ended and shard not in self._listed and shard not in self._reading
        ]
        waited_for = {shard.id for shard in unlisted} | self._reading
        return [shard for shard in unlisted if self._absent.get(shard.id) == TWICE] + [
            shard
            for shard in self._listed.values()
            if shard.id not in done
            and shard.id not in self._reading
            and all(parent in done or self._gone(parent, shard) for parent in shard.parents)
            and waited_for.isdisjoint(shard.parents)
        ]

    def held_back(self) -> dict[str, list[str]]:
        """Shards that wait: for which parents, those that are not finished."""
        if not self._listed:
            return {}
        done = self._finished()
        return {
            shard.id: [parent for parent in shard.parents if parent not in done]
            for shard in self._listed.values()
            if shard.id not in done and shard.id not in self._reading
        }

    def _gone(self, parent: str, child: Shard) -> bool:
        """It was trimmed. That a child was announced says nothing about a second parent: that may be younger than the
        last listing (KIN-91)."""
        return self._absent.get(parent) == TWICE and parent not in self._listed and child.id not in self._announced

    def doubtful(self) -> list[str]:
        """Shards that are gone if the next listing does not have them either, and that others wait for."""
        tombstones = {shard for shard, position in self._positions.items() if position.ended}
        return [shard for shard, times in self._absent.items() if times < TWICE and shard not in tombstones]

    def start_of(self, shard: str) -> Where:
        """Where to read it from: its position, or its beginning (KIN-26). Raises StateError."""
        position = self._positions.get(shard)
        return Where.parse(position.position) if position else TRIM_HORIZON

    def orphans(self) -> list[str]:
        """Shards whose children are to come: they ended, nobody is listed as their child, or one that was announced
        has a parent of which nobody knows yet."""
        return [
            shard
            for shard, position in self._positions.items()
            if position.ended
            and shard in self._listed
            and not any(self._is_related(child) for child in self._children.get(shard, ()))
        ]

    def _is_related(self, child: str) -> bool:
        return all(parent in self._listed for parent in self._listed[child].parents) or child not in self._announced

    def spent(self) -> list[str]:
        """Tombstones that nobody needs any more: not listed, and all their children have positions (KIN-94)."""
        if not self._listed:
            return []
        return [
            shard
            for shard, position in self._positions.items()
            if position.ended
            and self._absent.get(shard) == TWICE
            and all(child in self._positions for child in self._children.get(shard, ()))
        ]

    def _relate(self) -> None:
        self._children = {}
        for shard in self._listed.values():
            for parent in shard.parents:
                self._children.setdefault(parent, set()).add(shard.id)

    def _finished(self) -> set[str]:
        """Of what is listed."""
        done = {shard for shard, position in self._positions.items() if position.ended and shard in self._listed}
        known = (self._listed[shard] for shard in self._positions if shard in self._listed)
        ancestors = [parent for shard in known for parent in shard.parents]
        seen: set[str] = set()
        while ancestors:
            shard = ancestors.pop()
            if shard in seen or shard not in self._listed:
                continue
            seen.add(shard)
            if shard not in self._positions:
                done.add(shard)
            ancestors += self._listed[shard].parents
        return done
