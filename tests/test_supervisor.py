"""Mappings as a whole: states, restarts, pauses, and what stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import pytest

from bridge.checkpoints import Checkpoints
from bridge.errors import AccessDenied, StateError
from bridge.position import Move, Position
from bridge.record import Page
from bridge.sources import SOURCES, unlimited
from bridge.sources.memory import MemoryPartition, MemoryQueue, MemorySource
from bridge.stores import StateUrl
from bridge.stores.memory import MemoryStore
from tests.clock import SKIPPING
from tests.world import Event, function, mapping, replace, world

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


def fine(event: Event) -> None:
    """A handler with nothing to say."""


async def test_states_are_true() -> None:  # ESM-51, ESM-52, ESM-58
    queue = MemoryQueue("q")
    async with world() as w:
        w.serve(fine)
        await w.add(mapping(queue))
        assert w.view("q").state == "Creating"
        await w.until(lambda: w.view("q").state == "Enabled", within=2)
        view = await w.supervisor.pause("q", wait=True)
        assert (view.state, view.ready, view.gate and view.gate.name) == ("Disabled", True, "paused")
        queue.put("a")
        await anyio.sleep(100)
        assert queue.deliveries == []
        view = await w.supervisor.resume("q")
        assert view.state == "Enabling"
        await queue.settled_all()
        assert w.view("q").state == "Enabled"


async def test_pause_lets_running_invocations_finish_and_their_messages_are_deleted() -> None:  # ESM-58
    queue = MemoryQueue("q", visibility=60)
    async with world() as w:
        w.serve(lambda event: anyio.sleep(10), function(timeout=20.0))
        await w.add(mapping(queue))
        queue.put("a")
        await w.until(lambda: w.executors["worker"].running == 1)
        view = await w.supervisor.pause("q", wait=False)
        assert (view.state, view.gate and view.gate.name) == ("Disabling", "draining")
        await w.supervisor.pause("q", wait=True)
        assert queue.deleted == ["message-1"]


async def test_a_paused_mapping_starts_paused() -> None:
    queue = MemoryQueue("q")
    async with world() as w:
        w.serve(fine)
        w.pauses.uuids.add("uuid-of-q")
        await w.add(mapping(queue))
        queue.put("a")
        await anyio.sleep(50)
        assert (w.view("q").state, queue.deliveries) == ("Disabled", [])


async def test_a_disabled_mapping_does_not_poll() -> None:  # ESM-51
    queue = MemoryQueue("q")
    async with world() as w:
        w.serve(fine)
        await w.add(mapping(queue, enabled=False))
        queue.put("a")
        await anyio.sleep(50)
        view = w.view("q")
        assert (view.state, view.ready, view.gate and view.gate.name) == ("Disabled", True, "disabled")
        assert queue.deliveries == []


async def test_moving_a_mapping_to_another_function_loses_nothing() -> None:  # SQS-97, ESM-64
    queue = MemoryQueue("q", visibility=60)
    async with world() as w:
        old = w.serve(lambda event: anyio.sleep(0.3), function("old", max_environments=1))
        new = w.serve(fine, function("new"))
        settings = mapping(queue, function="old")
        await w.add(settings)
        for n in range(50):
            queue.put(f"m{n}")
        await w.until(lambda: bool(old.events))
        await w.supervisor.remove("q")
        assert old.running == 0
        await w.add(replace(settings, function="new"))
        await queue.settled_all()
        served = [body for executor in (old, new) for batch in executor.bodies for body in batch]
        assert sorted(served) == sorted(f"m{n}" for n in range(50))
        assert new.events


async def test_missing_permission_is_said_and_waited_for() -> None:
    queue = MemoryQueue("q")
    queue.fail(AccessDenied("no permission to call ReceiveMessage on q"))
    async with world() as w:
        w.serve(fine)
        await w.add(mapping(queue))
        await anyio.sleep(200)
        view = w.view("q")
        assert view.state == "Creating"
        assert not view.ready
        assert view.gate
        assert view.gate.detail.startswith("no permission to call ReceiveMessage on q; it is started again in ")
        assert len(view.failures) == 1, "said once, however often it is tried"
        assert w.supervisor.find("q").explained


class StuckOnce(MemorySource):
    """Its first partition's second fetch never returns."""

    opened = 0

    async def __aenter__(self) -> StuckOnce:
        await super().__aenter__()
        type(self).opened += 1
        if type(self).opened == 1:
            assert self._partition is not None
            self._partition = Stuck(self.queue, "arn", self.surroundings)
        return self


class Stuck(MemoryPartition):
    polls = 0

    async def fetch(self, limit: int, wait: float, size: Callable[[], float] = unlimited) -> Page:
        self.polls += 1
        if self.polls > 1:
            await anyio.sleep_forever()
        return Page()


async def test_a_poller_that_stands_still_is_replaced_with_fresh_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "memory", "tests.test_supervisor:StuckOnce")
    StuckOnce.opened = 0
    queue = MemoryQueue("q")
    async with world() as w:
        w.serve(fine)
        await w.add(mapping(queue))
        await w.until(lambda: w.view("q").ready, within=2)
        queue.put("a")
        await w.until(lambda: not w.view("q").ready, within=90)
        await queue.settled_all()
        await w.until(lambda: w.view("q").ready, within=60)
        assert w.aws.renewed
        assert StuckOnce.opened == 2


