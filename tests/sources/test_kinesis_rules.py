"""How a Kinesis stream is read: how often, how far ahead, and on through every fault. The clock is owned."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import anyio
import pytest
import structlog

from bridge.errors import AccessDenied, NotFound, Rejected
from bridge.position import Position
from bridge.record import Record
from bridge.sources import Partition
from tests.clock import SKIPPING, owned_wall
from tests.contracts.stream import reading
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import LocalStreams
from tests.sources.near_streams import LocalKinesis

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


@pytest.fixture
def stream() -> FaultyKinesis:
    return FaultyKinesis()


@pytest.fixture
def broker(stream: FaultyKinesis) -> LocalKinesis:
    return LocalKinesis(stream)


def numbers(first: int, end: int) -> list[str]:
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
    from bridge.sources.shard_reader import lane_of

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


# Where it begins.


async def test_the_place_is_stored_before_anything_is_read(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    """KIN-24."""
    await anyio.sleep(100)
    moment = float(int(time.time()))
    stream.hang("GetShardIterator")
    async with broker.source(starting_position="LATEST"):
        assert [position.position for position in broker.positions.stored.values()] == [f"AT_TIMESTAMP {moment:.3f}"]
        await stream.asked("GetShardIterator")
        assert stream.of("GetShardIterator")[0].params["ShardIteratorType"] == "LATEST"


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"starting_position": "TRIM_HORIZON"}, "AT_TRIM_HORIZON"),
        ({"starting_position": "LATEST"}, "AT_LATEST"),
        ({"starting_position": "AT_TIMESTAMP", "starting_timestamp": 1_700_000_000.5}, "AT_TIMESTAMP"),
    ],
)
async def test_the_first_shards_are_those_of_the_place(
    stream: FaultyKinesis, broker: LocalKinesis, options: dict[str, Any], kind: str
) -> None:  # KIN-26
    async with broker.source(**options):
        pass
    (listing,) = stream.of("ListShards")
    assert listing.params["ShardFilter"]["Type"] == kind
    assert listing.params["ShardFilter"].get("Timestamp") == options.get("starting_timestamp")
    assert all(call.params["StreamARN"] == stream.arn for call in stream.calls)  # KIN-28


@pytest.mark.parametrize("ignores", [False, True])
async def test_children_after_latest_are_read_from_their_beginning(
    stream: FaultyKinesis, broker: LocalKinesis, ignores: bool
) -> None:  # KIN-26, KIN-114, V18
    stream.ignores_filters = ignores
    await broker.put("old", key="one")
    stream.split(stream.open[0])
    await broker.put("old too", key="one")
    async with reading(broker, starting_position="LATEST") as reader:
        await reader.until(lambda: len(reader.heard) == 2)
        parent = next(shard for shard in stream.open if any(True for _ in stream.numbers(shard)))
        stream.split(parent)
        await broker.put("new", key="one")
        await reader.until(lambda: reader.everything)
        await anyio.sleep(100)
        assert broker.bodies(reader.everything) == ["new"]


async def test_a_token_that_expires_in_a_listing_begins_it_anew(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    stream.shards_a_page = 2  # KIN-12
    for _ in range(6):
        stream.split(stream.open[0])
    listed = len(stream.shards)
    stream.slow("ListShards", 0, 0)
    async with broker.source() as source:
        stream.refuse("ListShards", "ExpiredNextTokenException")
        await anyio.sleep(70)
        assert len(source._lineage.shards) == listed
    assert not any("StreamARN" in call.params for call in stream.of("ListShards") if "NextToken" in call.params)


# Faults.


async def test_an_iterator_that_expired_is_replaced_behind_what_was_read(
    stream: FaultyKinesis, broker: LocalKinesis
) -> None:  # KIN-30, V17
    await broker.put(*numbers(0, 60), key="one")
    async with broker.source(batch_size=20) as source:
        partition = await anext(source.partitions())
        page = await partition.fetch(20, 20)
        await anyio.sleep(360)  # the batch runs for six minutes, two more wait behind it
        await broker.put(*numbers(60, 90), key="one")
        await partition.settle(done=page.records)
        taken = [*page.records, *await take(partition, 70, limit=20)]
        assert broker.bodies(taken) == numbers(0, 90)
    second = stream.of("GetShardIterator")[1].params
    assert (second["ShardIteratorType"], second["StartingSequenceNumber"]) == ("AFTER_SEQUENCE_NUMBER", taken[59].id)


async def test_a_latest_iterator_that_expired_means_the_time_it_was_asked_for(
    stream: FaultyKinesis, broker: LocalKinesis
) -> None:  # KIN-30
    await broker.put("old", key="one")
    await anyio.sleep(100)
    moment = float(int(time.time()))
    async with reading(broker, starting_position="LATEST") as reader:
        await reader.until(lambda: reader.heard)
        stream.expire()
        await broker.put("new", key="one")
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["new"]
    kinds = [(it.params["ShardIteratorType"], it.params.get("Timestamp")) for it in stream.of("GetShardIterator")]
    assert kinds == [("LATEST", None), ("AT_TIMESTAMP", moment)]


async def test_throttling_is_waited_out_at_the_same_place(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    await broker.put(*numbers(0, 10), key="one")  # KIN-31
    code = "ProvisionedThroughputExceededException"
    stream.refuse("GetRecords", *[code] * 6)
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything, within=120)
        assert broker.bodies(reader.everything) == numbers(0, 10)
        assert [(record.deliveries, record.attempts) for record in reader.everything] == [(1, 0)] * 10
    times = [call.at for call in stream.of("GetRecords")][:7]
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))
    assert stream.counts["GetShardIterator"] == 1
    assert broker.counted("poll_errors_total", error=code) == 6


@pytest.mark.parametrize("fault", ["InternalFailure", "ServiceUnavailable", "cut"])
async def test_what_passes_is_waited_out_at_the_same_place(
    stream: FaultyKinesis, broker: LocalKinesis, fault: str
) -> None:  # KIN-35
    await broker.put(*numbers(0, 10), key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
        if fault == "cut":
            stream.cut_off("GetRecords", 8)
        else:
            stream.refuse("GetRecords", *[fault] * 8)
        await broker.put(*numbers(10, 20), key="one")
        await reader.until(lambda: len(reader.everything) == 20, within=200)
        assert broker.bodies(reader.everything) == numbers(0, 20)
    assert stream.counts["GetShardIterator"] == 1
    assert len(broker.told) == 2, "told once, and once that it is over"
    assert broker.told[0] is not None
    assert broker.told[1] is None


async def test_an_endpoint_that_is_silent_is_asked_again(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    async with reading(broker) as reader:  # KIN-35
        await reader.until(lambda: reader.heard)
        stream.hang("GetRecords")
        await anyio.sleep(100)
        stream.allow("GetRecords")
        await broker.put("a", key="one")
        await reader.until(lambda: reader.everything, within=60)


async def test_a_place_that_is_older_than_the_stream_is_a_gap(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    await broker.put("a", key="one")  # KIN-32
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled)
    await broker.put("never read", key="one")
    await anyio.sleep(25 * 3600)
    stream.trim(stream.open[0])
    await broker.put("b", key="one")
    with structlog.testing.capture_logs() as logs:
        async with reading(broker) as reader:
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["b"]
    assert broker.counted("gaps_total") == 1
    (told,) = (entry for entry in logs if entry["event"] == "position_trimmed")
    assert (told["shard"], told["log_level"]) == (stream.open[0], "warning")


async def test_a_place_that_the_stream_never_had_begins_anew(stream: FaultyKinesis, broker: LocalKinesis) -> None:
    """KIN-32: a stream of the same name was made anew."""
    (shard,) = stream.open
    broker.positions.stored[shard] = Position(position="AFTER_SEQUENCE_NUMBER 17 1700000000.000")
    await broker.put("a", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
    assert broker.counted("gaps_total") == 1


class LaterKinesis(FaultyKinesis):
    """A stream that was made later."""

    first_number = FaultyKinesis.first_number + 10**20


async def test_shards_of_a_stream_that_was_made_anew_are_read_although_those_before_them_have_ended(
    stream: FaultyKinesis, broker: LocalKinesis
) -> None:
    """KIN-94: tombstones are those of one stream, while shards of all streams have the same names."""
    await broker.put("old", key="one")
    (first,) = stream.open
    stream.split(first)
    async with reading(broker) as reader:
        await reader.until(lambda: len(reader.partitions) == 3)
    assert broker.positions.stored[first].ended
    broker.stream = anew = LaterKinesis()
    broker.aws = LocalStreams(anew)
    await broker.put("new", key="one")
    with structlog.testing.capture_logs() as logs:
        async with reading(broker) as reader:
            await reader.until(lambda: reader.settled)
            assert broker.bodies(reader.everything) == ["new"]
    assert not broker.positions.stored[first].ended
    assert first in [entry["shard"] for entry in logs if entry["event"] == "position_trimmed"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDeniedException", AccessDenied),  # KIN-34
        ("KMSAccessDeniedException", AccessDenied),
        ("KMSDisabledException", Rejected),
        ("KMSNotFoundException", Rejected),
    ],
)
async def test_what_does_not_pass_ends_the_source_and_leaves_the_positions(
    stream: FaultyKinesis, broker: LocalKinesis, code: str, kind: type[Exception]
) -> None:
    await broker.put("a", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled)
    stored = dict(broker.positions.stored)
    async with broker.source() as source:
        stream.refuse("GetRecords", code)
        partition = await anext(source.partitions())
        with pytest.raises(kind):
            await take(partition, 1)
    assert broker.positions.stored == stored
    await broker.put("b", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["b"]


async def test_positions_outlive_the_stream(stream: FaultyKinesis, broker: LocalKinesis) -> None:  # KIN-33
    await broker.put("a", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled)
    stored = dict(broker.positions.stored)
    stream.there = False
    with pytest.raises(NotFound):
        async with broker.source():
            pytest.fail("it opened")
    assert broker.positions.stored == stored
    stream.there = True
    await broker.put("b", key="one")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["b"]


async def test_throttling_of_kms_passes(stream: FaultyKinesis, broker: LocalKinesis) -> None:  # KIN-34
    await broker.put("a", key="one")
    stream.refuse("GetRecords", "KMSThrottlingException")
    async with reading(broker) as reader:
        await reader.until(lambda: reader.everything)


# Shards that end.


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
