"""Coalescing: when a request goes, what it carries, and what happens to what it leaves. The clock is owned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge.sources.outbox import Outbox
from tests.clock import SKIPPING

pytestmark = pytest.mark.anyio
ANSWER = 1.0
"""Seconds that each request takes."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


class Far:
    """The far side: takes its time, and gives back what it is told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, list[int]]] = []
        self.refused: dict[int, int] = {}
        """Entry -> how often it is to be tried again."""
        self.flying = self.most = 0
        self._began = anyio.current_time()

    async def send(self, batch: Sequence[int]) -> list[int]:
        self.sent.append((round(anyio.current_time() - self._began, 1), list(batch)))
        self.flying += 1
        self.most = max(self.most, self.flying)
        await anyio.sleep(ANSWER)
        self.flying -= 1
        again = [entry for entry in batch if self.refused.get(entry, 0)]
        for entry in again:
            self.refused[entry] -= 1
        return again


@pytest.fixture
async def far() -> Far:
    return Far()


def outbox(tasks: Any, far: Far, **options: Any) -> Outbox[int]:
    return Outbox(tasks.start_soon, far.send, **{"capacity": 100, "requests": lambda: 3, "patience": 0.5, **options})


async def test_the_first_goes_at_once_and_the_others_together(far: Far) -> None:
    async with anyio.create_task_group() as tasks:
        box = outbox(tasks, far, patience=5.0)
        for entry in range(4):
            box.put([entry])
            await anyio.lowlevel.checkpoint()
        await box.flush()
    assert [entries for _, entries in far.sent] == [[0], [1, 2, 3]]


async def test_a_few_wait_for_a_request_on_its_way_or_for_their_patience(far: Far) -> None:
    async with anyio.create_task_group() as tasks:
        box = outbox(tasks, far)
        box.put([0])
        box.put([1, 2])
        await anyio.sleep(5)
        assert len(box) == 0
    assert far.sent == [(0.0, [0]), (0.5, [1, 2])]


async def test_full_tens_go_at_once_up_to_the_number_of_requests(far: Far) -> None:
    async with anyio.create_task_group() as tasks:
        box = outbox(tasks, far)
        box.put(range(45))
        await anyio.sleep(10)
        assert len(box) == 0
    assert [(at, len(entries)) for at, entries in far.sent] == [(0.0, 10), (0.0, 10), (0.0, 10), (1.0, 10), (1.5, 5)]
    assert [entry for _, entries in far.sent for entry in entries] == list(range(45))
    assert far.most == 3


async def test_a_linger_waits_for_more_even_when_nothing_is_on_its_way(far: Far) -> None:
    async with anyio.create_task_group() as tasks:
        box = outbox(tasks, far, linger=2.0)
        box.put([0])
        await anyio.sleep(1.5)
        box.put([1])
        await anyio.sleep(3)
        box.put(range(10, 20))
        box.put([2])
        await anyio.sleep(5)
    assert far.sent == [(2.0, [0, 1]), (4.5, list(range(10, 20))), (6.5, [2])]


async def test_what_fails_is_sent_again_alone_with_growing_delays(far: Far) -> None:
    far.refused = {3: 6}
    async with anyio.create_task_group() as tasks:
        box = outbox(tasks, far)
        box.put(range(10))
        await box.flush()
    assert [entries for _, entries in far.sent] == [list(range(10)), *[[3]] * 6]


async def test_room_waits_until_enough_is_judged(far: Far) -> None:
    async with anyio.create_task_group() as tasks:
        box = outbox(tasks, far, capacity=15)
        began = anyio.current_time()
        box.put(range(15))
        await box.room()
        assert anyio.current_time() == pytest.approx(began, abs=0.1)
        box.put(range(15, 50))
        await box.room()
        assert len(box) <= 15
        assert anyio.current_time() > began + 0.9
        await box.flush()


async def test_a_closed_outbox_sends_nothing_more_and_says_what_is_left(far: Far) -> None:
    far.refused = {0: 100}
    async with anyio.create_task_group() as tasks:
        box = outbox(tasks, far)
        box.put([0])
        await anyio.sleep(ANSWER + 0.001)
        box.put([1])
        assert box.close() == 2
        box.put([2])
        await anyio.sleep(60)
    assert all(entries in ([0], [1]) for _, entries in far.sent)
    assert len(far.sent) <= 2
