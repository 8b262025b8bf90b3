"""Streams that are stopped, killed, hindered or out of their store: nothing is lost, nobody else is held up."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import FaultyStream
from tests.sources.faulty_table import FaultyTable
from tests.streams.world import QUEUE, Call, StreamWorld, failures, mapping, numbers_of, streaming

pytestmark = pytest.mark.anyio

INSTANTS = [number * 0.37 for number in range(30)]
"""Seconds after its start at which a daemon is stopped: before, in, between and after attempts."""


@pytest.fixture(params=[FaultyKinesis, FaultyTable])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


class Sickness:
    """A handler that takes its time, and fails on some names until it is healed."""

    def __init__(self, *names: str, partial: bool = False, takes: float = 0.3) -> None:
        self.names = set(names)
        self._partial, self._takes = partial, takes

    async def __call__(self, call: Call) -> Any:
        await anyio.sleep(self._takes)
        bad = [number for name, number in zip(call.names, numbers_of(call.event), strict=True) if name in self.names]
        if bad and not self._partial:
            raise ValueError
        return failures(*bad)

    def heal(self) -> None:
        self.names.clear()


def done(it: StreamWorld) -> list[str]:
    """Names in the order in which invocations ended well with them."""
    return [name for one in it.handled if str(one).startswith("S") for name in one.names]


@pytest.mark.parametrize("instant", INSTANTS)
@pytest.mark.parametrize("options", [{}, {"bisect": True}, {"partial": True}], ids=str)
async def test_a_drain_leaves_a_failing_batch_to_the_next_start(instant: float, options: dict[str, Any]) -> None:
    """KIN-60, KIN-88: whatever is not done is not committed."""
    sickness = Sickness("3", partial="partial" in options)
    async with streaming(sickness, batch_size=4, **options) as it:
        it.put("1", "2", "3", "4", "5")
        it.start()
        await anyio.sleep(instant)
        began = anyio.current_time()
        await it.stop()
        assert anyio.current_time() - began < 2  # what runs ends; no retry is waited for
        assert it.committed() in ("", "2")
        assert (it.committed() == "2") == ("S(1,2)" in it.trail or "P3(1,2,3,4)" in it.trail)
        sickness.heal()
        it.start()
        await it.finished()
        again = [] if it.committed() == "2" else ["1", "2"]
        assert done(it)[-3:] == ["3", "4", "5"]
        assert set(done(it)) | {"1", "2"} == {"1", "2", "3", "4", "5"}
        assert len(done(it)) <= 5 + len(again)


@pytest.mark.parametrize("instant", INSTANTS)
async def test_a_crash_repeats_and_loses_nothing(instant: float, kind: Callable[[], FaultyStream]) -> None:
    """KIN-27."""
    sickness = Sickness()
    async with streaming(sickness, stream=kind(), batch_size=2, bisect=True) as it:
        it.disk.delay = 0.4
        it.put(*map(str, range(12)))
        it.start()
        await anyio.sleep(instant)
        before = it.committed()
        await it.kill()
        assert it.committed() == before
        it.start()
        await it.finished()
        first = done(it)[: len(done(it)) - (12 - (int(before) + 1 if before else 0))]
        assert first == [str(number) for number in range(len(first))]
        assert done(it)[len(first) :] == [str(number) for number in range(int(before or -1) + 1, 12)]
        assert len(first) - (int(before or -1) + 1) <= 4  # no more is repeated than what was under way


async def test_a_drain_waits_for_a_document_that_is_under_way() -> None:
    """KIN-88: a document that has gone out is followed by its position."""
    async with streaming(Sickness("1", takes=0), batch_size=1, retries=0, on_failure=QUEUE) as it:
        it.put("1", "2")
        it.destination.delay = 3.0
        it.start()
        await anyio.sleep(1)
        await it.stop()
        assert len(it.destination.documents) == 1
        assert it.committed() == "1"


async def test_a_document_that_cannot_be_delivered_does_not_hold_up_a_drain() -> None:
    """KIN-88: then the records are not given up either."""
    sickness = Sickness("1", takes=0)
    async with streaming(sickness, batch_size=1, retries=0, on_failure=QUEUE) as it:
        it.destination.down = "ServiceUnavailable"
        it.put("1", "2")
        it.start()
        await anyio.sleep(3)
        began = anyio.current_time()
        await it.stop()
        assert anyio.current_time() - began < 7
        assert it.committed() == ""
        it.destination.down = ""
        it.start()
        await it.finished()
        assert [told[3] for told in it.destination.told] == ["1"]


async def test_a_crash_between_document_and_position_tells_twice() -> None:
    """KIN-88: never a silent loss."""
    async with streaming(Sickness("1", takes=0), batch_size=1, retries=0, on_failure=QUEUE) as it:
        it.disk.delay = 5.0
        it.put("1", "2")
        it.start()
        await it.until(lambda: bool(it.destination.documents))
        await it.kill()
        assert it.committed() == ""
        it.disk.delay = 0.0
        it.start()
        await it.finished()
        assert [told[3] for told in it.destination.told] == ["1", "1"]
        assert it.destination.positions == ["", ""]


async def test_a_failing_shard_stops_no_other(kind: Callable[[], FaultyStream]) -> None:
    """KIN-53, KIN-60."""
    stream = kind()
    sickness = Sickness("sick", takes=0.1)
    async with streaming(sickness, stream=stream) as it:
        one, other = stream.split(stream.open[0])
        it.put("sick", shard=one)
        it.start()
        for number in range(50):
            it.put(str(number), shard=other)
            await anyio.sleep(1)
        assert done(it) == [str(number) for number in range(50)]
        assert it.committed(other) == "49"
        assert it.committed(one) == ""


async def test_a_shard_whose_document_is_blocked_stops_no_other() -> None:
    """KIN-87."""
    stream = FaultyKinesis(shards=2)
    one, other = stream.open
    async with streaming(Sickness("sick", takes=0), stream=stream, retries=0, on_failure=QUEUE, block=True) as it:
        it.destination.down = "AccessDenied"
        it.put("sick", shard=one)
        it.start()
        await anyio.sleep(60)
        it.put("fine", shard=other)
        await anyio.sleep(600)
        assert it.committed(other) == "fine"
        assert it.committed(one) == ""
        (waiting,) = (runner.gate for runner in it.view.runners if runner.partition == one)
        assert waiting.name == "reporting"
        assert waiting.detail.startswith(f"to {QUEUE}: ")
        assert "AccessDenied" in waiting.detail
        it.destination.down = ""
        await it.finished(within=120)
        assert [told[3] for told in it.destination.told] == ["sick"]
        assert it.counted("failure_destination_events_total") == 1
        assert it.counted("failure_destination_errors_total") == 0


async def test_without_a_store_polling_stops_and_says_so() -> None:
    """Rather than to run without checkpoints; it goes on when the store does."""
    async with streaming(Sickness(takes=0)) as it:
        with capture_logs() as lines:
            it.start()
            it.put("1")
            await it.finished()
            it.disk.faults = 5
            it.put("2", "3")
            await it.until(lambda: it.disk.faults < 5)
            await anyio.sleep(0.1)
            reads = it.stream.counts["GetRecords"]
            gate = it.view.gate
            assert gate is not None
            assert (gate.name, gate.detail.partition(";")[0]) == ("state", "the disk is full")
            assert not it.view.ready
            assert it.view.last_result == "PROBLEM: the disk is full"
            await anyio.sleep(0.1)
            assert it.stream.counts["GetRecords"] == reads
            await it.finished()
            await it.until(lambda: it.view.ready)
        assert [line["error"] for line in lines if line["event"] == "mapping_failed"] == ["the disk is full"] * 5
        assert it.committed() == "3"
        assert it.given[0] == "1"
        assert set(it.given[1:]) == {"2", "3"}
        times = [one.at for one in it.handled[1:]]
        pauses = [after - before for before, after in pairwise(times)]
        assert pauses == sorted(pauses)  # it backs off
        assert pauses[-1] > 2


async def test_one_mapping_that_crashes_stops_no_other() -> None:
    """A failing mapping is started again alone."""
    async with streaming(Sickness(takes=0)) as it:
        it.mappings.append(mapping(it.stream.arn, "other", patterns=('{"data": {"x": [1]}}',)))
        it.start()
        it.put("1")
        await it.finished()
        it.disk.faults_of = "uuid-of-orders"
        it.put("2")
        await anyio.sleep(30)
        stored = it.stored("other")
        assert it.names[next(iter(stored.values())).position.split()[1]] == "2"
        assert it.committed() == "1"
        it.disk.faults_of = ""
        await it.finished()


async def test_v17_an_iterator_expires_while_a_batch_runs(kind: Callable[[], FaultyStream]) -> None:
    """V17: KIN-30, DDB-26."""

    async def handler(call: Call) -> None:
        if call.names == ["1"]:
            await anyio.sleep(360)
            it.stream.expire()

    async with streaming(handler, stream=kind(), batch_size=1, concurrency=1) as it:
        it.put("1", "2", "3")
        it.start()
        await it.until(lambda: bool(it.handled))
        it.put("4", "5")
        await it.finished()
        assert it.given == ["1", "2", "3", "4", "5"]


async def test_v18_a_child_is_read_from_its_beginning() -> None:
    """V18: KIN-26."""
    async with streaming(Sickness(takes=0), starting_position="LATEST") as it:
        it.put("before")
        it.start()
        await it.until(lambda: it.stream.counts["GetRecords"] > 2)
        for number, child in enumerate(it.stream.split(it.stream.open[0])):
            it.put(f"child {number}", shard=child)
        await it.until(lambda: len(it.given) == 2)
        assert set(it.given) == {"child 0", "child 1"}


@pytest.mark.parametrize("shift", [-86_400.0, 86_400.0 * 365])
async def test_jumps_of_the_clock_change_no_pace(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """KIN-14, KIN-69: polls, batching windows, retries and renewals go by the monotonic clock."""
    sickness = Sickness("1", takes=0)
    async with streaming(sickness, batch_size=2, window=3.0) as it:
        it.start()
        it.put("1")
        await it.until(lambda: len(it.trail) == 3)
        wall = time.time
        monkeypatch.setattr(time, "time", lambda: wall() + shift)
        tries = len(it.trail)
        await anyio.sleep(300)
        assert 8 < len(it.trail) - tries < 60
        sickness.heal()
        it.put("2")
        await it.finished(within=60)
        assert done(it) == ["1", "2"]
        reads = it.stream.counts["GetRecords"]
        await anyio.sleep(100)
        assert 90 <= it.stream.counts["GetRecords"] - reads <= 110


@pytest.mark.parametrize("shift", [-86_400.0, 86_400.0 * 365])
async def test_jumps_of_the_clock_lose_nothing_of_a_window(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """TW-13, TW-42."""

    def gathering(call: Call) -> Any:
        return {"state": {"names": [*call.event["state"].get("names", []), *call.names]}}

    async with streaming(gathering, tumbling_window=60) as it:
        it.start()
        it.put("1")
        await it.until(lambda: len(it.trail) == 1)
        wall = time.time
        monkeypatch.setattr(time, "time", lambda: wall() + shift)
        it.stream.put("2", "2", ApproximateArrivalTimestamp=wall())  # the stream's clock is another
        await anyio.sleep(10)
        monkeypatch.setattr(time, "time", wall)
        await anyio.sleep(120)
        finals = [one.event["state"]["names"] for one in it.handled if one.event["isFinalInvokeForWindow"]]
        assert [name for names in finals for name in names] == ["1", "2"]
