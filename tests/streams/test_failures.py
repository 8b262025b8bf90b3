"""What becomes of failing records: the acceptance vectors of kinesis.md by their numbers, through the whole daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from bridge.destinations.delivery import PATIENCE
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import FaultyStream
from tests.sources.faulty_table import FaultyTable
from tests.streams.world import QUEUE, Call, Handler, StreamWorld, failures, numbers_of, streaming
from tests.world import NotRun

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[FaultyKinesis, FaultyTable])
def kind(request: pytest.FixtureRequest) -> Any:
    """Both services: DDB-60, DDB-61."""
    return request.param


def poison(*names: str) -> Handler:
    """Raises when one of these is in the batch."""

    def handler(call: Call) -> None:
        if not set(names).isdisjoint(call.names):
            raise ValueError

    return handler


def reporting(*names: str) -> Handler:
    """Names those of the batch that are among these."""

    def handler(call: Call) -> Any:
        numbers = dict(zip(call.names, numbers_of(call.event), strict=True))
        return failures(*(number for name, number in numbers.items() if name in names))

    return handler


def answering(answer: Any) -> Handler:
    return lambda call: answer


def names(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def settled(it: StreamWorld, *put: str) -> StreamWorld:
    it.put(*put)
    it.start()
    await it.finished()
    return it


async def test_v1_a_batch_is_tried_once_more_than_its_retries(kind: Callable[[], FaultyStream]) -> None:
    """V1: KIN-62, KIN-80."""
    async with streaming(poison("1"), stream=kind(), batch_size=3, retries=2, on_failure=QUEUE) as it:
        await settled(it, "1", "2", "3")
        assert it.trail == ["F(1,2,3)"] * 3
        assert it.destination.told == [("RetryAttemptsExhausted", 3, 3, "1", "3", "Unhandled")]
        assert it.destination.positions == [""]  # KIN-88: the document comes first


async def test_v2_without_retries_there_is_one_attempt(kind: Callable[[], FaultyStream]) -> None:
    """V2: KIN-62."""
    async with streaming(poison("1"), stream=kind(), batch_size=1, retries=0, on_failure=QUEUE) as it:
        await settled(it, "1", "2")
        assert it.trail == ["F(1)", "S(2)"]
        assert it.destination.told == [("RetryAttemptsExhausted", 1, 1, "1", "1", "Unhandled")]


async def test_v3_bisect_finds_the_poison_record(kind: Callable[[], FaultyStream]) -> None:
    """V3: KIN-63, KIN-64."""
    async with streaming(poison("3"), stream=kind(), batch_size=4, retries=1, bisect=True, on_failure=QUEUE) as it:
        await settled(it, *names(1, 4))
        assert it.trail == ["F(1,2,3,4)", "S(1,2)", "F(3,4)", "F(3)", "F(3)", "S(4)"]
        assert it.destination.told == [("RetryAttemptsExhausted", 1, 2, "3", "3", "Unhandled")]
        assert it.counted("bisects_total") == 2


async def test_v4_progress_begins_the_count_anew(kind: Callable[[], FaultyStream]) -> None:
    """V4: KIN-71, KIN-74."""
    async with streaming(reporting("6"), stream=kind(), batch_size=3, retries=3, partial=True, on_failure=QUEUE) as it:
        await settled(it, *names(1, 6))
        assert it.trail == ["S(1,2,3)", "P6(4,5,6)", *["P6(6)"] * 4]
        assert it.destination.told == [("RetryAttemptsExhausted", 1, 4, "6", "6", None)]


async def test_v5_naming_the_first_record_is_no_progress(kind: Callable[[], FaultyStream]) -> None:
    """V5: KIN-72, KIN-74."""
    async with streaming(reporting("1"), stream=kind(), batch_size=3, retries=1, partial=True, on_failure=QUEUE) as it:
        await settled(it, *names(1, 3))
        assert it.trail == ["P1(1,2,3)"] * 2
        assert it.destination.told == [("RetryAttemptsExhausted", 3, 2, "1", "3", None)]


USELESS = [
    {"batchItemFailures": [{"itemIdentifier": ""}]},
    {"batchItemFailures": [{"itemIdentifier": None}]},
    {"batchItemFailures": [{"itemIdentifier": 123}]},
    {"batchItemFailures": [{"itemIdentifier": "123"}]},
    {"batchItemFailures": [{"foo": "1"}]},
    {"batchItemFailures": [{"foo": None}]},
    b"no json",
]


@pytest.mark.parametrize("answer", USELESS)
async def test_v6_a_useless_answer_is_a_failed_batch(answer: Any) -> None:
    """V6: KIN-72."""
    async with streaming(answering(answer), batch_size=1, retries=2, partial=True, on_failure=QUEUE) as it:
        await settled(it, "1")
        assert it.trail == ["S(1)"] * 3  # the function itself has ended well
        assert it.destination.told == [("RetryAttemptsExhausted", 1, 3, "1", "1", None)]


@pytest.mark.parametrize(
    "answer", [None, {}, "", [], b"", {"batchItemFailures": []}, {"batchItemFailures": None}], ids=repr
)
async def test_v7_an_answer_that_names_nothing_is_success(answer: Any) -> None:
    """V7: KIN-70."""
    async with streaming(answering(answer), batch_size=1, retries=2, partial=True, on_failure=QUEUE) as it:
        await settled(it, "1")
        assert it.trail == ["S(1)"]
        assert it.destination.documents == []


async def test_v8_without_reporting_the_answer_is_ignored() -> None:
    """V8: KIN-73."""
    async with streaming(reporting("1"), retries=2, on_failure=QUEUE) as it:
        await settled(it, "1", "2")
        assert it.trail == ["P1(1,2)"]
        assert it.destination.documents == []


async def test_v9_what_is_too_old_goes_alone(kind: Callable[[], FaultyStream]) -> None:
    """V9: KIN-66, KIN-67, KIN-82, KIN-83."""
    async with streaming(answering(None), stream=kind(), batch_size=10, retries=0, max_age=60, on_failure=QUEUE) as it:
        it.put("1")
        await anyio.sleep(80)
        await settled(it, *names(2, 6))
        assert it.trail == ["S(2,3,4,5,6)"]
        assert it.destination.told == [("RecordAgeExceeded", 1, 1, "1", "1", "absent")]
        assert it.destination.documents[0]["requestContext"]["requestId"]


async def test_v10_what_did_not_run_uses_up_no_attempt() -> None:
    """V10: KIN-61."""
    refusals = ["throttled"] * 5 + ["unreachable"]

    def handler(call: Call) -> None:
        if refusals:
            raise NotRun(refusals.pop())  # type: ignore[arg-type]

    async with streaming(handler, retries=3, bisect=True, on_failure=QUEUE) as it:
        await settled(it, "1", "2")
        assert it.trail == [*["T(1,2)"] * 6, "S(1,2)"]
        assert it.destination.documents == []


async def test_what_never_runs_is_given_up_by_age_alone() -> None:
    """KIN-61, KIN-66."""

    def handler(call: Call) -> None:
        raise NotRun

    async with streaming(handler, retries=0, max_age=600, on_failure=QUEUE) as it:
        await settled(it, "1")
        assert len(it.trail) > 20
        assert it.destination.told == [("RecordAgeExceeded", 1, 1, "1", "1", "absent")]


async def test_v11_what_the_filter_removes_moves_the_position() -> None:
    """V11: KIN-39, KIN-40."""
    async with streaming(poison("1"), patterns=('{"data": {"kind": ["order"]}}',)) as it:
        await settled(it, *names(1, 100))
        assert it.trail == []
        assert it.committed() == "100"
        assert it.view.filtered == 100


async def test_v12_a_failing_key_stops_its_lane_alone() -> None:
    """V12: KIN-50..53."""
    began = 0.0

    def handler(call: Call) -> None:
        if call.names[0].startswith("a") and anyio.current_time() < began + 10:
            raise ValueError

    async with streaming(handler, batch_size=1, lanes=2) as it:
        for number in (1, 2):
            it.put(f"a{number}", key="a")  # in one lane
            it.put(f"b{number}", key="g")  # in the other
        it.start()
        began = anyio.current_time()
        await it.until(lambda: "b2" in it.given, within=5)
        assert "a2" not in it.given
        assert it.committed() == ""  # below the record of a, which is the first
        await it.finished()
        done = [str(one) for one in it.handled if str(one).startswith("S")]
        assert [name for name in done if "a" in name] == ["S(a1)", "S(a2)"]
        assert [name for name in done if "b" in name] == ["S(b1)", "S(b2)"]


async def test_v13_a_failing_batch_holds_back_the_children_of_its_shard(kind: Callable[[], FaultyStream]) -> None:
    """V13: KIN-91, KIN-93."""
    healed = False

    def handler(call: Call) -> None:
        if not healed and "1" in call.names:
            raise ValueError

    async with streaming(handler, stream=kind()) as it:
        it.put("1")
        it.start()
        await it.until(lambda: bool(it.trail))
        parent = it.stream.open[0]
        children = it.stream.split(parent)
        for child in children:
            it.put(f"of {child}", shard=child)
        await anyio.sleep(300)
        assert set(it.given) == {"1"}
        assert not it.stored()[parent].ended
        healed = True
        await it.finished()
        assert set(it.given) == {"1", *(f"of {child}" for child in children)}


async def test_v14_a_merged_shard_waits_for_both_parents() -> None:
    """V14: KIN-91."""
    healed = False

    def handler(call: Call) -> None:
        if not healed and "1" in call.names:
            raise ValueError

    async with streaming(handler, stream=FaultyKinesis(shards=2)) as it:
        one, other = it.stream.open
        it.put("1", shard=one)
        it.put("2", shard=other)
        it.start()
        await it.until(lambda: "2" in it.given)
        child = it.stream.merge(one, other)
        it.put("3", shard=child)
        await it.until(lambda: it.stored()[other].ended)
        await anyio.sleep(300)
        assert "3" not in it.given
        healed = True
        await it.finished()
        assert it.given[-1] == "3"


async def test_v15_what_was_not_checkpointed_is_delivered_again() -> None:
    """V15: KIN-27."""
    async with streaming(answering(None), batch_size=2) as it:
        it.disk.delay = 5.0
        it.put(*names(1, 4))
        it.start()
        await it.until(lambda: "S(3,4)" in it.trail)
        await it.kill()
        assert it.committed() == "2"
        it.disk.delay = 0.0
        it.start()
        await it.finished()
        assert it.trail == ["S(1,2)", "S(3,4)", "S(3,4)"]


async def test_v16_what_cannot_be_reported_is_dropped_in_the_end() -> None:
    """V16: KIN-87."""
    async with streaming(poison("1", "2", "3"), batch_size=3, retries=2, on_failure=QUEUE) as it:
        it.destination.down = "ServiceUnavailable"
        await settled(it, *names(1, 4))
        assert it.trail == [*["F(1,2,3)"] * 3, "S(4)"]
        assert it.destination.documents == []
        assert it.counted("dropped_events_total", reason="delivery") == 3
        assert it.counted("failure_destination_errors_total") == 1
        assert it.counted("failure_destination_events_total") == 0
        assert PATIENCE / 2 < it.handled[3].at - it.handled[2].at <= PATIENCE + 1


async def test_neighbours_that_fail_are_told_of_one_by_one(kind: Callable[[], FaultyStream]) -> None:
    """KIN-65: AWS may merge what it tells of adjacent pieces; here each batch that is given up has its document."""
    handler = poison("2", "3")
    async with streaming(handler, stream=kind(), batch_size=4, retries=0, bisect=True, on_failure=QUEUE) as it:
        await settled(it, *names(1, 4))
        assert it.trail == ["F(1,2,3,4)", "F(1,2)", "S(1)", "F(2)", "F(3,4)", "F(3)", "S(4)"]
        assert it.destination.told == [
            ("RetryAttemptsExhausted", 1, 1, "2", "2", "Unhandled"),
            ("RetryAttemptsExhausted", 1, 1, "3", "3", "Unhandled"),
        ]


async def test_with_bisect_a_partial_answer_cuts_where_it_says_and_an_error_in_the_middle(
    kind: Callable[[], FaultyStream],
) -> None:
    """KIN-75, KIN-77."""
    raises = iter([False, True, True, False])

    def handler(call: Call) -> Any:
        if "4" in call.names and next(raises, False):
            raise ValueError
        return reporting("4")(call)

    async with streaming(
        handler, stream=kind(), batch_size=8, retries=0, partial=True, bisect=True, on_failure=QUEUE
    ) as it:
        await settled(it, *names(1, 8))
        assert it.trail == ["P4(1,2,3,4,5,6,7,8)", "F(4,5,6,7,8)", "F(4,5)", "P4(4)", "S(5)", "S(6,7,8)"]
        assert it.destination.told == [("RetryAttemptsExhausted", 1, 1, "4", "4", None)]


async def test_without_bisect_an_error_retries_the_whole_batch_although_answers_are_read(
    kind: Callable[[], FaultyStream],
) -> None:
    """KIN-76."""
    async with streaming(poison("2"), stream=kind(), batch_size=3, retries=2, partial=True, on_failure=QUEUE) as it:
        await settled(it, *names(1, 4))
        assert it.trail == [*["F(1,2,3)"] * 3, "S(4)"]
        assert it.destination.told == [("RetryAttemptsExhausted", 3, 3, "1", "3", "Unhandled")]


async def test_a_document_has_one_of_two_conditions() -> None:
    """KIN-81, and KIN-38's for what can never fit."""
    async with streaming(poison("bad"), batch_size=1, retries=0, max_age=60, on_failure=QUEUE) as it:
        it.put("old")
        await anyio.sleep(80)
        await settled(it, "bad", "x" * (5 << 20), "good")
        conditions = [condition for condition, *_ in it.destination.told]
        assert conditions == ["RecordAgeExceeded", "RetryAttemptsExhausted", "MaximumPayloadSizeExceeded"]
        assert it.given == ["bad", "good"]
