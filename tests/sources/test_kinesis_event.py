"""What a handler gets of a record of Kinesis, and what patterns see of it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from hashlib import md5
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aws_lambda_powertools.utilities.data_classes import KinesisStreamEvent
from aws_lambda_powertools.utilities.parser.models import KinesisDataStreamModel

from bridge.filtering import compile_filter
from bridge.function import AwsSettings
from bridge.mapping import SourceArn
from bridge.record import Batch, Record, Span
from bridge.sources import Bound
from bridge.sources.kinesis import KinesisSource
from bridge.sources.kinesis_records import Origin, WireRecord, record_of, records_of, view
from bridge.sources.payload import records_event
from tests.sources.near_streams import NearStream

EVENTS = Path(__file__).parent.parent / "events"
ARN = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
CONSUMER = f"{ARN}/consumer/bridge:1545084650"
SHARD = "shardId-000000000006"
ORIGIN = Origin(ARN, SourceArn.parse(ARN), "arn:aws:iam::123456789012:role/lambda-role")


def load(name: str) -> Any:
    return json.loads((EVENTS / name).read_text())


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def wires() -> list[WireRecord]:
    return msgspec.convert(load("kinesis.received.json")["Records"], list[WireRecord], strict=False)


def records(origin: Origin = ORIGIN) -> tuple[Record, ...]:
    return records_of(wires(), SHARD, origin)


def event() -> bytes:
    return records_event(Batch(records(), SHARD, "size"), {})


def test_records_are_the_golden_ones_byte_for_byte() -> None:  # KIN-42, KIN-43
    assert [record.json for record in records()] == [compact(record) for record in load("kinesis.json")["Records"]]


def test_a_record_knows_its_number_its_time_and_its_lane() -> None:  # KIN-16, KIN-51
    first, *_, last = records()
    assert (first.id, first.arrived_at, first.receipt) == (wires()[0].sequence_number, 1545084650.987, "1")
    assert last.receipt == last.id


def test_the_event_names_what_the_mapping_names() -> None:  # KIN-44
    (first, *_) = records(ORIGIN._replace(arn=CONSUMER))
    assert json.loads(first.json)["eventSourceARN"] == CONSUMER
    (first, *_) = records(ORIGIN._replace(arn=CONSUMER, named=ARN))  # arn_in_events: stream
    assert json.loads(first.json)["eventSourceARN"] == ARN


@pytest.mark.parametrize("role", [None, "arn:aws:iam::999999999999:role/mine"])
def test_the_role_is_the_functions(role: str | None) -> None:  # KIN-42: invokeIdentityArn
    near = NearStream()
    mapping = near.mapping(ARN, aws=AwsSettings(role_arn=role))
    made = Origin.of(mapping, mapping.source_arn, near.surroundings())
    assert made.role == role or made.role == "arn:aws:iam::210987654321:role/worker"


def test_powertools_reads_it() -> None:
    (first, second, third, _) = KinesisStreamEvent(json.loads(event())).records
    assert (first.kinesis.data_as_text(), first.kinesis.partition_key) == ("Hello", "1")
    assert second.kinesis.data_as_json() == {"kind": "café", "n": 42}
    assert second.kinesis.approximate_arrival_timestamp == 1545084711.166
    assert (third.kinesis.data_as_bytes(), third.kinesis.sequence_number) == (b"", "0")
    assert first.event_id == f"{SHARD}:{first.kinesis.sequence_number}"
    assert (first.event_source_arn, first.aws_region) == (ARN, "us-east-2")
    assert first.invoke_identity_arn == ORIGIN.role


def test_powertools_parser_accepts_it() -> None:
    with_key = json.loads(event())["Records"][:3]  # KIN-16: its model does not know records without one yet
    model = KinesisDataStreamModel.model_validate({"Records": with_key})
    assert [record.kinesis.data for record in model.Records] == [b"Hello", b'{"kind":"caf\xc3\xa9","n":42}', b""]
    assert [record.eventName for record in model.Records] == ["aws:kinesis:record"] * 3


# Filters.


def matches(pattern: Any, data: bytes, key: str = "k") -> bool:
    wire = WireRecord("7", b64encode(data).decode(), 1545084650.987, key)
    return bool(compile_filter((json.dumps(pattern),), "data")(view(record_of(wire, SHARD, ORIGIN))))


def test_patterns_see_the_data_decoded() -> None:  # KIN-40
    assert matches({"data": {"kind": ["café"]}}, b'{"kind": "caf\xc3\xa9"}')
    assert not matches({"data": {"kind": ["tea"]}}, b'{"kind": "caf\xc3\xa9"}')
    assert matches({"data": {"n": [{"numeric": [">", 41]}]}}, b'{"n": 42}')


@pytest.mark.parametrize("data", [b"plain", b"", b"\xff\xfe", b'{"kind":', b"42"])
def test_what_is_no_json_matches_no_pattern_of_data_and_any_of_the_rest(data: bytes) -> None:  # KIN-40
    assert not matches({"data": {"kind": ["café"]}}, data)
    assert matches({"partitionKey": ["k"]}, data)
    assert matches({"kinesis": {"partitionKey": ["k"]}, "eventSource": ["aws:kinesis"]}, data)
    assert not matches({"partitionKey": ["other"]}, data)


def test_filters_leave_the_event_alone() -> None:
    (first, *_) = records()
    before = first.json
    view(first)
    assert first.json == before


# Reports and limits.


@pytest.mark.parametrize("arn", [ARN, CONSUMER, CONSUMER.removesuffix(":1545084650")])
def test_reports_name_the_stream_and_the_shard(arn: str) -> None:  # KIN-80, KIN-84, KIN-106
    near = NearStream()
    source = KinesisSource(near.mapping(arn), near.surroundings())
    first, *_, last = records()
    assert source.batch_info(f"{SHARD}#3", Span(first, last, 4)) == {
        "KinesisBatchInfo": {
            "shardId": SHARD,
            "startSequenceNumber": first.id,
            "endSequenceNumber": last.id,
            "approximateArrivalOfFirstRecord": "2018-12-17T22:10:50.987Z",
            "approximateArrivalOfLastRecord": "2018-12-17T22:11:53.500Z",
            "batchSize": 4,
            "streamArn": ARN,
        }
    }


def test_limits() -> None:  # KIN-1
    limits = KinesisSource.limits(ARN)
    assert (limits.batch_size, limits.window) == (Bound(1, 10_000, 100), Bound(0, 300, 0))
    for wrong in (ARN.replace("stream/", "table/"), f"{ARN}/consumer/", f"{ARN}/consumer/a/b"):
        with pytest.raises(ValueError, match="ARN of a stream"):
            KinesisSource.limits(wrong)


# Records of the Producer Library, by an encoder of our own after its published format: the magic number, a message of
# Protocol Buffers (1: table of keys, 2: table of hash keys, 3: records with 1: key, 2: hash key, 3: data), its MD5.

MAGIC = b"\xf3\x89\x9a\xc2"


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def member(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def aggregate(*users: tuple[str, bytes], hashes: bool = False, tags: bool = False) -> bytes:
    keys = list(dict.fromkeys(key for key, _ in users))
    message = b"".join(member(1, key.encode()) for key in keys)
    message += member(2, b"170141183460469231731687303715884105728") if hashes else b""
    for key, data in users:
        record = member(1, keys.index(key)) + (member(2, 0) if hashes else b"") + member(3, data)
        record += member(4, member(1, b"tag") + member(2, b"value")) if tags else b""
        message += member(3, record)
    return MAGIC + message + md5(message).digest()


def taken_apart(data: bytes) -> list[tuple[str, bytes]]:
    """Key and data of what the handler gets of one record with the key ``outer``."""
    wire = WireRecord("7", b64encode(data).decode(), 1545084650.987, "outer")
    made = records_of([wire], SHARD, ORIGIN._replace(deaggregate=True))
    assert {(record.id, record.receipt) for record in made} == {("7", "outer")}  # KIN-45, KIN-54
    events = [json.loads(record.json) for record in made]
    assert {event["eventID"] for event in events} == {f"{SHARD}:7"}
    return [(event["kinesis"]["partitionKey"], b64decode(event["kinesis"]["data"])) for event in events]


USERS = [("a", b"one"), ("b", b""), ("a", b"\x00\xff" * 300), ("ü" * 100, b"four"), ("a", b"one")]


@pytest.mark.parametrize("hashes", [False, True])
@pytest.mark.parametrize("tags", [False, True])
def test_aggregates_are_taken_apart(hashes: bool, tags: bool) -> None:  # KIN-45
    assert taken_apart(aggregate(*USERS, hashes=hashes, tags=tags)) == USERS
    many = [(f"key{number % 200}", b"%d" % number) for number in range(1000)]
    assert taken_apart(aggregate(*many)) == many


def test_aggregates_stay_whole_unless_that_is_asked_for() -> None:  # KIN-45
    wire = WireRecord("7", b64encode(aggregate(*USERS)).decode(), 1545084650.987, "outer")
    (record,) = records_of([wire], SHARD, ORIGIN)
    assert json.loads(record.json)["kinesis"]["data"] == wire.data


def _signed(message: bytes) -> bytes:
    return MAGIC + message + md5(message).digest()


@pytest.mark.parametrize(
    "data",
    [
        b"plain",
        MAGIC,
        MAGIC + b"no digest",
        aggregate(("a", b"x"))[:-1],
        aggregate(("a", b"x"))[:-16] + b"0" * 16,
        MAGIC[:3] + b"\xc3" + aggregate(("a", b"x"))[4:],
        _signed(b""),
        _signed(member(1, b"a")),
        _signed(member(1, b"a") + member(3, member(1, 1) + member(3, b"x"))),  # a key that is in no table
        _signed(member(1, b"a") + member(3, member(3, b"x"))),
        _signed(member(1, b"\xff") + member(3, member(1, 0) + member(3, b"x"))),
        _signed(member(1, b"a") + member(3, member(1, b"0") + member(3, b"x"))),
        _signed(member(1, b"a") + b"\x1a\x7f"),
        _signed(member(1, b"a") + b"\x1a\xff"),
        _signed(b"\x0d\x00\x00\x00\x00"),
        _signed(b"\xff" * 40),
    ],
    ids=lambda data: data[4:16].hex(),
)
def test_what_is_no_aggregate_is_handed_on_as_it_is(data: bytes) -> None:  # KIN-45
    assert taken_apart(data) == [("outer", data)]
