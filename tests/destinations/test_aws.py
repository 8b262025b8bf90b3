"""Destinations of AWS on two unrelated servers: the records, dead letters and keys that arrive there."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from bridge.aws import Aws
from bridge.destinations import Surroundings, destination
from bridge.errors import Rejected
from bridge.function import AwsSettings
from bridge.invocation import Failed
from tests.contracts.destination import (
    EVENT,
    MAPPING,
    REQUEST,
    SHARD,
    SUCCESS,
    TRACE,
    DestinationContract,
    discarded,
    failure,
    report,
)
from tests.servers import ACCOUNT, REGION, Queue, Server, unique

PATIENCE = 20.0
QUEUE_LIMIT = 262_144
"""Bytes of a message in these queues; AWS's have 1 MiB unless they were made before 2025."""
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


async def messages(queue: Queue, count: int) -> list[dict[str, Any]]:
    """So many messages, deleted once they came."""
    found: list[dict[str, Any]] = []
    with anyio.fail_after(PATIENCE):
        while len(found) < count:
            answer = queue.api.receive_message(
                QueueUrl=queue.url,
                WaitTimeSeconds=1,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
            for message in answer.get("Messages", []):
                queue.api.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
                found.append(message)
            await anyio.sleep(0)
    return found


class QueuePlace:
    """A queue, or what leads to one."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.queue = server.queue(MaximumMessageSize=str(QUEUE_LIMIT))
        self.arn = self.queue.arn

    async def messages(self, count: int) -> list[dict[str, Any]]:
        return await messages(self.queue, count)

    async def received(self, count: int) -> list[bytes]:
        return [message["Body"].encode() for message in await self.messages(count)]


class TopicPlace(QueuePlace):
    """A topic with a queue behind it."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        sns = server.client("sns")
        self.arn = sns.create_topic(Name=unique("topic"))["TopicArn"]
        sns.subscribe(
            TopicArn=self.arn, Protocol="sqs", Endpoint=self.queue.arn, Attributes={"RawMessageDelivery": "true"}
        )


class BusPlace(QueuePlace):
    """A bus with a queue behind it."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        events = server.client("events")
        name = unique("bus")
        self.arn = events.create_event_bus(Name=name)["EventBusArn"]
        events.put_rule(Name=name, EventBusName=name, EventPattern='{"source": ["lambda"]}')
        events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "1", "Arn": self.queue.arn}])

    async def events(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(message["Body"]) for message in await self.messages(count)]

    async def received(self, count: int) -> list[bytes]:
        """The servers write the detail anew: only its form without spaces can be compared."""
        details = [event["detail"] for event in await self.events(count)]
        return [json.dumps(detail, separators=(",", ":"), ensure_ascii=False).encode() for detail in details]


class BucketPlace:
    """A bucket."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.s3 = server.client("s3")
        self.name = unique("bucket")
        self.arn = f"arn:aws:s3:::{self.name}"
        self.s3.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=self.name).get("Contents", [])]

    async def received(self, count: int) -> list[bytes]:
        keys = self.keys()
        assert len(keys) == count
        return [self.s3.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys]


class TestSqs(DestinationContract):
    limit = QUEUE_LIMIT
    missing = f"arn:aws:sqs:{REGION}:{ACCOUNT}:nowhere"

    @pytest.fixture
    def place(self, sqs_server: Server) -> QueuePlace:
        return QueuePlace(sqs_server)

    async def test_the_trace_goes_along_and_no_attributes(self, place: QueuePlace, send: Any) -> None:  # DST-10
        await send(report(place.arn))
        (message,) = await place.messages(1)
        assert "MessageAttributes" not in message
        if place.server.name != "roto":  # it keeps no trace headers
            assert message["Attributes"]["AWSTraceHeader"] == TRACE

    async def test_a_dead_letter_is_the_event_with_three_attributes(self, place: QueuePlace, send: Any) -> None:
        await send(failure(place.arn, dead_letter=True))  # DST-21
        (message,) = await place.messages(1)
        assert message["Body"].encode() == EVENT
        assert told(message["MessageAttributes"]) == {
            "RequestID": ("String", REQUEST),
            "ErrorCode": ("Number", "200"),
            "ErrorMessage": ("String", "not today"),
        }

    async def test_a_queue_may_have_a_smaller_limit(self, place: QueuePlace, send: Any) -> None:  # DST-8
        await send(report(place.arn, b'"' + b"x" * 1_048_000 + b'"'))
        (message,) = await place.messages(1)
        assert "requestPayload" not in json.loads(message["Body"])
        with pytest.raises(Rejected):
            await send(failure(place.arn, b'"' + b"x" * 300_000 + b'"', dead_letter=True))  # DST-22

    async def test_an_error_message_is_cut_at_a_kilobyte(self, place: QueuePlace, send: Any) -> None:  # DST-21
        error = json.dumps({"errorMessage": "ü" * 600, "errorType": "E"}).encode()
        await send(failure(place.arn, dead_letter=True, outcome=Failed("function", error, REQUEST)))
        (message,) = await place.messages(1)
        assert told(message["MessageAttributes"])["ErrorMessage"] == ("String", "ü" * 512)

    async def test_a_dead_letter_of_what_never_ran(self, place: QueuePlace, send: Any) -> None:  # ASY-9, DST-21
        outcome = Failed("reserved_zero", b'{"errorMessage":"Rate Exceeded."}', REQUEST)
        condition = "ZeroReservedConcurrency"
        await send(failure(place.arn, dead_letter=True, outcome=outcome, attempts=0, condition=condition))
        (message,) = await place.messages(1)
        attributes = told(message["MessageAttributes"])
        assert attributes["ErrorCode"] == ("Number", "429")
        assert attributes["ErrorMessage"] == ("String", "Rate Exceeded.")


