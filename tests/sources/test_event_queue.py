"""The queue of asynchronous events: bounds, group commits, and callers that go away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge.errors import StateError, Throttled
from bridge.event import Event, Waiting
from bridge.sources.event_queue import EventQueue
from bridge.stores import StateUrl
from bridge.stores.memory import MemoryStore
from tests.clock import SKIPPING, owned_wall

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


class SlowStore(MemoryStore):
    """Takes a second for each write, and counts them."""

    def __init__(self) -> None:
        super().__init__(StateUrl.parse("memory:"))
        self.writes: list[int] = []
        self.fails = False

    async def change_events(
        self, added: Sequence[Event] = (), moved: Sequence[Waiting] = (), done: Sequence[str] = ()
    ) -> None:
        self.writes.append(len(added) + len(moved) + len(done))
        await anyio.sleep(1)
        if self.fails:
            raise StateError("its disk is full")
        await super().change_events(added, moved, done)


@asynccontextmanager
async def queue(store: SlowStore | None = None, **options: Any) -> AsyncIterator[EventQueue]:
    it = EventQueue(store or SlowStore(), **options)
    async with it.running():
        yield it


async def test_concurrent_accepts_share_a_write() -> None:  # ASY-1
    store = SlowStore()
    async with queue(store) as it:
        async with anyio.create_task_group() as tasks:
            for number in range(1500):
                tasks.start_soon(it.accept, "worker", "", b"{}", f"{number}")
        assert store.writes == [1000, 500]
        assert it.waiting("worker") == len(await store.waiting_events()) == 1500


async def test_accepting_returns_after_the_write_and_not_before() -> None:  # ASY-1
    store = SlowStore()
    async with queue(store) as it:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.accept, "worker", "", b"{}", "id")
            await anyio.sleep(0.9)
            assert it.waiting("worker") == 0, "nobody may run what is not on disk"
        assert await store.event("id")
        assert it.waiting("worker") == 1


async def test_too_many_events_are_throttled() -> None:
    async with queue(most_events=3) as it:
        for number in range(3):
            await it.accept("worker", "", b"{}", f"{number}")
        with pytest.raises(Throttled, match="Rate Exceeded"):
            await it.accept("other", "", b"{}", "one more")
        line = it.line("worker")
        claimed = line.claim()
        assert claimed
        await line.finish(claimed.request_id)
        await it.accept("other", "", b"{}", "one more")


async def test_too_many_bytes_are_throttled() -> None:
    async with queue(most_bytes=1000) as it:
        await it.accept("worker", "", b"x" * 900, "1")
        with pytest.raises(Throttled):
            await it.accept("worker", "", b"x" * 101, "2")
        await it.accept("worker", "", b"x" * 100, "3")


async def test_what_cannot_be_written_is_refused_and_not_counted() -> None:
    store = SlowStore()
    async with queue(store, most_events=1) as it:
        store.fails = True
        with pytest.raises(StateError, match="disk is full"):
            await it.accept("worker", "", b"{}", "id")
        store.fails = False
        await it.accept("worker", "", b"{}", "id")  # the same caller again
        assert it.waiting("worker") == 1


async def test_the_same_id_is_one_event() -> None:
    store = SlowStore()
    async with queue(store) as it:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.accept, "worker", "", b"1", "id")
            await anyio.sleep(0.5)
            await it.accept("worker", "", b"1", "id")
            assert await store.event("id"), "the second caller too is told after the write"
        await it.accept("worker", "", b"1", "id")
        assert it.waiting("worker") == 1
        assert len(store.writes) == 1


async def test_a_caller_who_goes_away_leaves_a_whole_event() -> None:
    store = SlowStore()
    async with queue(store) as it:
        with anyio.move_on_after(0.5):
            await it.accept("worker", "", b"{}", "id")
        await anyio.sleep(1)
        assert await store.event("id")
        assert it.waiting("worker") == 1


async def test_what_was_asked_for_is_written_before_the_end() -> None:
    store = SlowStore()
    async with anyio.create_task_group() as tasks, queue(store) as it:
        tasks.start_soon(it.accept, "worker", "", b"{}", "1")
        await anyio.sleep(0.1)
        tasks.start_soon(it.accept, "worker", "", b"{}", "2")
        await anyio.lowlevel.checkpoint()
    assert len(await store.waiting_events()) == 2
    with pytest.raises(StateError, match="stopping"):
        await it.accept("worker", "", b"{}", "3")


async def test_the_oldest_due_event_comes_first() -> None:
    async with queue() as it:
        for number in range(3):
            await it.accept("worker", "", b"{}", f"{number}")
        line = it.line("worker")
        first = line.claim()
        assert first
        assert first.request_id == "0"
        await line.postpone("0", 1e12, 1)
        line.put(Waiting("late", "worker", 2, 0.0, 0.0))
        taken = [line.claim() for _ in range(4)]
        assert [one.request_id if one else None for one in taken] == ["late", "1", "2", None]
        line.release("2")
        again = line.claim()
        assert again
        assert again.request_id == "2"


async def test_functions_are_told_as_they_come() -> None:
    store = SlowStore()
    await MemoryStore.change_events(store, added=[Event("id", "first", b"{}", 0.0, 0.0)])
    told: list[str] = []

    async def follow() -> None:
        async for name in it.functions():
            told.append(name)  # noqa: PERF401 - it never ends

    async with queue(store) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.sleep(0.1)
        assert told == ["first"]
        await it.accept("second", "", b"{}", "2")
        await it.accept("first", "", b"{}", "3")
        await anyio.sleep(0.1)
        assert told == ["first", "second"]
        tasks.cancel_scope.cancel()
