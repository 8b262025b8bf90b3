"""The specification of a destination. Each destination's tests begin by passing it: a subclass gives the fixture
``place``, the far side."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import pytest

from bridge.aws import Aws
from bridge.destinations import Surroundings, destination
from bridge.errors import Rejected, RemoteError
from bridge.invocation import Failed, Succeeded
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import BatchReport, Report
from bridge.record import Batch, Record
from bridge.sources.dynamodb import DynamoDBSource
from bridge.sources.kinesis import KinesisSource
from tests.servers import Server
from tests.sources.near_streams import NearStream

FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:worker:$LATEST"
EVENT = '{"order": 1, "who":  "grüße \\u00fc", "sum": 2.50}'.encode()
REQUEST = "c9b2c7a1-3c3d-4b8e-9d3f-1d2e3f4a5b6c"
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0;Lineage=12345678:1"
ERROR = b'{"errorMessage":"not today","errorType":"ValueError"}'

SUCCESS = (
    b'{"version":"1.0","timestamp":"2026-03-04T05:06:07.089Z","requestContext":{"requestId":"'
    + REQUEST.encode()
    + b'",'
    b'"functionArn":"' + FUNCTION.encode() + b'","condition":"Success","approximateInvokeCount":1},'
    b'"requestPayload":{"order":1,"who":"gr\xc3\xbc\xc3\x9fe \\u00fc","sum":2.50},'
    b'"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":{"fine":true}}'
)
"""DST-5, byte for byte."""


def report(target: str, payload: bytes = EVENT, **options: Any) -> Report:
    """Of a success, unless ``options`` say otherwise."""
    record = Record(id=REQUEST, json=payload, arrived_at=1772600700.0, request_id=REQUEST, trace=TRACE)
    known = {
        "condition": "Success", "attempts": 1, "at": 1772600767.0891, "function_arn": FUNCTION,
        "outcome": Succeeded(b'{"fine": true}', REQUEST),
    }  # fmt: skip
    return Report(target=target, record=record, **{**known, **options})


def failure(target: str, payload: bytes = EVENT, **options: Any) -> Report:
    known = {"condition": "RetriesExhausted", "attempts": 3, "outcome": Failed("function", ERROR, REQUEST)}
    return report(target, payload, **{**known, **options})


DISCARDED = (
    b'{"requestContext":{"requestId":"' + REQUEST.encode() + b'","functionArn":"' + FUNCTION.encode() + b'",'
    b'"condition":"RetryAttemptsExhausted","approximateInvokeCount":2},'
    b'"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},'
    b'"version":"1.0","timestamp":"2019-11-14T00:38:06.021Z",'
    b'"KinesisBatchInfo":{"shardId":"shardId-000000000001",'
    b'"startSequenceNumber":"49601189658422359378836298521827638475320189012309704722",'
    b'"endSequenceNumber":"49601189658422359378836298522902373528957594348623495186",'
    b'"approximateArrivalOfFirstRecord":"2019-11-14T00:38:04.835Z",'
    b'"approximateArrivalOfLastRecord":"2019-11-14T00:38:05.580Z",'
    b'"batchSize":2,"streamArn":"arn:aws:kinesis:us-east-2:123456789012:stream/mystream"}}'
)
"""KIN-80, byte for byte."""
STREAM = "arn:aws:kinesis:us-east-2:123456789012:stream/mystream"
MAPPING = "a1b2c3d4-5678-90ab-cdef-11111EXAMPLE"
SHARD = "shardId-000000000001"


def discarded(target: str, **options: Any) -> BatchReport:
    """Of a batch of a stream, whose event is EVENT."""
    batch = Batch(
        (
            Record("49601189658422359378836298521827638475320189012309704722", b"{}", 1573691884.835),
            Record("49601189658422359378836298522902373528957594348623495186", b"{}", 1573691885.580),
        ),
        SHARD,
        "retry",
    )
    known = {
        "condition": "RetryAttemptsExhausted", "attempts": 2, "at": 1573691886.0212, "function_arn": FUNCTION,
        "outcome": Failed("function", ERROR, REQUEST), "request_id": REQUEST, "mapping": MAPPING, "batch": batch,
        "info": batch_info(STREAM, batch), "payload": EVENT,
    }  # fmt: skip
    return BatchReport(target=target, **{**known, **options})


def batch_info(arn: str, batch: Batch) -> dict[str, Any]:
    """As the source of this stream tells it."""
    near = NearStream()
    kind = DynamoDBSource if ":dynamodb:" in arn else KinesisSource
    return kind(near.mapping(arn), near.surroundings()).batch_info(batch.partition, batch.span)


class Place(Protocol):
    """The far side of one destination."""

    server: Server
    arn: str

    async def received(self, count: int) -> list[bytes]:
        """What came, once so much has come."""
        ...


@pytest.mark.anyio
@pytest.mark.usefixtures("aws_keys")
class DestinationContract:
    limit = 0
    """Bytes of the largest record; 0: too large to be tried."""
    exact = True
    """What arrives can be seen as it was sent."""
    takes_successes = True
    takes_streams = True
    """It takes reports about records of streams."""
    missing = ""
    """An ARN of its kind that names nothing, where that is an error."""

    @pytest.fixture
    def place(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def send(self, place: Place) -> Callable[[Report], Awaitable[None]]:
        async def send(told: Report) -> None:
            async with Aws() as aws:
                around = Surroundings(aws, place.server.settings, self.accept)
                await destination(told.target, around).send(told)

        return send

    async def accept(self, arn: str, payload: bytes, trace: str) -> bool:
        """There are no functions of ours here."""
        return False

    async def test_a_success_arrives_byte_for_byte(self, place: Place, send: Any) -> None:  # DST-5
        if not self.takes_successes:
            pytest.skip("failures only (DST-1)")
        await send(report(place.arn))
        (record,) = await place.received(1)
        assert record == SUCCESS if self.exact else json.loads(record) == json.loads(SUCCESS)

    async def test_a_failure_arrives(self, place: Place, send: Any) -> None:  # DST-5, DST-6
        await send(failure(place.arn))
        (record,) = map(json.loads, await place.received(1))
        assert record["requestContext"]["condition"] == "RetriesExhausted"
        assert record["requestContext"]["approximateInvokeCount"] == 3
        assert record["responseContext"]["functionError"] == "Unhandled"
        assert record["responsePayload"] == json.loads(ERROR)

    async def test_a_discarded_batch_of_a_stream_arrives_byte_for_byte(self, place: Place, send: Any) -> None:
        """KIN-80, KIN-85: SQS and SNS get metadata only, S3 the event too, as text."""
        if not self.takes_streams:
            with pytest.raises(Rejected, match="takes no records of streams"):
                await send(discarded(place.arn))
            return
        await send(discarded(place.arn))
        (record,) = await place.received(1)
        whole = DISCARDED[:-1] + b',"payload":' + json.dumps(EVENT.decode(), ensure_ascii=False).encode() + b"}"
        assert record == (DISCARDED if self.takes_successes else whole)

    async def test_what_is_too_large_goes_without_payloads(self, place: Place, send: Any) -> None:  # DST-8
        if not self.limit:
            pytest.skip("nothing is too large")
        frame = len(SUCCESS) - len(msgspec.json.format(EVENT, indent=-1))
        fits = b'"' + b"x" * (self.limit - frame - 2) + b'"'
        await send(report(place.arn, fits))
        (whole,) = await place.received(1)
        assert len(whole) == self.limit
        await send(report(place.arn, fits[:-1] + b'x"'))
        (bare,) = await place.received(1)
        assert list(json.loads(bare)) == ["version", "timestamp", "requestContext", "responseContext"]

    async def test_a_target_that_is_not_there_is_an_error(self, place: Place, send: Any) -> None:  # DST-4
        if not self.missing:
            pytest.skip("these servers take everything")
        with pytest.raises(RemoteError):
            await send(report(self.missing))

    async def test_a_service_that_is_not_there_is_an_error(self, place: Place) -> None:
        settings = msgspec.structs.replace(place.server.settings, endpoint_url="http://127.0.0.1:1")
        async with Aws() as aws:
            around = Surroundings(aws, settings, self.accept)
            with pytest.raises(RemoteError):
                await destination(place.arn, around).send(failure(place.arn))

    def test_its_arn_names_it(self, place: Place) -> None:
        assert str(SourceArn.parse(place.arn)) == place.arn
