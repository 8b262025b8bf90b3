"""A week of a stream, in seconds: nothing piles up, nothing runs out."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable

import anyio
import pytest

from bridge import supervisor
from bridge.sources.dynamodb_stream import TableStream
from bridge.sources.kinesis_stream import KinesisStream
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import FaultyStream
from tests.sources.faulty_table import FaultyTable
from tests.streams.world import Call, StreamWorld, streaming

pytestmark = pytest.mark.anyio

HOUR = 3600.0
DAY = 24
"""Hours."""
WEEK = 7 * DAY
ROLLS_EVERY = 4
"""Hours (DDB-4)."""
IDLE = 40.0
"""Seconds from one read to the next where a week is read: at the real pace a day takes as long as a test may."""


def counted() -> Counter[str]:
    """Objects that live, by the types of ours, what they hold, and tasks and timers."""
    gc.collect()
    ours = [it for it in gc.get_objects() if str(type(it).__module__).startswith("bridge.")]
    kinds = Counter(repr(type(it)) for it in ours)
    own = gc.get_referents(*ours)
    own += gc.get_referents(*[it for it in own if isinstance(it, dict)])
    inside = [it for it in own if isinstance(it, dict | list | set)]
    held = sum(map(len, inside))
    timers = len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]
    return kinds + Counter(tasks=len(asyncio.all_tasks()), timers=timers, held=held)


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    """Of what there is more."""
    allowed = {"timers": 100, "held": 100}  # asyncio forgets cancelled timers in lots of a hundred
    return {kind: (before[kind], n) for kind, n in after.items() if n > before[kind] + allowed.get(kind, 5)}


class Week:
    """What a handler was given, of what was put each hour."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def __call__(self, call: Call) -> None:
        self.given.extend(call.names)

    async def hours(self, it: StreamWorld, first: int, end: int) -> None:
        """A record comes each hour; iterators expire now and then; shards of tables roll over."""
        for hour in range(first, end):
            if isinstance(it.stream, FaultyTable) and hour % ROLLS_EVERY == 0:
                it.stream.roll(it.stream.open[0])
            it.put(str(hour))
            await anyio.sleep(HOUR)
            if hour % 10 == 0:
                it.stream.expire()
            self._forget(it)

    def _forget(self, it: StreamWorld) -> None:
        """The test's own memory."""
        it.handled.clear()
        it.disk.writes.clear()
        it.names = dict([*it.names.items()][-1:])


@pytest.mark.parametrize("kind", [FaultyKinesis, FaultyTable])
async def test_a_week(kind: Callable[..., FaultyStream], monkeypatch: pytest.MonkeyPatch) -> None:
    """KIN-12, KIN-30, DDB-4, DDB-6: 42 shards of the table, of which those of the last day are listed."""
    monkeypatch.setattr(supervisor, "WATCH_EVERY", IDLE)
    init = TableStream.__init__
    monkeypatch.setattr(TableStream, "__init__", lambda it, api, arn: init(it, api, arn, idle=IDLE))
    monkeypatch.setattr(KinesisStream, "idle", IDLE)
    week, stream = Week(), kind(retention=DAY * HOUR)
    async with streaming(week, stream=stream) as it:
        it.start()
        await week.hours(it, 0, 2 * DAY)
        before, positions = counted(), len(it.stored())
        await week.hours(it, 2 * DAY, WEEK)
        after = counted()
        await it.finished()
        assert week.given == [str(hour) for hour in range(WEEK)]
        assert grown(before, after) == {}
        assert len(it.stored()) <= positions
        shards = WEEK // ROLLS_EVERY if isinstance(stream, FaultyTable) else 0
        assert 0.95 * WEEK * HOUR / IDLE < stream.counts["GetRecords"] < 1.1 * WEEK * HOUR / IDLE + 10 * shards
        assert stream.counts["GetShardIterator"] <= 1 + WEEK / 10 + 1 + shards
        listings = stream.counts["ListShards"] + stream.counts["DescribeStream"]
        assert listings <= WEEK * HOUR / (30 if shards else 60) + 10 + 5 * shards


async def test_hours_at_the_real_pace() -> None:
    """KIN-12, KIN-20, KIN-92: a read each second, an iterator for all of them."""
    week, hours = Week(), 6
    async with streaming(week, stream=FaultyKinesis(retention=DAY * HOUR)) as it:
        it.start()
        await week.hours(it, 0, 1)
        before = counted()
        await week.hours(it, 1, hours)
        after = counted()
        await it.finished()
        assert week.given == [str(hour) for hour in range(hours)]
        assert grown(before, after) == {}
        assert 0.95 * hours * HOUR < it.stream.counts["GetRecords"] < 1.05 * hours * HOUR
        assert it.stream.counts["GetShardIterator"] <= 2  # one, and one for those that expired
        assert it.stream.counts["ListShards"] <= hours * 60 + 2
