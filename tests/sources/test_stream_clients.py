"""Streams over HTTP: the fast client and the SDK give the same pages, and what is pushed comes through the SDK. On a
wire whose answers are scripted."""

from __future__ import annotations

import struct
from base64 import b64encode
from binascii import crc32
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
import pytest

from bridge.aws import Api, Aws
from bridge.errors import Rejected, RemoteError, ServiceFault, Unreachable
from bridge.function import AwsSettings
from bridge.mapping import SourceArn
from bridge.sources.dynamodb_stream import Cursor, TableStream
from bridge.sources.kinesis import KinesisSource
from bridge.sources.kinesis_records import Origin
from bridge.sources.kinesis_stream import KinesisStream
from bridge.sources.shards import TRIM_HORIZON, Shard, StreamApi, Where
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import REGION, FaultyStream, sdk_knows_times
from tests.sources.faulty_table import FaultyTable
from tests.sources.near_streams import NearStream, data_of, items_of
from tests.wire import Answer, Wire

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    async with Aws() as aws:
        yield aws


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as wire:
        yield wire


def settings(wire: Wire, client: Any = "fast") -> AwsSettings:
    return AwsSettings(region=REGION, endpoint_url=wire.url, client=client)


def kinesis(api: Api, arn: str) -> KinesisStream:
    return KinesisStream(api, Origin(arn, SourceArn.parse(arn), "arn:aws:iam::123456789012:role/worker"))


def odd_kinesis() -> FaultyKinesis:
    stream = FaultyKinesis(shards=3)
    stream.put("one", "text")
    stream.put("one", "", Data=b64encode(bytes(range(256))).decode())
    stream.put("ü\u2028", "\x00", EncryptionType="KMS", ApproximateArrivalTimestamp=1545084650)
    stream.put("gone", "no key", PartitionKey=None, ApproximateArrivalTimestamp=1545084650.123)
    stream.put("more", "members", Unknown={"of": ["a", "newer", None]})
    stream.split(stream.open[0])
    return stream


def odd_table() -> FaultyTable:
    stream = FaultyTable(shards=2)
    item = {"id": {"S": "a"}, "b": {"B": "AP8="}, "bs": {"BS": ["Zm9v"]}, "n": {"N": "-1.50E+3"}, "l": {"L": []}}
    stream.put("a", dynamodb={"NewImage": item, "ApproximateCreationDateTime": 1480642020.9})
    stream.put("a", dynamodb={"NewImage": None, "Keys": {"k": {"B": "//79"}}})
    stream.remove("a", expired=True)
    stream.roll(stream.open[0])
    return stream


@pytest.mark.parametrize("stream", [odd_kinesis(), odd_table()], ids=["kinesis", "dynamodb"])
async def test_both_clients_give_the_same_pages(aws: Aws, wire: Wire, stream: FaultyStream) -> None:
    stream.serve(wire)
    time = Where("AT_TIMESTAMP", at=1_700_000_000.0) if sdk_knows_times(stream) else TRIM_HORIZON
    told: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    for client in ("fast", "sdk"):
        api = await aws.api(stream.service, settings(wire, client))
        made: StreamApi = (
            kinesis(api, stream.arn) if isinstance(stream, FaultyKinesis) else TableStream(api, stream.arn)
        )
        shards = await made.shards(Where("AT_TIMESTAMP", at=1_700_000_000.0))
        pages = [await made.read(shard, await made.cursor(shard, TRIM_HORIZON), 100) for shard in shards]
        assert sum(len(page.records) for page in pages) == len([*stream.numbers()])
        latest = await made.cursor(shards[-1], time)
        told[client] = [shards, [_plain(page) for page in [*pages, await made.read(shards[-1], latest, 7)]]]
        asked[client] = [_without_iterators(request.params) for request in wire.requests]
        wire.requests.clear()
    assert told["fast"] == told["sdk"]
    assert asked["fast"] == asked["sdk"]