class NeverOpensAgain(MemorySource):
    """It may have further partitions at any time. Once it was open, it never gets so far again."""

    opened = 0

    async def __aenter__(self) -> NeverOpensAgain:
        type(self).opened += 1
        if type(self).opened > 1:
            await anyio.sleep_forever()
        await super().__aenter__()
        return self

    async def partitions(self) -> AsyncIterator[MemoryPartition]:
        async for partition in super().partitions():
            yield partition
        await anyio.sleep_forever()


async def test_a_mapping_that_fell_and_opens_again_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "memory", "tests.test_supervisor:NeverOpensAgain")
    NeverOpensAgain.opened = 0
    queue = MemoryQueue("q")
    async with world() as w:
        w.serve(fine)
        await w.add(mapping(queue))
        await w.until(lambda: w.view("q").ready, within=2)
        queue.fail(AccessDenied("not today"))
        await w.until(lambda: NeverOpensAgain.opened == 2, within=60)
        with anyio.fail_after(1):
            await w.supervisor.remove("q")


async def test_a_long_invocation_is_no_stall() -> None:
    queue = MemoryQueue("q", visibility=1000)
    async with world() as w:
        w.serve(lambda event: anyio.sleep(890), function(timeout=900.0, max_environments=1))
        queue.put("a")
        queue.put("b")
        await w.add(mapping(queue, batch_size=1))
        await queue.settled_all()
        assert w.aws.renewed == []
        assert len(queue.deliveries) == 2


async def test_removing_a_mapping_removes_its_series() -> None:  # MET-31
    queue = MemoryQueue("q")
    async with world() as w:
        w.serve(fine)
        await w.add(mapping(queue))
        await anyio.sleep(1)
        page, _ = w.metrics.render()
        assert b'bridge_esm_state{function="worker",mapping="q"' in page
        await w.supervisor.remove("q")
        page, _ = w.metrics.render()
        assert b'mapping="q"' not in page


class Remembered(MemorySource):
    """Its partition says how many records are done, as sources do that need somebody to remember it."""

    async def __aenter__(self) -> Remembered:
        positions = self.surroundings.positions
        assert positions
        known = await positions.load()
        await super().__aenter__()
        self._partition = Remembering(self.queue, "arn", self.surroundings)
        self._partition.count = int(known["q"].position) if known else 0
        return self


class Remembering(MemoryPartition):
    count = 0

    def __init__(self, queue: MemoryQueue, arn: str, surroundings: Any) -> None:
        super().__init__(queue, arn, surroundings)
        self.positions = surroundings.positions

    async def settle(self, done: Sequence[Any] = (), *others: Any, **options: Any) -> None:
        if done:
            await self.positions.move({"q": Position(position=str(self.count + len(done)))})
            self.count += len(done)
        await super().settle(done, *others, **options)


class Disk(MemoryStore):
    """Full when a test says so."""

    full = False

    async def keep(self, kind: str, key: str, document: bytes) -> None:
        self.look()
        await super().keep(kind, key, document)

    async def move_positions(self, moves: Sequence[Move]) -> None:
        self.look()
        await super().move_positions(moves)

    def look(self) -> None:
        if self.full:
            raise StateError("state file /x: its disk is full; free some space")


async def test_without_checkpoints_a_mapping_stops_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "memory", "tests.test_supervisor:Remembered")
    queue = MemoryQueue("q", visibility=1)
    disk = Disk(StateUrl.parse("memory:"))
    async with Checkpoints(disk).running() as checkpoints, world(checkpoints=checkpoints) as w:
        served = w.serve(fine)
        settings = mapping(queue)
        await w.add(settings)
        queue.put("a")
        await queue.settled_all()
        disk.full = True
        queue.put("b")
        await w.until(lambda: not w.view("q").ready, within=60)
        view = w.view("q")
        assert view.gate
        line = "state file /x: its disk is full; free some space"
        assert view.gate.name == "state"
        assert view.gate.detail.startswith(f"{line}; it is started again in ")
        assert view.last_error == f"StateError: {line}"
        given = len(served.events)
        await anyio.sleep(600)
        assert len(served.events) == given, "nothing is invoked without checkpoints"
        assert not w.view("q").ready
        assert w.supervisor.find("q").explained
        assert len(w.view("q").failures) == 1, "said once, however often it is tried"
        disk.full = False
        await queue.settled_all()
        await w.until(lambda: w.view("q").ready, within=60)
        assert await checkpoints.of(settings).load() == {"q": Position(position="2")}


async def test_a_mapping_that_is_disabled_or_removed_keeps_its_positions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # KIN-23, TW-54
    monkeypatch.setitem(SOURCES, "memory", "tests.test_supervisor:Remembered")
    queue = MemoryQueue("q")
    disk = Disk(StateUrl.parse("memory:"))
    async with Checkpoints(disk).running() as checkpoints, world(checkpoints=checkpoints) as w:
        w.serve(fine)
        settings = mapping(queue)
        await w.add(settings)
        queue.put("a")
        await queue.settled_all()
        await w.supervisor.pause("q", wait=True)
        queue.put("b")
        await w.supervisor.resume("q")
        await queue.settled_all()
        await w.supervisor.remove("q")
        assert await checkpoints.of(settings).load() == {"q": Position(position="2")}
        queue.put("c")
        await w.add(settings)
        await queue.settled_all()
        await w.until(lambda: disk._positions[("uuid-of-q", str(settings.source_arn), "q")].position == "3", within=9)
