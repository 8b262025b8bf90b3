"""A shard at work: one reader that stays a bounded way ahead of its lanes, the lanes that runners fetch from, and the
one position that they share."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from hashlib import blake2b
from math import inf
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import msgspec
import structlog

from bridge.errors import BridgeError, NotFound, PartitionEnded, RemoteError, Throttled
from bridge.faults import PASSING, Backoff
from bridge.pipeline.progress import Progress
from bridge.position import Position, Positions
from bridge.record import Batch, Page, Record
from bridge.snapshot import Gate
from bridge.sources.shard_waits import ahead_line
from bridge.sources.shards import (
    TRIM_HORIZON,
    CursorExpired,
    PositionTrimmed,
    PushUnavailable,
    ReadPage,
    Shard,
    StreamApi,
    Where,
    end_of,
)
from bridge.station import Station, countdown, held

FIRST_ANSWER = 5.0
"""Seconds that a fetch which shall not wait gives the reader to ask at all."""
THROTTLE_PAUSE = 1.0
"""Seconds at least after a read that was refused for its rate (KIN-31, DDB-27)."""
NEWS_AFTER = 1.0
"""A fault that is over sooner is no news, nor is throttling that is over within ten times as long."""
COMMIT_IDLE_EVERY = 30.0
"""Seconds between two commits of a position that moves although nothing comes (KIN-101)."""
READ_AHEAD = 64 << 20
"""Bytes of one mapping's records that were read and that no runner has taken yet. Shards of which nothing is held may
read one more batch each."""
LARGE_READS = 6
"""At a time, of one mapping: pages of shards that are behind, which may have 10 MiB each."""

log = structlog.get_logger()


def lane_of(key: str, lanes: int) -> int:
    """The lane of a key: the same in every process and on every machine (KIN-51)."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % lanes


class ReadAhead:
    """Bytes that the readers of one mapping hold, together."""

    def __init__(self, limit: int = READ_AHEAD) -> None:
        self.limit = limit
        self.held = 0
        self.large = anyio.Semaphore(LARGE_READS)

    def __repr__(self) -> str:
        return f"<ReadAhead {self.held} of {self.limit} bytes>"

    @property
    def full(self) -> bool:
        return self.held >= self.limit


class Terms(NamedTuple):
    """What all shards of one mapping have in common."""

    api: StreamApi
    positions: Positions
    ahead: ReadAhead
    batch_size: int
    lanes: int
    poll: Callable[[ReadPage | None, str], None]
    """Told of each read: what it gave, or the code of its error."""
    gap: Callable[[Shard, str], None]
    """Told where records are gone that nobody has read, in one line."""
    trouble: Callable[[str, str | None], None]
    """Told by shard what it waits for, and none when it goes on."""
    missing: Callable[[Shard, NotFound], Awaitable[None]]
    """Looks whether the shard is gone, and returns if it is; raises when the stream is gone, or it was a mistake."""
    announced: Callable[[Sequence[Shard]], None]
    """Told of children at the shard's end."""
    ended: Callable[[OpenShard], Awaitable[None]]
    """Called when all of the shard is read and settled."""


