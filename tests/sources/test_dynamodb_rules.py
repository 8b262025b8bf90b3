"""How a table's stream is read: how often, over rolling shards, and on through every fault. The clock is owned."""

from __future__ import annotations

import itertools
import time
from itertools import pairwise
from typing import Any

import anyio
import pytest
import structlog

from bridge.errors import AccessDenied
from bridge.mapping import SourceArn
from bridge.record import Record, Span
from bridge.sources import Bound
from bridge.sources.dynamodb import DynamoDBSource
from tests.clock import SKIPPING, owned_wall
from tests.contracts.stream import reading
from tests.sources.faulty_table import FaultyTable
from tests.sources.near_streams import FUNCTION, LocalTable, numbers, take

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]
DAY = 86_400


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


@pytest.fixture
def table() -> FaultyTable:
    return FaultyTable()


@pytest.fixture
def broker(table: FaultyTable) -> LocalTable:
    return LocalTable(table)


async def test_an_idle_shard_is_asked_four_times_a_second(table: FaultyTable, broker: LocalTable) -> None:
    async with reading(broker):  # DDB-20, DDB-21
        await anyio.sleep(100)
    assert 396 <= table.counts["GetRecords"] <= 406
    assert table.rate("GetRecords") <= 5
    assert table.counts["GetShardIterator"] == 1
    assert 3 <= table.counts["DescribeStream"] <= 5  # DDB-22: on start, then every 30 s


async def test_what_waits_is_read_in_pages_of_a_thousand(
    table: FaultyTable, broker: LocalTable
) -> None:  # DDB-5, DDB-64
    await broker.put(*numbers(0, 3500), key="one")
    async with reading(broker, batch_size=10_000) as reader:
        await reader.until(lambda: len(reader.everything) == 3500, within=10)
        assert broker.bodies(reader.everything) == numbers(0, 3500)
    assert {call.params["Limit"] for call in table.of("GetRecords")} == {1000}


async def test_generations_of_shards_are_read_one_after_the_other(table: FaultyTable, broker: LocalTable) -> None:
    for generation in range(7):  # DDB-3, DDB-4, DDB-22
        await broker.put(*numbers(10 * generation, 10 * generation + 10), key="one")
        table.roll(table.open[0])
    await broker.put(*numbers(70, 80), key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled == 80)
        assert broker.bodies(reader.everything) == numbers(0, 80)
        assert len(reader.finished) == 7
    async with reading(broker) as reader:
        await broker.put("more", key="one")
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["more"]


async def test_a_shard_that_rolls_while_it_is_read_is_followed_at_once(table: FaultyTable, broker: LocalTable) -> None:
    async with reading(broker) as reader:  # DDB-4, DDB-6, DDB-22: it is looked for at the end of a shard
        for generation in range(5):
            await broker.put(*numbers(10 * generation, 10 * generation + 10), key="one")
            await reader.until(lambda g=generation: len(reader.everything) == 10 * g + 10, within=5)
            table.roll(table.open[0])
        assert broker.bodies(reader.everything) == numbers(0, 50)


async def test_latest_begins_with_open_shards_and_their_children_at_their_beginning(
    table: FaultyTable, broker: LocalTable
) -> None:  # DDB-23
    await broker.put("old", key="one")
    table.roll(table.open[0])
    await broker.put("old too", key="one")
    await anyio.sleep(60)
    async with reading(broker, starting_position="LATEST") as reader:
        await reader.until(lambda: reader.heard)
        await broker.put("new", key="one")
        table.roll(table.open[0])
        await broker.put("newer", key="one")
        await reader.until(lambda: len(reader.everything) == 2)
        await anyio.sleep(100)
        assert broker.bodies(reader.everything) == ["new", "newer"]


async def test_a_stored_position_that_was_trimmed_is_a_gap_and_no_end(table: FaultyTable, broker: LocalTable) -> None:
    """DDB-25."""
    await broker.put("a", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled)
    (last,) = reader.everything
    await broker.put("never read", key="one")
    table.trim(table.open[0])
    await broker.put("b", key="one")
    with structlog.testing.capture_logs() as logs:
        async with reading(broker) as reader:
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["b"]
            await broker.put("c", key="one")
            await reader.until(lambda: len(reader.everything) == 2)
    assert broker.counted("gaps_total") == 1
    (told,) = (entry for entry in logs if entry["event"] == "position_trimmed")
    assert told["shard"] == table.open[0]
    assert last.id in told["detail"]
    assert len(table.of("GetShardIterator")) <= 4, "it does not loop on the dead position"