@pytest.mark.anyio
@pytest.mark.usefixtures("aws_keys")
@pytest.mark.parametrize("make", [report, failure, discarded])
@pytest.mark.parametrize("service", ["sqs", "sns"])
async def test_fifo_is_no_destination(service: str, make: Any) -> None:
    """KIN-86: without asking the service, which might take it."""
    arn = f"arn:aws:{service}:{REGION}:{ACCOUNT}:given-up.fifo"
    async with Aws() as aws:
        around = Surroundings(aws, AwsSettings(endpoint_url="http://127.0.0.1:1"), nothing)
        with pytest.raises(Rejected, match="only standard queues and topics are destinations"):
            await destination(arn, around).send(make(arn))


async def nothing(arn: str, payload: bytes, trace: str) -> bool:
    return False


class TestSns(DestinationContract):
    limit = 262_144
    missing = f"arn:aws:sns:{REGION}:{ACCOUNT}:nowhere"

    @pytest.fixture
    def place(self, sqs_server: Server) -> TopicPlace:
        return TopicPlace(sqs_server)

    async def test_a_dead_letter_is_the_event_with_three_attributes(self, place: TopicPlace, send: Any) -> None:
        await send(failure(place.arn, dead_letter=True))  # DST-21
        (message,) = await place.messages(1)
        assert message["Body"].encode() == EVENT
        assert set(message["MessageAttributes"]) == {"RequestID", "ErrorCode", "ErrorMessage"}

    async def test_an_event_that_is_too_large_is_refused(self, place: TopicPlace, send: Any) -> None:  # DST-22
        with pytest.raises(Rejected, match="the most that the target takes"):
            await send(failure(place.arn, b'"' + b"x" * 262_144 + b'"', dead_letter=True))


class TestEventBridge(DestinationContract):
    exact = False
    takes_streams = False

    @pytest.fixture
    def place(self, sqs_server: Server) -> BusPlace:
        return BusPlace(sqs_server)

    async def test_the_event_around_the_record(self, place: BusPlace, send: Any) -> None:  # DST-14
        await send(report(place.arn))
        await send(failure(place.arn))
        first, second = sorted(await place.events(2), key=lambda event: str(event["detail-type"]), reverse=True)
        assert first["detail-type"] == "Lambda Function Invocation Result - Success"
        assert second["detail-type"] == "Lambda Function Invocation Result - Failure"
        for event in (first, second):
            assert event["source"] == "lambda"
            assert event["resources"] == [place.arn, failure("").function_arn]


class TestS3(DestinationContract):
    takes_successes = False
    missing = "arn:aws:s3:::nowhere-at-all"

    @pytest.fixture
    def place(self, sqs_server: Server) -> BucketPlace:
        return BucketPlace(sqs_server)

    async def test_the_key(self, place: BucketPlace, send: Any) -> None:  # DST-13
        await send(failure(place.arn))
        (key,) = place.keys()
        assert re.fullmatch(f"aws/lambda/async/worker/2026/03/04/2026-03-04T05.06.07-{UUID}", key)

    async def test_the_key_of_a_discarded_batch(self, place: BucketPlace, send: Any) -> None:  # KIN-85, DDB-63
        await send(discarded(place.arn))
        (key,) = place.keys()
        assert re.fullmatch(f"aws/lambda/{MAPPING}/{SHARD}/2019/11/14/2019-11-14T00.38.06-{UUID}", key)


CODE = """
import json, os
def handler(event, context):
    with open(os.environ["TOLD"], "w") as file:
        json.dump(event, file)
"""


class FunctionPlace:
    """A function of a Lambda that is not this bridge."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.told = folder / "told.json"
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as code:
            code.writestr("app.py", CODE)
        made = server.client("lambda").create_function(
            FunctionName=unique("told"), Runtime="python3.11", Handler="app.handler", Timeout=20,
            Role=f"arn:aws:iam::{ACCOUNT}:role/any", Code={"ZipFile": archive.getvalue()},
            Environment={"Variables": {"TOLD": str(self.told)}},
        )  # fmt: skip
        self.arn = made["FunctionArn"]

    async def received(self, count: int) -> list[bytes]:
        ends = time.monotonic() + PATIENCE
        while not self.told.exists() or not self.told.stat().st_size:
            assert time.monotonic() < ends, "the function was not invoked"
            await anyio.sleep(0.05)
        return [json.dumps(json.loads(self.told.read_text()), separators=(",", ":"), ensure_ascii=False).encode()]


class TestRealLambda(DestinationContract):
    exact = False
    takes_streams = False
    missing = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:nowhere"

    @pytest.fixture
    def place(self, ministack_server: Server, tmp_path: Path) -> FunctionPlace:
        return FunctionPlace(ministack_server, tmp_path)


class TestOwnFunction:
    """A function of this bridge gets the record as an asynchronous event."""

    @pytest.mark.anyio
    async def test_it_is_accepted_here(self) -> None:  # DST-12
        accepted: list[tuple[str, bytes, str]] = []

        async def accept(arn: str, payload: bytes, trace: str) -> bool:
            accepted.append((arn, payload, trace))
            return True

        arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:other:prod"
        around = Surroundings(None, AwsSettings(), accept)  # type: ignore[arg-type]
        await destination(arn, around).send(report(arn))
        assert accepted == [(arn, SUCCESS, TRACE)]


def told(attributes: dict[str, dict[str, str]]) -> dict[str, tuple[str, str]]:
    return {name: (value["DataType"], value["StringValue"]) for name, value in attributes.items()}
