"""What a stream may do to those who read it without taking anything from them: places that are gone, numbers that go
back, subscriptions without a word, shards that refuse. The clock is owned."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bridge.position import Position
from bridge.sources.shards import Where
from tests.clock import SKIPPING, owned_wall
from tests.contracts.stream import reading
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import LocalStreams
from tests.sources.faulty_table import FaultyTable
from tests.sources.near_streams import LocalKinesis, LocalTable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]
SUBSCRIBE = "SubscribeToShard"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


def numbers(first: int, end: int) -> list[str]:
    return [str(number) for number in range(first, end)]


# Subscriptions.


async def test_subscriptions_without_a_word_are_not_renewed_at_once() -> None:  # KIN-102
    stream = FaultyKinesis()
    stream.subscription_life = 0.0
    async with reading(LocalKinesis(stream, pushed=True)):
        await anyio.sleep(60)
        assert 11 <= stream.counts[SUBSCRIBE] <= 13


async def test_subscriptions_of_shards_that_ended_are_forgotten() -> None:
    stream = FaultyKinesis()
    broker = LocalKinesis(stream, pushed=True)
    async with reading(broker) as reader:
        for _ in range(5):
            stream.roll(stream.open[0])
            await reader.until(lambda: stream.open[0] in reader.heard, within=120)
        assert len(reader.source._api._push._subscribed_at) == 1  # type: ignore[attr-defined]


class Forgetful(FaultyKinesis):
    """Tells again where subscriptions stood before."""

    def _event(self, *about: Any, **more: Any) -> dict[str, Any]:
        event = super()._event(*about, **more)
        if not event["Records"] and self.records_of_all:
            event["ContinuationSequenceNumber"] = str(self.records_of_all[0])
        return event

    @property
    def records_of_all(self) -> list[int]:
        return [record.number for shard in self.shards.values() for record in shard.records]


async def test_a_place_that_goes_back_is_not_believed() -> None:  # KIN-101
    stream = Forgetful()
    broker = LocalKinesis(stream, pushed=True)
    async with reading(broker) as reader:
        await reader.until(lambda: reader.heard)
        await broker.put("a", "b", "c", key="one")
        await reader.until(lambda: reader.settled == 3)
        await anyio.sleep(100)
        (position,) = broker.positions.stored.values()
        assert Where.parse(position.position).sequence == str(stream.records_of_all[-1])


async def test_a_blocked_lane_stops_no_other_while_nothing_is_pushed() -> None:
    """KIN-52, KIN-101: places without records do not count against the bound."""
    stream = FaultyKinesis()
    broker = LocalKinesis(stream, pushed=True)
    async with broker.source(lanes=2, batch_size=2) as source, anyio.create_task_group() as tasks:
        lanes: dict[str, Any] = {}

        async def opened() -> None:
            async for lane in source.partitions():
                lanes[lane.id] = lane

        tasks.start_soon(opened)
        await anyio.sleep(1)
        keys = [*_keys_of_lanes(2)]
        await broker.put("blocked", key=keys[0])
        (shard,) = stream.open
        page = await lanes[f"{shard}#0"].fetch(10, 10)
        assert broker.bodies(page.records) == ["blocked"]
        for _ in range(50):
            stream._numbers += 1  # other shards took a number: each word tells of another place
            await anyio.sleep(6)
        await broker.put("free", key=keys[1])
        page = await lanes[f"{shard}#1"].fetch(10, 10)
        assert broker.bodies(page.records) == ["free"]
        tasks.cancel_scope.cancel()


def _keys_of_lanes(count: int) -> list[str]:
    from bridge.sources.shard_lanes import lane_of

    return [next(k for k in map(str, range(100)) if lane_of(k, count) == lane) for lane in range(count)]


# Places that are gone.


async def test_a_horizon_that_is_trimmed_itself_is_asked_for_with_patience() -> None:
    """DDB-25, DDB-28: never loop on a dead position."""
    stream = FaultyTable()
    stream.refuse("GetShardIterator", *["TrimmedDataAccessException"] * 2000)
    broker = LocalTable(stream)
    async with reading(broker) as reader:
        await anyio.sleep(60)
        assert stream.counts["GetShardIterator"] < 30
        assert broker.counted("gaps_total") <= 1
        stream.allow("GetShardIterator")
        await broker.put("a")
        await reader.until(lambda: reader.everything, within=120)


async def test_what_was_trimmed_while_a_reader_waited_is_told() -> None:
    """KIN-32: also in the middle of a life."""
    stream = FaultyKinesis(retention=24 * 3600.0)
    broker = LocalKinesis(stream)
    async with broker.source(batch_size=1) as source:
        lane: Any = await anext(aiter(source.partitions()))
        await broker.put("a", key="one")
        page = await lane.fetch(1, 10)
        await broker.put("b", key="one")
        await anyio.sleep(2)
        await broker.put("lost", key="one")  # the bound is reached: nobody reads on
        await anyio.sleep(25 * 3600)
        await broker.put("c", key="one")
        await lane.settle(done=page.records)
        bodies: list[str] = []
        while "c" not in bodies:
            page = await lane.fetch(1, 20)
            bodies += broker.bodies(page.records)
            await lane.settle(done=page.records)
    assert bodies == ["b", "c"]
    assert broker.counted("gaps_total") == 1


# One shard that refuses.


@pytest.mark.parametrize("operation", ["GetRecords", "GetShardIterator"])
async def test_a_shard_that_refuses_stops_no_other(operation: str) -> None:
    """KIN-53: and it goes on when it does not refuse any more."""
    stream = FaultyKinesis(shards=2)
    sick, well = stream.open
    broker = LocalKinesis(stream)
    stream.refuse(operation, *["KMSDisabledException"] * 500, shard=sick)
    async with reading(broker) as reader:
        for number in range(20):
            stream.put(str(number), str(number), shard=well)
            await anyio.sleep(5)
        assert broker.bodies(reader.records[well]) == numbers(0, 20)
        assert broker.told
        assert "KMSDisabled" in str(broker.told[-1])
        stream.put("sick", "sick", shard=sick)
        stream.allow(operation)
        await reader.until(lambda: reader.records[sick], within=60)
        assert broker.told[-1] is None


async def test_an_answer_that_is_none_is_a_fault_of_its_shard_alone() -> None:
    stream = FaultyTable(shards=2)
    sick, well = stream.open
    broker = LocalTable(stream)
    stream.put("x", "x", shard=sick, dynamodb={"Keys": None})
    async with reading(broker) as reader:
        for number in range(20):
            stream.put(str(number), str(number), shard=well)
            await anyio.sleep(1)
        assert broker.bodies(reader.records[well]) == numbers(0, 20)
        assert "cannot be read" in str(broker.told[-1])


# LATEST.


async def test_latest_begins_before_anything_is_heard_of_any_shard() -> None:
    """KIN-24: once a shard was read, nothing that is put into another one is before the beginning."""
    stream = FaultyKinesis(shards=3)
    broker = LocalKinesis(stream)
    slow = stream.open[2]
    place = stream.operations["GetShardIterator"]

    class Slow(FaultyKinesis):
        operations = {**FaultyKinesis.operations}  # noqa: RUF012

    async def late(self: Any, params: Any) -> dict[str, Any]:
        if params["ShardId"] == slow:
            await anyio.sleep(3)  # on its way to the service
        return await place(self, params)

    Slow.operations["GetShardIterator"] = late
    stream.__class__ = Slow
    async with reading(broker, starting_position="LATEST") as reader:
        await reader.until(lambda: reader.heard)
        stream.put("x", "after", shard=slow)
        await reader.until(lambda: reader.everything)
        assert broker.bodies(reader.everything) == ["after"]


async def test_latest_of_a_child_that_was_listed_with_its_parent_is_when_the_mapping_began() -> None:
    """KIN-24: a stream that was split while its shards were listed, page by page."""
    stream = FaultyKinesis()
    stream.ignores_filters = True
    broker = LocalKinesis(stream)
    (parent,) = stream.open
    listed = stream._described(stream.shards[parent])
    children = stream.split(parent)
    described = stream._described
    stream._described = lambda shard: listed if shard.id == parent else described(shard)  # type: ignore[method-assign]
    stream.refuse("GetShardIterator", *["InternalFailure"] * 3, shard=parent)
    async with reading(broker, starting_position="LATEST") as reader:
        await anyio.sleep(0.01)
        for child in children:
            stream.put(child, f"of {child}", shard=child)
        await reader.until(lambda: len(reader.everything) == 2, within=60)


# Streams of the same name.


class LaterKinesis(FaultyKinesis):
    """A stream that was made later."""

    first_number = FaultyKinesis.first_number + 10**20


@pytest.mark.parametrize("ended", [True, False])
async def test_all_of_a_stream_that_was_made_anew_is_read_also_what_has_ended_in_it(ended: bool) -> None:
    """KIN-91, KIN-94: shards of the new one that were split have the names of older ones."""
    stream = FaultyKinesis()
    broker = LocalKinesis(stream)
    (first,) = stream.open
    await broker.put("old", key="one")
    if ended:
        stream.split(first)
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled and len(reader.partitions) == (3 if ended else 1))
    assert broker.positions.stored[first].ended == ended
    broker.stream = anew = LaterKinesis()
    broker.aws = LocalStreams(anew)
    (first,) = anew.open
    await broker.put("in the parent", key="one")
    for child in anew.split(first):
        anew.put(child, f"in {child}", shard=child)
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled == 3, within=120)
        assert broker.bodies(reader.records[first]) == ["in the parent"]
    assert broker.counted("gaps_total") >= 1


async def test_only_the_children_of_the_old_stream_were_known() -> None:
    """KIN-94: its tombstones were dropped; the shards that have their names are read all the same."""
    anew = LaterKinesis()
    broker = LocalKinesis(anew)
    (first,) = anew.open
    await broker.put("in the parent", key="one")
    children = anew.split(first)
    for child in children:
        anew.put(child, f"in {child}", shard=child)
    old = FaultyKinesis.first_number + 5
    stored = Position(position=f"AFTER_SEQUENCE_NUMBER {old} 1600000000.000", state=b"kept")
    broker.positions.stored = {children[0]: stored, children[1]: Position(position="TRIM_HORIZON")}
    async with reading(broker) as reader:
        await reader.until(lambda: reader.settled == 3, within=120)
        assert reader.partitions[children[0]].state == b"kept"  # the window that the old one left open


async def test_an_iterator_that_is_trimmed_says_nothing_about_what_was_read_by_it() -> None:
    """DDB-25: it may stand before a page that has been taken; what follows that is still there."""
    stream = FaultyTable()
    broker = LocalTable(stream)
    async with reading(broker) as reader:
        await reader.until(lambda: reader.heard)
        stream.repeat(3)
        put = await broker.put(*numbers(0, 5), key="one")
        await reader.until(lambda: reader.settled == 5)
        stream.trim(stream.open[0], put[2])
        await broker.put("5", key="one")
        await reader.until(lambda: len(reader.everything) == 6)
        await anyio.sleep(5)
        assert broker.bodies(reader.everything) == numbers(0, 6)
    assert broker.counted("gaps_total") == 0


async def test_latest_is_latest_also_where_nothing_can_be_pushed() -> None:
    """KIN-25, KIN-105: that an endpoint does not know subscriptions shows when one is asked for."""
    stream = FaultyKinesis(shards=2)
    stream.refuse(SUBSCRIBE, "UnknownOperationException", "UnknownOperationException")
    broker = LocalKinesis(stream, pushed=True)
    for shard in stream.open:
        stream.put("old", "old", shard=shard)
    async with reading(broker, starting_position="LATEST") as reader:
        await reader.until(lambda: len(reader.heard) == 2)
        for shard in stream.open:
            stream.put("new", "new", shard=shard)
        await reader.until(lambda: len(reader.everything) == 2)
        assert broker.bodies(reader.everything) == ["new"] * 2
