"""A Kinesis stream is read on through every fault. The clock is owned."""

from __future__ import annotations

import time
from itertools import pairwise

import anyio
import pytest
import structlog

from bridge.errors import AccessDenied, NotFound
from bridge.position import Position
from tests.contracts.stream import reading
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import LocalStreams
from tests.sources.near_streams import LocalKinesis, numbers, take
from tests.sources.owned_kinesis import anyio_backend, broker, owned_wall, stream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["anyio_backend", "broker", "owned_wall", "stream"]


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
