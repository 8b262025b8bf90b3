"""Shards side by side: what one of them holds, waits for or cannot do is no hindrance to the others."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from bridge.runner import SMALL_BATCH
from bridge.sources import kinesis_records
from bridge.sources.shards import Lineage
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.streams.world import NAME, QUEUE, Call, streaming
from tests.world import NotRun

pytestmark = pytest.mark.anyio


def held() -> int:
    """Bytes of records that somebody holds."""
    gc.collect()
    made = tracemalloc.Filter(True, kinesis_records.__file__)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([made]).traces)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
async def test_an_idle_shard_holds_nothing_of_what_it_processed() -> None:
    """Records may have 10 MiB, and shards be many: neither their batches nor their positions keep any."""
    stream = FaultyKinesis(shards=20)
    size = 100_000

    async with streaming(lambda call: None, stream=stream) as it:
        it.start()
        await anyio.sleep(2)
        for number, shard in enumerate(stream.open):
            it.put(*(f"{number} {part} {'x' * size}" for part in range(3)), key="one", shard=shard)
        await it.finished()
        await anyio.sleep(10)
        assert held() < size


async def test_the_trouble_of_one_shard_is_told_until_it_is_over() -> None:
    """KIN-33, KIN-34: also while others are read every second."""
    stream = FaultyKinesis(shards=3)
    sick = stream.open[1]
    async with streaming(lambda call: None, stream=stream) as it:
        it.start()
        await anyio.sleep(5)
        assert it.view.ready
        stream.refuse("GetRecords", *["InternalFailure"] * 1000, shard=sick)
        for _ in range(20):
            await anyio.sleep(3)
            view = it.view
            assert view.last_result.startswith("PROBLEM: ")
            assert (view.ready, view.gate and view.gate.name) == (False, "endpoint")
        stream.allow("GetRecords")
        await it.until(lambda: it.view.ready, within=60)
        assert it.view.last_result == "No records processed"


async def test_the_trouble_of_a_source_ends_with_it() -> None:
    """A pause in the middle of it."""
    stream = FaultyKinesis(shards=2)
    async with streaming(lambda call: None, stream=stream) as it:
        it.start()
        await anyio.sleep(5)
        stream.refuse("GetRecords", *["InternalFailure"] * 1000, shard=stream.open[1])
        await it.until(lambda: not it.view.ready, within=60)
        assert it.daemon
        await it.daemon.supervisor.pause(NAME, wait=True)
        stream.allow("GetRecords")
        await it.daemon.supervisor.resume(NAME)
        await it.until(lambda: it.view.ready, within=10)


async def test_a_pause_that_is_taken_back_at_once_leaves_no_shard_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that was found in the instant of the pause does not keep its mapping from starting again."""
    stream = FaultyKinesis(shards=2)
    spent = Lineage.spent

    def in_that_instant(lineage: Lineage) -> list[str]:
        assert it.daemon
        supervised = it.daemon.supervisor.find(NAME)
        if len(stream.shards) == 4 and len(lineage.reading) == 3:
            monkeypatch.setattr(Lineage, "spent", spent)
            supervised.change(paused=True)
            supervised.change(paused=False)
        return spent(lineage)

    monkeypatch.setattr(Lineage, "spent", in_that_instant)
    async with streaming(lambda call: None, stream=stream) as it:
        it.start()
        await anyio.sleep(5)
        stream.split(stream.open[0])
        await it.until(lambda: Lineage.spent is spent, within=60)
        it.put(*map(str, range(50)))
        await it.finished(within=60)


PART = 225_000
"""Bytes of a record's data."""
EVENT = PART * 4 // 3 + 1000
"""Of its event, about."""


@pytest.mark.parametrize("way", ["fails", "is throttled", "cannot be reported"])
async def test_blocked_shards_that_hold_everything_stop_no_other(way: str) -> None:
    """KIN-53: however much the batches hold that wait for their next attempt."""
    stream = FaultyKinesis(shards=12)
    *sick, well = stream.open
    limit = 2 << 20

    def handler(call: Call) -> None:
        if call.names[0].startswith("sick"):
            if way == "is throttled":
                raise NotRun
            raise ValueError

    block: dict[str, Any] = {"retries": 0, "on_failure": QUEUE, "block": True} if way == "cannot be reported" else {}
    async with streaming(handler, stream=stream, buffer=limit, batch_size=3, window=1, **block) as it:
        it.destination.down = "AccessDenied"
        it.start()
        for shard in sick:
            for number in range(9):
                it.put(f"sick {shard} {number} {'x' * PART}", key="one", shard=shard)
        await anyio.sleep(600)
        assert it.daemon
        buffer = it.daemon.buffer
        assert buffer.blocked >= limit // 2
        began = anyio.current_time()
        for number in range(9):
            it.put(f"well {number} {'x' * PART}", key="one", shard=well)
        await it.until(lambda: it.committed(well).startswith("well 8"), within=60)
        assert anyio.current_time() - began < 20
        assert buffer.held < limit + 3 * EVENT + len(stream.open) * (EVENT + SMALL_BATCH)
        assert buffer.held < 0.9 * len(stream.open) * 3 * EVENT
        assert not any(it.committed(shard) for shard in sick)
    assert buffer.held == buffer.blocked == 0


async def test_with_room_for_all_batches_have_their_size() -> None:
    stream = FaultyKinesis(shards=2)
    async with streaming(lambda call: None, stream=stream, batch_size=8) as it:
        for shard in stream.open:
            it.put(*(f"{number} {'x' * PART}" for number in range(16)), key="one", shard=shard)
        it.start()
        await it.finished()
        assert {len(one.names) for one in it.handled} == {8}


async def test_a_function_that_may_not_run_stops_no_other_mapping() -> None:
    """Its batches wait for a slot, for nobody knows how long."""
    stream = FaultyKinesis(shards=12)
    async with streaming(lambda call: None, stream=stream, buffer=1 << 20, batch_size=3) as it:
        it.start()
        await anyio.sleep(2)
        assert it.daemon
        it.daemon.invoker.reserve(0)
        for shard in stream.open:
            it.put(*(f"{number} {'x' * PART}" for number in range(3)), key="one", shard=shard)
        await anyio.sleep(10)
        assert not it.daemon.buffer.full
        it.daemon.invoker.reserve(None)
        await it.finished(within=60)
        assert sorted(it.given) == sorted(it.names.values())
