"""Enhanced fan-out: subscriptions that end, are taken over, refused, or not to be had. The clock is owned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import structlog

from bridge.errors import PartitionEnded
from bridge.record import Record
from bridge.sources.kinesis import KinesisSource
from tests.clock import SKIPPING, owned_wall
from tests.contracts.stream import Reader, reading
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.near_streams import LocalKinesis, numbers

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]
SUBSCRIBE = "SubscribeToShard"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


@pytest.fixture
def stream() -> FaultyKinesis:
    return FaultyKinesis()


@pytest.fixture
def broker(stream: FaultyKinesis) -> LocalKinesis:
    return LocalKinesis(stream, pushed=True)


@asynccontextmanager
async def subscribed(broker: LocalKinesis, **options: Any) -> AsyncIterator[Reader]:
    """Somebody reads, and its first subscription stands."""
    async with reading(broker, **options) as reader:
        await reader.until(lambda: reader.heard)
        yield reader


async def test_records_come_without_being_asked_for(stream: FaultyKinesis, broker: LocalKinesis) -> None:  # KIN-100
    async with subscribed(broker) as reader:
        for number in numbers(0, 20):
            await broker.put(number, key="one")
            await anyio.sleep(0.05)
        await reader.until(lambda: len(reader.everything) == 20, within=0.5)
        assert broker.bodies(reader.everything) == numbers(0, 20)
    assert stream.counts["GetRecords"] == 0
    assert stream.of(SUBSCRIBE)[0].params["ConsumerARN"] == stream.consumer_arn
    assert stream.of("ListShards")[0].params["StreamARN"] == stream.arn  # KIN-106


async def test_a_subscription_is_renewed_where_it_ended(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    """KIN-100, KIN-101."""
    async with subscribed(broker) as reader:
        for number in numbers(0, 100):
            await broker.put(number, key="one")
            await anyio.sleep(13)
        await reader.until(lambda: len(reader.everything) == 100)
        assert broker.bodies(reader.everything) == numbers(0, 100)
    assert stream.counts[SUBSCRIBE] == 5
    second = stream.of(SUBSCRIBE)[1].params["StartingPosition"]
    assert second["Type"] == "AFTER_SEQUENCE_NUMBER"
    assert stream.rate(SUBSCRIBE, seconds=5) == 1  # KIN-102


async def test_subscriptions_that_end_at_once_are_not_renewed_at_once(
    stream: FaultyKinesis, broker: LocalKinesis
) -> None:  # KIN-102
    stream.subscription_life = 0.1
    await broker.put("a", key="one")
    async with subscribed(broker) as reader:
        await anyio.sleep(60)
        assert broker.bodies(reader.everything) == ["a"]
    assert 11 <= stream.counts[SUBSCRIBE] <= 13
    assert stream.rate(SUBSCRIBE, seconds=5) == 1


async def test_the_place_is_stored_although_nothing_comes(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    """KIN-101: an idle stream's position does not fall out of its retention."""
    async with subscribed(broker) as reader:
        await broker.put("a", key="one")
        await reader.until(lambda: reader.settled)
        (before,) = (position.position for position in broker.positions.stored.values())
        stream._numbers += 50  # as if records of other shards took numbers
        await anyio.sleep(60)
        (after,) = (position.position for position in broker.positions.stored.values())
    assert int(after.split()[1]) > int(before.split()[1])
    assert len(broker.positions.moves) < 6
    async with subscribed(broker) as reader:
        await broker.put("b", key="one")
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["b"]


async def test_a_consumer_in_use_is_waited_for(stream: FaultyKinesis, broker: LocalKinesis) -> None:  # KIN-102
    stream.refuse(SUBSCRIBE, "ResourceInUseException", "ResourceInUseException", "LimitExceededException")
    await broker.put("a", key="one")
    async with subscribed(broker) as reader:
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["a"]
    assert stream.counts[SUBSCRIBE] == 4
    assert stream.rate(SUBSCRIBE) == 1
    assert stream.counts["GetRecords"] == 0


