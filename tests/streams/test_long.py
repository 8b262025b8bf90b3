"""A week of one shard, in seconds: nothing piles up, nothing runs out."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

import anyio
import pytest

from bridge import supervisor
from bridge.sources.kinesis_stream import KinesisStream
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.streams.world import Call, StreamWorld, streaming

pytestmark = pytest.mark.anyio

HOUR = 3600.0
DAYS = 7
EVERY = 60.0


def counted() -> Counter[str]:
    """Objects that live, by the types of ours, and tasks."""
    gc.collect()
    kinds = Counter(repr(type(it)) for it in gc.get_objects() if str(type(it).__module__).startswith("bridge."))
    return kinds + Counter(tasks=len(asyncio.all_tasks()))


async def hours(it: StreamWorld, count: int) -> None:
    """A record comes each hour; iterators expire now and then."""
    for _ in range(count):
        it.put(str(len(it.names)))
        await anyio.sleep(HOUR)
        if len(it.names) % 10 == 0:
            it.stream.expire()


async def test_a_week_of_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """KIN-12, KIN-20, KIN-30: read every minute instead of every second, which is too much work for a test."""
    monkeypatch.setattr(KinesisStream, "idle", EVERY)
    monkeypatch.setattr(supervisor, "WATCH_EVERY", EVERY)
    given: list[str] = []

    def handler(call: Call) -> Any:
        given.extend(call.names)
        it.handled.clear()  # the test's own memory

    async with streaming(handler, stream=FaultyKinesis(retention=24 * HOUR)) as it:
        it.start()
        await hours(it, 24)
        it.disk.writes.clear()
        before, writes = counted(), len(it.disk.writes)
        await hours(it, 24 * (DAYS - 1))
        after = counted()
        await it.finished()
        assert given == [str(number) for number in range(24 * DAYS)]
        assert {kind: (before[kind], count) for kind, count in after.items() if count > before[kind] + 5} == {}
        assert len(it.disk.writes) - writes == 24 * (DAYS - 1)  # one for each record, none without
        reads = DAYS * 24 * HOUR / EVERY
        assert 0.95 * reads < it.stream.counts["GetRecords"] < 1.1 * reads
        assert it.stream.counts["GetShardIterator"] <= 1 + 24 * DAYS / 10 + 1
        assert it.stream.counts["ListShards"] <= DAYS * 24 * 60 + 10
