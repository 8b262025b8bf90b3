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
from tests.e2e.harness import ASK_EVERY, Site, receive
from tests.e2e.streams import Stream, Table, changes, numbers, order
from tests.servers import Server

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def stream_site(new_site: NewSite, ministack_server: Server) -> Site:
    """A place for one daemon on the server that has streams and queues, with a function."""
    site = new_site(ministack_server)
    site.function("streamer", Handler="actor.stream")
    return site


def mapped(site: Site, source: Stream | Table, **options: Any) -> str:
    """Declares a mapping that begins with the oldest record."""
    return site.mapping(source.arn, "streamer", **{"StartingPosition": "TRIM_HORIZON", **options})


def seen(site: Site, source: Stream) -> list[int]:
    """The ``n`` of all records that runs which ended well were given, as often as they were."""
    return list(chain(*numbers([run for run in source.runs(site) if run.well])))


def test_one_record_of_many_is_bisected_out(stream_site: Site, ministack_server: Server) -> None:
    """KIN-36, KIN-63, KIN-64, KIN-68, KIN-80, KIN-82, KIN-84."""
    stream, told = Stream(ministack_server), stream_site.queue()
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
        bridge.until(lambda: set(seen(stream_site, stream)) == set(range(8)) - {5})
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
        return sorted(seen(stream_site, stream)) == list(range(last))

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
    shards, size, kills, count = 2, 5, 3, 200
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
        bridge.until(lambda: set(seen(stream_site, stream)) == set(range(count)))
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
        bridge.until(lambda: seen(stream_site, stream) == [0, 1, 2])
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
