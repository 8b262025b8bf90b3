"""Mappings of streams over pauses, restarts and kills of the daemon."""

from __future__ import annotations

import json
import random
import re
import time
from itertools import chain
from pathlib import Path

import pytest

from bridge.local import free_port
from tests.e2e.conftest import NewSite
from tests.e2e.harness import ASK_EVERY, Site, receive
from tests.e2e.streams import Stream, Table, changes, mapped, numbers, order, stream_site
from tests.servers import Server, kinesalite

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def site(new_site: NewSite, ministack_server: Server) -> Site:
    """A place for one daemon on the server that has streams and queues, with a function."""
    return stream_site(new_site(ministack_server))


def test_pause_resume_and_restart_go_on_where_it_stood(site: Site, ministack_server: Server) -> None:
    """KIN-23, KIN-27: what was drained repeats nothing."""
    stream = Stream(ministack_server, shards=2)
    name = mapped(site, stream, BatchSize=3)

    def put(first: int, last: int) -> None:
        stream.put(*(order(n) for n in range(first, last)))

    def all_of(last: int) -> bool:
        return sorted(stream.seen(site)) == list(range(last))

    put(0, 20)
    with site.running() as bridge:
        bridge.until(lambda: all_of(20))
        assert site.cli("mappings", "pause", name, "--admin", bridge.url).status == 0
        put(20, 30)
        assert bridge.view(name).state == "Disabled"
        assert all_of(20)
        assert site.cli("mappings", "resume", name, "--admin", bridge.url).status == 0
        bridge.until(lambda: all_of(30))
        bridge.stop()
    put(30, 40)
    with site.running() as bridge:
        bridge.until(lambda: all_of(40))
        bridge.stop()


def test_kills_lose_nothing_and_repeat_little(site: Site, ministack_server: Server) -> None:  # KIN-27, V15
    shards, size, kills, count = 2, 5, 2, 150
    stream = Stream(ministack_server, shards=shards)
    chance = random.Random(4)
    mapped(site, stream, BatchSize=size)
    stream.put(*(order(n, sleep=0.01) for n in range(count)))
    for _ in range(kills):
        bridge = site.start()
        begun = len(stream.runs(site))
        bridge.until(lambda: len(stream.runs(site)) > begun + 2)  # noqa: B023
        time.sleep(chance.uniform(0, 0.3))  # the moment is to be any
        bridge.kill()
    with site.running() as bridge:
        bridge.until(lambda: set(stream.seen(site)) == set(range(count)))
        bridge.stop()
    runs = stream.runs(site)
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


def test_a_killed_window_counts_each_record_once(site: Site, ministack_server: Server) -> None:
    """TW-45, TW-47, W6: what a crash repeats begins with the state that was kept with the position."""
    stream, count = Stream(ministack_server), 60
    mapped(site, stream, BatchSize=5, TumblingWindowInSeconds=2)
    stream.put(*(order(n, sleep=0.01) for n in range(count)), key="k")
    for _ in range(2):
        bridge = site.start()
        begun = len(stream.runs(site))
        bridge.until(lambda: len(stream.runs(site)) > begun + 1)  # noqa: B023
        bridge.kill()

    def windows() -> dict[str, list[int]]:
        """What each one had seen at its end."""
        return {entry["start"]: entry["seen"] for entry in site.journal.entries("window")}

    with site.running() as bridge:
        bridge.until(lambda: sum(map(len, windows().values())) >= count)
        assert sorted(chain(*windows().values())) == list(range(count))
        bridge.stop()


