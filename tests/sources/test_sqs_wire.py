"""The SQS source through the real client, over HTTP, to a queue and a wire that err."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from bridge.aws import Aws
from bridge.function import AwsSettings
from bridge.sources.sqs import SqsSource
from tests.contracts.source import PATIENCE, batch_of, bodies, collect, finish, opened
from tests.sources.faulty_sqs import REGION, FaultySqs
from tests.sources.near import Near
from tests.wire import DROPPED, GARBAGE, Wire, cut, error

pytestmark = pytest.mark.anyio
DELETE, CHANGE = "DeleteMessageBatch", "ChangeMessageVisibilityBatch"


class WireBroker:
    """A faulty queue behind a wire."""

    def __init__(self, wire: Wire, aws: Aws) -> None:
        self.wire = wire
        self.queue = FaultySqs(visibility=2)
        self.queue.serve(wire)
        self.visibility = 2.0
        self.near = Near(aws)

    async def send(self, *bodies: str, group: str | None = None) -> list[str]:
        return [self.queue.send(body, group) for body in bodies]

    def source(self, **options: Any) -> SqsSource:
        settings = AwsSettings(region=REGION, endpoint_url=self.wire.url)
        return SqsSource(self.near.mapping(self.queue.arn, aws=settings, **options), self.near.surroundings())

    async def count(self) -> int:
        return len(self.queue.visible) + len(self.queue.in_flight)

    async def steal(self, record: Any) -> None:
        self.queue.steal(record.id)

    async def vanish(self) -> None:
        self.queue.there = False


@pytest.fixture
async def broker(aws_keys: None) -> AsyncIterator[WireBroker]:
    async with Aws() as aws, Wire() as wire:
        yield WireBroker(wire, aws)


@pytest.mark.parametrize("fault", [cut({"Successful": [{"Id": "0"}]}), DROPPED, GARBAGE, error("ThrottlingException")])
async def test_deletes_whose_answers_are_lost_are_made_again(broker: WireBroker, fault: Any) -> None:
    await broker.send("a", "b")
    broker.wire.once(DELETE, fault, fault)
    async with opened(broker) as partition:
        await partition.settle(done=await collect(partition, 2))
        await broker.queue.gone(within=PATIENCE)
    assert sorted(broker.queue.deleted) == ["id-1", "id-2"]
    assert len(broker.wire.of(DELETE)) >= 3


@pytest.mark.parametrize("fault", [DROPPED, GARBAGE, error("ServiceUnavailable", status=503)])
async def test_receives_whose_answers_are_lost_are_made_again(broker: WireBroker, fault: Any) -> None:
    await broker.send("a")
    broker.wire.once("ReceiveMessage", fault, fault)
    async with opened(broker) as partition:
        assert bodies(await finish(partition, 1)) == ["a"]


async def test_extensions_whose_answers_are_lost_are_made_again(broker: WireBroker) -> None:
    await broker.send("a")
    broker.wire.once(CHANGE, DROPPED, GARBAGE)
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        await anyio.sleep(1.5 * broker.visibility)
        assert await partition.hold(batch_of(records)) == ()
        await partition.settle(done=records)
    assert broker.queue.deleted == ["id-1"]


async def test_an_endpoint_that_goes_away_and_comes_back_loses_nothing(broker: WireBroker) -> None:
    await broker.send(*map(str, range(20)))
    async with opened(broker) as partition:
        records = await collect(partition, 20)
        await broker.wire.down()
        await partition.settle(done=records)
        with anyio.fail_after(PATIENCE):
            while not broker.near.told:
                assert not (await partition.fetch(10, 1)).answered
            await broker.wire.up()
            while not (await partition.fetch(10, 1)).answered:
                pass
        await broker.queue.gone(within=PATIENCE)
    assert broker.near.told[-1] is None
    assert all(line and broker.wire.url in line for line in broker.near.told[:-1])


async def test_a_parked_receive_that_is_cancelled_leaves_the_connection(broker: WireBroker) -> None:
    async with opened(broker) as partition:
        with anyio.move_on_after(0.3):
            await partition.fetch(10, 20)
        with anyio.fail_after(PATIENCE):
            while broker.wire.connections:
                await anyio.sleep(0.01)
        await broker.send("a")
        assert bodies(await finish(partition, 1)) == ["a"]