async def test_where_the_sdk_knows_no_times_old_records_are_left_out(aws: Aws, wire: Wire) -> None:
    """DDB-7, DDB-26, KIN-115: the versions that aiobotocore pins lack what newer ones have."""
    stream = FaultyTable(shards=1)
    stream.put("a", "old", dynamodb={"ApproximateCreationDateTime": 1_600_000_000})
    stream.put("b", "new", dynamodb={"ApproximateCreationDateTime": 1_800_000_000})
    stream.local = True  # nor does the service, should the SDK that is installed be newer
    stream.serve(wire)
    api = await aws.api("dynamodbstreams", settings(wire, "sdk"))
    made = TableStream(api, stream.arn)
    (shard,) = await made.shards()
    page = await made.read(shard, await made.cursor(shard, Where("AT_TIMESTAMP", at=1_700_000_000.0)), 100)
    assert items_of(page.records) == ["new"]
    with pytest.raises(Rejected, match="this version of the SDK does not know Newest") as caught:
        await api.call("GetShardIterator", {"StreamArn": stream.arn, "Newest": 1}, timeout=10)
    assert caught.value.code == "ParamValidationError"


def _plain(page: Any) -> Any:
    return msgspec.to_builtins((page.records, page.caught_up, page.children, page.size, page.passed))


def _without_iterators(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "ShardIterator"}


@pytest.mark.parametrize("client", ["fast", "sdk"])
async def test_the_services_own_time_is_known(aws: Aws, wire: Wire, client: str) -> None:  # KIN-24
    stream = FaultyKinesis()

    async def summary(request: Any) -> Answer:
        answer = await stream.handle(request.operation, request.params)
        return Answer(answer, headers={"date": "Tue, 14 Nov 2023 22:13:20 GMT"})

    wire.on("DescribeStreamSummary", summary)
    made = kinesis(await aws.api("kinesis", settings(wire, client)), stream.arn)
    await made.open()
    assert made.now() == 1_700_000_000.0


# What is pushed. The encoding is AWS's: lengths and a checksum, headers, the payload, a checksum.


def message(payload: Any, **headers: str) -> bytes:
    named = {"message_type": "event", "content_type": "application/json", **headers}
    head = b"".join(_header(f":{name.replace('_', '-')}", value) for name, value in named.items())
    body = msgspec.json.encode(payload)
    prelude = struct.pack("!II", 16 + len(head) + len(body), len(head))
    made = prelude + struct.pack("!I", crc32(prelude)) + head + body
    return made + struct.pack("!I", crc32(made))


def _header(name: str, value: str) -> bytes:
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()


def event(*records: dict[str, Any], passed: str | None = "9", **more: Any) -> bytes:
    told = {"Records": records, "ContinuationSequenceNumber": passed, "MillisBehindLatest": 0, **more}
    return message(told, event_type="SubscribeToShardEvent")


def pushed(*messages: bytes, cut: int | None = None) -> Answer:
    body = b"".join(messages)
    return Answer(body, headers={"content-type": "application/vnd.amazon.eventstream"}, cut=cut)


HELLO = message({}, event_type="initial-response")
PING = event()


def record(number: int, data: bytes = b"data") -> dict[str, Any]:
    return {
        "SequenceNumber": str(number),
        "Data": b64encode(data).decode(),
        "ApproximateArrivalTimestamp": 1545084650.987,
        "PartitionKey": "one",
        "EncryptionType": "KMS",
    }


async def all_of(api: Api) -> list[dict[str, Any]]:
    place = {"ConsumerARN": "arn", "ShardId": "s", "StartingPosition": {"Type": "LATEST"}}
    async with aclosing(api.events("SubscribeToShard", place, timeout=10)) as events:
        return [told async for told in events]


async def test_events_come_as_their_json(aws: Aws, wire: Wire) -> None:  # KIN-101, KIN-105
    children = [{"ShardId": "c", "ParentShards": ["s"], "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"}}]
    wire.on("SubscribeToShard", pushed(HELLO, event(record(7, b"\x00\xff")), PING, event(ChildShards=children)))
    first, second, third = await all_of(await aws.api("kinesis", settings(wire)))
    told = {"Records": [record(7, b"\x00\xff")], "ContinuationSequenceNumber": "9", "MillisBehindLatest": 0}
    assert first == {"SubscribeToShardEvent": told}
    assert second["SubscribeToShardEvent"]["Records"] == []
    assert third["SubscribeToShardEvent"]["ChildShards"] == children


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (
            pushed(
                HELLO,
                PING,
                message({"message": "taken"}, message_type="exception", exception_type="ResourceInUseException"),
            ),
            RemoteError,
            "ResourceInUseException",
        ),
        (pushed(PING), ServiceFault, "ResponseParserError"),  # some servers leave out the beginning
        (pushed(HELLO, PING, cut=len(HELLO) + len(PING) - 3), Unreachable, "ClientPayloadError"),
        (Answer({"__type": "ResourceInUseException"}, 400), RemoteError, "ResourceInUseException"),
        (Answer({"__type": "InternalFailure"}, 500), ServiceFault, "InternalFailure"),
    ],
)
async def test_what_goes_wrong_is_an_error_of_ours(
    aws: Aws, wire: Wire, answer: Answer, kind: type[Exception], code: str
) -> None:
    wire.on("SubscribeToShard", answer)
    with pytest.raises(kind) as caught:
        await all_of(await aws.api("kinesis", settings(wire)))
    assert isinstance(caught.value, RemoteError)
    assert caught.value.code == code


