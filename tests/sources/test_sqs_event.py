"""What a handler gets of an SQS message, and what is known of SQS without asking it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.pipeline.scaling import Scaling
from bridge.record import Record
from bridge.sources import Bound
from bridge.sources.sqs import SqsSource, record_json
from tests.clock import SKIPPING
from tests.contracts.source import batch_of, collect, opened
from tests.sources.faulty_sqs import FaultySqs
from tests.sources.near import LocalBroker, Near

EVENTS = Path(__file__).parent.parent / "events"
RECORDINGS = Path(__file__).parents[3] / "shared" / "spec" / "recordings"
RECORDED = RECORDINGS / "test_lambda_integration_sqs.snapshot.json"
ARN, REGION = "arn:aws:sqs:eu-west-1:123456789012:orders", "eu-west-1"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


def load(name: str) -> Any:
    return json.loads((EVENTS / name).read_text())


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def source(**options: Any) -> SqsSource:
    return SqsSource(Near().mapping(ARN, **options), Near().surroundings())


def test_records_are_the_golden_ones_byte_for_byte() -> None:
    made = [record_json(message, ARN, REGION) for message in load("sqs.received.json")["Messages"]]
    assert made == [compact(record) for record in load("sqs.json")["Records"]]  # SQS-70..74


def recorded() -> Iterator[dict[str, Any]]:
    """Every record of an event that AWS really sent."""

    def walk(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            if "messageId" in value and "eventSource" in value:
                yield value
            for inner in value.values():
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)
        elif isinstance(value, str) and value.startswith("{"):
            try:
                inner = json.loads(value)
            except ValueError:
                return
            yield from walk(inner)

    return walk(json.loads(RECORDED.read_text()))


@pytest.mark.skipif(not RECORDED.exists(), reason="the recordings are not here")
def test_records_have_the_fields_of_recorded_ones() -> None:
    attributes = {"SentTimestamp": "1", "SenderId": "2"}
    message = {"MessageId": "m", "ReceiptHandle": "r", "Body": "b", "MD5OfBody": "x", "Attributes": attributes}
    kind = {"StringValue": "v", "DataType": "String"}
    plain = json.loads(record_json(message, ARN, REGION))
    adorned = json.loads(
        record_json({**message, "MessageAttributes": {"a": kind}, "MD5OfMessageAttributes": "y"}, ARN, REGION)
    )
    records = list(recorded())
    assert len(records) > 100
    assert {frozenset(record) for record in records} == {frozenset(plain), frozenset(adorned)}  # SQS-71, SQS-72
    # A null digest stands there only for messages without attributes, when the window is above 0 (SQS-72).
    assert not [r for r in records if r["messageAttributes"] and r.get("md5OfMessageAttributes") is None]
    assert {record["eventSource"] for record in records} == {plain["eventSource"]}
    assert tuple(plain) in {tuple(record) for record in records}
    assert tuple(adorned) in {tuple(record) for record in records}
    shapes = {tuple(value) for record in records for value in record["messageAttributes"].values()}
    assert shapes == {tuple(adorned["messageAttributes"]["a"])}  # SQS-73


async def test_a_record_carries_what_the_message_says_of_itself() -> None:
    broker = LocalBroker(FaultySqs())
    broker.queue.send("a", None, MessageAttributes={"n": {"StringValue": "1", "DataType": "Number.int"}})
    async with opened(broker) as partition:
        (record,) = await collect(partition, 1)
    event = json.loads(record.json)
    assert event["messageAttributes"]["n"]["dataType"] == "Number.int"
    assert (event["messageId"], event["eventSourceARN"], event["awsRegion"]) == (record.id, broker.queue.arn, REGION)
    assert record.arrived_at == int(event["attributes"]["SentTimestamp"]) / 1000
    assert event["attributes"]["ApproximateReceiveCount"] == "1"


async def test_every_delivery_has_its_own_handle_and_the_first_ones_time() -> None:
    broker = LocalBroker(FaultySqs(visibility=5))
    broker.queue.send("a")
    async with opened(broker) as partition:
        (first,) = await collect(partition, 1)
        await partition.settle(failed=[first])
        (second,) = await collect(partition, 1)
        assert second.held_until - first.held_until >= 5 - 0.1
        await partition.settle(done=[second])
    one, two = json.loads(first.json), json.loads(second.json)
    assert one["receiptHandle"] != two["receiptHandle"]  # SQS-90
    assert (one["attributes"]["ApproximateReceiveCount"], two["attributes"]["ApproximateReceiveCount"]) == ("1", "2")
    name = "ApproximateFirstReceiveTimestamp"
    assert one["attributes"][name] == two["attributes"][name]


def test_a_text_body_is_seen_as_text_and_json_as_json() -> None:
    it = source()
    for message in load("sqs.received.json")["Messages"]:
        record = Record(id="1", json=record_json(message, ARN, REGION), arrived_at=0)
        body = it.view(record)["body"]
        assert body == ({"orderId": 17} if message["Body"].startswith("{") else message["Body"])  # FLT-31, FLT-34
        assert json.loads(it.event(batch_of([record]), {}))["Records"][0]["body"] == message["Body"]  # FLT-33


def test_limits_of_standard_and_fifo_queues() -> None:
    standard = SqsSource.limits(ARN)
    assert (standard.batch_size, standard.window) == (Bound(1, 10_000, 10), Bound(0, 300, 0))  # SQS-10
    fifo = SqsSource.limits(f"{ARN}.fifo")
    assert (fifo.batch_size, fifo.window) == (Bound(1, 10, 10), Bound(0, 0, 0))  # SQS-58
    assert "FIFO" in fifo.what


def poll(scaling: Scaling, times: int) -> None:
    """Full pages, all in one second."""
    for _ in range(times):
        scaling.polled(10, full=True, enough=False, idle=False, now=0)


def test_scaling_by_default() -> None:
    scaling = source().scaling()
    assert (scaling.runners, scaling.concurrency) == (1, 1250)  # SQS-15
    poll(scaling, 1)
    assert scaling.runners == 5
    poll(scaling, 400)
    assert scaling.runners == 1 + 300


def test_scaling_under_maximum_concurrency() -> None:
    scaling = source(maximum_concurrency=2).scaling()
    poll(scaling, 100)
    assert scaling.concurrency == 2  # SQS-16
    assert scaling.runners <= 3


def test_scaling_in_provisioned_mode() -> None:
    scaling = source(minimum_pollers=2, maximum_pollers=5).scaling()
    assert (scaling.runners, scaling.concurrency) == (2, 50)  # SQS-18
    assert [scaling.pollers(runners) for runners in (0, 1, 2, 10, 11, 50)] == [0, 1, 2, 2, 2, 5]
    poll(scaling, 1)
    assert scaling.runners == 20


def test_function_errors_lower_the_concurrency_only_without_partial_responses() -> None:
    for partial in (False, True):
        scaling = source(partial=partial).scaling()
        poll(scaling, 10)
        before = scaling.concurrency
        scaling.ended(failed=True)
        assert (scaling.concurrency == before) is partial  # SQS-34


async def test_the_backlog_is_none_when_the_queue_does_not_say() -> None:
    broker = LocalBroker(FaultySqs())
    async with broker.source() as it:
        broker.queue.refuse("GetQueueAttributes", "ThrottlingException")
        assert await it.backlog() is None
    assert await broker.source().backlog() is None


def test_checking_a_configuration_loads_neither_event_loop_nor_sdk() -> None:
    heavy = ("asyncio", "anyio", "aiohttp", "botocore", "aiobotocore", "structlog", "prometheus_client")
    code = f"import sys, bridge.sources.sqs; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
