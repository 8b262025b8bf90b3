"""Gates of runners, and what waits at queues."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from bridge.sources.memory import MemoryQueue
from tests.gates.shown import Seen, check, play, snapshot
from tests.sources.faulty_sqs import FaultySqs, LocalAws
from tests.sources.near import Near
from tests.world import Event, Handler, NotRun, World, function, mapping, replace, world


def until_gate(w: World, name: str, gate: str) -> Any:
    """Waits until a runner stands there."""
    return w.until(lambda: any(runner.gate.name == gate for runner in w.view(name).runners), every=0.01)


async def never(_: Event) -> None:
    await anyio.sleep_forever()


def broken(_: Event) -> None:
    raise ValueError("not today")


@asynccontextmanager
async def polled(queue: FaultySqs, handler: Handler, **options: Any) -> AsyncIterator[World]:
    """A world with a mapping `orders` of this queue."""
    aws = LocalAws(queue)
    async with world(aws=aws) as w:
        w.serve(handler)
        await w.add(Near(aws).mapping(queue.arn, **options))
        yield w


@pytest.mark.gate("starting")
def test_starting() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never)
            await w.add(mapping(queue))
            since = time.time()
            while not w.view("q").runners:
                await anyio.sleep(0)
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "starting", "q", "has just been started")


@pytest.mark.gate("polling")
def test_polling() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never)
            await w.add(mapping(queue))
            since = time.time()
            await anyio.sleep(130)  # several polls: it has waited since the first
            return Seen(snapshot(w.view("q")), since)

    seen = play(scene)
    check(seen, "polling", "q", "waits for records")
    check(seen, "polling", "mapping", "waits for records")


@pytest.mark.gate("window")
def test_window() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never)
            await w.add(mapping(queue, batch_size=10, window=5.0))
            await anyio.sleep(33)
            queue.put("a")
            since = time.time()
            await anyio.sleep(1)
            for _ in range(6):
                queue.put("b")
            await anyio.sleep(2.1)
            return Seen(snapshot(w.view("q")), since)

    seen = play(scene)
    check(seen, "window", "q", r"3\.1 of 5 s, 7 of 10 records")
    check(seen, "window", "mapping", r"3\.1 of 5 s, 7 of 10 records")


@pytest.mark.gate("invoking")
def test_invoking() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never, function(timeout=30.0))
            await w.add(mapping(queue))
            queue.put("a")
            queue.put("b")
            await until_gate(w, "q", "invoking")
            since = time.time()
            await anyio.sleep(2.3)
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "invoking", "q", r"2 records, request [0-9a-f-]{36}, 2\.\d of 30 s")


@pytest.mark.gate("slot")
def test_slot() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never, function(max_environments=2))
            await w.add(mapping(queue, batch_size=1))
            for _ in range(10):
                queue.put("a")
            await until_gate(w, "q", "slot")
            since = time.time()
            await anyio.sleep(20)
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "slot", "q", "2 of 2 environments of worker are busy")


@pytest.mark.gate("concurrency")
def test_concurrency() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never)
            await w.add(mapping(queue, batch_size=1, maximum_concurrency=2))
            for _ in range(10):
                queue.put("a")
            await until_gate(w, "q", "concurrency")
            since = time.time()
            await anyio.sleep(20)
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "concurrency", "q", "2 of 2 invocations of this mapping run")


@pytest.mark.gate("pollers")
def test_provisioned_pollers() -> None:  # SQS-18
    async def scene() -> Seen:
        queue = FaultySqs()
        options = {"batch_size": 1, "minimum_pollers": 1, "maximum_pollers": 1}
        async with polled(queue, never, **options) as w:
            for _ in range(40):
                queue.send("a")
            await until_gate(w, "orders", "pollers")
            since = time.time()
            await anyio.sleep(3)
            return Seen(snapshot(w.view("orders")), since)

    check(play(scene), "pollers", "orders", "10 of 10 invocations of this mapping run")


@pytest.mark.gate("throttled")
def test_reserved_concurrency_of_0() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never, function(reserved_concurrency=0))
            await w.add(mapping(queue))
            since = time.time()
            await anyio.sleep(100)
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "throttled", "q", "the reserved concurrency of worker is 0")


@pytest.mark.gate("throttled")
def test_throttled() -> None:  # SQS-35
    def refuse(_: Event) -> None:
        raise NotRun

    async def scene() -> Seen:
        queue = MemoryQueue("q", visibility=300)
        async with world() as w:
            w.serve(refuse)
            await w.add(mapping(queue))
            queue.put("a")
            since = time.time()
            await anyio.sleep(35)
            await until_gate(w, "q", "throttled")
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "throttled", "q", r"\d tries without a start; the next in \d+\.\d s")


@pytest.mark.gate("buffer")
def test_buffer() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world(buffer=500) as w:
            w.serve(never)
            await w.add(mapping(queue, batch_size=1))
            for _ in range(10):
                queue.put("a" * 600)
            await until_gate(w, "q", "buffer")
            since = time.time()
            await anyio.sleep(10)
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "buffer", "q", r"\d+ of 500 bytes are received and open")


@pytest.mark.gate("failing")
def test_failing() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q", visibility=1)
        async with world() as w:
            w.serve(broken)
            await w.add(mapping(queue))
            queue.put("a")
            await w.until(lambda: "1" in w.view("q").gate.detail and w.view("q").gate.name == "failing", every=0.01)  # type: ignore[union-attr]
            since = w.view("q").gate.since  # type: ignore[union-attr]
            assert time.time() - since < 70
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "failing", "mapping", r"\d+ invocations failed in a row; probes again in \d+\.\d s")


@pytest.mark.gate("settling")
def test_settling() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(lambda _: None)
            queue.put("a")
            await w.add(mapping(queue))
            while True:
                if any(runner.gate.name == "settling" for runner in w.view("q").runners):
                    return Seen(snapshot(w.view("q")), time.time())
                await anyio.sleep(0)

    check(play(scene), "settling", "q", "1 records")


@pytest.mark.gate("deletes")
def test_deletes() -> None:
    async def scene() -> Seen:
        queue = FaultySqs()
        queue.hang("DeleteMessageBatch")
        async with polled(queue, lambda _: None) as w:
            for _ in range(1500):
                queue.send("a")
            await until_gate(w, "orders", "deletes")
            since = time.time()
            await anyio.sleep(1.5)
            seen = Seen(snapshot(w.view("orders")), since)
            queue.allow("DeleteMessageBatch")
            return seen

    check(play(scene), "deletes", "orders", r"1\d\d\d deletes are on their way; 1000 may be")


@pytest.mark.gate("returning")
def test_returning() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never)
            queue.put("a")
            await w.add(mapping(queue, window=60.0))
            await until_gate(w, "q", "window")
            await anyio.sleep(5)
            w.supervisor.find("q").change(paused=True)
            while w.view("q").runners[0].gate.name != "returning":
                await anyio.sleep(0)
            return Seen(snapshot(w.view("q")), time.time())

    check(play(scene), "returning", "q", "1 records")


@pytest.mark.gate("endpoint")
def test_endpoint_of_a_runner_and_of_its_mapping() -> None:
    async def scene() -> Seen:
        queue = FaultySqs()
        async with polled(queue, never) as w:
            await until_gate(w, "orders", "polling")
            queue.refuse("ReceiveMessage", *["ServiceUnavailable"] * 10_000)
            since = time.time()
            await anyio.sleep(60)
            await until_gate(w, "orders", "endpoint")
            view = w.view("orders")
            assert view.gate
            assert view.gate.since == pytest.approx(since, abs=5)  # since the first trouble that was news
            return Seen(snapshot(view), view.runners[0].gate.since)

    seen = play(scene)
    check(seen, "endpoint", "orders", r".*ServiceUnavailable.*; asks again in \d+\.\d s")
    gate = seen.snapshot.mappings[0].gate
    assert gate
    check(Seen(seen.snapshot, gate.since), "endpoint", "mapping", r".*\(ServiceUnavailable\)")


@pytest.mark.gate("group")
@pytest.mark.parametrize("stage", ["running", "failed"])
def test_group(stage: str) -> None:  # SQS-55, SQS-56
    async def scene() -> Seen:
        queue = FaultySqs("orders.fifo", visibility=30, max_receives=5)
        queue.ignores_groups = True
        first: list[str] = []

        async def handler(event: Event) -> None:
            if event["Records"][0]["messageId"] == first[0] and stage == "failed":
                raise ValueError
            await anyio.sleep_forever()

        async with polled(queue, handler, batch_size=1) as w:
            await until_gate(w, "orders", "polling")
            first.append(queue.send("1", "g"))
            since = time.time()
            await anyio.sleep(0.1)
            queue.send("2", "g")
            queue.send("3", "g")
            await anyio.sleep(4)
            return Seen(snapshot(w.view("orders")), since)

    detail = {
        "running": "2 messages received and waiting for message id-1 attempt 1 of 5, which is being handled",
        "failed": r"(2 messages|1 message) received and waiting for message id-1 attempt 1 of 5, which failed and "
        r"comes again in 2\d\.\d s",
    }
    check(play(scene), "group", "group g", detail[stage])


@pytest.mark.gate("group")
def test_a_group_of_which_nothing_else_was_received() -> None:
    async def scene() -> Seen:
        queue = FaultySqs("orders.fifo", visibility=30)
        async with polled(queue, broken, batch_size=1) as w:
            await until_gate(w, "orders", "polling")
            queue.send("a", "g")
            since = time.time()
            await anyio.sleep(5)
            return Seen(snapshot(w.view("orders")), since)

    detail = r"its later messages wait for message id-1 attempt 1, which failed and comes again in 25\.0 s"
    check(play(scene), "group", "group g", detail)


@pytest.mark.gate("group")
def test_many_groups_are_counted() -> None:
    async def scene() -> Seen:
        queue = FaultySqs("orders.fifo", visibility=30)
        queue.ignores_groups = True
        async with polled(queue, never, batch_size=1, minimum_pollers=2, maximum_pollers=2) as w:
            await until_gate(w, "orders", "polling")
            since = time.time()
            for number in range(30):
                queue.send("a", f"g{number // 2:02}")
            await w.until(lambda: len(w.view("orders").waits) > 10, within=20)
            view = w.view("orders")
            return Seen(snapshot(view), since)

    seen = play(scene)
    detail = r"1 message received and waiting for message id-\d+ attempt 1, which is being handled"
    check(seen, "group", seen.snapshot.mappings[0].waits[0].what, detail)
    more = seen.snapshot.mappings[0].waits[10].what
    check(seen, "group", more, f"messages of {more} wait for earlier ones", within=20)


@pytest.mark.gate("visibility")
def test_visibility() -> None:  # SQS-32
    async def scene() -> Seen:
        queue = FaultySqs(visibility=30, max_receives=3)
        async with polled(queue, broken, batch_size=10) as w:
            await until_gate(w, "orders", "polling")
            since = time.time()
            for _ in range(3):
                queue.send("a")
            await anyio.sleep(10)
            seen = Seen(snapshot(w.view("orders")), since)
            await anyio.sleep(200)
            assert w.view("orders").waits == ()
            return seen

    detail = r"3 messages failed and hidden; the first comes again in 20\.0 s: message id-\d attempt 1 of 3"
    seen = play(scene)
    check(seen, "visibility", "orders", detail)
    check(seen, "visibility", "mapping", detail)


def test_since_is_when_a_gate_began_to_hold_not_when_its_words_changed() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never, function(max_environments=1))
            await w.add(replace(mapping(queue), batch_size=1))
            queue.put("a")
            queue.put("b")
            await until_gate(w, "q", "slot")
            since = time.time()
            await anyio.sleep(10)
            w.invoker().reserve(0)
            await anyio.sleep(10)
            return Seen(snapshot(w.view("q")), since)

    check(play(scene), "throttled", "q", "the reserved concurrency of worker is 0")
