"""Tumbling windows: the acceptance vectors of tumbling-windows.md by their numbers, through the whole daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from bridge.pipeline.windows import STATE_LIMIT
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import FaultyStream
from tests.sources.faulty_table import FaultyTable
from tests.streams.world import QUEUE, Call, StreamWorld, failures, numbers_of, streaming

pytestmark = pytest.mark.anyio

START = 1_700_000_040.0
"""A whole minute, soon after the virtual loop's beginning."""
ONE, TWO = "2023-11-14T22:14:00Z", "2023-11-14T22:15:00Z"
"""As windows of a minute have it."""


@pytest.fixture(params=[FaultyKinesis, FaultyTable])
def kind(request: pytest.FixtureRequest) -> Any:
    """Both services: TW-22."""
    return request.param


def gathering(call: Call) -> dict[str, Any]:
    """Its state is the list of all names that it was given in this window."""
    return {"state": {"names": [*call.event["state"].get("names", []), *call.names]}}


async def at(second: float) -> None:
    """Waits for a second of the first window."""
    await anyio.sleep(START + second - time.time())


async def put_at(it: StreamWorld, *seconds: int) -> None:
    """A record at each of these seconds, which is its name too."""
    for second in seconds:
        await at(second)
        it.put(str(second))


def told(it: StreamWorld) -> list[tuple[str, list[str]]]:
    """Of each invocation what it was given, and the state that came along; ``early`` where it ends its state."""
    return [
        (("early " if one.event["isWindowTerminatedEarly"] else "") + str(one), one.event["state"].get("names", []))
        for one in it.handled
    ]


async def test_w1_a_record_of_a_later_window_closes_the_one_before(kind: Callable[[], FaultyStream]) -> None:
    """W1: TW-4, TW-10, TW-11, TW-20, TW-21, TW-40, TW-41, TW-42 (a). It is the records' times that count,
    however late they are read."""
    async with streaming(gathering, stream=kind(), tumbling_window=60) as it:
        await put_at(it, 10, 30, 70)
        it.start()
        await it.finished()
        assert told(it)[:3] == [("S(10,30)", []), ("S(final)", ["10", "30"]), ("S(70)", [])]
        first, final, after = (one.event for one in it.handled[:3])
        assert list(first) == [
            "Records", "window", "state", "shardId", "eventSourceARN", "isFinalInvokeForWindow",
            "isWindowTerminatedEarly",
        ]  # fmt: skip
        assert first["window"] == final["window"] == {"start": ONE, "end": TWO}
        assert after["window"]["start"] == TWO
        assert (final["Records"], final["isFinalInvokeForWindow"]) == ([], True)
        assert not first["isFinalInvokeForWindow"]
        assert {first["shardId"], final["shardId"]} == {*it.stream.shards}
        assert {first["eventSourceARN"], final["eventSourceARN"]} == {it.stream.arn}


async def test_w2_silence_closes_a_window_after_its_grace(kind: Callable[[], FaultyStream]) -> None:
    """W2: TW-42 (b), TW-43, TW-45."""
    async with streaming(gathering, stream=kind(), tumbling_window=60) as it:
        it.start()
        await put_at(it, 10)
        await at(200)
        assert told(it) == [("S(10)", []), ("S(final)", ["10"])]
        final = it.handled[1].at - 1000 + 1_700_000_000
        assert START + 61 <= final < START + 63
        (position,) = it.stored().values()
        assert b"names" not in position.state


async def test_w3_an_answer_without_state_is_a_failed_invocation() -> None:
    """W3: TW-30, TW-31, TW-60."""
    answers: list[Any] = [None, {}, {"batchItemFailures": []}, {"state": [1]}, {"state": "x"}, b"no json"]

    def handler(call: Call) -> Any:
        if "20" in call.names and answers:
            return answers.pop()
        return gathering(call)

    async with streaming(handler, tumbling_window=60) as it:
        it.start()
        await put_at(it, 10, 20)
        await at(100)
        assert told(it) == [("S(10)", []), *[("S(20)", ["10"])] * 7, ("S(final)", ["10", "20"])]


