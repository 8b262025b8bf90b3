"""Shards of a Kinesis stream that end, and what follows them. The clock is owned."""

from __future__ import annotations

import anyio
import pytest

from tests.contracts.stream import reading
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.near_streams import LocalKinesis, numbers, take
from tests.sources.owned_kinesis import anyio_backend, broker, owned_wall, stream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["anyio_backend", "broker", "owned_wall", "stream"]


async def test_children_wait_for_a_parent_that_is_being_retried(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    """KIN-91, KIN-93, V13."""
    (parent,) = stream.open
    await broker.put("poison", key="one")
    async with broker.source() as source:
        partition = await anext(source.partitions())
        page = await partition.fetch(10, 20)
        await broker.split()
        await broker.put("child", key="one")
        with anyio.move_on_after(600) as scope:
            await anext(source.partitions())
        assert scope.cancelled_caught, "a child was opened"
        assert not any(call.shard != parent for call in stream.calls if call.shard)
        await take(partition, 0)
        await partition.settle(done=page.records)
        await partition.finish()
        with anyio.fail_after(10):
            children = [await anext(source.partitions()) for _ in range(2)]
        assert {child.id for child in children} == set(stream.open)
    assert broker.positions.stored[parent].ended


async def test_a_merged_child_waits_for_both(broker: LocalKinesis) -> None:  # KIN-90, KIN-91, V14
    stream = FaultyKinesis(shards=2)
    broker = LocalKinesis(stream)
    one, other = stream.open
    stream.put("any", "a", shard=one)
    stream.put("any", "b", shard=other)
    await broker.merge()
    (child,) = stream.open
    async with broker.source() as source:
        found = source.partitions()
        first, second = await anext(found), await anext(found)
        await take(first, 1)
        await first.finish()
        with anyio.move_on_after(600) as scope:
            await anext(source.partitions())
        assert scope.cancelled_caught, "the child was opened"
        await take(second, 1)
        await second.finish()
        with anyio.fail_after(10):
            assert (await anext(source.partitions())).id == child


@pytest.mark.parametrize("never_ends", [False, True])
async def test_a_closed_shard_ends_with_its_last_record_in_any_way(
    stream: FaultyKinesis, broker: LocalKinesis, never_ends: bool
) -> None:  # KIN-13, KIN-92, KIN-112
    stream.never_ends = never_ends
    stream.hides_children = True
    await broker.put(*numbers(0, 10))
    async with reading(broker) as reader:
        await reader.until(lambda: len(reader.everything) == 10)
        await broker.split()
        await broker.put(*numbers(10, 20))
        await reader.until(lambda: len(reader.everything) == 20, within=90)
        assert sorted(broker.bodies(reader.everything), key=int) == numbers(0, 20)
        assert len(reader.finished) == 1


async def test_small_numbers_of_children_are_not_those_of_their_parent() -> None:  # KIN-113
    stream = FaultyKinesis(small_numbers=True)
    broker = LocalKinesis(stream)
    await broker.put(*numbers(0, 10))
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled == 10)
        await broker.split()
        await broker.put(*numbers(10, 30))
        await reader.until(lambda: reader.settled == 30, within=90)
    places = sorted(it.position.split()[1] for it in broker.positions.stored.values() if not it.ended)
    assert places == sorted(records[-1].id for name, records in reader.records.items() if name in stream.open)
    async with reading(broker) as reader:
        await reader.until(lambda: len(reader.heard) == 2)
        await broker.put("more")
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["more"]


async def test_a_tombstone_is_kept_until_its_shard_is_forgotten(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    (parent,) = stream.open  # KIN-94
    await broker.put("a", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled)
        await broker.split()
        await reader.until(lambda: len(reader.heard) == 3)
        await anyio.sleep(100)
        assert broker.positions.stored[parent].ended
        stream.forget(parent)
        await anyio.sleep(100)
        assert set(broker.positions.stored) == set(stream.open)


async def test_a_shard_that_is_gone_with_what_was_in_it_is_a_gap(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    await broker.put("a", key="one")  # KIN-91: a parent that is not listed any more counts as finished
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled)
    (parent,) = stream.open
    await broker.put("never read", key="one")
    await broker.split()
    await broker.put("child", key="one")
    stream.forget(parent)
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["child"]
    assert broker.counted("gaps_total") == 1
