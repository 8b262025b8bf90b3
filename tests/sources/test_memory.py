"""The queue in memory: it passes the contract, and has doors for tests that other tests rely on."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import pytest

from bridge.errors import NotFound, PartitionEnded, Throttled
from bridge.record import Record
from bridge.sources.memory import MemoryQueue, MemorySource
from tests.clock import SKIPPING
from tests.contracts.source import SourceContract, bodies, collect
from tests.sources.near import Near

pytestmark = pytest.mark.anyio
numbers = itertools.count()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


class MemoryBroker:
    def __init__(self, **options: Any) -> None:
        self.queue = MemoryQueue(f"queue-{next(numbers)}", visibility=10, **options)
        self.visibility = self.queue.visibility
        self.near = Near()

    async def send(self, *bodies: str, group: str | None = None) -> list[str]:
        return [self.queue.put(body, group) for body in bodies]

    def source(self, **options: Any) -> MemorySource:
        arn = f"arn:aws:memory:eu-west-1:123456789012:{self.queue.name}"
        return MemorySource(self.near.mapping(arn, **options), self.near.surroundings())

    async def count(self) -> int:
        return len(self.queue.visible) + len(self.queue.in_flight)

    async def steal(self, record: Record) -> None:
        self.queue.steal(record.id)

    async def vanish(self) -> None:
        self.queue.fail(NotFound())


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def grouped() -> MemoryBroker:
    return MemoryBroker(fifo=True)


class TestMemory(SourceContract):
    @pytest.fixture
    def broker(self, broker: MemoryBroker) -> MemoryBroker:
        return broker

    @pytest.fixture
    def grouped(self, grouped: MemoryBroker) -> MemoryBroker:
        return grouped


async def test_a_message_that_fails_too_often_is_dead(broker: MemoryBroker) -> None:
    queue = broker.queue
    queue.max_receives = 2
    queue.put("a")
    async with broker.source() as source:
        async for partition in source.partitions():
            for deliveries in (1, 2):
                (record,) = await collect(partition, 1)
                assert record.deliveries == deliveries
                await partition.settle(failed=[record])
            await queue.settled_all()  # SQS-37
    assert (queue.dead, queue.deleted) == (["message-1"], [])
    assert queue.deliveries == ["message-1", "message-1"]


async def test_a_name_without_a_queue_is_not_found() -> None:
    near = Near()
    arn = "arn:aws:memory:eu-west-1:123456789012:nowhere"
    with pytest.raises(NotFound, match="nowhere"):
        async with MemorySource(near.mapping(arn), near.surroundings()):
            pytest.fail("it opened")


async def test_a_fault_reaches_fetches_that_wait(broker: MemoryBroker) -> None:
    async with broker.source() as source, anyio.create_task_group() as tasks:
        async for partition in source.partitions():

            async def fault() -> None:
                await anyio.sleep(5)
                broker.queue.fail(Throttled())

            tasks.start_soon(fault)
            with pytest.raises(Throttled):
                await partition.fetch(1, 20)
            broker.queue.fail(None)
            broker.queue.put("a")
            assert bodies((await partition.fetch(1, 20)).records) == ["a"]


async def test_an_ended_queue_ends_its_partition_after_the_last_page(broker: MemoryBroker) -> None:
    broker.queue.put("a")
    broker.queue.end()
    async with broker.source() as source:
        async for partition in source.partitions():
            page = await partition.fetch(10, 5)
            with pytest.raises(PartitionEnded):
                await partition.fetch(10, 5)
            await partition.settle(done=page.records)
            await partition.finish()
    assert broker.queue.finished


async def test_it_counts_what_it_polls_and_deletes(broker: MemoryBroker) -> None:
    broker.queue.put("a")
    async with broker.source() as source:
        async for partition in source.partitions():
            page = await partition.fetch(10, 5)
            await partition.settle(done=page.records)
            await partition.fetch(10, 0)
    assert broker.near.counted("polls_total", result="data") == 1
    assert broker.near.counted("polls_total", result="empty") == 1
    assert broker.near.counted("polled_events_total") == 1
    assert broker.near.counted("deleted_events_total") == 1


async def test_it_says_how_it_is(broker: MemoryBroker) -> None:
    broker.queue.put("a")
    assert "visible=1, in_flight=0, deleted=0, dead=0" in repr(broker.queue)
