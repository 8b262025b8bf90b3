"""Where reading a Kinesis stream begins, and what is stored of that. The clock is owned."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from tests.contracts.stream import reading
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.near_streams import LocalKinesis
from tests.sources.owned_kinesis import anyio_backend, broker, owned_wall, stream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["anyio_backend", "broker", "owned_wall", "stream"]


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
