"""Mappings of streams from end to end: order, bisect, destinations, positions over pauses, restarts and kills."""

from __future__ import annotations

import json
import random
import re
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NewSite
from tests.e2e.harness import ASK_EVERY, Site, eventually, receive
from tests.e2e.streams import Stream, Table, changes, mapped, numbers, order
from tests.servers import ACCOUNT, Server

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def stream_site(new_site: NewSite, ministack_server: Server) -> Site:
    """A place for one daemon on the server that has streams and queues, with a function."""
    site = new_site(ministack_server)
    site.config["aws"]["account_id"] = ACCOUNT
    site.function("streamer", Handler="actor.stream")
    return site


def test_one_record_of_many_is_bisected_out(stream_site: Site, kinesalite_server: Server) -> None:
    """KIN-36, KIN-63, KIN-64, KIN-68, KIN-80, KIN-82, KIN-84."""
    stream, told = Stream(kinesalite_server), stream_site.queue()
    sent = stream.put(*(order(n, raises=n == 5) for n in range(8)), key="k")
    mapped(
        stream_site,
        stream,
        BatchSize=8,
        BisectBatchOnFunctionError=True,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": told.arn}},
    )
    with stream_site.running() as bridge:
        (message,) = bridge.until(lambda: receive(told), every=ASK_EVERY)
        bridge.until(lambda: set(stream.seen(stream_site)) == set(range(8)) - {5})
        runs = stream.runs(stream_site)
        assert numbers(runs) == [
            [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [5], [6, 7]
        ]  # fmt: skip
        document = json.loads(message["Body"])
        (last,) = [run for run in runs if run.request == document["requestContext"]["requestId"]]
        assert last is runs[6]
        assert INSTANT.fullmatch(document.pop("timestamp"))
        info = document["KinesisBatchInfo"]
        arrived = last.records[0]["kinesis"]["approximateArrivalTimestamp"]
        for name in ("First", "Last"):
            instant = info.pop(f"approximateArrivalOf{name}Record")
            assert INSTANT.fullmatch(instant)
            assert instant.endswith(f"{arrived % 1:.3f}Z"[1:])
        assert document == {
            "requestContext": {
                "requestId": last.request,
                "functionArn": "arn:aws:lambda:eu-west-1:123456789012:function:streamer",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": 2,
            },
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "version": "1.0",
            "KinesisBatchInfo": {
                "shardId": "shardId-000000000000",
                "startSequenceNumber": sent[5],
                "endSequenceNumber": sent[5],
                "batchSize": 1,
                "streamArn": stream.arn,
            },
        }
        assert bridge.metric("bridge_esm_bisects_total") == 3
        assert bridge.metric("bridge_esm_failure_destination_events_total") == 1


def test_pause_resume_and_restart_go_on_where_it_stood(stream_site: Site, ministack_server: Server) -> None:
    """KIN-23, KIN-27: what was drained repeats nothing."""
    stream = Stream(ministack_server, shards=2)
    name = mapped(stream_site, stream, BatchSize=3)

    def put(first: int, last: int) -> None:
        stream.put(*(order(n) for n in range(first, last)))

    def all_of(last: int) -> bool:
        return sorted(stream.seen(stream_site)) == list(range(last))

    put(0, 20)
    with stream_site.running() as bridge:
        bridge.until(lambda: all_of(20))
        assert stream_site.cli("mappings", "pause", name, "--admin", bridge.url).status == 0
        put(20, 30)
        assert bridge.view(name).state == "Disabled"
        assert all_of(20)
        assert stream_site.cli("mappings", "resume", name, "--admin", bridge.url).status == 0
        bridge.until(lambda: all_of(30))
        bridge.stop()
    put(30, 40)
    with stream_site.running() as bridge:
        bridge.until(lambda: all_of(40))
        bridge.stop()


def test_kills_lose_nothing_and_repeat_little(stream_site: Site, ministack_server: Server) -> None:  # KIN-27, V15
    shards, size, kills, count = 2, 5, 2, 150
    stream = Stream(ministack_server, shards=shards)
    chance = random.Random(4)
    mapped(stream_site, stream, BatchSize=size)
    stream.put(*(order(n, sleep=0.01) for n in range(count)))
    for _ in range(kills):
        bridge = stream_site.start()
        begun = len(stream.runs(stream_site))
        bridge.until(lambda: len(stream.runs(stream_site)) > begun + 2)  # noqa: B023
        time.sleep(chance.uniform(0, 0.3))  # the moment is to be any
        bridge.kill()
    with stream_site.running() as bridge:
        bridge.until(lambda: set(stream.seen(stream_site)) == set(range(count)))
        bridge.stop()
    runs = stream.runs(stream_site)
    given = list(chain(*numbers(runs)))
    repeated = len(given) - count
    assert repeated <= kills * shards * size, f"{repeated} records were repeated"
    for shard in {record["eventID"].partition(":")[0] for run in runs for record in run.records}:
        firsts = [
            record["kinesis"]["sequenceNumber"]
            for run in runs
            for record in run.records
            if record["eventID"].startswith(f"{shard}:")
        ]
        once = list(dict.fromkeys(firsts))
        assert once == sorted(once, key=int), "a shard's order was broken"


def test_a_killed_window_counts_each_record_once(stream_site: Site, ministack_server: Server) -> None:
    """TW-45, TW-47, W6: what a crash repeats begins with the state that was kept with the position."""
    stream, count = Stream(ministack_server), 60
    mapped(stream_site, stream, BatchSize=5, TumblingWindowInSeconds=2)
    stream.put(*(order(n, sleep=0.01) for n in range(count)), key="k")
    for _ in range(2):
        bridge = stream_site.start()
        begun = len(stream.runs(stream_site))
        bridge.until(lambda: len(stream.runs(stream_site)) > begun + 1)  # noqa: B023
        bridge.kill()

    def windows() -> dict[str, list[int]]:
        """What each one had seen at its end."""
        return {entry["start"]: entry["seen"] for entry in stream_site.journal.entries("window")}

    with stream_site.running() as bridge:
        bridge.until(lambda: sum(map(len, windows().values())) >= count)
        assert sorted(chain(*windows().values())) == list(range(count))
        bridge.stop()
    given = list(chain(*numbers(stream.runs(stream_site))))
    assert len(given) > count, "no kill fell into a batch"


def test_shards_split_and_merge_while_records_flow(stream_site: Site, kinesalite_server: Server) -> None:
    """KIN-90 to KIN-93, V13, V14, V18."""
    stream, keys, each = Stream(kinesalite_server), 6, 8
    name = mapped(stream_site, stream, BatchSize=7)

    def put(first: int) -> None:
        for n in range(first, first + each):
            for key in range(keys):
                stream.put(order(n * keys + key), key=f"key-{key}")

    with stream_site.running() as bridge:
        put(0)
        stream.split()
        put(each)
        stream.merge()
        put(2 * each)
        total = 3 * each * keys
        bridge.until(lambda: len(stream.seen(stream_site)) >= total)
        assert sorted(stream.seen(stream_site)) == list(range(total))
        for key in range(keys):
            of_key = [n for n in stream.seen(stream_site) if n % keys == key]
            assert of_key == sorted(of_key), f"the order of key-{key} was broken"
        assert len(bridge.said("shard_ended", 3, mapping=name)) == 3
        bridge.stop()


def test_a_shard_that_fails_stops_no_other(stream_site: Site, ministack_server: Server) -> None:  # KIN-53
    stream = Stream(ministack_server, shards=2)
    mapped(stream_site, stream, BatchSize=1)
    stream.put(order(0, raises=True), key="key-0")
    (poisoned,) = {record["ShardId"] for record in _put(stream, "key-0")}
    other = next(key for key in map(str, range(50)) if _put(stream, key)[0]["ShardId"] != poisoned)
    stream.put(*(order(n) for n in range(1, 20)), key=other)
    with stream_site.running() as bridge:
        bridge.until(lambda: stream.seen(stream_site)[-19:] == list(range(1, 20)))


def _put(stream: Stream, key: str) -> list[dict[str, Any]]:
    """One record; the answer tells its shard."""
    answer = stream.api.put_records(StreamName=stream.name, Records=[{"Data": order(-1).encode(), "PartitionKey": key}])
    return list(answer["Records"])


def test_a_reload_goes_on_where_it_stood(stream_site: Site, ministack_server: Server) -> None:  # KIN-56, ESM-58
    stream = Stream(ministack_server)
    name = mapped(stream_site, stream)
    stream.put(order(0), order(1))
    with stream_site.running() as bridge:
        bridge.until(lambda: stream.seen(stream_site) == [0, 1])
        stream_site.config["mappings"][name] |= {"ParallelizationFactor": 4, "BatchSize": 1}
        assert bridge.reload()["restarted"] == [name]
        stream.put(order(2), order(3), key="k")
        bridge.until(lambda: stream.seen(stream_site) == [0, 1, 2, 3])
        assert numbers(stream.runs(stream_site))[-2:] == [[2], [3]]
        bridge.stop()


def test_records_that_the_filter_removes(stream_site: Site, ministack_server: Server) -> None:  # KIN-39 to KIN-41, V11
    stream = Stream(ministack_server)
    pattern = {"data": {"n": [{"numeric": [">", 1]}]}}
    name = mapped(stream_site, stream, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    stream.put(order(0), "no JSON", order(2), order(1), "[]", order(3), key="k")
    with stream_site.running() as bridge:
        bridge.until(lambda: numbers(stream.runs(stream_site)) == [[2, 3]])
        bridge.until(lambda: bridge.view(name).filtered == 4)
        bridge.stop()
    with stream_site.running() as bridge:
        stream.put(order(4), key="k")
        bridge.until(lambda: numbers(stream.runs(stream_site)) == [[2, 3], [4]])


def test_answers_that_are_no_answers(stream_site: Site, ministack_server: Server) -> None:  # KIN-72, V6
    stream, told = Stream(ministack_server), stream_site.queue()
    mapped(
        stream_site,
        stream,
        partial=True,
        BatchSize=1,
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": told.arn}},
    )
    raws = ['{"batchItemFailures": [{"itemIdentifier": ""}]}', "garbage", '{"batchItemFailures": [{"foo": 1}]}']
    stream.put(*(order(n, raw=raw) for n, raw in enumerate(raws)), order(3), key="k")
    documents: dict[str, dict[str, Any]] = {}

    def look() -> bool:
        for message in receive(told):
            document = json.loads(message["Body"])
            documents[document["KinesisBatchInfo"]["startSequenceNumber"]] = document
        return len(documents) == len(raws)

    with stream_site.running() as bridge:
        bridge.until(look, every=ASK_EVERY)
        bridge.until(lambda: len(stream.runs(stream_site)) == len(raws) + 1)
    assert [it["responseContext"]["functionError"] for it in documents.values()].count(None) >= 2  # KIN-82


def test_a_stream_that_is_not_there(stream_site: Site, ministack_server: Server) -> None:  # KIN-33
    stream = Stream(ministack_server)
    stream.api.delete_stream(StreamName=stream.name)
    name = mapped(stream_site, stream)
    with stream_site.start() as bridge:
        waiting = bridge.until(lambda: bridge.readiness()[1]["mappings"].get(name))
        assert waiting
        eventually(lambda: stream.name in bridge.readiness()[1]["mappings"][name]["reason"])
        status, _ = bridge.readiness()
        assert status == 503
        stream.api.create_stream(StreamName=stream.name, ShardCount=1)
        bridge.ready()
        stream.put(order(0))
        bridge.until(lambda: stream.seen(stream_site) == [0])


def test_what_blocks_a_shard_is_told(stream_site: Site, ministack_server: Server, tmp_path: Path) -> None:  # KIN-60
    stream, broken = Stream(ministack_server), tmp_path / "broken"
    broken.touch()
    sent = stream.put(order(0), order(1, raises=str(broken)), order(2), key="k")
    name = mapped(stream_site, stream, BatchSize=1)
    with stream_site.running() as bridge:

        def blocked() -> dict[str, Any] | None:
            (found,) = bridge.readiness()[1].get("blocked", {}).get(name, [None])
            return found if found and found["attempt"] >= 2 else None

        told = bridge.until(blocked)
        assert told
        assert told["record"] == sent[1]
        assert (told["partition"], told["attempts"], told["why"]) == ("shardId-000000000000", None, "function")
        assert bridge.readiness()[0] == 200  # it polls all the same
        shown = stream_site.cli("mappings", "show", name, "--why", "--admin", bridge.url).out
        assert re.search(rf"blocked for .* by record {sent[1]}: attempt \d+, no limit after function, n", shown)
        assert bridge.metric("bridge_esm_blocked_seconds") > 0
        assert numbers(stream.runs(stream_site))[0] == [0]
        broken.unlink()
        bridge.until(lambda: stream.seen(stream_site) == [0, 1, 2])
        bridge.until(lambda: "blocked" not in bridge.readiness()[1])


def test_the_changes_of_a_table(stream_site: Site, ministack_server: Server) -> None:  # DDB-40, DDB-41, DDB-60
    table = Table(ministack_server)
    mapped(stream_site, table, BatchSize=10)
    table.put("a", "x")
    table.put("a", "y")
    table.put("b")
    with stream_site.running() as bridge:
        expected = [("INSERT", "a"), ("MODIFY", "a"), ("INSERT", "b")]
        bridge.until(lambda: changes(table.runs(stream_site)) == expected)
        bridge.stop()
    table.delete("a")
    table.put("b", "z")
    with stream_site.running() as bridge:
        expected += [("REMOVE", "a"), ("MODIFY", "b")]
        bridge.until(lambda: changes(table.runs(stream_site)) == expected)
        bridge.stop()
    records = [record for run in table.runs(stream_site) for record in run.records]
    changed, removed = records[1], records[3]
    assert changed["eventSourceARN"] == table.arn
    assert (changed["eventSource"], changed["awsRegion"]) == ("aws:dynamodb", "eu-west-1")
    assert changed["dynamodb"]["OldImage"]["order"] == {"S": "x"}
    assert changed["dynamodb"]["NewImage"]["order"] == {"S": "y"}
    assert removed["dynamodb"]["OldImage"]["order"] == {"S": "y"}
    assert "NewImage" not in removed["dynamodb"]
