"""The shards of a stream as a test shapes them: what is in them, how they follow one another, what is gone."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from hashlib import md5
from math import inf
from operator import attrgetter
from typing import Any

import msgspec

HASHES = 1 << 128
"""Hash keys are below it (HashKeyRange)."""
STEP = 1000
"""Between two sequence numbers: what follows is greater, by how much says nothing."""


class Stored(msgspec.Struct, eq=False):
    """One record in a shard. ``at``: epoch seconds of its arrival; ``wire``: as GetRecords gives it."""

    number: int
    key: str
    at: float
    size: int
    wire: dict[str, Any]


class Shard(msgspec.Struct, eq=False, kw_only=True):
    """One shard; open while ``last`` is none."""

    id: str
    parents: tuple[str, ...]
    hashes: tuple[int, int]
    """Its hash keys: the least, and the first that is too large."""
    first: int
    """StartingSequenceNumber."""
    opened_at: float
    records: list[Stored] = []
    """Those that were not trimmed."""
    horizon: int = 0
    """The least sequence number that was not trimmed."""
    last: int | None = None
    """EndingSequenceNumber."""
    closed_at: float = inf
    children: list[str] = []

    def since(self, number: int) -> int:
        """The index of its first record with this sequence number or a later one."""
        return bisect_left(self.records, number, key=attrgetter("number"))


class ShardModel:
    """All shards of one stream. Sequence numbers grow over all of them; with ``small_numbers`` they begin at 0 in each
    (KIN-113). ``retention``: seconds after which records and closed shards are gone by themselves."""

    first_number = 10**24

    def __init__(self, shards: int = 1, *, small_numbers: bool = False, retention: float = inf) -> None:
        self.shards: dict[str, Shard] = {}
        """By id, in the order of their making; all that are still listed."""
        self.retention = retention
        self._small = small_numbers
        self._numbers = 0
        self._made = 0
        for index in range(shards):
            self._open((HASHES * index // shards, HASHES * (index + 1) // shards))

    @property
    def open(self) -> list[str]:
        """Ids."""
        return [shard.id for shard in self.shards.values() if shard.last is None]

    def put(self, key: str, body: str = "", *, shard: str = "", **members: Any) -> str:
        """The sequence number. The key says which open shard it goes to, unless ``shard`` does. ``members`` replace
        those of the record as it will be read."""
        home = self.shards[shard] if shard else self._home(key)
        assert home.last is None, f"{home.id} is closed"
        number, at = self._number(home), time.time()
        wire = self.wire_record(key, body, number, at, members)
        home.records.append(Stored(number, key, at, self.weight(wire), wire))
        self.changed()
        return self.text(number)

    def split(self, shard: str) -> list[str]:
        """Two children, each with half of the keys."""
        parent = self._close(shard)
        low, high = parent.hashes
        middle = (low + high) // 2
        return [self._open(hashes, parent).id for hashes in ((low, middle), (middle, high))]

    def merge(self, one: str, other: str) -> str:
        """One child of two neighbours."""
        parents = sorted((self._close(one), self._close(other)), key=lambda shard: shard.hashes)
        assert parents[0].hashes[1] == parents[1].hashes[0], f"{one} and {other} are no neighbours"
        return self._open((parents[0].hashes[0], parents[1].hashes[1]), *parents).id

    def roll(self, shard: str) -> str:
        """One child with the same keys, as shards of a table's stream have them every few hours (DDB-4)."""
        parent = self._close(shard)
        return self._open(parent.hashes, parent).id

    def close(self, shard: str) -> None:
        """It ends without children, as when the stream is switched off."""
        self._close(shard)

    def trim(self, shard: str, through: str = "") -> int:
        """Its records are gone up to this sequence number (empty: all); gives how many those were."""
        it = self.shards[shard]
        gone = it.since(int(through) + 1) if through else len(it.records)
        if gone:
            it.horizon = it.records[gone - 1].number + 1
            del it.records[:gone]
        return gone

    def forget(self, shard: str) -> None:
        """It is not listed any more, and cannot be read."""
        del self.shards[shard]

    def age(self) -> None:
        """What is older than ``retention`` goes."""
        oldest = time.time() - self.retention
        for shard in [*self.shards.values()]:
            if shard.records and shard.records[0].at < oldest:
                old = [record.number for record in shard.records if record.at < oldest]
                self.trim(shard.id, str(old[-1]))
            if shard.closed_at < oldest:
                self.forget(shard.id)

    def numbers(self, shard: str = "") -> Iterator[str]:
        """Sequence numbers of what can still be read, all shards or one."""
        for it in [self.shards[shard]] if shard else self.shards.values():
            yield from (self.text(record.number) for record in it.records)

    def next_number(self, shard: Shard) -> int:
        """What the next record of the shard has, at least."""
        if self._small:
            return shard.records[-1].number + 1 if shard.records else max(shard.first, shard.horizon)
        return self.first_number + self._numbers * STEP

    # What the kinds of streams differ in.

    def text(self, number: int) -> str:
        """A sequence number as it is written."""
        return str(number)

    def wire_record(self, key: str, body: str, number: int, at: float, members: dict[str, Any]) -> dict[str, Any]:
        """A record as GetRecords gives it."""
        raise NotImplementedError

    def weight(self, wire: dict[str, Any]) -> int:
        """The bytes that a record counts for in a page."""
        raise NotImplementedError

    def shard_name(self, count: int) -> str:
        raise NotImplementedError

    def changed(self) -> None:
        """Something can be read that could not before."""

    def _home(self, key: str) -> Shard:
        value = int.from_bytes(md5(key.encode()).digest())
        return next(s for s in self.shards.values() if s.last is None and s.hashes[0] <= value < s.hashes[1])

    def _number(self, shard: Shard) -> int:
        number = self.next_number(shard)
        self._numbers += 1
        return number

    def _open(self, hashes: tuple[int, int], *parents: Shard) -> Shard:
        name = self.shard_name(self._made)
        first = 0 if self._small else self.first_number + self._numbers * STEP
        self._made += 1
        self._numbers += 1
        shard = Shard(
            id=name,
            parents=tuple(parent.id for parent in parents),
            hashes=hashes,
            first=first,
            horizon=first,
            opened_at=time.time(),
        )
        self.shards[name] = shard
        for parent in parents:
            parent.children.append(name)
        self.changed()
        return shard

    def _close(self, name: str) -> Shard:
        shard = self.shards[name]
        assert shard.last is None, f"{name} is closed already"
        shard.last = max(self.next_number(shard) - 1, shard.first)
        shard.closed_at = time.time()
        self._numbers += 1
        self.changed()
        return shard
