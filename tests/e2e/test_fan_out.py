"""Mappings of streams' consumers from end to end: records are pushed, subscriptions end and are made anew, the daemon
pauses and is killed, and the consumer goes away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from tests.e2e.conftest import NewSite
from tests.e2e.harness import Bridge, Site, eventually
from tests.e2e.journal import Invocation
from tests.e2e.streams import Stream, mapped, numbers, order, stream_site
from tests.servers import Server, ministack

Stage = tuple[Site, Bridge, Server]
SUBSCRIPTION = 6.5
"""Seconds that one lasts on the server of this file: they may be renewed after five (KIN-102)."""


class Consumed(Stream):
    """A stream with a consumer, whose ARN is ``arn``."""

    def __init__(self, server: Server, *, shards: int = 1) -> None:
        super().__init__(server, shards=shards)
        self.stream_arn = self.arn
        self.register("bridge")

    def runs(self, site: Site) -> list[Invocation]:
        """Whatever their events call it; the ARNs of consumers end alike."""
        runs = site.journal.invocations()
        return [run for run in runs if arn_of(run).partition("/consumer/")[0] == self.stream_arn]

    def register(self, name: str) -> None:
        """One more consumer; from now on ``arn`` is that one's."""
        made = self.api.register_stream_consumer(StreamARN=self.stream_arn, ConsumerName=name)["Consumer"]
        self.arn = made["ConsumerARN"]
        eventually(self._is_active)

    def _is_active(self) -> bool:
        told = self.api.describe_stream_consumer(ConsumerARN=self.arn)["ConsumerDescription"]
        return bool(told["ConsumerStatus"] == "ACTIVE")

    def deregister(self) -> None:
        """The consumer is gone."""
        self.api.deregister_stream_consumer(ConsumerARN=self.arn)

    def steal(self, shard: str) -> None:
        """Somebody else subscribes for the same consumer, and leaves."""
        place = {"Type": "LATEST"}
        answer = self.api.subscribe_to_shard(ConsumerARN=self.arn, ShardId=shard, StartingPosition=place)
        answer["EventStream"].close()


def arn_of(run: Invocation) -> str:
    """What it was told that its records come from."""
    (arn,) = {str(record["eventSourceARN"]) for record in run.records}
    return arn


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with ministack(SUBSCRIPTION) as server:
        yield server


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Stage]:
    """One daemon for most tests of this file; each adds a mapping to it."""
    site = stream_site(Site(tmp_path_factory.mktemp("fan-out"), server))
    with site.running() as bridge:
        yield site, bridge, server


def asked(bridge: Bridge, operation: str, *codes: str) -> float:
    """Requests so far, all or those with these answers."""
    return sum(
        value
        for name, labels, value in bridge.metrics()
        if name == "bridge_source_api_requests_total"
        and labels["op"] == operation
        and (not codes or labels["code"] in codes)
    )


def test_records_are_pushed_to_the_handler(stage: Stage) -> None:
    """KIN-44, KIN-100, KIN-106: of each shard, without being asked for, in order."""
    site, bridge, server = stage
    stream, other = Consumed(server, shards=2), Consumed(server)
    mapped(site, stream, BatchSize=5)
    mapped(site, other, arn_in_events="stream")
    bridge.reload()
    for n in range(40):
        stream.put(order(n), key=f"key-{n % 4}")
    other.put(order(0))
    bridge.until(lambda: sorted(stream.seen(site)) == list(range(40)))
    bridge.until(lambda: other.seen(site) == [0])
    for key in range(4):
        assert [n for n in stream.seen(site) if n % 4 == key] == list(range(key, 40, 4))
    assert {arn_of(run) for run in stream.runs(site)} == {stream.arn}
    assert {arn_of(run) for run in other.runs(site)} == {other.stream_arn}
    assert asked(bridge, "SubscribeToShard", "OK") >= 3
    assert asked(bridge, "GetRecords") == 0


