"""Pointers are followed on real servers: open shards, and closed ones where a server has them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from bridge.aws import Aws
from bridge.errors import NotFound
from bridge.mapping import SourceArn
from bridge.record import Record
from bridge.replay.documents import Pointer
from bridge.replay.pointers import Expired, Reading, Stream
from bridge.sources.shards import TRIM_HORIZON
from tests.replay.test_pointers import followed
from tests.servers import Server
from tests.sources.served_streams import ServedKinesis, ServedTable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]

Served = ServedKinesis | ServedTable


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    async with Aws() as aws:
        yield aws


@pytest.fixture(params=["kinesalite", "ministack"])
def kinesis(request: pytest.FixtureRequest, aws: Aws) -> ServedKinesis:
    return ServedKinesis(request.getfixturevalue(f"{request.param}_server"), aws)


async def held(stream: Stream) -> tuple[str, list[Record]]:
    """The first shard that holds records, and all of these."""
    for shard in await stream.api.shards():
        page = await stream.api.read(shard, await stream.api.cursor(shard, TRIM_HORIZON), 100)
        if page.records:
            return shard.id, list(page.records)
    raise AssertionError("no shard has records")


def pointer(served: Served, shard: str, records: list[Record]) -> Pointer:
    arn = SourceArn.parse(served.arn)
    return Pointer(arn, shard, records[0].id, records[-1].id, len(records))


async def check(served: Served, stream: Stream, shard: str, records: list[Record]) -> None:
    """Each part of them is found again, and nothing else."""
    for part in (records[1:3], records[-1:]):
        reading = Reading(stream, pointer(served, shard, part))
        assert [record.json for record in await followed(reading)] == [record.json for record in part]
        assert reading.whole


async def test_records_of_a_stream(kinesis: ServedKinesis) -> None:  # REPLAY-DO-9, KIN-80
    await kinesis.put(*"abcd", key="k")
    stream = Stream(await kinesis.source().connect())
    shard, records = await held(stream)
    await check(kinesis, stream, shard, records)
    with pytest.raises(Expired):
        await followed(Reading(stream, pointer(kinesis, "shardId-000000000099", records)))
    await kinesis.vanish()
    with pytest.raises(NotFound):
        await followed(Reading(stream, pointer(kinesis, shard, records)))


async def test_records_of_a_closed_shard(kinesalite_server: Server, aws: Aws) -> None:  # REPLAY-DO-9, KIN-90
    kinesis = ServedKinesis(kinesalite_server, aws)
    await kinesis.put(*"abcd", key="k")
    await kinesis.merge()
    await kinesis.put("later", key="k")
    stream = Stream(await kinesis.source().connect())
    shard, records = await held(stream)
    assert (await stream.shard(shard)).last
    await check(kinesis, stream, shard, records)
    last = str(int(records[-1].id) + 1)
    reading = Reading(stream, msgspec.structs.replace(pointer(kinesis, shard, records), last=last))
    assert len(await followed(reading)) == len(records)
    assert not reading.ends


async def test_records_of_a_table(ministack_server: Server, aws: Aws) -> None:  # REPLAY-DO-9, DDB-62
    table = ServedTable(ministack_server, aws)
    await table.put(*"abcd")
    stream = Stream(await table.source().connect())
    shard, records = await held(stream)
    await check(table, stream, shard, records)