async def test_a_subscription_that_is_left_is_closed(aws: Aws, wire: Wire) -> None:
    wire.on("SubscribeToShard", pushed(HELLO, *[event(record(1, b"x" * 100_000))] * 50))
    api = await aws.api("kinesis", settings(wire))
    async with aclosing(api.events("SubscribeToShard", {"ConsumerARN": "a", "ShardId": "s"}, timeout=10)) as events:
        await anext(events)
        assert wire.connections == 1
    with anyio.fail_after(10):
        while wire.connections:
            await anyio.sleep(0.01)


async def test_a_subscription_whose_beginning_cannot_be_read_is_closed(aws: Aws, wire: Wire) -> None:
    wire.on("SubscribeToShard", pushed(*[event(record(1, b"x" * 100_000))] * 50))
    with pytest.raises(ServiceFault) as caught:
        await all_of(await aws.api("kinesis", settings(wire)))
    with anyio.fail_after(10):
        while wire.connections:
            await anyio.sleep(0.01)
    assert caught.value.code == "ResponseParserError"


async def test_a_source_reads_what_is_pushed_over_http(aws: Aws, wire: Wire) -> None:
    stream = FaultyKinesis()
    stream.serve(wire)
    first = stream.first_number + 5000
    wire.on("SubscribeToShard", pushed(HELLO, event(record(first), record(first + 1, b"more"), passed=str(first + 9))))
    near = NearStream(aws)
    source = KinesisSource(near.mapping(stream.consumer_arn, aws=settings(wire)), near.surroundings())
    async with source:
        partition = await anext(source.partitions())
        page = await partition.fetch(10, 20)
        assert data_of(page.records) == ["data", "more"]
    assert wire.of("SubscribeToShard")[0].params["ConsumerARN"] == stream.consumer_arn
    assert not wire.of("GetRecords")


GIVEN = b'{"dynamodb":{"SequenceNumber":"1","Keys":{"id":{"S":"%b"}}}}'


@pytest.mark.parametrize("client", ["fast", "sdk"])
@pytest.mark.parametrize(
    "records",
    [b"[" + GIVEN % b"\xff" + b"]", b"[" + GIVEN % b'"' + b"]", b"[{}]", b'[{"dynamodb":{"Keys":{}}}]', b"[1]", b"1"],
)
async def test_records_that_cannot_be_read_are_a_fault_of_the_service(
    aws: Aws, wire: Wire, client: str, records: bytes
) -> None:
    """Although attributes of items are handed on unread: a handler gets no broken JSON."""
    wire.on("GetRecords", Answer(b'{"Records":' + records + b',"NextShardIterator":"x"}'))
    made = TableStream(await aws.api("dynamodbstreams", settings(wire, client)), FaultyTable().arn)
    with pytest.raises(ServiceFault) as caught:
        await made.read(Shard("s"), Cursor("x"), 10)
    assert caught.value.code == "ResponseParserError"


@pytest.mark.parametrize("client", ["fast", "sdk"])
@pytest.mark.parametrize("body", [b"{}", b'{"Records":null}', b'{"Records":[],"Newer":{"a":[1]}}'])
async def test_no_records_are_none(aws: Aws, wire: Wire, client: str, body: bytes) -> None:
    wire.on("GetRecords", Answer(body))
    made = TableStream(await aws.api("dynamodbstreams", settings(wire, client)), FaultyTable().arn)
    assert (await made.read(Shard("s"), Cursor("x"), 10)).records == ()
