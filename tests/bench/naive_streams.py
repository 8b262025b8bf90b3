"""The obvious consumer of a stream that the bridge is measured against: aiobotocore as it comes, one task per shard,
worker processes behind socket pairs; get records, build events, invoke, repeat. It remembers no positions.

    python -m tests.bench.naive_streams kinesis|dynamodb BATCH_SIZE HANDLER_FILE
"""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiobotocore.session import get_session

from tests.bench.naive import Worker

WORKERS = 4
"""Processes; shards share them."""
ARNS = {
    "kinesis": "arn:aws:kinesis:us-east-1:000000000000:stream/x",
    "dynamodb": "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2024-06-10T19:26:16.525",
}
ROLE = "arn:aws:iam::000000000000:role/seen"

Wire = dict[str, Any]


def record(wire: Wire, shard: str, arn: str) -> dict[str, Any]:
    """Of Kinesis."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": wire["PartitionKey"],
            "sequenceNumber": wire["SequenceNumber"],
            "data": b64encode(wire["Data"]).decode(),
            "approximateArrivalTimestamp": epoch(wire["ApproximateArrivalTimestamp"]),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{wire['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": ROLE,
        "awsRegion": "us-east-1",
        "eventSourceARN": arn,
    }


def change(wire: Wire, arn: str) -> dict[str, Any]:
    """Of a table's stream: its bytes and its time are as the event has them."""
    changed = _plain(wire["dynamodb"])
    changed["ApproximateCreationDateTime"] = float(int(epoch(wire["dynamodb"]["ApproximateCreationDateTime"])))
    return {**wire, "dynamodb": changed, "eventSourceARN": arn}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return b64encode(value).decode() if isinstance(value, bytes) else value


def epoch(at: datetime | float) -> float:
    """The SDK makes a time of it."""
    return at.timestamp() if isinstance(at, datetime) else at


async def poll(client: Any, place: Wire, make: Callable[[Wire], Wire], size: int, worker: Worker, most: int) -> None:
    iterator = (await client.get_shard_iterator(**place, ShardIteratorType="TRIM_HORIZON"))["ShardIterator"]
    loop = asyncio.get_running_loop()
    while iterator:
        began = loop.time()
        answer = await client.get_records(ShardIterator=iterator, Limit=most)
        iterator = answer.get("NextShardIterator")
        records = [make(wire) for wire in answer["Records"]]
        for start in range(0, len(records), size):
            await worker.invoke({"Records": records[start : start + size]})
        await asyncio.sleep(max(0.0, began + (0.2 if records else 1.0) - loop.time()))


class Shared(Worker):
    """One that shards take turns with."""

    async def connect(self) -> None:
        await super().connect()
        self._turn = asyncio.Lock()

    async def invoke(self, event: Wire) -> Any:
        async with self._turn:
            return await super().invoke(event)


async def main(kind: str, size: int, handler: str) -> None:
    workers = [Shared.start(handler) for _ in range(WORKERS)]
    for worker in workers:
        await worker.connect()
    service, arn = {"kinesis": "kinesis", "dynamodb": "dynamodbstreams"}[kind], ARNS[kind]
    async with get_session().create_client(service) as client, asyncio.TaskGroup() as polls:
        if kind == "kinesis":
            stream, most = {"StreamName": "x"}, 10_000
            shards = (await client.list_shards(**stream))["Shards"]
        else:
            stream, most = {"StreamArn": arn}, 1000
            shards = (await client.describe_stream(**stream))["StreamDescription"]["Shards"]
        for number, shard in enumerate(shards):
            place = {**stream, "ShardId": shard["ShardId"]}
            make = _maker(kind, shard["ShardId"], arn)
            polls.create_task(poll(client, place, make, size, workers[number % WORKERS], most))


def _maker(kind: str, shard: str, arn: str) -> Callable[[Wire], Wire]:
    return (lambda wire: record(wire, shard, arn)) if kind == "kinesis" else (lambda wire: change(wire, arn))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
