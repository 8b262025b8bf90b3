"""Gates of shards: of their runners, their readers, and of shards that may not be read yet."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from bridge.checkpoints import Checkpoints
from bridge.mapping import Mapping, SourceArn, StreamOptions
from bridge.sources import shard_lanes
from bridge.stores import StateUrl
from bridge.stores.memory import MemoryStore
from tests.clock import VirtualLoop
from tests.gates.shown import Scene, Seen, check, play, snapshot
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_streams import LocalStreams
from tests.streams.world import QUEUE, Call, StreamWorld, streaming
from tests.world import world

SHARD = "shardId-000000000000"


async def fine(_: Call) -> None:
    """A handler with nothing to say."""


async def never(_: Call) -> None:
    await anyio.Event().wait()


def broken(_: Call) -> None:
    raise ValueError("not today")


def played(scene: Scene) -> Seen:
    return play(scene, VirtualLoop)


def now(it: StreamWorld, since: float) -> Seen:
    return Seen(snapshot(it.view), since)


def gates(it: StreamWorld) -> dict[str, str]:
    """What each of them is held by, runners and others."""
    if it.daemon is None or not it.daemon.supervisor.mappings:
        return {}
    return {runner.partition: runner.gate.name for runner in it.view.runners} | {
        wait.what: wait.gate.name for wait in it.view.waits
    }


@pytest.mark.gate("tumbling")
def test_tumbling() -> None:  # TW-42
    async def scene() -> Seen:
        async with streaming(lambda _: {"state": {}}, tumbling_window=60) as it:
            it.start()
            await anyio.sleep(1_700_000_040 + 10 - time.time())
            it.put("1", "2", "3")
            await it.until(lambda: bool(it.trail))
            since = time.time()
            await anyio.sleep(20)
            return now(it, since)

    detail = r"the window 2023-11-14T22:14:00Z to 2023-11-14T22:15:00Z gathered 3 records; ends in \d\d\.\d s"
    check(played(scene), "tumbling", SHARD, detail, within=1)


@pytest.mark.gate("retrying")
def test_retrying() -> None:  # KIN-60
    async def scene() -> Seen:
        async with streaming(broken, batch_size=2, retries=9) as it:
            it.put("1", "2")
            it.start()
            await it.until(lambda: bool(it.trail))
            since = time.time()
            await it.until(lambda: len(it.trail) == 4)
            await it.until(lambda: gates(it)[SHARD] == "retrying")
            return now(it, since)

    detail = r"record \d+ and 1 more: attempt 5 of 10 after function, next at \S+Z"
    seen = played(scene)
    check(seen, "retrying", SHARD, detail)
    check(seen, "retrying", "mapping", detail)


@pytest.mark.gate("reporting")
@pytest.mark.parametrize("block", [False, True])
def test_reporting(block: bool) -> None:  # KIN-87, KIN-88
    async def scene() -> Seen:
        async with streaming(broken, retries=0, on_failure=QUEUE, block=block) as it:
            it.destination.down = "ServiceUnavailable"
            it.put("1")
            it.start()
            await it.until(lambda: gates(it).get(SHARD) == "reporting")
            since = time.time()
            await anyio.sleep(300 if block else 40)
            seen = now(it, since)
            it.destination.down = ""
            return seen

    check(played(scene), "reporting", SHARD, rf"to {QUEUE}: .*\(ServiceUnavailable\)")


@pytest.mark.gate("store")
def test_a_store_that_is_slow() -> None:
    async def scene() -> Seen:
        async with streaming(fine) as it:
            it.start()
            await it.until(lambda: gates(it).get(SHARD) == "polling")
            it.disk.delay = 8.0
            it.put("1")
            await it.until(lambda: gates(it)[SHARD] == "store")
            since = time.time()
            await anyio.sleep(5)
            return now(it, since)

    check(played(scene), "store", SHARD, "writes 1 positions; 1 writes are asked for")


@pytest.mark.gate("store")
def test_a_store_that_is_slow_when_a_mapping_opens() -> None:
    async def scene() -> Seen:
        async with streaming(fine) as it:
            it.disk.delay = 8.0
            it.start()
            await anyio.sleep(0.01)
            since = time.time()
            await anyio.sleep(5)
            return now(it, since)

    check(played(scene), "store", "mapping", "writes 1 positions; 1 writes are asked for")


@pytest.mark.gate("state")
def test_state() -> None:
    async def scene() -> Seen:
        async with streaming(fine) as it:
            it.disk.faults = 10**6
            it.start()
            await anyio.sleep(0.01)
            since = time.time()
            await anyio.sleep(200)
            seen = now(it, since)
            it.disk.faults = 0
            return seen

    check(played(scene), "state", "mapping", r"the disk is full.*; it is started again in \d+\.\d s")


@pytest.mark.gate("parent")
def test_parents() -> None:  # KIN-91
    async def scene() -> Seen:
        async with streaming(broken, stream=FaultyKinesis(shards=2)) as it:
            one, other = it.stream.open
            it.put("1", shard=one)
            it.start()
            await it.until(lambda: bool(it.trail))
            child = it.stream.merge(one, other)
            await it.until(lambda: child in gates(it))
            since = time.time()
            (grandchild, _) = it.stream.split(child)
            await it.until(lambda: grandchild in gates(it))
            assert next(w.gate.detail for w in it.view.waits if w.what == grandchild) == (
                f"waits for {child}, which waits too"
            )
            return now(it, since)

    check(played(scene), "parent", "shardId-000000000002", f"waits for {SHARD}, which is being read")


@pytest.mark.gate("children")
def test_children() -> None:  # KIN-92
    async def scene() -> Seen:
        async with streaming(fine) as it:
            it.stream.hides_children = True
            it.start()
            await it.until(lambda: gates(it).get(SHARD) == "polling")
            it.stream.close(SHARD)
            await it.until(lambda: gates(it).get(SHARD) == "children")
            since = time.time()
            await anyio.sleep(20)
            return now(it, since)

    check(played(scene), "children", SHARD, "it was read to its end; the shards after it are to come")


@pytest.mark.gate("ahead")
def test_read_ahead() -> None:  # KIN-22
    async def scene() -> Seen:
        async with streaming(broken, batch_size=2) as it:
            it.put(*map(str, range(100)))
            it.start()
            await it.until(lambda: gates(it).get(f"reader of {SHARD}") == "ahead")
            since = time.time()
            await anyio.sleep(60)
            return now(it, since)

    detail = r"\d+ records are read since record \d+, which is not finished"
    check(played(scene), "ahead", f"reader of {SHARD}", detail)


@pytest.mark.gate("ahead")
def test_read_ahead_of_a_lane_and_of_the_mapping(monkeypatch: pytest.MonkeyPatch) -> None:  # KIN-22
    async def lane() -> Seen:
        async with streaming(never, batch_size=10) as it:
            it.put("1")
            it.start()
            await it.until(lambda: gates(it).get(SHARD) == "invoking")
            it.put(*map(str, range(2, 12)))
            await it.until(lambda: "ahead" in gates(it).values())
            since = time.time()
            await anyio.sleep(3)
            seen = now(it, since)
            await it.kill()
            return seen

    check(played(lane), "ahead", f"reader of {SHARD}", "10 records are read and not taken yet")

    monkeypatch.setattr(shard_lanes.ReadAhead.__init__, "__defaults__", (10,))

    async def mapping() -> Seen:
        async with streaming(broken, batch_size=2, stream=FaultyKinesis(shards=2)) as it:
            it.put(*map(str, range(2)), shard=SHARD)
            it.start()
            await it.until(lambda: bool(it.trail))
            it.put("one more", shard=SHARD)
            await it.until(lambda: gates(it).get(f"reader of {SHARD}") == "ahead")
            since = time.time()
            await anyio.sleep(3)
            return now(it, since)

    check(played(mapping), "ahead", f"reader of {SHARD}", r"\d+ of 10 bytes of this mapping are read and not taken yet")


@pytest.mark.gate("turn")
def test_turn() -> None:
    async def scene() -> Seen:
        stream = FaultyKinesis(shards=8)
        stream.latency = 4.0
        async with streaming(fine, stream=stream) as it:
            it.start()
            await it.until(lambda: "turn" in gates(it).values())
            since = time.time()
            await anyio.sleep(2)
            return now(it, since)

    seen = played(scene)
    (what, *_) = (wait.what for wait in seen.snapshot.mappings[0].waits if wait.gate.name == "turn")
    check(seen, "turn", what, "6 shards at a time read large pages")


@pytest.mark.gate("endpoint")
def test_a_reader_waits_out_a_fault() -> None:  # KIN-35
    async def scene() -> Seen:
        async with streaming(fine) as it:
            it.start()
            await it.until(lambda: gates(it).get(SHARD) == "polling")
            it.stream.refuse("GetRecords", *["ServiceUnavailable"] * 1000)
            await anyio.sleep(100)
            await it.until(lambda: "endpoint" in gates(it).values(), every=0.01)
            seen = Seen(snapshot(it.view), it.view.waits[0].gate.since)
            assert it.view.gate
            assert it.view.gate.name == "endpoint"
            return seen

    check(played(scene), "endpoint", f"reader of {SHARD}", r".*ServiceUnavailable.*; reads again in \d+\.\d s")


@pytest.mark.gate("subscription")
def test_subscription() -> None:  # KIN-102
    async def scene() -> Seen:
        stream = FaultyKinesis()
        stream.subscription_life = 2.0
        aws: Any = LocalStreams(stream)
        mapping = Mapping(
            name="orders",
            uuid="uuid-of-orders",
            function="worker",
            source_arn=SourceArn.parse(stream.consumer_arn),
            stream=StreamOptions(),
        )
        async with (
            Checkpoints(MemoryStore(StateUrl.parse("memory:"))).running() as checkpoints,
            world(aws=aws, checkpoints=checkpoints) as w,
        ):
            w.serve(lambda _: None)
            await w.add(mapping)
            await w.until(lambda: bool(w.view("orders").waits))
            since = time.time()
            await anyio.sleep(1)
            return Seen(snapshot(w.view("orders")), since)

    check(played(scene), "subscription", f"reader of {SHARD}", r"subscribes again in [12]\.\d s")