async def test_a_subscription_that_was_taken_over_is_told_and_taken_back(
    stream: FaultyKinesis, broker: LocalKinesis
) -> None:  # KIN-104
    with structlog.testing.capture_logs() as logs:
        async with subscribed(broker) as reader:
            await broker.put("a", key="one")
            await reader.until(lambda: reader.everything)
            stream.steal(stream.open[0])
            await broker.put("b", key="one")
            await reader.until(lambda: len(reader.everything) == 2)
            assert broker.bodies(reader.everything) == ["a", "b"]
    (lost,) = (entry for entry in logs if entry["event"] == "subscription_lost")
    assert lost["shard"] == stream.open[0]


async def test_who_is_slow_is_pushed_no_more_than_fits(stream: FaultyKinesis, broker: LocalKinesis) -> None:  # KIN-103
    stream.push_most = 10
    await broker.put(*numbers(0, 1000), key="one")
    async with broker.source(batch_size=20) as source:
        partition = await anext(source.partitions())
        await anyio.sleep(400)  # the subscription ends meanwhile
        held = stream.pushed
        assert 20 <= held <= 60
        taken: list[Record] = []
        while len(taken) < 1000:
            page = await partition.fetch(20, 20)
            taken += page.records
            await partition.settle(done=page.records)
        assert broker.bodies(taken) == numbers(0, 1000)


async def test_the_end_of_a_shard_is_followed_by_its_children(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    """KIN-92, KIN-101."""
    await broker.put(*numbers(0, 10))
    async with subscribed(broker) as reader:
        await reader.until(lambda: len(reader.everything) == 10)
        await broker.split()
        await broker.put(*numbers(10, 40))
        await reader.until(lambda: len(reader.everything) == 40, within=10)  # they are announced
        assert sorted(broker.bodies(reader.everything), key=int) == numbers(0, 40)
        assert len(reader.finished) == 1
    starts = [call.params["StartingPosition"]["Type"] for call in stream.of(SUBSCRIBE)]
    assert starts == ["TRIM_HORIZON"] * 3  # KIN-26


@pytest.mark.parametrize(
    ("codes", "subscriptions"),
    [(["UnknownOperationException"], 1), (["InvalidAction"], 1), (["NotFound"], 1), (["InternalFailure"] * 3, 3)],
)
async def test_an_endpoint_that_does_not_push_is_asked(
    stream: FaultyKinesis, broker: LocalKinesis, codes: list[str], subscriptions: int
) -> None:  # KIN-105
    stream.refuse(SUBSCRIBE, *codes)
    await broker.put("a", key="one")
    with structlog.testing.capture_logs() as logs:
        async with reading(broker) as reader:
            await reader.until(lambda: reader.everything)
            await broker.put("b", key="one")
            await reader.until(lambda: len(reader.everything) == 2)
            assert broker.bodies(reader.everything) == ["a", "b"]
    assert stream.counts[SUBSCRIBE] == subscriptions
    assert stream.of("GetRecords")[0].params["StreamARN"] == stream.arn
    assert [entry["log_level"] for entry in logs if entry["event"] == "push_unavailable"] == ["warning"]


async def test_what_has_worked_is_subscribed_to_again(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    async with subscribed(broker) as reader:
        stream.refuse(SUBSCRIBE, *["InternalFailure"] * 5)
        stream.steal(stream.open[0])
        await broker.put("a", key="one")
        await reader.until(lambda: reader.everything, within=120)
    assert stream.counts["GetRecords"] == 0
    assert stream.counts[SUBSCRIBE] == 7


async def test_the_event_names_the_consumer(broker: LocalKinesis, stream: FaultyKinesis) -> None:  # KIN-44
    await broker.put("a")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
    event = reader.source.view(reader.everything[0])
    assert event["eventSourceARN"] == stream.consumer_arn
    assert isinstance(reader.source, KinesisSource)


async def test_a_shard_that_ended_long_ago_is_pushed_to_its_end(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    (shard,) = stream.open
    put = stream.put("one", "a")
    stream.close(shard)
    async with broker.source() as source:
        partition = await anext(source.partitions())
        page = await partition.fetch(10, 20)
        assert [record.id for record in page.records] == [put]
        await partition.settle(done=page.records)
        with pytest.raises(PartitionEnded):
            await partition.fetch(10, 20)
        await partition.finish()
    assert broker.positions.stored[shard].ended
