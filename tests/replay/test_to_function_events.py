"""Asynchronous events and messages of queues are handed to functions: as what, to whom, and what stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import UsageError
from bridge.function import LATEST
from bridge.pipeline.batcher import PAYLOAD_LIMIT
from bridge.replay import callers
from bridge.replay.documents import Found
from bridge.replay.letter import Letter, message as received, read
from bridge.replay.target import Refused, Sent
from tests.clock import SKIPPING
from tests.replay.test_documents import DEAD, NOTIFICATION, UNDELIVERED
from tests.replay.world import ARN, DLQ, QUEUE, World, asynchronous, message, moved
from tests.streams.world import failures
from tests.world import NotRun

pytestmark = pytest.mark.anyio

WORKER = f"{ARN}worker"


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


def only(outcomes: Any) -> Any:
    (outcome,) = outcomes
    return outcome


# Asynchronous events.


@pytest.fixture
def events() -> World:
    made = World()
    made.function("worker", versions={"7": Path()})
    made.function("fixed")
    return made


async def test_an_asynchronous_event_goes_to_its_function(events: World) -> None:  # REPLAY-DO-8, DST-5
    sent = only(await events.send(asynchronous({"order": 17})))
    assert (type(sent), sent.target) == (Sent, WORKER)
    assert events.events("worker") == [{"order": 17}]


async def test_to_the_version_that_it_was_for_or_to_another_function(events: World) -> None:
    assert only(await events.send(asynchronous(1, "worker:7"))).target == f"{WORKER}:7"
    assert only(await events.send(asynchronous(2), to="fixed")).target == f"{ARN}fixed"
    assert only(await events.send(asynchronous(3), to=f"worker:{LATEST}")).target == WORKER
    assert events.events("fixed") == [2]


async def test_an_event_whose_function_is_not_there_stays(events: World) -> None:
    refused = only(await events.send(asynchronous(1, "worken:$LATEST")))
    assert refused.reason == 'bridge.yaml has no function "worken"; did you mean "worker"?'
    refused = only(await events.send(asynchronous(1, "worker:8")))
    assert 'the function worker has no version or alias "8"' in refused.reason


async def test_a_failed_event_stays(events: World) -> None:
    def raising(event: Any) -> None:
        raise KeyError(event)

    events.function("worker", raising)
    refused = only(await events.send(asynchronous("x")))
    assert refused == Refused("the function failed: KeyError", target=WORKER, detail="'x'")


async def test_a_record_without_its_event_is_told_and_left(events: World) -> None:  # DST-8
    letter = asynchronous(1)
    body = {name: value for name, value in json.loads(letter.message.body).items() if name != "requestPayload"}
    refused = only(await events.send(message(body)))
    assert "requestPayload is missing" in refused.reason
    assert refused.sender_fault
    refused = only(await events.send(message(letter.message.body[:-20])))
    assert "cut off" in refused.reason
    assert "succeeded" in only(await events.send(asynchronous(1, condition="Success"))).reason
    assert events.events("worker") == []


async def test_the_function_whose_dead_letter_queue_it_is_gets_its_event(events: World) -> None:  # DST-21
    letter = message('{"order": 1}', DEAD)
    assert "--to function:NAME" in only(await events.send(letter)).reason
    assert isinstance(only(await events.send(letter, function="worker")), Sent)
    assert isinstance(only(await events.send(letter, to="fixed", function="worker")), Sent)
    assert (events.events("worker"), events.events("fixed")) == ([{"order": 1}], [{"order": 1}])


async def test_what_eventbridge_and_sns_could_not_deliver(events: World) -> None:  # EVT-10, EVT-20
    assert only(await events.send(message({"detail": 1}, UNDELIVERED))).target == WORKER
    assert isinstance(only(await events.send(message(NOTIFICATION, DEAD), function="fixed")), Sent)
    assert events.events("worker") == [{"detail": 1}]
    assert events.events("fixed")[0]["Records"][0]["Sns"]["Message"] == "text"


async def test_an_event_that_is_too_large_stays(events: World) -> None:  # INV-8
    refused = only(await events.send(asynchronous("x" * PAYLOAD_LIMIT)))
    assert refused.reason == "too large for an event of a function"


async def test_throttling_is_waited_out_for_a_while(events: World) -> None:  # KIN-61
    tries = 0

    def busy(event: Any) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise NotRun

    events.function("worker", busy)
    assert isinstance(only(await events.send(asynchronous(1))), Sent)
    events.function("worker", lambda event: (_ for _ in ()).throw(NotRun()))
    refused = only(await events.send(asynchronous(1)))
    assert refused.reason == "the function was not run: Throttled"
    assert not refused.sender_fault
    assert callers.PATIENCE == 60


async def test_a_function_that_is_not_there_is_known_before_the_first_letter(events: World) -> None:
    for known, to in (({}, "worken"), ({"function": "worken"}, ""), ({}, "worker:8")):
        with pytest.raises(UsageError):
            await events.send(to=to, **known)


# Messages.


@pytest.fixture
def queue() -> World:
    made = World()
    made.function("worker")
    return made


async def test_a_message_is_the_event_that_its_function_did_not_take(queue: World) -> None:  # REPLAY-DO-10, SQS-71
    golden = json.loads((Path(__file__).parent.parent / "events" / "sqs.json").read_text())
    came = json.loads((Path(__file__).parent.parent / "events" / "sqs.received.json").read_text())
    queue.mapping("orders", "worker", QUEUE)
    for wire, expected in zip(came["Messages"], golden["Records"], strict=True):
        wire["Attributes"]["DeadLetterQueueSourceArn"] = QUEUE
        expected["attributes"].pop("DeadLetterQueueSourceArn", None)
        if "md5OfMessageAttributes" in expected:  # the golden one is of other attributes; both servers compute this one
            expected["md5OfMessageAttributes"] = "d72a92a63b782cf6bd784d562d2432f2"
        assert isinstance(only(await queue.send(read(received(wire), None))), Sent)
    assert [only(event["Records"]) for event in queue.events("worker")] == golden["Records"]


async def test_messages_go_one_by_one_unless_the_mapping_reads_which_failed(queue: World) -> None:  # SQS-30, SQS-40
    orders = queue.mapping("orders", "worker", QUEUE)
    letters = moved(*"abc")
    async with queue.target(mapping=orders) as target:
        assert target.most == 1
    orders = queue.mapping("orders", "worker", QUEUE, partial=True)
    queue.function("worker", lambda event: failures("m2"))
    outcomes = await queue.send(*letters, mapping=orders)
    assert [type(it) for it in outcomes] == [Sent, Refused, Sent]
    assert [len(event["Records"]) for event in queue.events("worker")] == [3]
    queue.mapping("orders", "worker", QUEUE, partial=True, batch_size=2)
    async with queue.target(mapping=queue.mappings["orders"]) as target:
        assert target.most == 2


async def test_a_crash_leaves_all_messages_of_its_event(queue: World) -> None:  # SQS-43
    def raising(event: Any) -> None:
        raise ValueError("m")

    queue.function("worker", raising)
    orders = queue.mapping("orders", "worker", QUEUE, partial=True)
    outcomes = await queue.send(*moved(*"ab"), mapping=orders)
    assert outcomes == [Refused("the function failed: ValueError", target=WORKER, detail="m")] * 2


async def test_a_message_that_the_filter_removes_is_left(queue: World) -> None:  # FLT-44
    orders = queue.mapping("orders", "worker", QUEUE, partial=True, patterns=('{"body": {"kind": ["order"]}}',))
    outcomes = await queue.send(*moved('{"kind": "order"}', '{"kind": "visit"}'), mapping=orders)
    assert isinstance(outcomes[0], Sent)
    assert outcomes[1] == Refused("the filter of mapping orders does not let it through", True, WORKER, alone=True)


async def test_large_messages_are_parted_into_events_that_fit(queue: World) -> None:  # SQS-8
    orders = queue.mapping("orders", "worker", QUEUE, partial=True)
    assert {type(it) for it in await queue.send(*moved(*["x" * (1 << 20)] * 10), mapping=orders)} == {Sent}
    assert [len(event["Records"]) for event in queue.events("worker")] == [5, 5]


async def test_a_message_that_does_not_say_its_queue(queue: World) -> None:
    letter = message("text")
    assert isinstance(only(await queue.send(letter, to="worker")), Sent)
    orders = queue.mapping("orders", "worker", QUEUE)
    assert isinstance(only(await queue.send(letter, mapping=orders)), Sent)
    assert [event["Records"][0]["eventSourceARN"] for event in queue.events("worker")] == [DLQ, QUEUE]
    queue.mappings.clear()
    assert "--to function:NAME" in only(await queue.send(letter)).reason


async def test_letters_of_all_kinds_together_keep_their_order(queue: World) -> None:
    orders = queue.mapping("orders", "worker", QUEUE, partial=True)
    a, b, c = moved(*"abc")
    hindered = Letter(message=a.message, document=Found(hindrance="it is no record"))
    outcomes = await queue.send(a, asynchronous(1), b, c, hindered, mapping=orders)
    assert [type(it) for it in outcomes] == [Sent, Sent, Sent, Sent, Refused]
    kinds = [len(event["Records"]) if isinstance(event, dict) else event for event in queue.events("worker")]
    assert kinds == [1, 1, 2]


async def test_a_mapping_of_a_version_has_its_messages_run_by_that(queue: World) -> None:  # ESM-10
    queue.function("worker", versions={"7": Path()})
    orders = queue.mapping("orders", "worker", QUEUE, qualifier="7")
    assert only(await queue.send(*moved("a"), mapping=orders)).target == f"{WORKER}:7"
    async with queue.target(mapping=orders) as target:
        assert target.name == f"function {WORKER}:7 through this process"
        assert target.arn(moved("a")[0]) == f"{WORKER}:7"