class ShardLane:
    """A partition: those records of a shard whose keys belong to it, in their order."""

    def __init__(self, shard: OpenShard, name: str) -> None:
        self.id = name
        self._shard = shard
        self._records: deque[Record] = deque()
        self._news = anyio.Event()
        self._answers = 0

    def __repr__(self) -> str:
        return f"<ShardLane {self.id}: {len(self._records)} ahead>"

    @property
    def hungry(self) -> bool:
        """Less than one further batch waits in it (KIN-22)."""
        return len(self._records) < self._shard.terms.batch_size

    @property
    def ahead(self) -> int:
        """Records that wait in it."""
        return len(self._records)

    @property
    def state(self) -> bytes:
        """What was stored with the position."""
        return self._shard.state

    def put(self, records: Sequence[Record]) -> None:
        """They follow those that are in it."""
        self._records.extend(records)
        self.wake()

    def wake(self) -> None:
        """There is something to look at."""
        self._news.set()

    # The partition's contract.

    async def fetch(self, limit: int, wait: float) -> Page:
        await anyio.lowlevel.checkpoint()
        if not self._records:
            await self._wait(anyio.current_time() + wait)
        return self._take(limit)

    async def _wait(self, deadline: float) -> None:
        shard = self._shard
        while not self._records:
            if shard.failure is not None:
                raise shard.failure
            if shard.ended:
                raise PartitionEnded
            now = anyio.current_time()
            heard = shard.answers > self._answers
            until = deadline if heard or now < deadline else deadline + FIRST_ANSWER
            if now >= until:
                return
            self._news = anyio.Event()
            shard.listened = shard.listened or not heard
            with anyio.CancelScope(deadline=until):
                await self._news.wait()

    def _take(self, limit: int) -> Page:
        """No await: a cancelled fetch has taken nothing."""
        shard, waiting = self._shard, self._records
        answered = bool(waiting) or shard.answers > self._answers
        self._answers = shard.answers
        if len(waiting) <= limit:
            records = tuple(waiting)
            waiting.clear()
        else:
            records = tuple([waiting.popleft() for _ in range(limit)])
        shard.took(records)
        return Page(
            records,
            caught_up=shard.caught_up and not waiting,
            lag=shard.lag,
            full=len(records) == limit,
            answered=answered,
        )

    async def hold(self, batch: Batch) -> tuple[Record, ...]:  # noqa: ARG002 - one owner, who never loses it
        await anyio.lowlevel.checkpoint()
        return ()

    async def settle(
        self,
        done: Sequence[Record] = (),
        failed: Sequence[Record] = (),  # noqa: ARG002 - what is let go is read again when the source opens again
        unstarted: Sequence[Record] = (),  # noqa: ARG002
        *,
        state: bytes | None = None,
    ) -> None:
        await self._shard.settle(done, state)

    async def finish(self) -> None:
        await self._shard.finish(self)


