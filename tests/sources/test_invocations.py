"""The events of one function as a source: it passes the contract, as far as its own nature allows."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest

from bridge.errors import BridgeError
from bridge.lineage import hops
from bridge.mapping import Mapping
from bridge.pipeline.verdict import EventPolicy
from bridge.record import Record
from bridge.sources import Surroundings
from bridge.sources.event_queue import EventQueue
from bridge.sources.invocations import InvocationSource, event_mapping
from bridge.stores import StateUrl
from bridge.stores.memory import MemoryStore
from tests.clock import SKIPPING, owned_wall
from tests.contracts.source import SourceContract, batch_of, collect, opened
from tests.sources.near import Near
from tests.world import function

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


class EventBroker:
    """Accepts bodies as events ``{"body": ...}``."""

    visibility = 10.0

    def __init__(self, queue: EventQueue, **options: Any) -> None:
        self.queue = queue
        self.function = function(**options)
        self.near = Near()

    async def send(self, *bodies: str, group: str | None = None) -> list[str]:
        ids = [str(uuid.uuid4()) for _ in bodies]
        for body, request_id in zip(bodies, ids, strict=True):
            await self.queue.accept("worker", "", json.dumps({"body": body}).encode(), request_id)
        return ids

    def mapping(self) -> Mapping:
        return event_mapping(self.function)

    def source(self, **options: Any) -> InvocationSource:
        told = self.near.surroundings()
        return InvocationSource(
            self.mapping(),
            Surroundings(told.aws, told.meter, told.timeout, told.trouble, self.function, self.queue),
        )

    async def count(self) -> int:
        return self.queue.waiting("worker")

    async def steal(self, record: Record) -> None:
        raise NotImplementedError

    async def vanish(self) -> None:
        raise NotImplementedError


async def events() -> AsyncIterator[EventBroker]:
    queue = EventQueue(MemoryStore(StateUrl.parse("memory:")))
    async with queue.running():
        yield EventBroker(queue)


broker = pytest.fixture(events)


class TestInvocations(SourceContract):
    loses = False
    broker = pytest.fixture(staticmethod(events))

    # An event is no message: it is ours alone, cannot vanish, comes again at once, and is invoked by itself.
    test_what_does_not_exist_is_not_found = None  # type: ignore[assignment]
    test_a_queue_that_vanishes_is_noticed_by_a_fetch = None  # type: ignore[assignment]
    test_what_was_not_settled_comes_again_by_itself = None  # type: ignore[assignment]
    test_a_record_is_what_was_sent = None  # type: ignore[assignment]
    test_a_page_has_at_most_what_was_asked_for_and_says_whether_it_is_full = None  # type: ignore[assignment]
    test_failed_comes_again_when_its_time_is_over = None  # type: ignore[assignment]
    test_unstarted_comes_again_at_once = None  # type: ignore[assignment]
    test_each_record_has_its_own_fate = None  # type: ignore[assignment]
    test_the_event_is_the_records_joined = None  # type: ignore[assignment]
    test_the_view_is_the_record_with_its_data_decoded = None  # type: ignore[assignment]
    test_policy_and_scaling_follow_the_mapping = None  # type: ignore[assignment]


async def test_a_record_is_the_event_as_it_was_accepted(broker: EventBroker) -> None:  # ASY-2
    (sent,) = await broker.send("café")
    async with broker.source() as source, opened(broker) as partition:
        (record,) = await collect(partition, 1)
        assert (record.id, record.request_id, record.qualifier) == (sent, sent, "")
        assert (record.deliveries, record.attempts) == (1, 0)
        assert source.event(batch_of([record]), {}) == record.json == b'{"body": "caf\\u00e9"}'
        assert source.view(record) == {"body": "café"}
        assert hops(record.trace, broker.function.arn) == 1  # INV-40
        assert source.policy(batch_of([record])).events == EventPolicy(f"{broker.function.arn}:$LATEST")


async def test_a_page_is_one_event_and_tells_whether_more_are_due(broker: EventBroker) -> None:
    await broker.send("a", "b")
    async with opened(broker) as partition:
        pages = [await partition.fetch(10, 0) for _ in range(3)]
        assert [(len(page.records), page.full, page.caught_up) for page in pages] == [
            (1, True, False), (1, False, True), (0, False, True),
        ]  # fmt: skip


async def test_each_event_has_its_own_fate(broker: EventBroker) -> None:  # ASY-4
    await broker.send("a", "b", "c")
    async with opened(broker) as partition:
        first, second, third = await collect(partition, 3)
        later = msgspec.structs.replace(second, attempts=1, held_until=anyio.current_time() + 60)
        await partition.settle(done=[first], failed=[later], unstarted=[third])
        again = await collect(partition, 1)
        assert [(record.id, record.deliveries, record.attempts) for record in again] == [(third.id, 1, 0)]
        began = anyio.current_time()
        (retried,) = await collect(partition, 1, within=100)
        assert 59 < anyio.current_time() - began < 61
        assert (retried.id, retried.deliveries, retried.attempts) == (second.id, 2, 1)


async def test_leaving_the_source_gives_everything_back(broker: EventBroker) -> None:
    await broker.send("a", "b")
    async with opened(broker) as partition:
        first = await collect(partition, 2)
    async with opened(broker) as partition:
        second = await collect(partition, 2)
    assert {record.id for record in first} == {record.id for record in second}


async def test_it_needs_a_queue() -> None:
    with pytest.raises(BridgeError, match="no queue of asynchronous events"):
        InvocationSource(event_mapping(function()), Near().surroundings())
