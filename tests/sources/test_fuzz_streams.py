"""Whatever a stream's service answers, it becomes shards and records, or an error that is ours and is tried again: a
record is never passed over because its neighbour cannot be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping as Dict
from copy import deepcopy
from typing import Any

from hypothesis import given, settings, strategies as st

from bridge.aws_fast import read_answer
from bridge.errors import BridgeError
from bridge.mapping import SourceArn
from bridge.sources.dynamodb_stream import Cursor, TableStream
from bridge.sources.kinesis_records import Origin
from bridge.sources.kinesis_stream import KinesisStream
from bridge.sources.shards import ReadPage, Shard, StreamApi, Where

STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/users/stream/2026-01-01T00:00:00.000"
SHARD = Shard("shardId-000000000000", (), "1", None)
NUMBERS = {"StartingSequenceNumber": "1", "EndingSequenceNumber": "9"}
ANSWERS: dict[str, dict[str, dict[str, Any]]] = {
    "kinesis": {
        "DescribeStreamSummary": {"StreamDescriptionSummary": {"RetentionPeriodHours": 24, "StreamStatus": "ACTIVE"}},
        "ListShards": {"Shards": [{"ShardId": "s", "ParentShardId": "p", "SequenceNumberRange": NUMBERS}]},
        "GetShardIterator": {"ShardIterator": "it"},
        "GetRecords": {
            "Records": [
                {"SequenceNumber": "5", "Data": "aGk=", "PartitionKey": "k", "ApproximateArrivalTimestamp": 1.5},
                {"SequenceNumber": "6", "Data": "84mawgoBYQ==", "PartitionKey": "k", "EncryptionType": "KMS"},
            ],
            "NextShardIterator": "next",
            "MillisBehindLatest": 10,
            "ChildShards": [{"ShardId": "c", "ParentShards": ["s"]}],
        },
    },
    "dynamodb": {
        "DescribeStream": {
            "StreamDescription": {
                "StreamStatus": "ENABLED",
                "Shards": [{"ShardId": "s", "ParentShardId": "p", "SequenceNumberRange": NUMBERS}],
            }
        },
        "GetShardIterator": {"ShardIterator": "it"},
        "GetRecords": {
            "Records": [
                {
                    "eventID": "e", "eventName": "INSERT", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
                    "awsRegion": "eu-west-1", "userIdentity": {"Type": "Service", "PrincipalId": "x"},
                    "dynamodb": {
                        "Keys": {"id": {"S": "a"}}, "NewImage": {"id": {"S": "a"}}, "SequenceNumber": "7",
                        "ApproximateCreationDateTime": 1700000000.0, "SizeBytes": 3, "StreamViewType": "NEW_IMAGE",
                    },
                }
            ],
            "NextShardIterator": "next",
        },
    },
}  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


class Odd:
    """An ``Api`` that answers with what a test gives it."""

    def __init__(self, answers: Dict[str, dict[str, Any]]) -> None:
        self._answers = answers

    async def call(self, operation: str, params: Dict[str, Any], *, timeout: float) -> dict[str, Any]:
        return read_answer(operation, json.dumps(self._answers[operation]).encode())

    async def events(self, operation: str, params: Dict[str, Any], *, timeout: float) -> AsyncGenerator[dict[str, Any]]:
        yield self._answers[operation]

    def now(self) -> float | None:
        return None


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in an answer, by keys and indexes."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(place for key, item in inner for place in places(item, (*at, key)))]


@st.composite
def bent(draw: st.DrawFn, service: str) -> dict[str, dict[str, Any]]:
    """The service's answers, something in one of them replaced or taken away."""
    answers = deepcopy(ANSWERS[service])
    operation = draw(st.sampled_from(sorted(answers)))
    *way, last = draw(st.sampled_from(places(answers[operation])))
    holder: Any = answers[operation]
    for key in way:
        holder = holder[key]
    if isinstance(holder, dict) and draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = draw(JSON)
    return answers


async def walk(api: StreamApi, cursor: Any) -> ReadPage | None:
    """All that a source asks of its service; an error of ours ends it."""
    try:
        await api.shards()
        await api.cursor(SHARD, Where("AFTER_SEQUENCE_NUMBER", "5"))
        return await api.read(SHARD, cursor, 100)
    except BridgeError:
        return None


def check(page: ReadPage | None) -> None:
    for record in page.records if page else ():
        assert isinstance(record.id, str)
        assert isinstance(record.arrived_at, float)
        assert isinstance(record.receipt, str)
        json.loads(record.json)


@settings(max_examples=400, deadline=None)
@given(answers=bent("kinesis"), deaggregate=st.booleans())
def test_any_answer_of_kinesis(answers: dict[str, dict[str, Any]], deaggregate: bool) -> None:
    async def once() -> None:
        api = KinesisStream(Odd(answers), Origin(STREAM, SourceArn.parse(STREAM), "role", deaggregate))
        try:
            await api.open()
        except BridgeError:
            return
        assert api.retention > 0
        check(await walk(api, "it"))

    asyncio.run(once())


@settings(max_examples=400, deadline=None)
@given(answers=bent("dynamodb"), since=st.none() | st.just(1_700_000_000.0), skips=st.booleans())
def test_any_answer_of_dynamodb(answers: dict[str, dict[str, Any]], since: float | None, skips: bool) -> None:
    async def once() -> None:
        check(await walk(TableStream(Odd(answers), TABLE), Cursor("it", since, skips and since is not None)))

    asyncio.run(once())


def test_answers_as_they_should_be() -> None:
    """Else the tests above would test nothing."""

    async def once() -> None:
        kinesis = KinesisStream(Odd(ANSWERS["kinesis"]), Origin(STREAM, SourceArn.parse(STREAM), "role"))
        await kinesis.open()
        assert kinesis.retention == 86_400
        assert [record.id for record in (await kinesis.read(SHARD, "it", 100)).records] == ["5", "6"]
        table = TableStream(Odd(ANSWERS["dynamodb"]), TABLE)
        assert [shard.id for shard in await table.shards()] == ["s"]
        assert [record.id for record in (await table.read(SHARD, Cursor("it"), 100)).records] == ["7"]

    asyncio.run(once())
