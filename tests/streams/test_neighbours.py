"""Shards side by side: what one of them holds, waits for or cannot do is no hindrance to the others."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import anyio
import pytest

from bridge.sources import kinesis_records
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.streams.world import NAME, Call, StreamWorld, streaming

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


def open_shards(it: StreamWorld) -> list[str]:
    """Those that are being read."""
    assert it.daemon
    crews = it.daemon.supervisor.find(NAME)._crews
    return [crew.partition for crew in crews if it.stream.shards[crew.partition].last is None]


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
            assert it.view.last_result.startswith("PROBLEM: ")
            assert not it.view.ready
            assert it.view.gate
            assert it.view.gate.name == "endpoint"
        stream.allow("GetRecords")
        await it.until(lambda: it.view.ready, within=60)
        assert it.view.last_result == "No records processed"


async def test_a_pause_that_is_taken_back_at_once_leaves_no_shard_behind() -> None:
    """A shard that is found while its mapping stops does not keep it from starting again."""
    stream = FaultyKinesis()
    async with streaming(lambda call: None, stream=stream) as it:
        it.start()
        await anyio.sleep(5)
        assert it.daemon
        supervised = it.daemon.supervisor.find(NAME)
        for _ in range(20):
            stream.split(stream.open[0])
            await it.until(lambda: bool(open_shards(it)), every=0.01)
            supervised.change(paused=True)
            supervised.change(paused=False)
        it.put(*map(str, range(50)))
        await it.finished(within=120)
