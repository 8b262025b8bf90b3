"""How a Kinesis stream is read: how often, and how far ahead of who takes its records. The clock is owned."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from bridge.record import Record
from bridge.sources.shard_lanes import lane_of
from tests.contracts.stream import reading
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.near_streams import LocalKinesis, numbers, take
from tests.sources.owned_kinesis import anyio_backend, broker, owned_wall, stream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["anyio_backend", "broker", "owned_wall", "stream"]


# How often.


async def test_a_shard_without_news_is_asked_once_a_second(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    async with reading(broker):  # KIN-20
        await anyio.sleep(100)
    assert 98 <= stream.counts["GetRecords"] <= 102
    assert stream.counts["GetShardIterator"] == 1
    assert stream.counts["ListShards"] <= 3  # KIN-92: one in a minute


async def test_what_waits_is_read_at_once_but_within_the_limits(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    """KIN-10, KIN-11, KIN-21: ten pages of 10 MiB, each of which uses up the throughput of the next five seconds."""
    for _ in range(100):
        stream.put("one", "x" * (1 << 20), Data="x" * (1 << 20))
    began = anyio.current_time()
    async with reading(broker, batch_size=10) as reader:
        await reader.until(lambda: len(reader.everything) == 100, within=120)
    assert stream.rate("GetRecords") <= 5
    assert {call.params["Limit"] for call in stream.calls if call.operation == "GetRecords"} == {10_000}  # KIN-22
    assert anyio.current_time() - began < 80
    assert stream.counts["GetShardIterator"] == 1  # KIN-31


async def test_pages_with_nothing_in_them_are_no_end(stream: FaultyKinesis, broker: LocalKinesis) -> None:  # KIN-13
    await broker.put(*numbers(0, 5), key="one")
    stream.blank(3)
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything, within=1)  # they are crossed without the rest of an idle shard
        assert broker.bodies(reader.everything) == numbers(0, 5)


async def test_a_page_that_comes_twice_is_handed_on_twice_at_most(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    await broker.put(*numbers(0, 5), key="one")  # KIN-27
    stream.repeat(1)
    async with reading(broker) as reader:
        await reader.until(lambda: len(reader.everything) >= 5)
        await broker.put("last", key="one")
        await reader.until(lambda: "last" in broker.bodies(reader.everything))
        bodies = broker.bodies(reader.everything)
        assert bodies in ([*numbers(0, 5), "last"], [*numbers(0, 5), *numbers(0, 5), "last"])
        await reader.until(lambda: reader.settled == len(bodies))
    (stored,) = broker.positions.stored.values()
    assert stored.position.split()[1] == reader.everything[-1].id


async def test_the_order_is_that_of_sequence_numbers_whatever_the_times_say(
    stream: FaultyKinesis, broker: LocalKinesis
) -> None:  # KIN-14
    for age in (0, 300, 100):
        stream.put("one", str(age), ApproximateArrivalTimestamp=time.time() - age)
    async with reading(broker) as reader:
        await reader.until(lambda: len(reader.everything) == 3)
        assert broker.bodies(reader.everything) == ["0", "300", "100"]


async def test_a_record_without_a_key_is_its_own(stream: FaultyKinesis, broker: LocalKinesis) -> None:  # KIN-16
    put = stream.put("ignored", "a", PartitionKey=None)
    async with reading(broker, lanes=2) as reader:
        await reader.until(lambda: reader.everything)
        (record,) = reader.everything
        assert record.receipt == put
        assert "partitionKey" not in reader.source.view(record)["kinesis"]


# How far ahead.


async def test_no_more_is_read_ahead_than_one_further_batch_needs(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    """KIN-22: nobody takes anything."""
    await broker.put(*numbers(0, 30), key="one")
    async with broker.source(batch_size=10) as source:
        partition = await anext(source.partitions())
        await anyio.sleep(100)
        assert stream.counts["GetRecords"] == 1  # one page of all: it does not ask for less (KIN-22)
        await broker.put(*numbers(30, 60), key="one")
        await anyio.sleep(100)
        assert stream.counts["GetRecords"] == 1
        assert broker.bodies(await take(partition, 60, limit=10)) == numbers(0, 60)


async def test_bytes_are_bounded_over_all_shards_and_none_starves() -> None:  # KIN-22
    stream = FaultyKinesis(shards=20)
    broker = LocalKinesis(stream)
    for shard in stream.open:
        for number in range(20):
            stream.put("any", f"{number:02d}" + "x" * 1000, shard=shard)
    stream.latency = 0.05
    async with broker.source(batch_size=2) as source:
        source._ahead.limit = 30_000
        found = source.partitions()
        partitions = [await anext(found) for _ in range(20)]
        await anyio.sleep(30)
        limits = sorted(call.params["Limit"] for call in stream.of("GetRecords"))
        assert limits == [2] * 14 + [10_000] * 6, "pages that were under way when it was full, then one batch each"
        for partition in partitions:
            taken = await take(partition, 20, limit=2)
            assert [body[:2] for body in broker.bodies(taken)] == [f"{number:02d}" for number in range(20)]
        assert source._ahead.held == 0


async def test_a_lane_that_does_not_go_on_stops_the_others_at_the_bound(
    stream: FaultyKinesis, broker: LocalKinesis
) -> None:  # KIN-50..53, V12
    lanes = 2
    stuck, going = _keys_of_two_lanes()
    (first,) = await broker.put("stuck", key=stuck)
    async with broker.source(lanes=lanes, batch_size=10) as source:
        partitions: list[Any] = []
        async for partition in source.partitions():
            partitions.append(partition)
            if len(partitions) == lanes:
                break
        assert [partition.id for partition in partitions] == [f"{stream.open[0]}#{lane}" for lane in range(lanes)]
        pages = [await partition.fetch(10, 2) for partition in partitions]
        (held,) = (page.records[0] for page in pages if page.records)
        assert held.id == first
        (other,) = (it for it, page in zip(partitions, pages, strict=True) if not page.records)
        taken: list[Record] = []
        for number in range(60):
            await broker.put(str(number), key=going)
            page = await other.fetch(10, 3)
            taken += page.records
            await other.settle(done=page.records)
        assert broker.bodies(taken) == numbers(0, len(taken))
        assert 2 * lanes * 10 - 1 <= len(taken) < 60
        (stored,) = broker.positions.stored.values()
        assert stored.position == "TRIM_HORIZON", "the checkpoint is below the one that is stuck"
        (blocked,) = (it for it in partitions if it is not other)
        await blocked.settle(done=[held])
        taken += await take(other, 60 - len(taken))
        assert broker.bodies(taken) == numbers(0, 60)
        (stored,) = broker.positions.stored.values()
        assert stored.position.split()[1] == taken[-1].id


def _keys_of_two_lanes() -> tuple[str, str]:

    return next(key for key in "abcdefgh" if lane_of(key, 2) == 0), next(k for k in "abcdefgh" if lane_of(k, 2) == 1)


async def test_another_number_of_lanes_goes_on_from_the_same_place(broker: LocalKinesis) -> None:  # KIN-51, KIN-56
    await broker.put(*numbers(0, 30))
    seen: list[str] = []
    for lanes in (3, 1, 10):
        async with reading(broker, lanes=lanes) as reader:
            await reader.until(lambda r=reader: r.settled >= 30)
            seen += broker.bodies(reader.everything)
        await broker.put(*[f"{lanes}:{number}" for number in range(30)])
    assert sorted(seen[:30], key=int) == numbers(0, 30)
    assert len(seen) == len(set(seen)) == 90


async def test_a_record_of_ten_mebibytes_is_read_like_any_other(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    body = "x" * (10 << 20)  # KIN-15, KIN-38: what becomes of it is decided behind the source
    await broker.put("small", body, "after", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: len(reader.everything) == 3, within=60)
        assert broker.bodies(reader.everything) == ["small", body, "after"]
        assert len(reader.everything[1].json) > 6 << 20
