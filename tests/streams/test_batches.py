"""How records of a stream become batches, through the whole daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import FaultyStream
from tests.sources.faulty_table import FaultyTable
from tests.streams.world import Call, streaming

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[FaultyKinesis, FaultyTable])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_a_window_opens_when_the_invocation_before_has_ended(kind: Callable[[], FaultyStream]) -> None:
    """KIN-37."""

    async def handler(call: Call) -> None:
        await anyio.sleep(2)

    async with streaming(handler, stream=kind(), batch_size=10, window=20.0) as it:
        it.start()
        it.put("1")
        await it.until(lambda: len(it.trail) == 1)
        (first,) = it.handled
        ended = first.at + 2
        await anyio.sleep(10)
        it.put("2")
        await anyio.sleep(5)
        it.put("3")
        await it.until(lambda: len(it.trail) == 2)
        assert it.trail == ["S(1)", "S(2,3)"]
        assert it.handled[1].at - ended == pytest.approx(20, abs=0.3)  # not 20 after the first record of it
        await anyio.sleep(60)
        it.put("4")
        put = anyio.current_time()
        await it.until(lambda: len(it.trail) == 3)
        assert it.handled[2].at - put < 1.3  # the window was over long ago: with the next poll it goes


async def test_a_full_batch_waits_for_no_window() -> None:
    """KIN-37."""
    async with streaming(lambda call: None, batch_size=3, window=300.0) as it:
        it.put(*map(str, range(9)))
        it.start()
        await it.until(lambda: len(it.trail) == 3, within=5)
        assert it.trail == ["S(0,1,2)", "S(3,4,5)", "S(6,7,8)"]


async def test_without_a_window_whatever_is_there_goes() -> None:
    """KIN-37: a batch of one is normal."""
    async with streaming(lambda call: None, batch_size=100) as it:
        it.start()
        for name in ("1", "2", "3"):
            it.put(name)
            await anyio.sleep(2)
        assert it.trail == ["S(1)", "S(2)", "S(3)"]


async def test_the_size_of_a_batch_counts_after_the_filter() -> None:
    """KIN-41."""
    pattern = '{"partitionKey": [{"anything-but": {"prefix": "x"}}]}'
    async with streaming(lambda call: None, batch_size=3, window=20.0, patterns=(pattern,)) as it:
        it.put("0")
        it.start()
        await it.until(lambda: len(it.trail) == 1)
        it.put("1", "x", "2", "x", "x", "3", "4")
        await it.until(lambda: len(it.trail) == 2, within=5)
        await it.finished()
        assert it.trail == ["S(0)", "S(1,2,3)", "S(4)"]


async def test_a_record_that_can_never_fit_stops_nothing() -> None:
    """KIN-38: it is dropped for its size."""
    async with streaming(lambda call: None, batch_size=10) as it:
        it.put("1", "x" * (5 << 20), "2", key="k")  # base64 makes it more than 6 MiB
        it.start()
        await it.finished()
        assert it.given == ["1", "2"]
        assert it.counted("dropped_events_total", reason="size") == 1


async def test_six_megabytes_end_a_batch() -> None:
    """KIN-37."""
    async with streaming(lambda call: None, batch_size=10) as it:
        it.put(*(letter * (2 << 20) for letter in "abc"), key="k")
        it.start()
        await it.finished()
        assert [len(one.names) for one in it.handled] == [2, 1]


@pytest.mark.parametrize(("shards", "lanes"), [(1, 1), (2, 1), (1, 3), (2, 3)])
async def test_as_many_batches_run_at_once_as_there_are_lanes(
    kind: Callable[[], FaultyStream], shards: int, lanes: int
) -> None:
    """KIN-50, KIN-55: shards times ParallelizationFactor, and one batch of a key at a time."""
    running: list[str] = []
    most = 0

    async def handler(call: Call) -> None:
        nonlocal most
        (name,) = call.names
        assert name not in running, "two batches of a key ran at once"
        running.append(name)
        most = max(most, len(running))
        await anyio.sleep(2)
        running.remove(name)

    stream = kind(shards=shards)  # type: ignore[call-arg]
    async with streaming(handler, stream=stream, batch_size=1, lanes=lanes) as it:
        for _ in range(3):
            it.put(*map(str, range(40)))  # each its own key
        it.start()
        await it.finished()
        assert most == shards * lanes