def test_subscriptions_end_and_are_taken_over(stage: Stage) -> None:
    """KIN-100 to KIN-102, KIN-104: what comes meanwhile follows once the shard is subscribed to again, and nothing
    comes twice. The seconds of both are the same."""
    site, bridge, server = stage
    ended, stolen = Consumed(server), Consumed(server)
    for stream in (ended, stolen):
        mapped(site, stream, BatchSize=5)
        stream.put(order(0), key="k")
    bridge.reload()
    bridge.until(lambda: ended.seen(site) == stolen.seen(site) == [0])
    subscribed, began = asked(bridge, "SubscribeToShard", "OK"), time.monotonic()
    put = 1
    while asked(bridge, "SubscribeToShard", "OK") < subscribed + 2:
        assert time.monotonic() < began + 4 * SUBSCRIPTION, "not subscribed again"
        if time.monotonic() > began + 5.2 and not bridge.events("subscription_lost"):
            stolen.steal("shardId-000000000000")
        for stream in (ended, stolen):
            stream.put(order(put), key="k")
        put += 1
        time.sleep(0.1)  # records are to come all the time
    for stream in (ended, stolen):
        stream.put(order(put), key="k")
        bridge.until(lambda: stream.seen(site)[-1:] == [put])  # noqa: B023
        assert stream.seen(site) == list(range(put + 1))
    assert len(bridge.events("subscription_lost")) == 1
    assert asked(bridge, "GetRecords") == 0


def test_no_more_is_taken_than_the_handler_keeps_up_with(stage: Stage, tmp_path: Path) -> None:
    """KIN-103: while a batch is stuck its shard is not read on, and the server keeps what it cannot get rid of."""
    site, bridge, server = stage
    stream, stuck, half = Consumed(server), tmp_path / "stuck", 40
    stuck.touch()
    name, slow = mapped(site, stream, BatchSize=2), stream.arn
    stream.put(order(0, raises=str(stuck)), key="k")
    stream.register("another")
    pattern = {"data": {"n": [{"numeric": [">", 0]}]}}
    mapped(site, stream, BatchSize=100, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    bridge.reload()

    def of(arn: str) -> list[int]:
        return list(chain(*numbers([run for run in stream.runs(site) if run.well and arn_of(run) == arn])))

    def put(first: int, last: int) -> float:
        """What the slow one has taken when the other one has got all of these."""
        for n in range(first, last):
            stream.put(order(n, filling="x" * 100_000), key="k")
        bridge.until(lambda: last - 1 in stream.seen(site))
        return bridge.metric("bridge_esm_polled_events_total", mapping=name)

    taken = put(1, half)
    assert put(half, 2 * half) == taken <= half
    stuck.unlink()
    bridge.until(lambda: bridge.metric("bridge_esm_polled_events_total", mapping=name) == 2 * half)
    bridge.until(lambda: of(slow)[-1:] == [2 * half - 1])
    assert of(slow) == list(range(2 * half))


def test_a_consumer_that_goes_away_is_told_and_can_be_replaced(stage: Stage) -> None:
    """KIN-33, KIN-106: positions are the stream's, whoever is pushed to."""
    site, bridge, server = stage
    stream = Consumed(server)
    name = mapped(site, stream, BatchSize=5)
    stream.put(order(0), key="k")
    bridge.reload()
    bridge.until(lambda: stream.seen(site) == [0])
    stream.deregister()
    stream.put(order(1), key="k")
    waiting = bridge.until(lambda: bridge.readiness()[1]["mappings"].get(name, {}).get("reason"))
    assert waiting
    assert "ResourceNotFoundException" in waiting
    assert f"{stream.name}/consumer/bridge" in waiting
    assert bridge.readiness()[0] == 503
    stream.register("another")
    site.config["mappings"][name]["EventSourceArn"] = stream.arn
    bridge.reload()
    bridge.ready()
    stream.put(order(2), key="k")
    bridge.until(lambda: stream.seen(site) == [0, 1, 2])
    assert {arn_of(run) for run in stream.runs(site)[1:]} == {stream.arn}


def test_restarts_and_kills_keep_the_place(new_site: NewSite, server: Server) -> None:
    """KIN-23, KIN-27, V15: what was settled does not come again."""
    site = stream_site(new_site(server))
    stream, size = Consumed(server, shards=2), 4
    mapped(site, stream, BatchSize=size)
    stream.put(*(order(n) for n in range(20)))
    with site.running() as bridge:
        bridge.until(lambda: sorted(stream.seen(site)) == list(range(20)))
        bridge.stop()
    stream.put(*(order(n, sleep=0.02) for n in range(20, 60)))
    bridge = site.start()
    bridge.until(lambda: len(stream.seen(site)) > 20)
    bridge.kill()
    stream.put(*(order(n) for n in range(60, 70)))
    with site.running() as bridge:
        bridge.until(lambda: set(stream.seen(site)) == set(range(70)))
        assert asked(bridge, "GetRecords") == 0
        bridge.stop()
    given = list(chain(*numbers(stream.runs(site))))
    assert sorted(given[:20]) == list(range(20))
    assert not set(given[20:]) & set(range(20)), "what was settled before a drain came again"
    assert len(given) - 70 <= 2 * size, "a kill may repeat a batch of each shard"
