"""A table's stream through its API: its shards, places in them, and what is read there. The clock is owned."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from bridge.errors import AccessDenied, NotFound, ServiceFault, Throttled, Unreachable
from bridge.sources.dynamodb_stream import TableStream
from bridge.sources.shards import TRIM_HORIZON, CursorExpired, PositionTrimmed, ReadPage, Shard, Where
from tests.clock import SKIPPING, owned_wall
from tests.sources.faulty_sqs import LocalApi
from tests.sources.faulty_table import FaultyTable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


@pytest.fixture
def table() -> FaultyTable:
    return FaultyTable()


@pytest.fixture
def stream(table: FaultyTable) -> TableStream:
    return TableStream(LocalApi(table), table.arn)


async def first_shard(stream: TableStream) -> Shard:
    return (await stream.shards())[0]


async def read_from(stream: TableStream, where: Where, reads: int = 1) -> list[str]:
    """Sequence numbers of so many reads of the first shard."""
    shard = await first_shard(stream)
    cursor = await stream.cursor(shard, where)
    found: list[str] = []
    for _ in range(reads):
        page = await stream.read(shard, cursor, 1000)
        found += ids(page)
        cursor = page.cursor
    return found


def ids(page: ReadPage) -> list[str]:
    return [record.id for record in page.records]


async def test_all_pages_of_shards_are_read(table: FaultyTable, stream: TableStream) -> None:  # DDB-2, DDB-3, DDB-4
    names = list(table.shards)
    for _ in range(45):
        names.append(table.roll(names[-1]))
    table.shards_a_page = 2
    began = anyio.current_time()
    shards = await stream.shards()
    assert [shard.id for shard in shards] == names
    assert [shard.parents for shard in shards] == [(), *((name,) for name in names[:-1])]
    assert [shard.last is None for shard in shards] == [False] * 45 + [True]
    assert all(len(shard.first) >= 21 for shard in shards)  # DDB-9
    assert table.rate("DescribeStream") <= 7  # DDB-2: there may be others
    assert anyio.current_time() - began < 5


async def test_a_full_page_of_shards_that_is_the_last_one_ends_the_list(table: FaultyTable) -> None:
    table.shards_a_page = 1
    api = LocalApi(table)
    await TableStream(api, table.arn).shards()
    assert table.counts["DescribeStream"] == 1


async def test_a_stream_that_is_switched_off_is_read_to_its_end(table: FaultyTable, stream: TableStream) -> None:
    put = table.put("a")
    table.disable()
    shard = await first_shard(stream)
    assert stream.status == "DISABLED"  # DDB-10
    page = await stream.read(shard, await stream.cursor(shard, TRIM_HORIZON), 1000)
    assert (ids(page), page.cursor) == ([put], None)  # DDB-6


async def test_reading_goes_on_behind_a_page(table: FaultyTable, stream: TableStream) -> None:
    put = [table.put("a", str(count)) for count in range(2500)]
    shard = await first_shard(stream)
    cursor = await stream.cursor(shard, TRIM_HORIZON)
    pages = []
    for _ in range(5):
        pages.append(await stream.read(shard, cursor, 1000))
        cursor = pages[-1].cursor
    assert [number for page in pages for number in ids(page)] == put
    assert [len(page.records) for page in pages] == [1000, 1000, 500, 0, 0]  # DDB-5
    assert [page.caught_up for page in pages] == [False, False, False, False, True]  # TW-42
    assert all(page.size > 0 for page in pages[:3])
    assert {call.params["Limit"] for call in table.of("GetRecords")} == {stream.most}


async def test_a_record_knows_its_number_its_time_and_its_lane(table: FaultyTable, stream: TableStream) -> None:
    put = table.put("a")
    shard = await first_shard(stream)
    (record,) = (await stream.read(shard, await stream.cursor(shard, TRIM_HORIZON), 1000)).records
    assert (record.id, record.receipt) == (put, '{"id":{"S":"a"}}')  # DDB-46, DDB-60
    assert record.arrived_at == int(time.time())  # DDB-63


async def test_positions_are_found_again(table: FaultyTable, stream: TableStream) -> None:
    put = [table.put("a", str(count)) for count in range(3)]
    assert await read_from(stream, Where("AFTER_SEQUENCE_NUMBER", put[0])) == put[1:]
    assert await read_from(stream, Where("LATEST", at=time.time())) == []


async def test_small_sequence_numbers_keep_their_zeros() -> None:  # DDB-9, DDB-28
    table = FaultyTable(small_numbers=True)
    put = [table.put("a"), table.put("a")]
    assert put[0] == "0" * 21
    stream = TableStream(LocalApi(table), table.arn)
    assert await read_from(stream, Where("AFTER_SEQUENCE_NUMBER", put[0])) == put[1:]


@pytest.mark.parametrize("local", [False, True])
async def test_a_time_is_found_by_the_service_or_by_what_is_left_out(local: bool) -> None:  # DDB-7, DDB-26
    table = FaultyTable()
    table.local = local
    table.put("a")
    await anyio.sleep(200)
    moment = time.time()
    put = [table.put("a"), table.put("b")]
    stream = TableStream(LocalApi(table), table.arn)
    for _ in range(2):
        assert await read_from(stream, Where("AT_TIMESTAMP", at=moment)) == put
    tried = [call.params["ShardIteratorType"] for call in table.of("GetShardIterator")]
    assert tried == (["AT_TIMESTAMP", "TRIM_HORIZON", "TRIM_HORIZON"] if local else ["AT_TIMESTAMP"] * 2)


async def test_leaving_out_what_is_older_ends_with_the_first_that_is_not(
    table: FaultyTable, stream: TableStream
) -> None:
    table.local = True
    old = [table.put("a", str(count)) for count in range(1500)]
    await anyio.sleep(200)
    shard = await first_shard(stream)
    cursor = await stream.cursor(shard, Where("AT_TIMESTAMP", at=time.time()))
    page = await stream.read(shard, cursor, 1000)
    assert (ids(page), page.passed, page.caught_up) == ([], old[999], False)
    page = await stream.read(shard, page.cursor, 1000)
    assert (ids(page), page.passed) == ([], old[-1])
    new = table.put("a", dynamodb={"ApproximateCreationDateTime": time.time() + 60})
    page = await stream.read(shard, page.cursor, 1000)
    assert (ids(page), page.passed) == ([new], new)
    late = table.put("a", dynamodb={"ApproximateCreationDateTime": 1.0})  # KIN-14: times may go backwards
    page = await stream.read(shard, page.cursor, 1000)
    assert (ids(page), page.passed) == ([late], "")


async def test_a_latest_iterator_that_finds_its_place_trimmed_goes_on_behind(table: FaultyTable) -> None:  # DDB-28
    table.put("before")
    await anyio.sleep(200)
    stream = TableStream(LocalApi(table), table.arn)
    shard = await first_shard(stream)
    cursor = await stream.cursor(shard, Where("LATEST", at=time.time()))
    put = table.put("after")
    table.refuse("GetRecords", "TrimmedDataAccessException")
    page = await stream.read(shard, cursor, 1000)
    assert (ids(page), page.caught_up) == ([], False)
    assert ids(await stream.read(shard, page.cursor, 1000)) == [put]


async def test_what_is_trimmed_is_told(table: FaultyTable, stream: TableStream) -> None:  # DDB-1, DDB-25
    put = [table.put("a", str(count)) for count in range(3)]
    shard = await first_shard(stream)
    cursor = await stream.cursor(shard, TRIM_HORIZON)
    table.trim(shard.id, put[1])
    with pytest.raises(PositionTrimmed):
        await stream.read(shard, cursor, 1000)
    with pytest.raises(PositionTrimmed):
        await stream.cursor(shard, Where("AFTER_SEQUENCE_NUMBER", put[0]))
    assert await read_from(stream, TRIM_HORIZON) == put[2:]


async def test_an_iterator_dies_of_age_or_with_its_server(table: FaultyTable, stream: TableStream) -> None:
    shard = await first_shard(stream)
    cursor = await stream.cursor(shard, TRIM_HORIZON)
    await anyio.sleep(901)  # DDB-6
    with pytest.raises(CursorExpired):
        await stream.read(shard, cursor, 1000)
    table.refuse("GetRecords", "ResourceNotFoundException")
    with pytest.raises(CursorExpired):  # DDB-28
        await stream.read(shard, await stream.cursor(shard, TRIM_HORIZON), 1000)


async def test_a_shard_that_is_gone_is_told(table: FaultyTable, stream: TableStream) -> None:  # DDB-27
    shard = await first_shard(stream)
    cursor = await stream.cursor(shard, TRIM_HORIZON)
    table.roll(shard.id)
    table.forget(shard.id)
    with pytest.raises(CursorExpired):
        await stream.read(shard, cursor, 1000)
    with pytest.raises(NotFound):
        await stream.cursor(shard, TRIM_HORIZON)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("LimitExceededException", Throttled),
        ("ThrottlingException", Throttled),
        ("InternalServerError", ServiceFault),
        ("AccessDeniedException", AccessDenied),
    ],
)
async def test_passing_faults_pass_as_what_they_are(
    table: FaultyTable, stream: TableStream, code: str, kind: type[Exception]
) -> None:  # DDB-27
    shard = await first_shard(stream)
    cursor = await stream.cursor(shard, TRIM_HORIZON)
    for operation in ("DescribeStream", "GetShardIterator", "GetRecords"):
        table.refuse(operation, code)
    with pytest.raises(kind):
        await stream.shards()
    with pytest.raises(kind):
        await stream.cursor(shard, TRIM_HORIZON)
    with pytest.raises(kind):
        await stream.read(shard, cursor, 1000)
    table.cut_off("GetRecords")
    with pytest.raises(Unreachable):
        await stream.read(shard, cursor, 1000)


async def test_a_stream_that_does_not_exist_is_not_found(table: FaultyTable, stream: TableStream) -> None:
    table.there = False
    with pytest.raises(NotFound):
        await stream.shards()
