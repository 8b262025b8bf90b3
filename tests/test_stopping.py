"""Stop it anywhere: whatever the instant, each record is settled or back at its source."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from bridge.sources.memory import MemoryQueue
from tests.clock import SKIPPING
from tests.world import Event, NotRun, World, function, mapping, world

pytestmark = pytest.mark.anyio

INSTANTS = [0.0, 0.001, *(n * 0.37 for n in range(1, 60))]
VISIBILITY = 40.0


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


class Scene:
    """A busy mapping: windows, slow and failing and throttled invocations, too few environments."""

    def __init__(self, w: World, *, fifo: bool) -> None:
        self.world = w
        self.queue = MemoryQueue("q", visibility=VISIBILITY, fifo=fifo)
        self.finished: Counter[str] = Counter()
        """Message ids that the handler has ended well with."""
        self.calls = 0
        self.executor = w.serve(self._handle, function(max_environments=2, timeout=30.0))
        for number in range(120):
            self.queue.put(f"m{number}", group=f"g{number % 7}" if fifo else None)

    async def _handle(self, event: Event) -> Any:
        self.calls += 1
        call = self.calls
        if call % 5 == 0:
            raise NotRun("throttled")
        ids = [record["messageId"] for record in event["Records"]]
        await anyio.sleep(0.1 * (call % 7))
        if call % 4 == 0:
            raise ValueError("this batch fails")
        failed = ids[:2] if call % 3 == 0 else []
        self.finished.update(ids[len(failed) :])
        return {"batchItemFailures": [{"itemIdentifier": name} for name in failed]}

    def check(self) -> None:
        queue = self.queue
        assert len(queue.deleted) + len(queue.visible) + len(queue.in_flight) == 120  # nothing is lost
        assert len(set(queue.deleted)) == len(queue.deleted)
        assert set(queue.deleted) <= set(self.finished)  # nothing is deleted that was not done
        hidden = set(queue.in_flight)
        assert hidden <= self.executor.given, "only what was started stays hidden"
        assert self.world.buffer.held == 0

    async def comes_back(self) -> None:
        """What is hidden is visible again when the visibility that it was received with is over (SQS-25)."""
        await anyio.sleep(VISIBILITY)
        assert not self.queue.in_flight


@pytest.mark.parametrize("fifo", [False, True])
@pytest.mark.parametrize("instant", INSTANTS)
async def test_drain(instant: float, fifo: bool) -> None:  # SQS-58: FIFO has no window
    async with world() as w:
        scene = Scene(w, fifo=fifo)
        await w.add(mapping(scene.queue, batch_size=10, window=0.0 if fifo else 2.0, partial=True))
        await anyio.sleep(instant)
        with anyio.fail_after(5):
            await w.supervisor.drain()
        scene.check()
        before = scene.calls
        await scene.comes_back()
        assert scene.calls == before


@pytest.mark.parametrize("fifo", [False, True])
@pytest.mark.parametrize("instant", INSTANTS)
async def test_cancel(instant: float, fifo: bool) -> None:
    async with world() as w:
        scene = Scene(w, fifo=fifo)
        await w.add(mapping(scene.queue, batch_size=10, window=0.0 if fifo else 2.0, partial=True))
        await anyio.sleep(instant)
    scene.check()
    await scene.comes_back()


@pytest.mark.parametrize("instant", INSTANTS[::6])
async def test_cancel_in_the_middle_of_a_drain(instant: float) -> None:
    async with world() as w:
        scene = Scene(w, fifo=False)
        await w.add(mapping(scene.queue, batch_size=10, window=2.0, partial=True))
        await anyio.sleep(instant)
        with anyio.move_on_after(0.05):
            await w.supervisor.drain()
    scene.check()
    await scene.comes_back()


@pytest.mark.parametrize("instant", INSTANTS[::4])
async def test_pause_gives_back_and_resume_goes_on(instant: float) -> None:
    async with world() as w:
        scene = Scene(w, fifo=False)
        await w.add(mapping(scene.queue, batch_size=10, window=2.0, partial=True))
        await anyio.sleep(instant)
        with anyio.fail_after(5):
            view = await w.supervisor.pause("q", wait=True)
        assert (view.state, view.in_flight) == ("Disabled", 0)
        scene.check()
        before = scene.calls
        await scene.comes_back()
        assert scene.calls == before
        await w.supervisor.resume("uuid-of-q")
        await scene.queue.settled_all()
        assert len(scene.queue.deleted) == 120
