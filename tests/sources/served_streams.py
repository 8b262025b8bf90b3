"""Streams on real servers, as the contract of streams wants them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import anyio

from bridge.aws import Aws
from bridge.record import Record
from bridge.sources.dynamodb import DynamoDBSource
from bridge.sources.kinesis import KinesisSource
from tests.servers import Server, unique
from tests.sources.near_streams import NearStream, data_of, items_of

BUSY = 10.0
"""Seconds that a server may take to do what it was told."""
MIDDLE = "170141183460469231731687303715884105728"
"""Between the hash keys of two shards."""


class ServedKinesis(NearStream):
    """A stream of its own, of two shards."""

    def __init__(self, server: Server, aws: Aws) -> None:
        super().__init__(aws)
        self.server, self.api = server, server.client("kinesis")
        self.name = unique("stream")
        self.api.create_stream(StreamName=self.name, ShardCount=2)
        self.arn: str = self._active()["StreamARN"]

    def _active(self) -> dict[str, Any]:
        deadline = time.monotonic() + BUSY
        while time.monotonic() < deadline:
            summary: dict[str, Any] = self.api.describe_stream_summary(StreamName=self.name)
            summary = summary["StreamDescriptionSummary"]
            if summary["StreamStatus"] == "ACTIVE":
                return summary
            time.sleep(0.01)
        raise TimeoutError(summary)

    def register(self) -> None:
        """From now on the source is a consumer of the stream (KIN-100)."""
        made = self.api.register_stream_consumer(StreamARN=self.arn, ConsumerName="bridge")
        self.arn = made["Consumer"]["ConsumerARN"]
        deadline = time.monotonic() + BUSY
        while time.monotonic() < deadline:
            told = self.api.describe_stream_consumer(ConsumerARN=self.arn)["ConsumerDescription"]
            if told["ConsumerStatus"] == "ACTIVE":
                return
            time.sleep(0.01)
        raise TimeoutError(told)

    async def put(self, *bodies: str, key: str = "") -> Sequence[str]:
        numbers: list[str] = []
        for start in range(0, len(bodies), 500):
            records = [{"Data": body.encode(), "PartitionKey": key or body} for body in bodies[start : start + 500]]
            answer = self.api.put_records(StreamName=self.name, Records=records)
            assert not answer.get("FailedRecordCount"), answer
            numbers += [record["SequenceNumber"] for record in answer["Records"]]
        return numbers

    def source(self, **options: Any) -> KinesisSource:
        mapping = self.mapping(options.pop("arn", self.arn), aws=self.server.settings, **options)
        return KinesisSource(mapping, self.surroundings())

    def bodies(self, records: Sequence[Record]) -> list[str]:
        return data_of(records)

    def open(self) -> list[str]:
        """Shards, by their hash keys."""
        shards = self.api.list_shards(StreamName=self.name)["Shards"]
        shards = [shard for shard in shards if not shard["SequenceNumberRange"].get("EndingSequenceNumber")]
        return [it["ShardId"] for it in sorted(shards, key=lambda it: int(it["HashKeyRange"]["StartingHashKey"]))]

    async def split(self) -> None:
        self.api.split_shard(
            StreamName=self.name, ShardToSplit=self.open()[0], NewStartingHashKey=str(int(MIDDLE) // 2)
        )
        self._active()

    async def merge(self) -> None:
        one, other = self.open()
        self.api.merge_shards(StreamName=self.name, ShardToMerge=one, AdjacentShardToMerge=other)
        self._active()

    async def vanish(self) -> None:
        self.api.delete_stream(StreamName=self.name, EnforceConsumerDeletion=True)
        with anyio.fail_after(BUSY):
            while self.name in self.api.list_streams()["StreamNames"]:
                await anyio.sleep(0.01)

    async def moment(self) -> float:
        await anyio.sleep(1.1)  # some servers know whole seconds only
        return float(int(time.time()))


class ServedTable(NearStream):
    """The stream of a table of its own, of one shard."""

    kind = "dynamodb"

    def __init__(self, server: Server, aws: Aws) -> None:
        super().__init__(aws)
        self.server, self.api, self.streams = server, server.client("dynamodb"), server.client("dynamodbstreams")
        self.name = unique("table")
        made = self.api.create_table(
            TableName=self.name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        self.arn: str = made["TableDescription"]["LatestStreamArn"]
        self.api.get_waiter("table_exists").wait(TableName=self.name, WaiterConfig={"Delay": 1})

    async def put(self, *bodies: str, key: str = "") -> Sequence[str]:
        for body in bodies:
            self.api.put_item(TableName=self.name, Item={"id": {"S": key or body}, "body": {"S": body}})
        return list(self._numbers())[-len(bodies) :]

    def _numbers(self) -> Iterator[str]:
        """Sequence numbers of all that was put."""
        place = {"StreamArn": self.arn, "ShardIteratorType": "TRIM_HORIZON"}
        for shard in self.streams.describe_stream(StreamArn=self.arn)["StreamDescription"]["Shards"]:
            iterator = self.streams.get_shard_iterator(ShardId=shard["ShardId"], **place)["ShardIterator"]
            while iterator:
                answer = self.streams.get_records(ShardIterator=iterator)
                yield from (record["dynamodb"]["SequenceNumber"] for record in answer["Records"])
                iterator = answer.get("NextShardIterator") if answer["Records"] else None

    def source(self, **options: Any) -> DynamoDBSource:
        return DynamoDBSource(self.mapping(self.arn, aws=self.server.settings, **options), self.surroundings())

    def bodies(self, records: Sequence[Record]) -> list[str]:
        return items_of(records)

    async def split(self) -> None:
        raise NotImplementedError  # no server can be told to

    async def merge(self) -> None:
        raise NotImplementedError  # DDB-3

    async def vanish(self) -> None:
        self.api.delete_table(TableName=self.name)

    async def moment(self) -> float:
        raise NotImplementedError  # DDB-7
