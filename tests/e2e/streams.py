"""Streams and tables on a real server, as tests use them from outside, and what handlers were given of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from tests.e2e.harness import Site, eventually
from tests.e2e.journal import Invocation
from tests.servers import ACCOUNT, Server, unique

GROUP = 500
"""Records in one request."""


class Stream:
    """A Kinesis stream of its own for the calling test."""

    def __init__(self, server: Server, *, shards: int = 1) -> None:
        self.server, self.api = server, server.client("kinesis")
        self.name = unique("stream")
        self.api.create_stream(StreamName=self.name, ShardCount=shards)
        self.arn: str = eventually(self._active)

    def __repr__(self) -> str:
        return f"<Stream {self.arn}>"

    def _active(self) -> str:
        """Its ARN, once it can be used."""
        answer = self.api.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
        return str(answer["StreamARN"]) if answer["StreamStatus"] == "ACTIVE" else ""

    def put(self, *data: str, key: str = "") -> list[str]:
        """The sequence numbers. Without a key each record has one of its own."""
        numbers: list[str] = []
        for start in range(0, len(data), GROUP):
            records = [
                {"Data": each.encode(), "PartitionKey": key or f"key-{start + index}"}
                for index, each in enumerate(data[start : start + GROUP])
            ]
            answer = self.api.put_records(StreamName=self.name, Records=records)
            assert not answer["FailedRecordCount"], answer
            numbers += [record["SequenceNumber"] for record in answer["Records"]]
        return numbers

    def runs(self, site: Site) -> list[Invocation]:
        """What handlers were given of it so far."""
        return site.journal.invocations(self.arn.rpartition(":")[2])

    def seen(self, site: Site) -> list[int]:
        """The ``n`` of all records of runs that ended well, as often as they were given."""
        return [n for run in numbers([run for run in self.runs(site) if run.well]) for n in run]

    def shards(self) -> list[str]:
        """Those that are open, by their hash keys."""
        listed = self.api.list_shards(StreamName=self.name)["Shards"]
        shards = [shard for shard in listed if not shard["SequenceNumberRange"].get("EndingSequenceNumber")]
        return [it["ShardId"] for it in sorted(shards, key=lambda it: int(it["HashKeyRange"]["StartingHashKey"]))]

    def split(self) -> None:
        """The only shard, in two."""
        (shard,) = self.shards()
        self.api.split_shard(StreamName=self.name, ShardToSplit=shard, NewStartingHashKey=str(1 << 127))
        eventually(self._active)

    def merge(self) -> None:
        """The only two, in one."""
        one, other = self.shards()
        self.api.merge_shards(StreamName=self.name, ShardToMerge=one, AdjacentShardToMerge=other)
        eventually(self._active)


class Table:
    """A DynamoDB table with a stream, of its own for the calling test; its key is ``id``."""

    def __init__(self, server: Server, view: str = "NEW_AND_OLD_IMAGES") -> None:
        self.server, self.api = server, server.client("dynamodb")
        self.name = unique("table")
        made = self.api.create_table(
            TableName=self.name,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
        )
        self.arn: str = made["TableDescription"]["LatestStreamArn"]

    def __repr__(self) -> str:
        return f"<Table {self.arn}>"

    def put(self, name: str, order: str = "") -> None:
        """Inserts or changes an item."""
        self.api.put_item(TableName=self.name, Item={"id": {"S": name}, "order": {"S": order}})

    def delete(self, name: str) -> None:
        self.api.delete_item(TableName=self.name, Key={"id": {"S": name}})

    def runs(self, site: Site) -> list[Invocation]:
        """What handlers were given of it so far."""
        return site.journal.invocations(self.arn.split(":", 5)[5])


def stream_site(site: Site) -> Site:
    """The same, with the function ``streamer``."""
    site.config["aws"]["account_id"] = ACCOUNT
    site.function("streamer", Handler="actor.stream")
    return site


def mapped(site: Site, source: Stream | Table, **options: Any) -> str:
    """Declares a mapping that begins with the oldest record, for the function ``streamer``. Gives its name."""
    own = {"StartingPosition": "TRIM_HORIZON", **options}
    if source.server is not site.server:
        own["aws"] = {"endpoint_url": source.server.url}
    return site.mapping(source.arn, "streamer", **own)


def order(n: int, **more: Any) -> str:
    """The data of a record that ``stream`` of handlers/actor.py does as it is told by."""
    return json.dumps({"n": n, **more})


def numbers(runs: Sequence[Invocation]) -> list[list[int]]:
    """The ``n`` of the records of each run."""
    return [[json.loads(data(record))["n"] for record in run.records] for run in runs]


def data(record: dict[str, Any]) -> str:
    """What was put into the Kinesis stream."""
    return base64.b64decode(record["kinesis"]["data"]).decode()


def changes(runs: Sequence[Invocation]) -> list[tuple[str, str]]:
    """What happened to which items of a table, in order."""
    return [(record["eventName"], record["dynamodb"]["Keys"]["id"]["S"]) for run in runs for record in run.records]
