"""A shard at work: one reader that stays a bounded way ahead of its lanes, and the one position that they share."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from math import inf
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import msgspec
import structlog

from bridge.errors import BridgeError, NotFound, Rejected, RemoteError, ServiceFault, Throttled
from bridge.faults import PASSING, Backoff
from bridge.pipeline.progress import Progress
from bridge.position import Position, Positions
from bridge.record import Record
from bridge.snapshot import Gate
from bridge.sources.shard_lanes import LARGE_READS, ReadAhead, ShardLane, lane_of
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

THROTTLE_PAUSE = 1.0
"""Seconds at least after a read that was refused for its rate (KIN-31, DDB-27)."""
NEWS_AFTER = 1.0
"""A fault that is over sooner is no news, nor is throttling that is over within ten times as long."""
PLACES_WITHIN = 20.0
"""Seconds in which all shards of a mapping that begins at LATEST have their places, or are not waited for."""
COMMIT_IDLE_EVERY = 30.0
"""Seconds between two commits of a position that moves although nothing comes (KIN-101)."""

Place = tuple[str, float | None]
"""After a sequence number, and when that record arrived, if it was one."""

log = structlog.get_logger()


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
    placed: Callable[[Shard], None]
    """Told when it is known where the shard begins, or that this cannot be known now."""
    begun: anyio.Event
    """So much is known of all shards that begin at LATEST (KIN-24)."""


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
        self._progress = Progress[Record, Place](2 * terms.lanes * terms.batch_size)  # KIN-52
        self._where = where
        self._cursor: Any = None
        self._has_read = False
        """By this cursor."""
        self._read_to = -1
        """The last sequence number that came by this cursor or subscription."""
        self._text = stored.position if stored else str(where)
        self._epoch = stored.epoch if stored else 0
        self.held = 0
        """Bytes of records that no runner has taken yet."""
        self._finished: set[ShardLane] = set()
        self._room = anyio.Event()
        self._not_before = -inf
        self._placed_at = -inf
        self._settled_in = False
        self._committed_at = -inf
        self._pushes = True
        self._backoff = Backoff(0.2, 30.0)
        self._station = Station("polling", "reads")
        self._failing_since = inf
        self._gap_behind = ""
        """Where it goes on, if that is older than the stream keeps its records."""

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
                except Rejected as refusal:  # perhaps of its place, and no reason for the other shards to stop
                    self._cursor = None
                    await self._wait_out(refusal)
        except BridgeError as error:
            self.fail(error)

    def fail(self, error: BridgeError) -> None:
        """Every fetch raises ``error`` once what was read before is taken."""
        self.failure = self.failure or error
        for lane in self.lanes:
            lane.wake()

    async def _read_on(self) -> None:
        where, again = self._where, False
        try:
            pushed = self.terms.api.pages(self.shard, self._where) if self._pushes else None
            if pushed is None:
                await self._poll()
            else:
                await self._receive(pushed)
        except PushUnavailable as error:
            self._pushes = False
            log.warning("push_unavailable", shard=self.shard.id, detail=str(error))
            if again := not self.terms.begun.is_set():
                self._where = where  # LATEST is what it was: nobody has heard of the mapping yet
        except CursorExpired:  # KIN-30: goes on after what was fetched, which is still in the lanes
            self._cursor = None
        except PositionTrimmed as error:  # KIN-32, DDB-25
            if self._cursor is not None and self._has_read:
                self._cursor = None  # it may stand before what was read by it
                return
            gone, self._where, self._cursor, self._gap_behind = self._where, TRIM_HORIZON, None, ""
            if gone == TRIM_HORIZON:
                raise ServiceFault(str(error)) from error  # it moves, or is not where they say
            self._lose(f"the records after {gone} are older than the stream keeps them")
        except NotFound as error:
            await self.terms.missing(self.shard, error)
            if not self._past_the_end():
                self._lose(f"the shard is gone; what followed {self._where} was not read")
            self._end()
        finally:
            if not again:
                self.terms.placed(self.shard)

    async def _poll(self) -> None:
        while not self.ended:
            await self._may_read()
            if self._cursor is None:
                await self._place()
            if self.caught_up:
                await self._page()
            else:
                await self._large_page()

    async def _place(self) -> None:
        api = self.terms.api
        await anyio.sleep_until(self._placed_at + api.pause)  # KIN-12
        self._placed_at = anyio.current_time()
        where, self._where = self._where, self._where.resolved  # LATEST at a later time is another place
        self._cursor = await api.cursor(self.shard, where)
        self._has_read = False
        self._read_to = -1
        if where.kind == "AFTER_SEQUENCE_NUMBER" and self._age(where) > api.retention:
            self._gap_behind = str(where)
        await self._is_placed()

    async def _is_placed(self) -> None:
        """What is read shows the world that the mapping has begun: not before all shards have (KIN-24)."""
        self.terms.placed(self.shard)
        if not self.terms.begun.is_set():
            with held("opening", "waits for the places of the other shards"), anyio.move_on_after(PLACES_WITHIN):
                await self.terms.begun.wait()

    async def _large_page(self) -> None:
        """How much may be asked for is known when it is its turn."""
        large = self.terms.ahead.large
        with held("turn", f"{LARGE_READS} shards at a time read large pages"):
            await large.acquire()
        try:
            await self._page()
        finally:
            large.release()

    async def _page(self) -> None:
        api = self.terms.api
        self._not_before = anyio.current_time() + api.pause
        page = await api.read(self.shard, self._cursor, self._limit())
        self._cursor = page.cursor
        self._feed(page)
        if page.cursor is None:
            self._end(page.children)
        elif page.caught_up and not page.records:
            self._not_before += self._rest() - api.pause

    async def _receive(self, pages: AsyncGenerator[ReadPage]) -> None:
        self._where = self._where.resolved
        self._read_to = -1
        async with aclosing(pages):
            async for page in pages:
                await self._is_placed()
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
        return self.held > 0 and self.terms.ahead.full

    def _feed(self, page: ReadPage) -> None:
        self._well()
        self.answers += 1
        self._has_read = True
        self.caught_up, self.lag = page.caught_up, page.lag
        self.terms.poll(page, "")
        records = self._fresh(page.records)
        if records:
            self._open(records, page.size if records is page.records else sum([len(it.json) for it in records]))
        if page.passed.isdecimal() and int(page.passed) > int(self._where.sequence or -1):
            self._where = Where("AFTER_SEQUENCE_NUMBER", page.passed)
            self._progress.passed((page.passed, None))
        if self.listened or self._gap_behind:
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
        """A record's position is reached with its last part (KIN-45). What stands for it holds none of its bytes."""
        last = len(records) - 1
        self._progress.opened(
            (
                record,
                (record.id, record.arrived_at) if number == last or records[number + 1].id != record.id else None,
            )
            for number, record in enumerate(records)
        )
        self.held += size
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
        if self._gap_behind and page.records:
            self._lose(f"the position {self._gap_behind} is older than the stream keeps its records")  # KIN-32
        if page.records or page.caught_up:  # KIN-13: it may be an empty stretch
            self._gap_behind = ""

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
        self.caught_up = False  # nobody knows (TW-42)
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
            self.held -= size
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


def _text(place: Place) -> str:
    return str(Where("AFTER_SEQUENCE_NUMBER", *place))
