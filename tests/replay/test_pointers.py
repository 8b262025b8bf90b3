"""Records are read again from their shard: open, closed, trimmed, gone; with all that services do in between."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from bridge.errors import AccessDenied, NotFound, Throttled
from bridge.mapping import SourceArn
from bridge.record import Record
from bridge.replay import pointers
from bridge.replay.documents import Pointer
from bridge.replay.pointers import Expired, Reading, Stream
from bridge.sources.shards import CursorExpired
from tests.clock import SKIPPING
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_table import FaultyTable
from tests.sources.near_streams import LocalKinesis, LocalTable
from tests.sources.test_kinesis_event import aggregate

pytestmark = pytest.mark.anyio

Near = LocalKinesis | LocalTable


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


@pytest.fixture(params=["kinesis", "dynamodb"])
def near(request: pytest.FixtureRequest) -> Near:
    return LocalKinesis(FaultyKinesis()) if request.param == "kinesis" else LocalTable(FaultyTable())


@pytest.fixture
def kinesis() -> LocalKinesis:
    return LocalKinesis(FaultyKinesis())


async def opened(near: Near, **options: Any) -> Stream:
    return Stream(await near.source(**options).connect())


def pointer(near: Near, numbers: Sequence[str], shard: str = "", **changes: Any) -> Pointer:
    """To the records with the first and the last of these numbers."""
    name = shard or next(iter(near.stream.shards))
    given = {"records": len(numbers), "first": numbers[0], "last": numbers[-1], "shard": name, **changes}
    return Pointer(stream=SourceArn.parse(near.stream.arn), **given)


async def followed(reading: Reading) -> list[Record]:
    return [record async for page in reading.pages() for record in page]


async def read(near: Near, numbers: Sequence[str], **changes: Any) -> tuple[list[str], Reading]:
    """The ids that were found, and the reading."""
    reading = Reading(await opened(near), pointer(near, numbers, **changes))
    return [record.id for record in await followed(reading)], reading


async def test_from_the_first_to_the_last_and_no_other(near: Near) -> None:  # KIN-80, DDB-62
    numbers = await near.put(*"abcdefgh", key="k")
    found, reading = await read(near, numbers[2:6])
    assert (found, reading.whole) == (list(numbers[2:6]), True)
    found, reading = await read(near, numbers[7:])
    assert (found, reading.whole) == ([numbers[7]], True)


async def test_the_records_are_those_of_the_event(near: Near) -> None:  # KIN-42, DDB-45
    numbers = await near.put("one", "two")
    stream = await opened(near)
    assert near.bodies(await followed(Reading(stream, pointer(near, numbers)))) == ["one", "two"]


async def test_a_closed_shard_is_read_on(near: Near) -> None:  # REPLAY-DO-9, KIN-90, DDB-4
    numbers = await near.put(*"abcd", key="k")
    await near.split()
    await near.put(*"efgh")
    found, reading = await read(near, numbers[1:])
    assert (found, reading.whole) == (list(numbers[1:]), True)


async def test_a_shard_that_is_closed_while_it_is_read(near: Near) -> None:
    numbers = await near.put(*"abcd", key="k")
    stream = await opened(near)
    reading = Reading(stream, pointer(near, numbers))
    await stream.shard(near.stream.open[0])
    near.stream.split(near.stream.open[0])
    assert [record.id for record in await followed(reading)] == list(numbers)


async def test_one_that_never_tells_its_end(near: Near) -> None:  # KIN-112
    numbers = await near.put(*"abcd", key="k")
    near.stream.never_ends = True
    await near.split()
    near.stream.trim(next(iter(near.stream.shards)))
    with pytest.raises(Expired):
        await read(near, numbers)


async def test_what_was_trimmed_is_expired(near: Near) -> None:  # KIN-32, DDB-25
    numbers = await near.put(*"abcd", key="k")
    near.stream.trim(near.stream.open[0], numbers[-1])
    with pytest.raises(Expired, match="expired: none of the 4 records"):
        await read(near, numbers)
    await near.put("later", key="k")
    with pytest.raises(Expired):
        await read(near, numbers)


async def test_what_was_trimmed_in_part(near: Near) -> None:
    numbers = await near.put(*"abcdef", key="k")
    near.stream.trim(near.stream.open[0], numbers[1])
    found, reading = await read(near, numbers[:4])
    assert found == list(numbers[2:4])
    assert (reading.begins, reading.ends, reading.whole) == (False, True, False)


async def test_a_shard_that_is_not_listed_any_more_is_expired(near: Near) -> None:
    numbers = await near.put("a", key="k")
    (shard,) = near.stream.open
    await near.split()
    near.stream.forget(shard)
    with pytest.raises(Expired, match=rf"expired: .* has no {shard} any more"):
        await read(near, numbers, shard=shard)


async def test_a_shard_that_goes_while_it_is_read(near: Near) -> None:
    numbers = await near.put("a", key="k")
    stream = await opened(near)
    (shard,) = near.stream.open
    await stream.shard(shard)
    await near.split()
    near.stream.forget(shard)
    with pytest.raises(Expired):
        await followed(Reading(stream, pointer(near, numbers, shard)))


async def test_a_stream_that_is_gone_is_told_apart(near: Near) -> None:
    numbers = await near.put("a", key="k")
    stream = await opened(near)
    await near.vanish()
    with pytest.raises(NotFound):
        await followed(Reading(stream, pointer(near, numbers)))


async def test_a_stream_made_anew_under_its_old_name_has_other_records(
    kinesis: LocalKinesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = await kinesis.put(*"abc", key="k")
    monkeypatch.setattr(FaultyKinesis, "first_number", FaultyKinesis.first_number + 10**9)
    anew = LocalKinesis(FaultyKinesis())
    await anew.put(*"xyz", key="k")
    with pytest.raises(Expired):
        await read(anew, numbers, shard=anew.stream.open[0])


async def test_a_number_that_the_stream_never_had_is_not_searched_for(kinesis: LocalKinesis) -> None:
    numbers = await kinesis.put(*(str(n) for n in range(50)), key="k")
    kinesis.stream.refuse("GetShardIterator", "InvalidArgumentException")
    with pytest.raises(Expired):
        await read(kinesis, [str(int(numbers[-1]) + 1)])
    assert kinesis.stream.counts["GetRecords"] == 1


async def test_what_lies_between_is_given_as_well(near: Near) -> None:  # KIN-39, KIN-50: other lanes, filtered records
    numbers = await near.put(*(f"{n}" for n in range(40)), key="k")
    found, reading = await read(near, numbers, records=2)
    assert (found, reading.whole) == (list(numbers), True)
    limits = [call.params["Limit"] for call in near.stream.of("GetRecords")]
    assert limits == [2, 4, 8, 16, 32]  # little of what is not ours, and not for ever


async def test_pages_that_come_twice_or_empty(near: Near) -> None:  # KIN-13
    numbers = await near.put(*"abcdefgh", key="k")
    near.stream.blank(3)
    near.stream.repeat(1)
    found, reading = await read(near, numbers, records=3)
    assert (found, reading.whole) == (list(numbers), True)


async def test_a_last_record_that_is_not_there_ends_at_the_tip(near: Near) -> None:
    numbers = await near.put(*"abc", key="k")
    found, reading = await read(near, numbers, last=str(int(numbers[-1]) + 1))
    assert found == list(numbers)
    assert (reading.begins, reading.ends, reading.whole) == (True, False, False)


async def test_iterators_that_expire_meanwhile(near: Near) -> None:  # KIN-30, DDB-26
    numbers = await near.put(*"abcdefgh", key="k")
    reading = Reading(await opened(near), pointer(near, numbers, records=2))
    found: list[Record] = []
    async for page in reading.pages():
        found += page
        near.stream.expire()
    assert [record.id for record in found] == list(numbers)


async def test_iterators_that_always_expire_are_not_asked_for_for_ever(kinesis: LocalKinesis) -> None:
    numbers = await kinesis.put("a")
    kinesis.stream.refuse("GetRecords", *["ExpiredIteratorException"] * 100)
    with pytest.raises(CursorExpired):
        await read(kinesis, numbers)


async def test_passing_faults_are_waited_out(near: Near) -> None:  # KIN-31, KIN-35
    numbers = await near.put(*"abc", key="k")
    near.stream.refuse("GetRecords", near.stream.throttled, "InternalFailure")
    near.stream.refuse("GetShardIterator", near.stream.throttled)
    near.stream.cut_off("GetRecords")
    found, _ = await read(near, numbers)
    assert found == list(numbers)


async def test_faults_that_last_and_those_for_good(kinesis: LocalKinesis) -> None:
    numbers = await kinesis.put("a")
    stream = await opened(kinesis)
    kinesis.stream.refuse("GetRecords", *["ProvisionedThroughputExceededException"] * 1000)
    began = anyio.current_time()
    with pytest.raises(Throttled):
        await followed(Reading(stream, pointer(kinesis, numbers)))
    assert anyio.current_time() - began < 2 * pointers.PATIENCE
    kinesis.stream.allow("GetRecords")
    kinesis.stream.refuse("GetShardIterator", "AccessDeniedException")
    with pytest.raises(AccessDenied):
        await followed(Reading(stream, pointer(kinesis, numbers)))


async def test_many_pointers_keep_to_the_limits_together(kinesis: LocalKinesis) -> None:  # KIN-10, KIN-12
    numbers = await kinesis.put(*(str(n) for n in range(50)), key="k")
    stream = await opened(kinesis)
    async with anyio.create_task_group() as tasks:
        for number in numbers:
            tasks.start_soon(followed, Reading(stream, pointer(kinesis, [number])))
    assert kinesis.stream.counts["ListShards"] == 1
    assert kinesis.stream.rate("GetRecords") <= 3
    assert kinesis.stream.rate("GetShardIterator") <= 3
    assert kinesis.stream.counts["GetRecords"] == 50


async def test_a_list_of_shards_is_looked_at_anew_for_one_that_is_not_in_it(kinesis: LocalKinesis) -> None:
    await kinesis.put("a", key="k")
    stream = await opened(kinesis)
    (shard,) = kinesis.stream.open
    await stream.shard(shard)
    low, _ = kinesis.stream.split(shard)
    number = kinesis.stream.put("k", "b", shard=low)
    found = await followed(Reading(stream, pointer(kinesis, [number], low)))
    assert [record.id for record in found] == [number]
    assert kinesis.stream.counts["ListShards"] == 2


async def test_aggregated_records_are_taken_apart_as_the_mapping_says(kinesis: LocalKinesis) -> None:  # KIN-45
    packed = aggregate(("a", b"one"), ("b", b"two"), ("a", b"three"))
    number = kinesis.stream.put("k", Data=b64encode(packed).decode())
    for deaggregate, bodies in ((True, ["one", "two", "three"]), (False, None)):
        reading = Reading(await opened(kinesis, deaggregate=deaggregate), pointer(kinesis, [number]))
        found = await followed(reading)
        assert reading.whole
        assert {record.id for record in found} == {number}
        if bodies:
            assert kinesis.bodies(found) == bodies
        else:
            assert len(found) == 1