async def test_a_shard_that_was_trimmed_as_a_whole_is_passed_over(table: FaultyTable, broker: LocalTable) -> None:
    await broker.put("a", key="one")  # DDB-25, DDB-27
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled)
    (parent,) = table.open
    await broker.put("never read", key="one")
    child = table.roll(parent)
    await broker.put("b", key="one")
    table.forget(parent)
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["b"]
        assert broker.counted("gaps_total") == 1
        await anyio.sleep(60)
    assert set(broker.positions.stored) == {child}


async def test_a_day_without_us_is_a_gap_in_what_is_gone_alone(table: FaultyTable, broker: LocalTable) -> None:  # DDB-1
    await broker.put("a", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled)
    for _ in range(3):
        await broker.put("never read", key="one")
        table.roll(table.open[0])
        await anyio.sleep(4 * 3600)
    await anyio.sleep(DAY)
    table.age()
    await broker.put("b", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["b"]
    assert broker.counted("gaps_total") == 1


async def test_a_bad_record_blocks_its_shard_for_a_day_at_most(table: FaultyTable, broker: LocalTable) -> None:
    """DDB-1: it is held; what is behind it is trimmed meanwhile."""
    await broker.put("bad", "behind it", key="one")
    async with broker.source(batch_size=1) as source:
        partition = await anext(source.partitions())
        page = await partition.fetch(1, 20)
        await anyio.sleep(DAY + 60)
        assert table.counts["GetRecords"] == 1
        await broker.put("b", key="one")
        await partition.settle(done=page.records)
        assert broker.bodies(await take(partition, 2)) == ["behind it", "b"]


async def test_an_iterator_that_expired_is_replaced_behind_what_was_read(
    table: FaultyTable, broker: LocalTable
) -> None:  # DDB-6, DDB-26
    await broker.put(*numbers(0, 60), key="one")
    async with broker.source(batch_size=20) as source:
        partition = await anext(source.partitions())
        page = await partition.fetch(20, 20)
        await anyio.sleep(1000)
        await broker.put(*numbers(60, 90), key="one")
        await partition.settle(done=page.records)
        taken = [*page.records, *await take(partition, 70)]
        assert broker.bodies(taken) == numbers(0, 90)


async def test_a_latest_iterator_that_expired_leaves_out_what_is_older(table: FaultyTable, broker: LocalTable) -> None:
    table.local = True  # DDB-26, DDB-28: AT_TIMESTAMP is not known there
    await broker.put("old", key="one")
    await anyio.sleep(200)
    async with reading(broker, starting_position="LATEST") as reader:
        await reader.until(lambda: reader.heard)
        table.expire()
        await broker.put("new", key="one")
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["new"]


@pytest.mark.parametrize(
    "code", ["LimitExceededException", "ThrottlingException", "InternalServerError", "ServiceUnavailable"]
)
@pytest.mark.parametrize("operation", ["DescribeStream", "GetShardIterator", "GetRecords"])
async def test_what_passes_is_waited_out(table: FaultyTable, broker: LocalTable, code: str, operation: str) -> None:
    await broker.put(*numbers(0, 10), key="one")  # DDB-27
    table.refuse(operation, *[code] * 3)
    async with reading(broker) as reader:
        await reader.until(lambda: len(reader.everything) == 10, within=60)
        assert broker.bodies(reader.everything) == numbers(0, 10)
    if code in ("LimitExceededException", "ThrottlingException") and operation == "GetRecords":
        assert table.rate("GetRecords", seconds=1) <= 4
        refused = [call.at for call in table.of("GetRecords")][:4]
        assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(refused))


async def test_an_iterator_that_died_with_its_server_is_no_loss(table: FaultyTable, broker: LocalTable) -> None:
    await broker.put(*numbers(0, 10), key="one")  # DDB-28
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled == 10)
        table.refuse("GetRecords", "ResourceNotFoundException")
        await broker.put(*numbers(10, 20), key="one")
        await reader.until(lambda: len(reader.everything) == 20)
        assert broker.bodies(reader.everything) == numbers(0, 20)
    assert broker.counted("gaps_total") == 0


async def test_a_fresh_latest_iterator_that_is_trimmed_is_no_gap(table: FaultyTable, broker: LocalTable) -> None:
    await broker.put("old", key="one")  # DDB-28
    await anyio.sleep(200)
    table.refuse("GetRecords", "TrimmedDataAccessException")
    async with reading(broker, starting_position="LATEST") as reader:
        await reader.until(lambda: len(reader.heard) == 1)
        await broker.put("new", key="one")
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["new"]
    assert broker.counted("gaps_total") == 0