def test_kills_in_a_bisect_begin_the_rest_anew(site: Site, ministack_server: Server) -> None:
    """KIN-27, KIN-63, KIN-64, KIN-88: halves that were settled stay so; the rest is one batch again, with all its
    attempts, and the poison is reported once, with those that it had alone since the last start."""
    stream, told, poison = Stream(ministack_server), site.queue(), 5
    mapped(
        site,
        stream,
        BatchSize=8,
        BisectBatchOnFunctionError=True,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": told.arn}},
    )
    sent = stream.put(*(order(n, sleep=0.1, raises=n == poison) for n in range(8)), key="k")
    for killed_in in [4, 5], [5]:
        bridge = site.start()
        before = len(stream.runs(site))
        bridge.until(lambda: killed_in in numbers(stream.runs(site)[before:]))  # noqa: B023
        bridge.kill()
        assert stream.runs(site)[-1].ended is None, "it was not killed in the middle"
    with site.running() as bridge:
        (message,) = bridge.until(lambda: receive(told), every=ASK_EVERY)
        bridge.until(lambda: 7 in stream.seen(site))
        bridge.stop()
    assert numbers(stream.runs(site)) == [
        [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5],
        [4, 5, 6, 7], [4, 5], [4], [5],
        [5, 6, 7], [5], [5], [6, 7],
    ]  # fmt: skip
    assert stream.seen(site) == [0, 1, 2, 3, 4, 6, 7]
    document = json.loads(message["Body"])
    assert document["requestContext"]["approximateInvokeCount"] == 2
    assert document["KinesisBatchInfo"]["startSequenceNumber"] == sent[poison]
    assert not receive(told)


def test_an_endpoint_goes_away_and_comes_back(site: Site, tmp_path: Path) -> None:
    """KIN-35: with the same stream on its disk. Nothing is lost or comes twice, each key keeps its order, and nobody
    has to do anything."""
    keys, each, port, disk = 3, 12, free_port(), tmp_path / "disk"

    def put(first: int) -> None:
        for n in range(first, first + each):
            stream.put(order(n, sleep=0.02), key=f"key-{n % keys}")

    with kinesalite(port, disk) as server:
        stream = Stream(server, shards=2)
        name = mapped(site, stream, BatchSize=4)
        bridge = site.running()
        put(0)
        bridge.until(lambda: stream.runs(site))
        put(each)
        server.process.kill()  # in the middle: not all of it has been read
        server.process.wait()
    with bridge:
        waiting = bridge.until(lambda: bridge.readiness()[1]["mappings"].get(name, {}).get("reason"))
        assert waiting
        assert f"127.0.0.1:{port}/ does not answer" in waiting
        assert bridge.readiness()[0] == 503
        with kinesalite(port, disk) as server:
            stream.api = server.client("kinesis")
            bridge.ready()
            put(2 * each)
            bridge.until(lambda: len(stream.seen(site)) >= 3 * each)
            assert sorted(stream.seen(site)) == list(range(3 * each))
            bridge.stop()
    for key in range(keys):
        assert [n for n in stream.seen(site) if n % keys == key] == list(range(key, 3 * each, keys))
    assert len(bridge.events("stream_begun")) == 1, "it was started anew"


def test_the_changes_of_a_table(site: Site, ministack_server: Server) -> None:
    """DDB-40, DDB-41, DDB-47, DDB-60."""
    table = Table(ministack_server)
    mapped(site, table, BatchSize=10)
    table.put("a", "x")
    table.put("a", "y")
    table.put("a", "y")  # changes nothing
    table.put("b")
    with site.running() as bridge:
        expected = [("INSERT", "a"), ("MODIFY", "a"), ("INSERT", "b")]
        bridge.until(lambda: changes(table.runs(site)) == expected)
        bridge.stop()
    table.delete("a")
    table.put("b", "z")
    with site.running() as bridge:
        expected += [("REMOVE", "a"), ("MODIFY", "b")]
        bridge.until(lambda: changes(table.runs(site)) == expected)
        bridge.stop()
    records = [record for run in table.runs(site) for record in run.records]
    changed, removed = records[1], records[3]
    assert changed["eventSourceARN"] == table.arn
    assert (changed["eventSource"], changed["awsRegion"]) == ("aws:dynamodb", "eu-west-1")
    assert changed["dynamodb"]["OldImage"]["order"] == {"S": "x"}
    assert changed["dynamodb"]["NewImage"]["order"] == {"S": "y"}
    assert removed["dynamodb"]["OldImage"]["order"] == {"S": "y"}
    assert "NewImage" not in removed["dynamodb"]