async def test_retries_repeat_records_in_their_order(kind: Callable[[], FaultyStream]) -> None:
    """TW-14, TW-60: those that went well do not come again, and what is tried again has the state that it had."""
    failing = [True, True]

    def handler(call: Call) -> Any:
        if "20" in call.names and failing:
            failing.pop()
            raise ValueError
        return gathering(call)

    async with streaming(handler, stream=kind(), batch_size=2, tumbling_window=60) as it:
        await put_at(it, 5, 10, 15, 20, 25)
        it.start()
        await it.finished()
        assert told(it)[:5] == [
            ("S(5,10)", []),
            *[("F(15,20)", ["5", "10"])] * 2,
            ("S(15,20)", ["5", "10"]),
            ("S(25)", ["5", "10", "15", "20"]),
        ]


async def test_the_state_null_is_an_empty_one() -> None:
    """TW-31."""
    async with streaming(lambda call: {"state": None}, tumbling_window=60) as it:
        it.start()
        await put_at(it, 10, 20)
        await at(100)
        assert told(it) == [("S(10)", []), ("S(20)", []), ("S(final)", [])]


async def test_w4_a_state_that_is_too_large_ends_early() -> None:
    """W4: TW-32, TW-50, TW-51, TW-52."""

    def handler(call: Call) -> Any:
        answer = gathering(call)
        if "20" in call.names:
            answer["state"]["weight"] = "x" * STATE_LIMIT
        return answer

    async with streaming(handler, tumbling_window=60) as it:
        it.start()
        await put_at(it, 10, 20, 30)
        await at(100)
        assert told(it) == [
            ("S(10)", []), ("S(20)", ["10"]), ("early S(final)", ["10", "20"]), ("S(30)", []), ("S(final)", ["30"]),
        ]  # fmt: skip
        assert "weight" in it.handled[2].event["state"]
        assert it.handled[2].event["isFinalInvokeForWindow"]
        assert len({one.event["window"]["start"] for one in it.handled}) == 1


async def test_w5_the_end_of_a_shard_closes_its_window(kind: Callable[[], FaultyStream]) -> None:
    """W5: TW-53."""
    async with streaming(gathering, stream=kind(), tumbling_window=60) as it:
        it.start()
        await put_at(it, 10)
        await at(40)
        (parent,) = it.stream.open
        for child in it.stream.split(parent):
            it.put(child, shard=child)
        children = it.stream.open
        await at(100)
        assert told(it)[:2] == [("S(10)", []), ("early S(final)", ["10"])]
        assert sorted(told(it)[2:4]) == sorted((f"S({child})", []) for child in children)
        assert sorted(state for _, state in told(it)[4:]) == sorted([child] for child in children)


@pytest.mark.parametrize("hardened", [False, True])
async def test_w6_a_crash_counts_nothing_twice(hardened: bool, kind: Callable[[], FaultyStream]) -> None:
    """W6: TW-47. The write that was under way at the crash has happened, or has not."""
    async with streaming(gathering, stream=kind(), tumbling_window=60) as it:
        it.start()
        await put_at(it, 10)
        await at(15)
        it.disk.delay = 5.0
        await put_at(it, 20)
        await it.until(lambda: len(it.trail) == 2)
        it.disk.hardened = hardened
        await it.kill()
        it.disk.delay = 0.0
        it.start()
        await put_at(it, 30)
        await at(100)
        again = [] if hardened else [("S(20)", ["10"])]
        assert told(it) == [
            ("S(10)", []), ("S(20)", ["10"]), *again, ("S(30)", ["10", "20"]), ("S(final)", ["10", "20", "30"]),
        ]  # fmt: skip


async def test_w7_nothing_of_the_next_window_comes_before_a_failing_final() -> None:
    """W7: TW-46, TW-48, TW-64."""
    answers: list[Any] = [{}, ValueError()]

    def handler(call: Call) -> Any:
        if call.event["isFinalInvokeForWindow"] and answers:
            answer = answers.pop()
            if isinstance(answer, Exception):
                raise answer
            return answer
        return gathering(call)

    async with streaming(handler, tumbling_window=60, partial=True, bisect=True) as it:
        await put_at(it, 10, 70)
        it.start()
        await it.finished()
        finals = [("F(final)", ["10"]), ("S(final)", ["10"]), ("S(final)", ["10"])]
        assert told(it)[:5] == [("S(10)", []), *finals, ("S(70)", [])]