class OpenShard:
    """One shard that is being read."""

    def __init__(self, shard: Shard, where: Where, stored: Position | None, terms: Terms) -> None:
        self.shard = shard
        self.terms = terms
        self.state = stored.state if stored else b""
        self.failure: BridgeError | None = None
        self.ended = False
        """Nothing more will be read of it."""
        self.answers = 0
        """Reads that were answered."""
        self.listened = False
        """A lane wants to know of the next answer, whatever it is."""
        self.caught_up = False
        self.lag: float | None = None
        names = [shard.id] if terms.lanes == 1 else [f"{shard.id}#{number}" for number in range(terms.lanes)]
        self.lanes = tuple(ShardLane(self, name) for name in names)
        self._progress = Progress[Record, Where | Record](2 * terms.lanes * terms.batch_size)  # KIN-52
        self._where = where
        self._cursor: Any = None
        self._read_to = -1
        """The last sequence number that came by this cursor or subscription."""
        self._text = stored.position if stored else str(where)
        self._epoch = stored.epoch if stored else 0
        self._held = 0
        self._finished: set[ShardLane] = set()
        self._room = anyio.Event()
        self._not_before = -inf
        self._settled_in = False
        self._committed_at = -inf
        self._pushes = True
        self._backoff = Backoff(0.2, 30.0)
        self._station = Station("polling", "reads")
        self._failing_since = inf
        self._resumed_behind = where.kind == "AFTER_SEQUENCE_NUMBER" and self._age(where) > terms.api.retention

    def __repr__(self) -> str:
        return f"<OpenShard {self.shard.id}: {self.lanes!r}, {self._progress!r}{', ended' if self.ended else ''}>"

    # Reading.

    async def read(self) -> None:
        """To the shard's end, or until something fails for good, which the lanes then raise."""
        self._station.bind()
        try:
            while not self.ended:
                try:
                    await self._read_on()
                except PASSING as fault:
                    await self._wait_out(fault)
        except BridgeError as error:
            self.fail(error)

    def fail(self, error: BridgeError) -> None:
        """Every fetch raises ``error`` once what was read before is taken."""
        self.failure = self.failure or error
        for lane in self.lanes:
            lane.wake()

    async def _read_on(self) -> None:
        try:
            pushed = self.terms.api.pages(self.shard, self._where) if self._pushes else None
            if pushed is None:
                await self._poll()
            else:
                await self._receive(pushed)
        except PushUnavailable as error:
            self._pushes = False
            log.warning("push_unavailable", shard=self.shard.id, detail=str(error))
        except CursorExpired:  # KIN-30: goes on after what was fetched, which is still in the lanes
            self._cursor = None
        except PositionTrimmed:  # KIN-32, DDB-25
            self._lose(f"the records after {self._where} are older than the stream keeps them")
            self._where, self._cursor, self._resumed_behind = TRIM_HORIZON, None, False
        except NotFound as error:
            await self.terms.missing(self.shard, error)
            if not self._past_the_end():
                self._lose(f"the shard is gone; what followed {self._where} was not read")
            self._end()

    async def _poll(self) -> None:
        api = self.terms.api
        while not self.ended:
            await self._may_read()
            if self._cursor is None:
                where, self._where = self._where, self._where.resolved  # LATEST at a later time is another place
                self._cursor = await api.cursor(self.shard, where)
                self._read_to = -1
            page = await self._page() if self.caught_up else await self._large_page()
            if page.cursor is None:
                self._end(page.children)
            elif page.caught_up and not page.records:
                self._not_before += self._rest() - api.pause

    async def _large_page(self) -> ReadPage:
        """How much may be asked for is known when it is its turn."""
        large = self.terms.ahead.large
        with held("turn", f"{LARGE_READS} shards at a time read large pages"):
            await large.acquire()
        try:
            return await self._page()
        finally:
            large.release()

    async def _page(self) -> ReadPage:
        api = self.terms.api
        self._not_before = anyio.current_time() + api.pause
        page = await api.read(self.shard, self._cursor, self._limit())
        self._cursor = page.cursor
        self._feed(page)
        return page

    async def _receive(self, pages: AsyncGenerator[ReadPage]) -> None:
        self._where = self._where.resolved
        self._read_to = -1
        async with aclosing(pages):
            async for page in pages:
                self._feed(page)
                if page.cursor is None:
                    self._end(page.children)
                    return
                await self._commit_idle()
                await self._may_read()

    def _rest(self) -> float:
        """Shards that were opened together do not go on together."""
        if self._settled_in:
            return self.terms.api.idle
        self._settled_in = True
        return self.terms.api.idle * random.uniform(0.5, 1)  # noqa: S311 - jitter

    def _past_the_end(self) -> bool:
        last, at = self.shard.last, self._where.sequence
        return bool(last) and at.isdecimal() and str(last).isdecimal() and int(at) >= int(str(last))

    def _limit(self) -> int:
        """Where too much is held already, no more than what can go on at once."""
        most = self.terms.api.most
        return min(most, self.terms.batch_size * self.terms.lanes) if self.terms.ahead.full else most

    async def _may_read(self) -> None:
        """KIN-22, KIN-52: not before there is room for it; KIN-21: nor too soon."""
        while self._is_full():
            self._room = anyio.Event()
            with held("ahead", partial(ahead_line, self.lanes, self._progress, self.terms.ahead)):
                await self._room.wait()
        wait = self._not_before - anyio.current_time()
        if wait > 0:
            await anyio.sleep(wait)

    def _is_full(self) -> bool:
        """Another shard's records never keep one from reading of which nothing is held."""
        if self._progress.full or not any(lane.hungry for lane in self.lanes):
            return True
        return self._held > 0 and self.terms.ahead.full

    def _feed(self, page: ReadPage) -> None:
        self._well()
        self.answers += 1
        self.caught_up, self.lag = page.caught_up, page.lag
        self.terms.poll(page, "")
        records = self._fresh(page.records)
        if records:
            self._open(records, page.size if records is page.records else sum([len(it.json) for it in records]))
        if page.passed and page.passed != (page.records[-1].id if page.records else ""):
            self._where = Where("AFTER_SEQUENCE_NUMBER", page.passed)
            self._progress.passed(self._where)
        if self.listened or self._resumed_behind:
            self._first_word(page)

    def _fresh(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those that have not come before: a page that comes twice would put a batch out of order (KIN-36)."""
        if not records:
            return records
        before, self._read_to = self._read_to, max(self._read_to, int(records[-1].id))
        if int(records[0].id) > before:
            return records
        return [record for record in records if int(record.id) > before]

    def _open(self, records: Sequence[Record], size: int) -> None:
        """A record's position is reached with its last part (KIN-45)."""
        last = len(records) - 1
        self._progress.opened(
            (record, record if number == last or records[number + 1].id != record.id else None)
            for number, record in enumerate(records)
        )
        self._held += size
        self.terms.ahead.held += size
        self._where = Where("AFTER_SEQUENCE_NUMBER", records[last].id, records[last].arrived_at)
        if len(self.lanes) == 1:
            self.lanes[0].put(records)
            return
        parted: list[list[Record]] = [[] for _ in self.lanes]
        for record in records:
            parted[lane_of(record.receipt, len(parted))].append(record)
        for lane, part in zip(self.lanes, parted, strict=True):
            if part:
                lane.put(part)

    def _first_word(self, page: ReadPage) -> None:
        self.listened = False
        for lane in self.lanes:
            lane.wake()
        if self._resumed_behind and page.records:
            self._lose(f"the stored position {self._text} is older than the stream keeps its records")  # KIN-32
        self._resumed_behind = self._resumed_behind and not (page.records or page.caught_up)  # KIN-13: an empty stretch

    def _end(self, children: Sequence[Shard] = ()) -> None:
        self.ended = self.caught_up = True
        if children:
            self.terms.announced(children)
        for lane in self.lanes:
            lane.wake()

    def _lose(self, line: str) -> None:
        self.terms.gap(self.shard, line)

    @staticmethod
    def _age(where: Where) -> float:
        return time.time() - where.at if where.at is not None else 0.0

    # Faults.

    async def _wait_out(self, fault: RemoteError) -> None:
        """KIN-31, KIN-35, DDB-27: patience; the place in the shard stays."""
        self.terms.poll(None, fault.code)
        throttled = isinstance(fault, Throttled)
        now = anyio.current_time()
        self._failing_since = min(self._failing_since, now)
        if now - self._failing_since >= NEWS_AFTER * (10 if throttled else 1):
            self.terms.trouble(self.shard.id, str(fault))
        pause = self._backoff.next() + (THROTTLE_PAUSE if throttled else 0.0)
        with held("endpoint", countdown(f"{fault}; reads again", now + pause)):
            await anyio.sleep(pause)

    def _well(self) -> None:
        if self._failing_since is not inf:
            self._failing_since = inf
            self._backoff.reset()
            self.terms.trouble(self.shard.id, None)

    @property
    def gate(self) -> Gate | None:
        """What holds its reader; none: it reads."""
        return None if self._station.name == "polling" or self.ended else self._station.gate

    # What the lanes do.

    def took(self, records: Sequence[Record]) -> None:
        """A runner has them now."""
        if records:
            size = sum(len(record.json) for record in records)
            self._held -= size
            self.terms.ahead.held -= size
            self._room.set()

    async def settle(self, done: Sequence[Record], state: bytes | None) -> None:
        """Returns when the position that follows is stored, together with ``state``. Raises StateError."""
        await anyio.lowlevel.checkpoint()
        moved = self._progress.finished(done)
        self._room.set()
        if moved or (state is not None and state != self.state):
            self.state = self.state if state is None else state
            await self._commit()

    async def _commit_idle(self) -> None:
        safe = self._progress.safe
        due = anyio.current_time() - self._committed_at >= COMMIT_IDLE_EVERY
        if due and self._progress.spread == 0 and safe is not None and _text(safe) != self._text:
            await self._commit()

    async def _commit(self) -> None:
        if self._progress.safe is not None:
            self._text = _text(self._progress.safe)
        self._committed_at = anyio.current_time()
        await self.terms.positions.move({self.shard.id: self.position})

    @property
    def position(self) -> Position:
        """What is to be stored of it."""
        return Position(epoch=self._epoch, position=self._text, state=self.state)

    @property
    def tombstone(self) -> Position:
        """Likewise, when all of it is done."""
        text = end_of(self.shard, self._text)
        return msgspec.structs.replace(self.position, position=text, state=b"", ended=True)

    async def finish(self, lane: ShardLane) -> None:
        """The lane's last record is settled; the last lane ends the shard (KIN-91)."""
        self._finished.add(lane)
        if len(self._finished) == len(self.lanes):
            await self.terms.ended(self)


def _text(place: Where | Record) -> str:
    if isinstance(place, Where):
        return str(place)
    return str(Where("AFTER_SEQUENCE_NUMBER", place.id, place.arrived_at))
