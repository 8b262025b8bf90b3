"""From the body of an answer to GetRecords to the bytes of events: the bridge's way, the standard library's, the SDK's.

    python -m tests.bench.stream_events [--records N] [--rounds N]

All give equal events. They alternate in one process; the figure is the median of records a CPU-second. Exit status 1: a
ratio is below half of its goal.
"""

from __future__ import annotations

import argparse
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine, Iterator, Mapping as Dict
from functools import partial
from statistics import median
from time import process_time
from typing import Any, NamedTuple, TypeVar, cast

import botocore.parsers
import botocore.session

from bridge.aws import Api
from bridge.aws_fast import read_answer
from bridge.mapping import SourceArn
from bridge.record import Batch
from bridge.sources.dynamodb_stream import Cursor, TableStream
from bridge.sources.kinesis_records import Origin
from bridge.sources.kinesis_stream import KinesisStream
from bridge.sources.payload import records_event
from bridge.sources.shards import Shard, StreamApi
from tests.bench.naive_streams import ARNS, ROLE, change, record

T = TypeVar("T")
PAGE, BATCH, BODY = 1000, 100, 256
"""Records of an answer, records of an event, bytes of a record's data."""
SHARD = "shardId-000000000000"
ROUNDS = 7

Way = Callable[[bytes], list[bytes]]
"""From a body to its events."""


class Goal(NamedTuple):
    """How many times as fast as this other way the bridge's has to be."""

    than: str
    times: float


class Service(NamedTuple):
    """What is read, the ways, of which the bridge's is the first, and its goals."""

    title: str
    body: Callable[[int], bytes]
    ways: dict[str, Way]
    goals: tuple[Goal, ...]


# The bridge's way.


class OneAnswer:
    """``Api`` of a service that has answered."""

    def __init__(self) -> None:
        self.body = b""

    async def call(self, operation: str, params: Dict[str, Any], *, timeout: float) -> dict[str, Any]:
        return read_answer(operation, self.body)


def ours(service: str) -> Way:
    answer, arn = OneAnswer(), SourceArn.parse(ARNS[service])
    api = cast("Api", answer)
    stream: StreamApi = KinesisStream(api, Origin(str(arn), arn, ROLE))
    cursor: Any = "any"
    if service == "dynamodb":
        stream, cursor = TableStream(api, str(arn)), Cursor("any")
    shard = Shard(SHARD)

    def way(body: bytes) -> list[bytes]:
        answer.body = body
        page = at_once(stream.read(shard, cursor, PAGE))
        batches = (page.records[start : start + BATCH] for start in range(0, len(page.records), BATCH))
        return [records_event(Batch(batch, SHARD, "size"), {}) for batch in batches]

    return way


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise RuntimeError(f"{work} waits")


# The others.


def of_sdk(service: str) -> Way:
    """As the SDK reads it, and the obvious consumer goes on from there."""
    model = botocore.session.get_session().get_service_model("kinesis" if service == "kinesis" else "dynamodbstreams")
    shape = model.operation_model("GetRecords").output_shape
    parser = botocore.parsers.create_parser("json")

    def way(body: bytes) -> list[bytes]:
        answer = parser.parse({"body": body, "headers": {}, "status_code": 200}, shape)
        return events(answer["Records"], _of_kinesis if service == "kinesis" else partial(change, arn=ARNS[service]))

    return way


def of_stdlib(service: str) -> Way:
    """Without the SDK: ``json``, and ``base64`` for what a handler's author thinks of as bytes."""

    def kinesis(wire: dict[str, Any]) -> dict[str, Any]:
        data = b64decode(wire["Data"])
        return _of_kinesis({**wire, "Data": data, "ApproximateArrivalTimestamp": wire["ApproximateArrivalTimestamp"]})

    def way(body: bytes) -> list[bytes]:
        wires = json.loads(body)["Records"]
        return events(wires, kinesis if service == "kinesis" else partial(change, arn=ARNS[service]))

    return way


def _of_kinesis(wire: dict[str, Any]) -> dict[str, Any]:
    return record(wire, SHARD, ARNS["kinesis"])


def events(wires: list[dict[str, Any]], made: Callable[[dict[str, Any]], dict[str, Any]]) -> list[bytes]:
    records = [made(wire) for wire in wires]
    return [json.dumps({"Records": records[at : at + BATCH]}).encode() for at in range(0, len(records), BATCH)]


# What there is to read.


def kinesis_body(count: int) -> bytes:
    data = b64encode(json.dumps({"kind": "order", "filling": "x" * (BODY - 36)}).encode()).decode()
    wires = [
        {
            "SequenceNumber": f"4960000000000000000000000000{number:028d}",
            "ApproximateArrivalTimestamp": 1_767_607_200.125 + number,
            "Data": data,
            "PartitionKey": f"key-{number % 100}",
        }
        for number in range(count)
    ]
    return json.dumps({"Records": wires, "NextShardIterator": "A" * 200, "MillisBehindLatest": 0}).encode()


def table_body(count: int) -> bytes:
    wires = [
        {
            "eventID": f"{number:032x}",
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1_767_607_200 + number,
                "Keys": {"id": {"S": f"item-{number}"}},
                "NewImage": {
                    "id": {"S": f"item-{number}"},
                    "total": {"N": "12.50"},
                    "picture": {"B": b64encode(b"x" * 64).decode()},
                    "lines": {"L": [{"M": {"sku": {"S": "a"}, "count": {"N": str(line)}}} for line in range(3)]},
                },
                "SequenceNumber": f"{number + 1:021d}",
                "SizeBytes": 300,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        }
        for number in range(count)
    ]
    return json.dumps({"Records": wires, "NextShardIterator": "A" * 200}).encode()


def ways(service: str) -> dict[str, Way]:
    return {"bridge": ours(service), "stdlib": of_stdlib(service), "SDK": of_sdk(service)}


def services() -> Iterator[Service]:
    goals = (Goal("SDK", 10), Goal("stdlib", 1))
    yield Service("Kinesis", kinesis_body, ways("kinesis"), goals)
    yield Service("DynamoDB Streams", table_body, ways("dynamodb"), (Goal("SDK", 8), Goal("stdlib", 1)))


# Measuring.


def check(service: Service) -> None:
    """All ways give equal events."""
    body = service.body(BATCH + 1)
    given = {name: [json.loads(event) for event in way(body)] for name, way in service.ways.items()}
    for name, found in given.items():
        if found != given["bridge"]:
            raise SystemExit(f"{service.title}: {name} gives other events")


def measure(service: Service, pages: int, rounds: int) -> dict[str, float]:
    """Records a CPU-second."""
    body = service.body(PAGE)
    rates: dict[str, list[float]] = {name: [] for name in service.ways}
    for _ in range(rounds):
        for name, way in service.ways.items():
            before = process_time()
            for _ in range(pages):
                way(body)
            rates[name].append(pages * PAGE / (process_time() - before))
    return {name: median(found) for name, found in rates.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.stream_events", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--records", type=int, default=5 * PAGE, help="in each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    good = True
    for service in services():
        check(service)
        rates = measure(service, max(1, options.records // PAGE), options.rounds)
        print(f"{service.title}: from the body of an answer to events of {BATCH} records; records a CPU-second")
        for name, rate in rates.items():
            print(f"  {name:<8}{rate:>10,.0f}")
        for goal in service.goals:
            ratio = rates["bridge"] / rates[goal.than]
            print(f"  {ratio:.1f}x {goal.than}, goal {goal.times:g}x: {'reached' if ratio >= goal.times else 'missed'}")
            good = good and ratio >= goal.times / 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
