"""Reads records again that a pointer in a dead-letter queue tells of: from their shard, a closed one included, and says
which of them the stream does not keep any more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from math import inf
from typing import Any, TypeVar

import anyio
import structlog

from bridge.errors import BridgeError, NotFound
from bridge.faults import persist
from bridge.record import Record
from bridge.replay.documents import Pointer
from bridge.sources.shards import TRIM_HORIZON, CursorExpired, PositionTrimmed, ReadPage, Shard, StreamApi, Where

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a fault may last before a pointer is given up for this time."""
LISTING_LASTS = 60.0
"""Seconds that a list of shards is believed, where it has the one that is looked for."""
EMPTY_READS = 5
"""So many in a row say that nothing follows, where the service does not tell its lag (KIN-13)."""
CROSSED_READS = 1000
"""The same while the service says that something follows."""
MOST_EXPIRED = 20
"""Iterators of one pointer that expire, until something else must be wrong."""

log = structlog.get_logger()


class Expired(BridgeError):
    """The stream does not keep these records any more."""


class Stream:
    """One stream whose records are read again; keeps to its limits whoever asks (KIN-10, DDB-8)."""

    def __init__(self, api: StreamApi) -> None:
        self.api = api
        self._shards: dict[str, Shard] = {}
        self._listed_at = -inf
        self._listing = anyio.Lock()
        self._turns: dict[str, _Turn] = {}

    def __repr__(self) -> str:
        return f"<Stream {self.api.what}: {len(self._shards)} shards>"

    async def shard(self, name: str, *, fresh: bool = False) -> Shard:
        """The shard, perhaps a closed one. Raises Expired when it is not listed any more: with its last record the
        stream forgets a shard; NotFound when the stream is gone; RemoteError."""
        async with self._listing:
            age = anyio.current_time() - self._listed_at
            if fresh or name not in self._shards or age > LISTING_LASTS:
                listed = await self.patient(lambda: self.api.shards())
                self._shards = {shard.id: shard for shard in listed}
                self._listed_at = anyio.current_time()
        if name not in self._shards:
            raise Expired(f"expired: {self.api.what} has no {name} any more, nor the records that were in it")
        return self._shards[name]

    async def patient(self, call: Callable[[], Awaitable[T]]) -> T:
        """Its result, once passing faults are over."""
        return await persist(call, trouble=self._told, until=anyio.current_time() + PATIENCE)

    def turn(self, shard: str) -> _Turn:
        """For reads of one shard: half of what it allows, since the mapping goes on meanwhile."""
        return self._turns.setdefault(shard, _Turn(2 * self.api.pause))

    def _told(self, line: str | None) -> None:
        if line is not None:
            log.warning("replay_waits", stream=self.api.what, detail=line)


class _Turn:
    """One read after the other, ``pause`` seconds apart at least."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._not_before = -inf
        self._queue = anyio.Lock()

    async def __call__(self) -> None:
        async with self._queue:
            await anyio.sleep_until(self._not_before)
            self._not_before = anyio.current_time() + self._pause


class Reading:
    """One pointer being followed."""

    def __init__(self, stream: Stream, pointer: Pointer) -> None:
        self._stream, self._pointer = stream, pointer
        self._first, self._last = int(pointer.first), int(pointer.last)
        self._where = Where("AT_SEQUENCE_NUMBER", pointer.first)
        self._cursor: Any = None
        self._read_to = self._first - 1
        self._reads = self._empty = self._lapsed = 0
        self.begins = False
        """The first of the records was there."""
        self.ends = False
        """The last one was."""

    def __repr__(self) -> str:
        return f"<Reading {self._pointer}, to {self._read_to}>"

    @property
    def whole(self) -> bool:
        """Nothing between the first and the last record is missing: a stream loses the oldest ones first (REPLAY-6)."""
        return self.begins and self.ends

    async def pages(self) -> AsyncGenerator[tuple[Record, ...]]:
        """All records that are in the shard from the first one to the last, in order, page by page. Whoever iterates
        may take his time. There may be more of them than the pointer says (KIN-39, KIN-50), or fewer: see ``whole``.

        Raises Expired when there are none any more, NotFound when the stream is gone, and what else the service says.
        """
        shard = await self._stream.shard(self._pointer.shard)
        while (page := await self._next(shard)) is not None:
            records = self._within(page.records)
            if records:
                yield records
            if self.ends or self._is_over(page):
                break
        if self._read_to < self._first:
            raise Expired(f"expired: none of the {self._pointer} is there any more")

    async def _next(self, shard: Shard) -> ReadPage | None:
        """None: the shard is gone by now."""
        while True:
            try:
                await self._stream.turn(shard.id)()
                return await self._read(shard)
            except CursorExpired:  # KIN-30
                self._cursor = None
                self._lapsed += 1
                if self._lapsed > MOST_EXPIRED:
                    raise
            except PositionTrimmed:  # DDB-25; KIN-32: what is left of the range follows the horizon
                if self._where == TRIM_HORIZON:
                    return None
                self._where, self._cursor = TRIM_HORIZON, None
            except NotFound:
                await self._stream.shard(shard.id, fresh=True)  # says whether the stream is gone, or the shard alone
                raise

    async def _read(self, shard: Shard) -> ReadPage:
        api, patient = self._stream.api, self._stream.patient
        if self._cursor is None:
            self._cursor = await patient(lambda: api.cursor(shard, self._where))
        limit = min(api.most, self._pointer.records << min(self._reads, 16))  # what is not ours may lie between
        page = await patient(lambda: api.read(shard, self._cursor, limit))
        self._cursor = page.cursor
        self._reads += 1
        self._empty = 0 if page.records else self._empty + 1
        return page

    def _within(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """Those of the range that have not come before."""
        before, found = self._read_to, []
        for record in records:
            number = int(record.id)
            if number > self._last:
                self.ends = True  # it is past them, whatever was there
                break
            if number > before:
                found.append(record)
                self.begins = self.begins or number == self._first
                self._read_to = number
        if self._read_to == self._last:
            self.ends = True
        if found:
            self._where = Where("AFTER_SEQUENCE_NUMBER", found[-1].id)
        return tuple(found)

    def _is_over(self, page: ReadPage) -> bool:
        """Nothing follows: the shard's end, or its tip."""
        if page.cursor is None:
            return True
        if page.records:  # behind the horizon lies what is younger; of another stream of this name older ones may
            return self._where == TRIM_HORIZON and int(page.records[-1].id) < self._first
        return self._empty >= (CROSSED_READS if not page.caught_up else EMPTY_READS if page.lag is None else 1)