async def test_a_final_that_fails_for_good_is_given_up_and_told(kind: Callable[[], FaultyStream]) -> None:
    """TW-46: of the window's records, although they are not in its event."""

    def handler(call: Call) -> Any:
        if call.event["isFinalInvokeForWindow"]:
            raise ValueError
        return gathering(call)

    async with streaming(handler, stream=kind(), tumbling_window=60, retries=1, on_failure=QUEUE) as it:
        await put_at(it, 10, 20, 70)
        it.start()
        await it.until(lambda: "70" in it.given)
        assert it.trail[:4] == ["S(10,20)", "F(final)", "F(final)", "S(70)"]
        assert it.destination.told[0] == ("RetryAttemptsExhausted", 2, 2, "10", "20", "Unhandled")


async def test_a_late_record_is_put_into_the_open_window() -> None:
    """TW-13: never one that is closed."""
    async with streaming(gathering, tumbling_window=60) as it:
        it.start()
        await put_at(it, 10)
        await at(65)  # the window of 10 is closed
        assert it.trail == ["S(10)", "S(final)"]
        it.stream.put("late", "late", ApproximateArrivalTimestamp=START + 59)
        await at(66)
        it.stream.put("later", "later", ApproximateArrivalTimestamp=START + 1)
        await at(200)
        assert told(it)[2:] == [("S(late)", []), ("S(later)", ["late"]), ("S(final)", ["late", "later"])]
        assert {one.event["window"]["start"] for one in it.handled[2:]} == {TWO}


async def test_a_partial_answer_leads_its_state_to_the_rest() -> None:
    """TW-61."""

    def handler(call: Call) -> Any:
        if call.names == ["10", "20", "30"]:
            before = gathering(call._replace(names=["10"]))
            return {**before, **failures(*numbers_of(call.event)[1:2])}
        return gathering(call)

    async with streaming(handler, tumbling_window=60, partial=True) as it:
        await put_at(it, 10, 20, 30)
        it.start()
        await at(100)
        assert told(it) == [("P20(10,20,30)", []), ("S(20,30)", ["10"]), ("S(final)", ["10", "20", "30"])]


async def test_halves_are_counted_once_each_and_the_poison_leaves_no_trace() -> None:
    """TW-62, TW-63."""

    def handler(call: Call) -> Any:
        if "30" in call.names:
            raise ValueError
        return gathering(call)

    async with streaming(handler, tumbling_window=60, bisect=True, retries=0, on_failure=QUEUE) as it:
        await put_at(it, 10, 20, 30, 40)
        it.start()
        await at(100)
        assert told(it) == [
            ("F(10,20,30,40)", []), ("S(10,20)", []), ("F(30,40)", ["10", "20"]), ("F(30)", ["10", "20"]),
            ("S(40)", ["10", "20"]), ("S(final)", ["10", "20", "40"]),
        ]  # fmt: skip
        assert it.destination.told == [("RetryAttemptsExhausted", 1, 1, "30", "30", "Unhandled")]


async def test_a_window_of_which_all_is_filtered_out_is_none() -> None:
    """TW-44."""
    async with streaming(gathering, tumbling_window=60, patterns=('{"data": {"kind": ["order"]}}',)) as it:
        it.start()
        await put_at(it, 10)
        await at(200)
        assert it.trail == []


async def test_a_mapping_that_is_stopped_keeps_its_state() -> None:
    """TW-54."""
    async with streaming(gathering, tumbling_window=60) as it:
        it.start()
        await put_at(it, 10)
        await at(15)
        await it.stop()
        it.start()
        await put_at(it, 20)
        await at(100)
        assert told(it) == [("S(10)", []), ("S(20)", ["10"]), ("S(final)", ["10", "20"])]


async def test_a_window_that_ended_while_nobody_ran_is_closed_at_the_next_start() -> None:
    """TW-42, TW-47."""
    async with streaming(gathering, tumbling_window=60) as it:
        it.start()
        await put_at(it, 10)
        await at(15)
        await it.kill()
        await put_at(it, 130)
        it.start()
        await it.finished()
        assert told(it)[:3] == [("S(10)", []), ("S(final)", ["10"]), ("S(130)", [])]


