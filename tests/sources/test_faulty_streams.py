"""The scripted streams keep the services' rules and speak their wire: botocore's models judge every answer."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import anyio
import botocore.parsers
import botocore.session
import botocore.validate
import msgspec
import pytest

from bridge.aws import Aws
from bridge.errors import RemoteError, Throttled, Unreachable
from bridge.function import AwsSettings
from tests.clock import SKIPPING, owned_wall
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_sqs import LocalApi
from tests.sources.faulty_streams import REGION, FaultyStream, sdk_knows_times
from tests.sources.faulty_table import FaultyTable
from tests.wire import Wire

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


@pytest.fixture(params=[FaultyKinesis, FaultyTable])
def stream(request: pytest.FixtureRequest) -> FaultyStream:
    made = request.param("orders")
    assert isinstance(made, FaultyStream)
    return made


@pytest.fixture
def kinesis() -> FaultyKinesis:
    return FaultyKinesis("orders")


@pytest.fixture
def table() -> FaultyTable:
    return FaultyTable("orders")


@cache
def model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def judged(service: str, operation: str, answer: dict[str, Any]) -> dict[str, Any]:
    """What an SDK makes of the answer's JSON; nothing in it may be unknown to the service's model, or be missing."""
    shape = model(service).operation_model(operation).output_shape
    body = msgspec.json.encode(answer)
    known(json.loads(body), shape, operation)
    parser = botocore.parsers.create_parser("json")
    parsed = parser.parse({"status_code": 200, "headers": {}, "body": body}, shape)
    parsed.pop("ResponseMetadata")
    report = botocore.validate.ParamValidator().validate(parsed, shape)
    assert not report.has_errors(), report.generate_report()
    return dict(parsed)


def known(value: Any, shape: Any, where: str) -> None:
    if value is None:
        return
    if shape.type_name == "structure":
        for name, member in value.items():
            assert name in shape.members, f"{where}.{name}"
            known(member, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for member in value:
            known(member, shape.member, f"{where}[]")
    elif shape.type_name == "map":
        for name, member in value.items():
            known(member, shape.value, f"{where}.{name}")


async def ask(stream: FaultyStream, operation: str, **params: Any) -> dict[str, Any]:
    shape = model(stream.service).operation_model(operation).input_shape
    report = botocore.validate.ParamValidator().validate(params, shape)
    assert not report.has_errors(), report.generate_report()
    return judged(stream.service, operation, await LocalApi(stream).call(operation, params, timeout=10))


async def iterator(stream: FaultyStream, shard: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
    arn = {"StreamARN" if stream.service == "kinesis" else "StreamArn": stream.arn}
    answer = await ask(stream, "GetShardIterator", **arn, ShardId=shard, ShardIteratorType=kind, **more)
    return str(answer["ShardIterator"])


def numbers(answer: dict[str, Any]) -> list[str]:
    return [record.get("SequenceNumber") or record["dynamodb"]["SequenceNumber"] for record in answer["Records"]]


async def code_of(stream: FaultyStream, operation: str, **params: Any) -> str:
    with pytest.raises(RemoteError) as caught:
        await ask(stream, operation, **params)
    return caught.value.code


async def listed(table: FaultyTable) -> list[dict[str, Any]]:
    """All shards, page by page (DDB-2)."""
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        answer = (await ask(table, "DescribeStream", StreamArn=table.arn, **more))["StreamDescription"]
        found += answer["Shards"]
        if "LastEvaluatedShardId" not in answer:
            return found
        more = {"ExclusiveStartShardId": answer["LastEvaluatedShardId"]}


# Both.


async def test_a_shard_is_read_in_order_and_to_its_end(stream: FaultyStream) -> None:
    (shard,) = stream.open
    put = [stream.put(f"key {count}", str(count)) for count in range(5)]
    found: list[str] = []
    at = await iterator(stream, shard)
    for _ in range(2):
        page = await ask(stream, "GetRecords", ShardIterator=at, Limit=2)
        found += numbers(page)
        at = page["NextShardIterator"]
    stream.close(shard)
    last = await ask(stream, "GetRecords", ShardIterator=at)
    assert found + numbers(last) == put == list(stream.numbers())
    assert not last.get("NextShardIterator")
    assert last.get("MillisBehindLatest", 0) == 0


@pytest.mark.parametrize(
    ("kind", "first"),
    [("TRIM_HORIZON", 0), ("LATEST", 3), ("AT_SEQUENCE_NUMBER", 1), ("AFTER_SEQUENCE_NUMBER", 2), ("AT_TIMESTAMP", 2)],
)
async def test_iterators_begin_where_they_should(stream: FaultyStream, kind: str, first: int) -> None:
    if kind == "AT_TIMESTAMP" and not sdk_knows_times(stream):
        pytest.skip("this version of the SDK knows no times of tables' streams")
    (shard,) = stream.open
    put: list[str] = []
    moments: list[float] = []
    for _ in range(3):
        moments.append(time.time())
        put.append(stream.put("key"))
        await anyio.sleep(60)
    name = "StartingSequenceNumber" if stream.service == "kinesis" else "SequenceNumber"
    more = {name: put[1]} if "NUMBER" in kind else {"Timestamp": moments[2]} if kind == "AT_TIMESTAMP" else {}
    start = await iterator(stream, shard, kind, **more)
    put.append(stream.put("key"))
    assert numbers(await ask(stream, "GetRecords", ShardIterator=start)) == put[first:]


async def test_an_iterator_dies_of_age(stream: FaultyStream) -> None:
    (shard,) = stream.open
    start = await iterator(stream, shard)
    await anyio.sleep(stream.iterator_life - 1)
    page = await ask(stream, "GetRecords", ShardIterator=start)
    await anyio.sleep(2)
    assert await code_of(stream, "GetRecords", ShardIterator=start) == "ExpiredIteratorException"
    stream.expire()
    code = await code_of(stream, "GetRecords", ShardIterator=page["NextShardIterator"])
    assert code == "ExpiredIteratorException"
    await ask(stream, "GetRecords", ShardIterator=await iterator(stream, shard))


async def test_reads_err_as_a_test_orders(stream: FaultyStream) -> None:
    (shard,) = stream.open
    put = [stream.put("key"), stream.put("key")]
    start = await iterator(stream, shard)
    stream.refuse("GetRecords", "InternalFailure", shard="another")
    stream.refuse("GetRecords", "ThrottlingException")
    assert await code_of(stream, "GetRecords", ShardIterator=start) == "ThrottlingException"
    stream.blank()
    page = await ask(stream, "GetRecords", ShardIterator=start)
    assert numbers(page) == []
    assert page.get("MillisBehindLatest") != 0  # KIN-13
    stream.repeat()
    page = await ask(stream, "GetRecords", ShardIterator=page["NextShardIterator"], Limit=1)
    assert numbers(page) == put[:1]
    page = await ask(stream, "GetRecords", ShardIterator=page["NextShardIterator"], Limit=1)
    assert numbers(page) == put[:1]
    stream.cut_off("GetRecords")
    api = LocalApi(stream)
    with pytest.raises(Unreachable):
        await api.call("GetRecords", {"ShardIterator": start}, timeout=1)
    stream.slow("GetRecords", 5)
    with pytest.raises(Unreachable):
        await api.call("GetRecords", {"ShardIterator": start}, timeout=1)
    assert stream.counts["GetRecords"] == 6
    stream.there = False
    assert await code_of(stream, "GetRecords", ShardIterator=start) == "ResourceNotFoundException"


async def test_rates_are_told(stream: FaultyStream) -> None:
    (shard,) = stream.open
    start = await iterator(stream, shard)
    for pause in (0.3, 0.3, 0.3, 0.3, 2, 1):
        await ask(stream, "GetRecords", ShardIterator=start)
        await anyio.sleep(pause)
    assert stream.rate("GetRecords", shard) == 4
    assert stream.rate("GetRecords", seconds=1.5) == 5
    assert len(await stream.asked("GetRecords", 6)) == 6


async def test_old_records_and_shards_are_gone(stream: FaultyStream) -> None:
    stream.retention = 3600
    (old,) = stream.open
    stream.put("key")
    await anyio.sleep(1800)
    new = stream.roll(old)
    stream.put("key")
    await anyio.sleep(1900)
    page = await ask(stream, "GetRecords", ShardIterator=await iterator(stream, old))
    assert (numbers(page), page.get("NextShardIterator")) == ([], None)
    await anyio.sleep(1000)
    put = stream.put("key")
    await anyio.sleep(750)
    assert await code_of(stream, "GetRecords", ShardIterator=f"{old}/0/0/1") == "ResourceNotFoundException"
    assert [*stream.numbers(new)] == [put]


# Kinesis.


async def test_kinesis_enforces_its_limits(kinesis: FaultyKinesis) -> None:
    (shard,) = kinesis.open
    start = await iterator(kinesis, shard)
    for _ in range(5):
        await ask(kinesis, "GetRecords", ShardIterator=start)
    throttled = "ProvisionedThroughputExceededException"
    assert await code_of(kinesis, "GetRecords", ShardIterator=start) == throttled  # KIN-10
    assert await code_of(kinesis, "GetRecords", ShardIterator=start, Limit=10_000) == throttled
    await anyio.sleep(1)
    for _ in range(12):
        kinesis.put("key", "x" * (1 << 20))
    page = await ask(kinesis, "GetRecords", ShardIterator=start)
    assert len(page["Records"]) == 9  # KIN-11: 10 MiB, the keys included
    assert page["MillisBehindLatest"] > 0
    await anyio.sleep(4)
    assert await code_of(kinesis, "GetRecords", ShardIterator=start) == throttled
    with pytest.raises(Throttled):
        await LocalApi(kinesis).call("GetRecords", {"ShardIterator": start}, timeout=1)


async def test_kinesis_lists_pages_of_shards_by_filters(kinesis: FaultyKinesis) -> None:
    (first,) = kinesis.open
    left, right = kinesis.split(first)
    child = kinesis.merge(right, left)
    kinesis.shards_a_page = 3
    page = await ask(kinesis, "ListShards", StreamARN=kinesis.arn)
    assert [shard["ShardId"] for shard in page["Shards"]] == [first, left, right]
    more = await ask(kinesis, "ListShards", NextToken=page["NextToken"])
    (last,) = more["Shards"]
    assert (last["ShardId"], last["ParentShardId"], last["AdjacentParentShardId"]) == (child, left, right)
    assert "EndingSequenceNumber" in page["Shards"][0]["SequenceNumberRange"]
    assert "EndingSequenceNumber" not in last["SequenceNumberRange"]
    for kind, found in {"AT_LATEST": [child], "AT_TRIM_HORIZON": [first]}.items():
        page = await ask(kinesis, "ListShards", StreamARN=kinesis.arn, ShardFilter={"Type": kind})
        assert [shard["ShardId"] for shard in page["Shards"]] == found
    kinesis.forget(first)
    page = await ask(kinesis, "ListShards", StreamARN=kinesis.arn, ShardFilter={"Type": "AT_TRIM_HORIZON"})
    assert [shard["ShardId"] for shard in page["Shards"]] == [left, right]
    assert await code_of(kinesis, "ListShards", StreamARN=f"{kinesis.arn}s") == "ResourceNotFoundException"
    summary = await ask(kinesis, "DescribeStreamSummary", StreamARN=kinesis.arn)
    assert summary["StreamDescriptionSummary"]["OpenShardCount"] == 1


async def test_kinesis_tells_children_at_the_end(kinesis: FaultyKinesis) -> None:
    (shard,) = kinesis.open
    start = await iterator(kinesis, shard)
    children = kinesis.split(shard)
    page = await ask(kinesis, "GetRecords", ShardIterator=start)
    assert [child["ShardId"] for child in page["ChildShards"]] == children
    assert page["ChildShards"][0]["ParentShards"] == [shard]
    kinesis.hides_children = True
    assert "ChildShards" not in await ask(kinesis, "GetRecords", ShardIterator=start)
    kinesis.never_ends = True
    assert (await ask(kinesis, "GetRecords", ShardIterator=start))["NextShardIterator"]


async def test_kinesis_goes_on_behind_what_was_trimmed(kinesis: FaultyKinesis) -> None:
    (shard,) = kinesis.open
    put = [kinesis.put("key", str(count)) for count in range(4)]
    assert kinesis.trim(shard, put[2]) == 3
    start = await iterator(kinesis, shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=put[0])
    page = await ask(kinesis, "GetRecords", ShardIterator=start)
    assert numbers(page) == put[3:]  # KIN-32
    assert page["Records"][0]["Data"] == b"3"


async def test_sequence_numbers_may_be_small(kinesis: FaultyKinesis) -> None:
    small = FaultyKinesis("small", small_numbers=True)
    (shard,) = small.open
    assert [small.put("a"), small.put("b")] == ["0", "1"]  # KIN-113
    left, _ = small.split(shard)
    assert small.put("a", shard=left) == "0"


# DynamoDB Streams.


async def test_a_table_describes_its_shards_in_pages(table: FaultyTable) -> None:
    table.shards_a_page = 2
    names = list(table.shards)
    for _ in range(4):
        names.append(table.roll(names[-1]))
    found = await listed(table)
    assert [shard["ShardId"] for shard in found] == names
    assert [shard.get("ParentShardId") for shard in found] == [None, *names[:-1]]  # DDB-3
    assert ["EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in found] == [True] * 4 + [False]
    children = {"Type": "CHILD_SHARDS", "ShardId": names[0]}
    answer = await ask(table, "DescribeStream", StreamArn=table.arn, ShardFilter=children)
    assert [shard["ShardId"] for shard in answer["StreamDescription"]["Shards"]] == names[1:2]
    assert await code_of(table, "DescribeStream", StreamArn=f"{table.arn}0") == "ResourceNotFoundException"


async def test_a_table_tells_what_changed(table: FaultyTable) -> None:
    (shard,) = table.open
    table.put("a", "1")
    table.put("a", "2")
    table.remove("a", expired=True)
    records = (await ask(table, "GetRecords", ShardIterator=await iterator(table, shard)))["Records"]
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    assert ["OldImage" in record["dynamodb"] for record in records] == [False, True, True]
    assert records[2]["userIdentity"] == {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}


async def test_a_table_refuses_what_was_trimmed(table: FaultyTable) -> None:
    (shard,) = table.open
    put = [table.put("key", str(count)) for count in range(3)]
    start = await iterator(table, shard)
    table.trim(shard, put[1])
    trimmed = "TrimmedDataAccessException"
    assert await code_of(table, "GetRecords", ShardIterator=start) == trimmed
    where = {"StreamArn": table.arn, "ShardId": shard, "ShardIteratorType": "AFTER_SEQUENCE_NUMBER"}
    assert await code_of(table, "GetShardIterator", **where, SequenceNumber=put[0]) == trimmed
    after = await iterator(table, shard, "AFTER_SEQUENCE_NUMBER", SequenceNumber=put[1])
    assert numbers(await ask(table, "GetRecords", ShardIterator=after)) == put[2:]
    assert await code_of(table, "GetRecords", ShardIterator=start, Limit=1001) == "LimitExceededException"  # DDB-5


async def test_a_table_that_is_switched_off_can_be_read_on(table: FaultyTable) -> None:
    (shard,) = table.open
    put = table.put("key")
    table.disable()
    assert numbers(await ask(table, "GetRecords", ShardIterator=await iterator(table, shard))) == [put]  # DDB-10
    answer = await ask(table, "DescribeStream", StreamArn=table.arn)
    assert answer["StreamDescription"]["StreamStatus"] == "DISABLED"


# Over HTTP.


class TestWire:
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(params=["sdk", None], ids=["sdk", "usual"])
    async def client(self, request: pytest.FixtureRequest, aws_keys: None) -> AsyncIterator[tuple[Aws, str | None]]:
        async with Aws() as aws:
            yield aws, request.param

    @pytest.fixture(autouse=True)
    def owned_wall(self) -> None:
        """The clock is the ordinary one."""

    async def test_the_real_clients_read_it(self, stream: FaultyStream, client: Any) -> None:
        aws, way = client
        (shard,) = stream.open
        put = stream.put("key", "body")
        async with Wire() as wire:
            stream.serve(wire)
            api = await aws.api(stream.service, AwsSettings(region=REGION, endpoint_url=wire.url, client=way))
            arn = {"StreamARN" if stream.service == "kinesis" else "StreamArn": stream.arn}
            where = {**arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
            stream.refuse("GetShardIterator", "InternalFailure")
            with pytest.raises(RemoteError):
                await api.call("GetShardIterator", where, timeout=5)
            start = await api.call("GetShardIterator", where, timeout=5)
            stream.cut_off("GetRecords")
            with pytest.raises(Unreachable):
                await api.call("GetRecords", start, timeout=5)
            answer = await api.call("GetRecords", start, timeout=5)
            assert numbers({"Records": msgspec.json.decode(answer["Records"])}) == [put]
