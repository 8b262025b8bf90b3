"""Streams in the test's own loop, and what their sources are given."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import anyio

from bridge.function import Function
from bridge.mapping import Mapping, SourceArn, StreamOptions
from bridge.record import Record
from bridge.sources import Partition, Surroundings
from bridge.sources.dynamodb import DynamoDBSource
from bridge.sources.kinesis import KinesisSource
from bridge.telemetry.metrics import Metrics
from tests.positions import RememberedPositions
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import LocalStreams
from tests.sources.faulty_table import FaultyTable

FUNCTION = Function(name="worker", arn="arn:aws:lambda:eu-west-1:210987654321:function:worker", kind="memory")


class NearStream:
    """A mapping's surroundings, which write down what the source says, counts and stores."""

    kind = "kinesis"

    def __init__(self, aws: Any = None) -> None:
        self.metrics = Metrics()
        self.positions = RememberedPositions()
        self.told: list[str | None] = []
        """What it waited for, none for each time that it went on."""
        self.aws = aws

    def mapping(self, arn: str, **options: Any) -> Mapping:
        """``options`` of the mapping or of its stream."""
        own = {key: options.pop(key) for key in StreamOptions.__struct_fields__ if key in options}
        base = {"name": "orders", "uuid": "a uuid", "function": "worker", "source_arn": SourceArn.parse(arn)}
        return Mapping(**{"batch_size": 100, **base, "stream": StreamOptions(**own), **options})

    def surroundings(self) -> Surroundings:
        return Surroundings(
            aws=self.aws,
            meter=self.metrics.mapping_meter("orders", self.kind, "worker"),
            timeout=3.0,
            trouble=self.told.append,
            function=FUNCTION,
            positions=self.positions,
        )

    def counted(self, name: str, **labels: str) -> float:
        """The value of one series of ``bridge_esm_...``; 0 while there is none."""
        base = {"mapping": "orders", "source": self.kind, "function": "worker"}
        return self.metrics.registry.get_sample_value(f"bridge_esm_{name}", {**base, **labels}) or 0.0


def data_of(records: Sequence[Record]) -> list[str]:
    """What was put into a Kinesis stream."""
    return [b64decode(json.loads(record.json)["kinesis"]["data"]).decode() for record in records]


def items_of(records: Sequence[Record]) -> list[str]:
    """What was put into a table."""
    return [json.loads(record.json)["dynamodb"]["NewImage"]["body"]["S"] for record in records]


def numbers(first: int, end: int) -> list[str]:
    """Bodies that tell their order."""
    return [str(number) for number in range(first, end)]


async def take(partition: Partition, count: int, limit: int = 100) -> list[Record]:
    """So many records, settled."""
    taken: list[Record] = []
    with anyio.fail_after(600):
        while len(taken) < count:
            page = await partition.fetch(limit, 20)
            taken += page.records
            await partition.settle(done=page.records)
    return taken


class LocalKinesis(NearStream):
    """A ``Broker`` of a stream in the same loop, whose clock can be owned. ``pushed``: its consumer is the source."""

    def __init__(self, stream: FaultyKinesis, *, pushed: bool = False) -> None:
        super().__init__(LocalStreams(stream))
        self.stream = stream
        self.arn = stream.consumer_arn if pushed else stream.arn

    async def put(self, *bodies: str, key: str = "") -> Sequence[str]:
        return [self.stream.put(key or body, body) for body in bodies]

    def source(self, **options: Any) -> KinesisSource:
        return KinesisSource(self.mapping(self.arn, **options), self.surroundings())

    def bodies(self, records: Sequence[Record]) -> list[str]:
        return data_of(records)

    async def split(self) -> None:
        self.stream.split(self.stream.open[0])

    async def merge(self) -> None:
        self.stream.merge(*self.stream.open[:2])

    async def vanish(self) -> None:
        self.stream.there = False

    async def moment(self) -> float:
        await anyio.sleep(1)
        return time.time()


class LocalTable(NearStream):
    """Likewise, of a table's stream."""

    kind = "dynamodb"

    def __init__(self, stream: FaultyTable) -> None:
        super().__init__(LocalStreams(stream))
        self.stream = stream

    async def put(self, *bodies: str, key: str = "") -> Sequence[str]:
        return [self.stream.put(key or body, body) for body in bodies]

    def source(self, **options: Any) -> DynamoDBSource:
        return DynamoDBSource(self.mapping(self.stream.arn, **options), self.surroundings())

    def bodies(self, records: Sequence[Record]) -> list[str]:
        return items_of(records)

    async def split(self) -> None:
        self.stream.split(self.stream.open[0])

    async def merge(self) -> None:
        raise NotImplementedError  # DDB-3

    async def vanish(self) -> None:
        self.stream.there = False

    async def moment(self) -> float:
        raise NotImplementedError  # DDB-7
