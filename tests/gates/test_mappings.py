"""Gates of a mapping as a whole, and of asynchronous events."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import anyio
import pytest

from bridge.errors import NotFound
from bridge.record import Page
from bridge.sources import SOURCES, unlimited
from bridge.sources.memory import MemoryPartition, MemoryQueue, MemorySource
from bridge.stores import StateUrl
from bridge.stores.memory import MemoryStore
from tests.callers import Callers, callers
from tests.clock import VirtualLoop
from tests.gates.shown import Seen, check, play, snapshot
from tests.world import Event, World, mapping, world


async def never(_: Event) -> None:
    await anyio.Event().wait()


def fine(_: Event) -> None:
    """A handler with nothing to say."""


async def shown(w: World, act: Callable[[], Any], gate: str, after: float = 5.0) -> Seen:
    """After ``act`` the mapping `q` comes to this gate, and stands there for a while."""
    act()
    await w.until(lambda: (it := w.view("q").gate) is not None and it.name == gate, every=0.001)
    since = time.time()
    await anyio.sleep(after)
    return Seen(snapshot(w.view("q")), since)


class Slow(MemorySource):
    """It is opened for a minute."""

    async def __aenter__(self) -> Slow:
        await anyio.sleep(60)
        await super().__aenter__()
        return self


@pytest.mark.gate("opening")
def test_a_source_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "memory", "tests.gates.test_mappings:Slow")

    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(fine)
            await w.add(mapping(queue))
            return await shown(w, lambda: None, "opening", after=20)

    check(play(scene), "opening", "mapping", "opens its source")


@pytest.mark.gate("opening")
def test_a_source_that_is_not_there() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(fine)
            await w.add(mapping(queue))
            await anyio.sleep(1)
            seen = await shown(w, lambda: queue.fail(NotFound("the queue q does not exist")), "opening", after=100)
            await w.until(lambda: "again in" in str(w.view("q").gate), every=0.1)
            return Seen(snapshot(w.view("q")), seen.since)

    check(play(scene), "opening", "mapping", r"the queue q does not exist; it is started again in \d+\.\d s", within=1)


@pytest.mark.gate("crashed")
def test_a_bug() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(fine)
            await w.add(mapping(queue))
            await anyio.sleep(1)
            bug: Any = ZeroDivisionError("a bug of ours")
            seen = await shown(w, lambda: queue.fail(bug), "crashed", after=100)
            await w.until(lambda: "again in" in str(w.view("q").gate), every=0.1)
            return Seen(snapshot(w.view("q")), seen.since)

    check(play(scene), "crashed", "mapping", r"a bug of ours; it is started again in \d+\.\d s", within=1)


class StuckPartition(MemoryPartition):
    """Its fetches never come back."""

    async def fetch(self, limit: int, wait: float, size: Callable[[], float] = unlimited) -> Page:
        await anyio.sleep_forever()
        raise AssertionError


class Stuck(MemorySource):
    """Its pollers stand still."""

    async def __aenter__(self) -> Stuck:
        await super().__aenter__()
        assert self._partition
        self._partition.__class__ = StuckPartition
        return self


@pytest.mark.gate("stalled")
def test_a_poller_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "memory", "tests.gates.test_mappings:Stuck")

    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(fine)
            await w.add(mapping(queue))
            return await shown(w, lambda: None, "stalled", after=0.01)

    detail = r"It stood still and was started again with fresh clients\.; it is started again in 0\.\d s"
    check(play(scene), "stalled", "mapping", detail)


class SlowToClose(MemorySource):
    """It settles for a while."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(30)
        await super().__aexit__(kind, error, trace)


@pytest.mark.gate("closing")
def test_a_source_that_takes_its_time_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "memory", "tests.gates.test_mappings:SlowToClose")

    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(fine)
            await w.add(mapping(queue))
            await anyio.sleep(1)
            return await shown(w, lambda: queue.fail(NotFound("gone")), "closing")

    check(play(scene), "closing", "mapping", "settles what is on its way, for a few seconds at the most")


@pytest.mark.gate("draining")
def test_draining() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(never)
            queue.put("a")
            await w.add(mapping(queue))
            await w.until(lambda: w.view("q").in_flight == 1)
            return await shown(w, lambda: w.supervisor.find("q").change(paused=True), "draining")

    check(play(scene), "draining", "mapping", "finishes what runs, gives back the rest: 1 records are held")


@pytest.mark.gate("paused")
def test_paused() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(fine)
            await w.add(mapping(queue))
            await anyio.sleep(1)
            return await shown(w, lambda: w.supervisor.find("q").change(paused=True), "paused")

    check(play(scene), "paused", "mapping", "until it is resumed", within=1.5)


@pytest.mark.gate("disabled")
def test_disabled() -> None:
    async def scene() -> Seen:
        queue = MemoryQueue("q")
        async with world() as w:
            w.serve(fine)
            await w.add(mapping(queue, enabled=False))
            return await shown(w, lambda: None, "disabled")

    check(play(scene), "disabled", "mapping", "Enabled is false in the configuration")


# Asynchronous events.


def of(it: Callers) -> Any:
    (view,) = it.invocations.views()
    return snapshot(asynchronous=(view,))


@pytest.mark.gate("due")
def test_events_that_wait_for_their_next_attempt() -> None:  # ASY-4
    def broken(_: Any) -> None:
        raise ValueError

    async def scene() -> Seen:
        async with callers() as it:
            worker = it.serve(broken)
            since = time.time()
            await it.call({"n": 1})
            await it.until(lambda: bool(worker.calls))
            await anyio.sleep(20)
            return Seen(of(it), since)

    detail = r"1 events wait for their next attempt; the first, [0-9a-f-]{36}, is due in (39|40)\.\d s"
    seen = play(scene, VirtualLoop)
    check(seen, "due", "worker:async", detail, within=1)
    check(seen, "due", "mapping", detail, within=1)


class SlowDisk(MemoryStore):
    """Each write takes its time."""

    async def change_events(self, *args: Any, **options: Any) -> None:
        if options.get("done") or (len(args) > 2 and args[2]):
            await anyio.sleep(8)
        await super().change_events(*args, **options)


@pytest.mark.gate("store")
def test_the_end_of_an_event_is_written() -> None:
    async def scene() -> Seen:
        async with SlowDisk(StateUrl.parse("memory:")) as disk, callers(disk) as it:
            worker = it.serve(fine)
            await it.call({"n": 1})
            await it.until(lambda: bool(worker.calls))
            since = time.time()
            await anyio.sleep(3)
            return Seen(of(it), since)

    check(play(scene, VirtualLoop), "store", "worker:async", "writes events; 0 more changes wait")