async def test_a_crash_between_early_final_and_the_next_record() -> None:
    """TW-47, TW-50: the invocation that takes the oversized state is not forgotten."""
    heavy = "x" * STATE_LIMIT
    block = anyio.Event()

    async def handler(call: Call) -> Any:
        if call.event["isWindowTerminatedEarly"] and not block.is_set():
            await block.wait()
        return {"state": {"weight": heavy} if "10" in call.names else {}}

    async with streaming(handler, tumbling_window=60) as it:
        it.start()
        await put_at(it, 10)
        await at(15)
        await it.kill()
        block.set()
        it.start()
        await put_at(it, 20)
        await at(100)
        assert [text for text, _ in told(it)] == ["S(10)", "early S(final)", "S(20)", "S(final)"]
        assert it.handled[1].event["state"] == {"weight": heavy}


@pytest.mark.parametrize("names_stream", [False, True])
async def test_all_of_a_windows_event_names_the_same_source(names_stream: bool) -> None:
    """KIN-44: `arn_in_events` counts for its records and for itself."""
    stream = FaultyKinesis()
    arn, options = stream.arn if names_stream else stream.consumer_arn, {"names_stream": names_stream}
    async with streaming(gathering, stream=stream, source=stream.consumer_arn, tumbling_window=60, **options) as it:
        it.start()
        await put_at(it, 10, 70)
        first, final = (one.event for one in it.handled[:2])
        assert first["eventSourceARN"] == final["eventSourceARN"] == arn
        assert [record["eventSourceARN"] for record in first["Records"]] == [arn]


async def test_a_final_invocation_that_fails_for_too_long_is_given_up() -> None:
    """TW-46: age counts from the window's end, also before each try that does not run; the next window follows."""

    def handler(call: Call) -> Any:
        if call.event["isFinalInvokeForWindow"] and call.event["window"]["start"] == ONE:
            raise ValueError
        return gathering(call)

    async with streaming(handler, tumbling_window=60, max_age=90, on_failure=QUEUE) as it:
        it.start()
        await put_at(it, 10, 70)
        await it.finished()
        (document,) = it.destination.documents
        assert document["requestContext"]["condition"] == "RecordAgeExceeded"
        assert document["KinesisBatchInfo"]["startSequenceNumber"] == it.number("10")
        after = next(one for one in it.handled if one.names == ["70"])
        assert 150 <= after.at - 1000 + 1_700_000_000 - START < 185
        assert after.event["state"] == {}


async def test_a_final_invocation_that_is_late_is_tried_once() -> None:
    """TW-46: a window that ended long ago, while nobody was there, is not given up unseen."""
    async with streaming(gathering, tumbling_window=60, max_age=90) as it:
        it.start()
        await put_at(it, 10)
        await it.finished()
        await it.stop()
        await at(1000)
        it.start()
        await it.until(lambda: len(it.handled) == 2)
        assert told(it)[-1] == ("S(final)", ["10"])


async def test_silence_does_not_close_a_window_while_nobody_can_read() -> None:
    """TW-42: what comes late because it could not be read is still of its window."""
    async with streaming(gathering, tumbling_window=60) as it:
        it.start()
        await put_at(it, 10)
        await at(50)
        it.stream.refuse("GetRecords", *["InternalFailure"] * 100)
        await put_at(it, 55)
        await at(75)
        it.stream.allow("GetRecords")
        await at(200)
        assert told(it) == [("S(10)", []), ("S(55)", ["10"]), ("S(final)", ["10", "55"])]


async def test_one_empty_read_of_a_table_is_no_silence() -> None:
    """TW-42: an empty answer says nothing about what follows it (DDB-6)."""
    async with streaming(gathering, stream=FaultyTable(), tumbling_window=60) as it:
        await put_at(it, 10)
        it.start()
        await it.finished()
        await it.stop()
        it.put("20")
        await at(100)
        it.stream.blank(1)
        it.start()
        await it.finished()
        await at(200)
        assert told(it) == [("S(10)", []), ("S(20)", ["10"]), ("S(final)", ["10", "20"])]
