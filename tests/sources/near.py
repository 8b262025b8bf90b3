"""What a source is given in these tests."""

from __future__ import annotations

from typing import Any

from bridge.mapping import Mapping, SourceArn
from bridge.record import Record
from bridge.sources import Surroundings
from bridge.sources.sqs import SqsSource
from bridge.telemetry.metrics import Metrics
from tests.sources.faulty_sqs import FaultySqs, LocalAws
from tests.world import function


class Near:
    """A mapping's surroundings, which write down what the source says and counts."""

    def __init__(self, aws: Any = None, *, timeout: float = 3.0) -> None:
        self.metrics = Metrics()
        self.told: list[str | None] = []
        """What it waited for, none for each time that it went on."""
        self.aws, self._timeout = aws, timeout

    def mapping(self, arn: str, **options: Any) -> Mapping:
        return Mapping(name="orders", uuid="a uuid", function="worker", source_arn=SourceArn.parse(arn), **options)

    def surroundings(self) -> Surroundings:
        return Surroundings(
            aws=self.aws,
            meter=self.metrics.mapping_meter("orders", "sqs", "worker"),
            timeout=self._timeout,
            trouble=self.told.append,
            function=function(),
        )

    def counted(self, name: str, **labels: str) -> float:
        """The value of one series of ``bridge_esm_...``; 0 while there is none."""
        base = {"mapping": "orders", "source": "sqs", "function": "worker"}
        return self.metrics.registry.get_sample_value(f"bridge_esm_{name}", {**base, **labels}) or 0.0


class LocalBroker:
    """A queue in the same loop, whose clock can be owned."""

    def __init__(self, queue: FaultySqs, **near: Any) -> None:
        self.queue = queue
        self.visibility = float(queue.visibility)
        self.near = Near(LocalAws(queue), **near)

    async def send(self, *bodies: str, group: str | None = None) -> list[str]:
        return [self.queue.send(body, group) for body in bodies]

    def source(self, **options: Any) -> SqsSource:
        return SqsSource(self.near.mapping(self.queue.arn, **options), self.near.surroundings())

    async def count(self) -> int:
        return len(self.queue.visible) + len(self.queue.in_flight)

    async def steal(self, record: Record) -> None:
        self.queue.steal(record.id)

    async def vanish(self) -> None:
        self.queue.there = False
        self.queue.refuse("ReceiveMessage", "AWS.SimpleQueueService.NonExistentQueue")
