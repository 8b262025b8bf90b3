"""Mappings of streams from end to end: order, bisect, destinations, resharding, filters, and what blocks them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ASK_EVERY, Bridge, Site, eventually, receive
from tests.e2e.streams import Stream, Table, data, mapped, numbers, order, stream_site
from tests.servers import Server

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
Stage = tuple[Site, Bridge]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, ministack_server: Server) -> Iterator[Stage]:
    """One daemon for all tests of this file; each adds a mapping to it."""
    site = stream_site(Site(tmp_path_factory.mktemp("streams"), ministack_server))
    with site.running() as bridge:
        yield site, bridge


def test_one_record_of_many_is_bisected_out(stage: Stage, kinesalite_server: Server) -> None:
    """KIN-36, KIN-63, KIN-64, KIN-68, KIN-80, KIN-82, KIN-84."""
    site, bridge = stage
    stream, told = Stream(kinesalite_server), site.queue()
    sent = stream.put(*(order(n, raises=n == 5) for n in range(8)), key="k")
    mapping = mapped(
        site,
        stream,
        BatchSize=8,
        BisectBatchOnFunctionError=True,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": told.arn}},
    )
    bridge.reload()
    (message,) = bridge.until(lambda: receive(told), every=ASK_EVERY)
    bridge.until(lambda: set(stream.seen(site)) == set(range(8)) - {5})
    runs = stream.runs(site)
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
    assert bridge.metric("bridge_esm_bisects_total", mapping=mapping) == 3
    assert bridge.metric("bridge_esm_failure_destination_events_total", mapping=mapping) == 1


def test_shards_split_and_merge_while_records_flow(stage: Stage, kinesalite_server: Server) -> None:
    """KIN-90 to KIN-93, V13, V14, V18."""
    site, bridge = stage
    stream, keys, each = Stream(kinesalite_server), 6, 8
    name = mapped(site, stream, BatchSize=7)

    def put(first: int) -> None:
        for n in range(first, first + each):
            for key in range(keys):
                stream.put(order(n * keys + key), key=f"key-{key}")

    bridge.reload()
    put(0)
    stream.split()
    put(each)
    stream.merge()
    put(2 * each)
    total = 3 * each * keys
    bridge.until(lambda: len(stream.seen(site)) >= total)
    assert sorted(stream.seen(site)) == list(range(total))
    for key in range(keys):
        of_key = [n for n in stream.seen(site) if n % keys == key]
        assert of_key == sorted(of_key), f"the order of key-{key} was broken"
    assert len(bridge.said("shard_ended", 3, mapping=name)) == 3


def test_a_shard_that_fails_stops_no_other(stage: Stage, ministack_server: Server) -> None:  # KIN-53
    site, bridge = stage
    stream = Stream(ministack_server, shards=2)
    name = mapped(site, stream, BatchSize=1)
    stream.put(order(0, raises=True), key="key-0")
    (poisoned,) = {record["ShardId"] for record in _put(stream, "key-0")}
    other = next(key for key in map(str, range(50)) if _put(stream, key)[0]["ShardId"] != poisoned)
    stream.put(*(order(n) for n in range(1, 20)), key=other)
    bridge.reload()
    bridge.until(lambda: stream.seen(site)[-19:] == list(range(1, 20)))
    del site.config["mappings"][name]
    assert bridge.reload()["removed"] == [name]


def _put(stream: Stream, key: str) -> list[dict[str, Any]]:
    """One record; the answer tells its shard."""
    answer = stream.api.put_records(StreamName=stream.name, Records=[{"Data": order(-1).encode(), "PartitionKey": key}])
    return list(answer["Records"])


def test_a_reload_goes_on_where_it_stood(stage: Stage, ministack_server: Server) -> None:  # KIN-56, ESM-58
    site, bridge = stage
    stream = Stream(ministack_server)
    name = mapped(site, stream)
    stream.put(order(0), order(1))
    bridge.reload()
    bridge.until(lambda: stream.seen(site) == [0, 1])
    site.config["mappings"][name] |= {"ParallelizationFactor": 4, "BatchSize": 1}
    assert bridge.reload()["restarted"] == [name]
    stream.put(order(2), order(3), key="k")
    bridge.until(lambda: stream.seen(site) == [0, 1, 2, 3])
    assert numbers(stream.runs(site))[-2:] == [[2], [3]]


def test_records_that_the_filter_removes(stage: Stage, ministack_server: Server) -> None:  # KIN-39 to KIN-41, V11
    site, bridge = stage
    stream = Stream(ministack_server)
    pattern = {"data": {"n": [{"numeric": [">", 1]}]}}
    name = mapped(site, stream, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    stream.put(order(0), "no JSON", order(2), order(1), "[]", order(3), key="k")
    bridge.reload()
    bridge.until(lambda: numbers(stream.runs(site)) == [[2, 3]])
    bridge.until(lambda: bridge.view(name).filtered == 4)
    site.config["mappings"][name]["BatchSize"] = 50
    assert bridge.reload()["restarted"] == [name]
    stream.put(order(4), key="k")
    bridge.until(lambda: numbers(stream.runs(site)) == [[2, 3], [4]])


def test_answers_that_are_no_answers(stage: Stage, ministack_server: Server) -> None:  # KIN-72, V6
    site, bridge = stage
    stream, told = Stream(ministack_server), site.queue()
    mapped(
        site,
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

    bridge.reload()
    bridge.until(look, every=ASK_EVERY)
    bridge.until(lambda: len(stream.runs(site)) == len(raws) + 1)
    assert [it["responseContext"]["functionError"] for it in documents.values()].count(None) >= 2  # KIN-82


def test_a_record_that_no_event_can_hold(stage: Stage, kinesis_local_server: Server) -> None:
    """KIN-15, KIN-38, KIN-81: it is told of and passed over."""
    site, bridge = stage
    stream, told = Stream(kinesis_local_server), site.queue()
    stream.api.update_max_record_size(StreamARN=stream.arn, MaxRecordSizeInKiB=10_240)
    mapped(site, stream, MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": told.arn}})
    _, large, _ = (
        *stream.put(order(0), key="k"),
        *stream.put("x" * (5 << 20), key="k"),
        *stream.put(order(1), key="k"),
    )
    bridge.reload()
    bridge.until(lambda: stream.seen(site) == [0, 1])
    (message,) = bridge.until(lambda: receive(told), every=ASK_EVERY)
    document = json.loads(message["Body"])
    assert document["requestContext"]["condition"] == "MaximumPayloadSizeExceeded"
    assert document["KinesisBatchInfo"]["startSequenceNumber"] == large
    assert document["KinesisBatchInfo"]["batchSize"] == 1


def test_a_table_that_writes_to_a_kinesis_stream(stage: Stage, ministack_server: Server) -> None:
    """DDB-65: records like any others; what changed is in their data."""
    site, bridge = stage
    stream, table = Stream(ministack_server), Table(ministack_server)
    table.api.enable_kinesis_streaming_destination(TableName=table.name, StreamArn=stream.arn)
    mapped(site, stream)
    bridge.reload()
    table.put("a", "x")
    bridge.until(lambda: stream.runs(site))
    (record,) = stream.runs(site)[0].records
    assert (record["eventSource"], record["eventSourceARN"]) == ("aws:kinesis", stream.arn)
    change = json.loads(data(record))
    assert (change["eventName"], change["dynamodb"]["Keys"]) == ("INSERT", {"id": {"S": "a"}})


def test_a_stream_that_is_not_there(stage: Stage, ministack_server: Server) -> None:  # KIN-33
    site, bridge = stage
    stream = Stream(ministack_server)
    stream.api.delete_stream(StreamName=stream.name)
    name = mapped(site, stream)
    bridge.reload()
    waiting = bridge.until(lambda: bridge.readiness()[1]["mappings"].get(name))
    assert waiting
    eventually(lambda: stream.name in bridge.readiness()[1]["mappings"][name]["reason"])
    status, _ = bridge.readiness()
    assert status == 503
    stream.api.create_stream(StreamName=stream.name, ShardCount=1)
    bridge.ready()
    stream.put(order(0))
    bridge.until(lambda: stream.seen(site) == [0])


def test_what_blocks_a_shard_is_told(stage: Stage, ministack_server: Server, tmp_path: Path) -> None:  # KIN-60
    site, bridge = stage
    stream, broken = Stream(ministack_server), tmp_path / "broken"
    broken.touch()
    sent = stream.put(order(0), order(1, raises=str(broken)), order(2), key="k")
    name = mapped(site, stream, BatchSize=1)
    bridge.reload()

    def blocked() -> dict[str, Any] | None:
        (found,) = bridge.readiness()[1].get("blocked", {}).get(name, [None])
        return found if found and found["attempt"] >= 2 else None

    told = bridge.until(blocked)
    assert told
    assert told["record"] == sent[1]
    assert (told["partition"], told["attempts"], told["why"]) == ("shardId-000000000000", None, "function")
    assert bridge.readiness()[0] == 200  # it polls all the same
    shown = site.cli("mappings", "show", name, "--why", "--admin", bridge.url).out
    assert re.search(rf"blocked for .* by record {sent[1]}: attempt \d+, no limit after function, n", shown)
    assert bridge.metric("bridge_esm_blocked_seconds", mapping=name) > 0
    assert numbers(stream.runs(site))[0] == [0]
    broken.unlink()
    bridge.until(lambda: stream.seen(site) == [0, 1, 2])
    bridge.until(lambda: name not in bridge.readiness()[1].get("blocked", {}))