async def test_a_stream_that_is_switched_off_is_drained(table: FaultyTable, broker: LocalTable) -> None:  # DDB-10
    await broker.put("a", "b", key="one")
    table.disable()
    async with reading(broker) as reader:
        await reader.until(lambda: reader.finished)
        assert broker.bodies(reader.everything) == ["a", "b"]
        await anyio.sleep(300)
        assert [position.ended for position in broker.positions.stored.values()] == [True]
    assert broker.told == []


async def test_who_may_not_read_is_told(table: FaultyTable, broker: LocalTable) -> None:  # KIN-34
    async with broker.source() as source:
        table.refuse("GetRecords", "AccessDeniedException")
        partition = await anext(source.partitions())
        with pytest.raises(AccessDenied):
            await take(partition, 1)


async def test_whole_seconds_and_repeated_values_are_no_trouble(table: FaultyTable, broker: LocalTable) -> None:
    await broker.put(*["same"] * 5, key="one")  # DDB-30, DDB-42: MODIFY records that change nothing, with sub-seconds
    table.put("one", "same", dynamodb={"ApproximateCreationDateTime": time.time() + 0.25})
    async with reading(broker) as reader:
        await reader.until(lambda: len(reader.everything) == 6)
        views = [reader.source.view(record) for record in reader.everything]
        assert [view["eventName"] for view in views] == ["INSERT"] + ["MODIFY"] * 5
        assert all(view["dynamodb"]["ApproximateCreationDateTime"] % 1 == 0 for view in views)


async def test_items_keep_to_their_lanes(table: FaultyTable, broker: LocalTable) -> None:  # DDB-46
    await broker.put(*numbers(0, 50))
    await broker.put(*numbers(0, 50))
    async with reading(broker, lanes=4) as reader:
        await reader.until(lambda: reader.settled == 100)
        homes = [set(broker.bodies(records)) for records in reader.records.values()]
        assert sum(map(len, homes)) == 50
        assert all(homes)


def test_limits() -> None:  # DDB-64
    limits = DynamoDBSource.limits("arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/2024-06-10T19:26:16.525")
    assert (limits.batch_size, limits.window) == (Bound(1, 10_000, 100), Bound(0, 300, 0))


def test_reports_name_the_stream_and_the_shard(broker: LocalTable, table: FaultyTable) -> None:  # DDB-62, KIN-84
    first, last = (Record(id=f"{number:021d}", json=b"", arrived_at=1573689 * 1000.0 + number) for number in (1, 20))
    assert broker.source().batch_info("shardId-0001#2", Span(first, last, 3)) == {
        "DDBStreamBatchInfo": {
            "shardId": "shardId-0001",
            "startSequenceNumber": first.id,
            "endSequenceNumber": last.id,
            "approximateArrivalOfFirstRecord": "2019-11-13T23:50:01Z",
            "approximateArrivalOfLastRecord": "2019-11-13T23:50:20Z",
            "batchSize": 3,
            "streamArn": table.arn,
        }
    }


async def test_a_shard_has_one_reader_however_many_lanes(table: FaultyTable, broker: LocalTable) -> None:  # DDB-8
    table.latency = 0.5
    async with reading(broker, lanes=10) as reader:
        await reader.until(lambda: len(reader.heard) == 10)
        await anyio.sleep(60)
    reads = [call.at for call in table.of("GetRecords")]
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(reads))


async def test_latest_is_stored_before_anything_is_read(table: FaultyTable, broker: LocalTable) -> None:
    """DDB-24: on AWS what is written while a mapping is made may be missed. Here what came since is read, whatever
    happens before the first read, and nothing that was there."""
    await broker.put("old", key="one")
    await anyio.sleep(100)
    table.hang("GetShardIterator")
    async with broker.source(starting_position="LATEST"):
        await table.asked("GetShardIterator")
        await anyio.sleep(5)
        await broker.put("meanwhile", key="one")
    table.allow("GetShardIterator")
    await anyio.sleep(100)
    async with reading(broker, starting_position="LATEST") as reader:
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["meanwhile"]


async def test_the_stream_of_another_account_is_asked_by_its_arn(table: FaultyTable, broker: LocalTable) -> None:
    """DDB-11, KIN-28: whether it may be is for its own policy to say."""
    assert SourceArn.parse(table.arn).account != SourceArn.parse(FUNCTION.arn).account
    await broker.put("a")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
        assert reader.source.view(reader.everything[0])["eventSourceARN"] == table.arn
    asked = [call for call in table.calls if call.operation != "GetRecords"]  # that one takes no ARN (DDB-5)
    assert {call.params["StreamArn"] for call in asked} == {table.arn}
