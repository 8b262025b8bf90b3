"""The obvious consumer of a stream that the bridge is measured against: aiobotocore as it comes, one task per shard,
worker processes behind socket pairs; get records, build events, invoke, repeat. It remembers no positions.

    python -m tests.bench.naive_streams STREAM BATCH_SIZE HANDLER_FILE
"""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from typing import Any

from aiobotocore.session import get_session

from tests.bench.naive import Worker

WORKERS = 4
"""Processes; shards share them."""
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/"


def record(wire: dict[str, Any], shard: str, stream: str) -> dict[str, Any]:
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": wire["PartitionKey"],
            "sequenceNumber": wire["SequenceNumber"],
            "data": b64encode(wire["Data"]).decode(),
            "approximateArrivalTimestamp": wire["ApproximateArrivalTimestamp"].timestamp(),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{wire['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/seen",
        "awsRegion": "us-east-1",
        "eventSourceARN": ARN + stream,
    }


async def poll(client: Any, stream: str, shard: str, size: int, worker: Worker, turn: asyncio.Lock) -> None:
    place = {"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    iterator = (await client.get_shard_iterator(**place))["ShardIterator"]
    loop = asyncio.get_running_loop()
    while iterator:
        began = loop.time()
        answer = await client.get_records(ShardIterator=iterator, Limit=10_000)
        iterator = answer.get("NextShardIterator")
        records = [record(wire, shard, stream) for wire in answer["Records"]]
        for start in range(0, len(records), size):
            async with turn:
                await worker.invoke({"Records": records[start : start + size]})
        await asyncio.sleep(max(0.0, began + (0.2 if records else 1.0) - loop.time()))


async def main(stream: str, size: int, handler: str) -> None:
    workers = [(Worker.start(handler), asyncio.Lock()) for _ in range(WORKERS)]
    for worker, _ in workers:
        await worker.connect()
    async with get_session().create_client("kinesis") as client, asyncio.TaskGroup() as polls:
        shards = (await client.list_shards(StreamName=stream))["Shards"]
        for number, shard in enumerate(shards):
            polls.create_task(poll(client, stream, shard["ShardId"], size, *workers[number % WORKERS]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
