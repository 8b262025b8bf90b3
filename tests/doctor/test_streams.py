"""What doctor finds about streams on a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from bridge.position import Move, Position
from bridge.settings import load
from bridge.stores import open_store
from tests.doctor.clinic import Clinic, Stream, table
from tests.servers import ACCOUNT, REGION, Server

Made = Callable[[str], Clinic]
START = {"StartingPosition": "TRIM_HORIZON"}


def test_what_one_bad_record_does(clinic: Made, ministack_server: Server) -> None:  # KIN-60 to KIN-69
    it = clinic(ministack_server.url)
    stream = Stream(ministack_server)
    long = Stream(ministack_server)
    long.api.increase_stream_retention_period(StreamName=long.name, RetentionPeriodHours=168)
    queue = ministack_server.queue()
    told = {"DestinationConfig": {"OnFailure": {"Destination": queue.arn}}}
    for name, source, options in (
        ("day", stream, {}),
        ("week", long, {"ParallelizationFactor": 4}),
        ("late", stream, {"MaximumRetryAttempts": 10_000, **told}),
        ("old", stream, {"MaximumRecordAgeInSeconds": 604_800, **told}),
        ("hours", stream, {"MaximumRecordAgeInSeconds": 21_600, **told}),
        ("silent", stream, {"MaximumRetryAttempts": 3}),
        ("good", stream, {"MaximumRetryAttempts": 3, "BisectBatchOnFunctionError": True, **told}),
    ):
        it.function(name)
        it.mapping(name, source.arn, name, **START, **options)
    found = it.examine()
    assert found["day"]["no-retry-bound"].message.startswith(
        "no age or retry bound: one bad record stops this shard for 24 h, until it is trimmed"
    )
    assert "stops its lane, a part of this shard (4 lanes), for 7 d" in found["week"]["no-retry-bound"].message
    # (1 + 2 + 4 + 8 + 16 + 9,995 x 30) / 2: with full jitter half of each pause on average
    assert found["late"]["age-above-retention"].message.startswith(
        "10000 retries take 41.7 h, and the stream keeps records 24 h: the bound is never reached"
    )
    assert "MaximumRecordAgeInSeconds 604800 is more than the 24 h" in found["old"]["age-above-retention"].message
    assert found["hours"]["blocks-long"].message.startswith("one bad record stops this shard for 6 h (")
    assert "only the log says that they are gone" in found["silent"]["no-failure-destination"].message
    assert "up to 99 good ones are given up after 4 attempts" in found["silent"]["good-records-given-up"].message
    # they all read one stream
    assert "6 readers (" in found["good"]["shared-throughput"].message
    assert "each gets 0.8 reads" in found["good"]["shared-throughput"].message
    assert found["good"].keys() == {"shared-throughput", "idle-cost"}
    assert found["good"]["idle-cost"].message == (
        "while nothing comes: 2,635,200 API calls a month (1 shard, each read once a second)"
    )


def test_a_table_and_who_reads_it(clinic: Made, ministack_server: Server) -> None:  # DDB-1, DDB-8, DDB-20
    it = clinic(ministack_server.url)
    arn = table(ministack_server, items=25)
    for name in ("one", "two", "three"):
        it.function(name)
        it.mapping(name, arn, name, **START)
    it.config["mappings"]["one"]["FilterCriteria"] = {"Filters": [{"Pattern": '{"eventName": ["REMOVE"]}'}]}
    it.config["mappings"]["two"]["FilterCriteria"] = {"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]}
    found = it.examine()
    assert "one bad record stops this shard for 24 h" in found["one"]["no-retry-bound"].message
    assert "3 readers (two, three besides)" in found["one"]["shared-throughput"].message
    assert found["one"]["filter-matches-nothing"].message.startswith("none of 25 records read on trial matches")
    assert found["two"]["filter-matches-everything"].message.startswith("all of 25 records read on trial match")
    assert "10,454,400 API calls a month (1 shard, each read 4 times a second)" in found["one"]["idle-cost"].message


def test_a_filter_is_tried_on_the_records_of_a_stream(clinic: Made, ministack_server: Server) -> None:  # FLT-40
    it = clinic(ministack_server.url)
    stream = Stream(ministack_server, shards=2)
    stream.put(*(json.dumps({"kind": "order", "n": n}) for n in range(30)))
    for name, kind in (("all", "order"), ("none", "refund")):
        it.function(name)
        patterns = {"FilterCriteria": {"Filters": [{"Pattern": {"data": {"kind": [kind]}}}]}}
        it.mapping(name, stream.arn, name, **START, **patterns)
    found = it.examine()
    assert "all of 30 records" in found["all"]["filter-matches-everything"].message
    assert "none of 30 records" in found["none"]["filter-matches-nothing"].message


@pytest.mark.parametrize(
    ("waited", "code"), [(3600.0, ""), (13 * 3600.0, "backlog-old"), (23 * 3600.0, "backlog-expiring")]
)
def test_how_old_the_backlog_is(
    clinic: Made, ministack_server: Server, monkeypatch: pytest.MonkeyPatch, waited: float, code: str
) -> None:
    it = clinic(ministack_server.url)
    stream = Stream(ministack_server)
    stream.put("one", "two")
    it.mapping("clicks", stream.arn, **START)
    (shard,) = stream.api.list_shards(StreamName=stream.name)["Shards"]
    now = time.time
    monkeypatch.setattr("bridge.doctor.streams.time.time", lambda: now() + waited)
    old = {"backlog-old", "backlog-expiring"}
    assert not it.examine()["clicks"].keys() & old  # it has never run: nothing is overdue
    anyio.run(store, it, stream.arn, shard["ShardId"], "TRIM_HORIZON")
    assert it.examine()["clicks"].keys() & old == ({code} if code else set())


def test_the_place_is_that_of_the_state_file(clinic: Made, ministack_server: Server) -> None:
    """What was handled already is no backlog; what was trimmed before it was handled is lost."""
    it = clinic(ministack_server.url)
    stream = Stream(ministack_server)
    stream.put(*(f'{{"n": {n}}}' for n in range(25)))
    patterns: dict[str, Any] = {
        "FilterCriteria": {"Filters": [{"Pattern": {"data": {"n": [{"numeric": [">", 100]}]}}}]}
    }
    it.mapping("clicks", stream.arn, **START, **patterns)
    assert "filter-matches-nothing" in it.examine()["clicks"]
    shard = stream.api.list_shards(StreamName=stream.name)["Shards"][0]["ShardId"]
    iterator = stream.api.get_shard_iterator(StreamName=stream.name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    records = stream.api.get_records(ShardIterator=iterator)["Records"]

    def stand(at: int, arrived: float) -> None:
        place = f"AFTER_SEQUENCE_NUMBER {records[at]['SequenceNumber']} {arrived:.3f}"
        anyio.run(store, it, stream.arn, shard, place)

    stand(-1, time.time())  # all of it is done: nothing is left to try the filter on
    assert "filter-matches-nothing" not in it.examine()["clicks"]
    stand(0, time.time() - 30 * 3600)  # KIN-32
    assert it.examine()["clicks"]["position-trimmed"].message.startswith(
        "the stored position is 6 h older than the oldest record that the stream still has"
    )


async def store(it: Clinic, arn: str, shard: str, place: str) -> None:
    """As a daemon would that has been here."""
    settings = load(it.write())
    async with open_store(settings.state) as opened:
        (mapping,) = settings.mappings.values()
        await opened.move_positions([Move(mapping.uuid, arn, shard, Position(position=place))])


def test_streams_consumers_and_tables_that_are_not_there(clinic: Made, ministack_server: Server) -> None:
    it = clinic(ministack_server.url)
    stream = Stream(ministack_server)
    it.mapping("stream", f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/gone", **START)
    it.mapping("consumer", f"{stream.arn}/consumer/gone:1", **START)
    it.mapping("table", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/gone/stream/2026-01-01T00:00:00.000", **START)
    found = it.examine()
    for name, missing in (("stream", "stream/gone"), ("consumer", "/consumer/gone:1"), ("table", "table/gone")):
        level, message, _ = found[name]["source-missing"]
        assert (level, missing in message) == ("error", True)


def test_a_consumer_of_its_own_shares_nothing(clinic: Made, ministack_server: Server) -> None:  # KIN-10
    it = clinic(ministack_server.url)
    stream = Stream(ministack_server)
    made = stream.api.register_stream_consumer(StreamARN=stream.arn, ConsumerName="own")["Consumer"]
    for name, arn in (("pushed", made["ConsumerARN"]), ("polled", stream.arn)):
        it.function(name)
        it.mapping(name, arn, name, **START)
    found = it.examine()
    assert "shared-throughput" not in {*found["pushed"], *found["polled"]}
    assert "subscribed every 5 min" in found["pushed"]["idle-cost"].message
