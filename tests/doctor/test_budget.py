"""The burn budget is what the bridge really does: the figures of doctor against a mapping at work, in owned time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bridge.doctor.checks_queues import budget
from bridge.sources.memory import MemoryQueue
from tests.clock import SKIPPING
from tests.world import mapping, world

pytestmark = pytest.mark.anyio
OUTAGES = [(2, 30.0), (5, 30.0), (5, 2.0), (8, 5.0), (12, 1.0)]


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


async def dead_after(receives: int, visibility: float, outage: float) -> bool:
    """Whether a healthy message that comes as an outage begins ends in the dead-letter queue."""
    queue = MemoryQueue("orders", visibility=visibility, max_receives=receives)
    handled = anyio.Event()
    async with world() as it:
        began = anyio.current_time()

        def handler(event: Any) -> None:
            if anyio.current_time() - began < outage:
                raise RuntimeError("out of order")
            handled.set()

        it.serve(handler)
        queue.put("healthy")
        await it.add(mapping(queue))
        await it.until(lambda: handled.is_set() or bool(queue.dead))
    return bool(queue.dead)


@pytest.mark.parametrize(("receives", "visibility"), OUTAGES)
async def test_no_healthy_message_dies_of_a_shorter_outage(receives: int, visibility: float) -> None:
    lasts = budget(receives, visibility, breaks=True)
    assert lasts >= (receives - 1) * visibility
    for share in (0.3, 0.7, 0.99):
        assert not await dead_after(receives, visibility, share * lasts)


@pytest.mark.parametrize(("receives", "visibility"), [(2, 30.0), (5, 30.0), (5, 10.0)])
async def test_one_that_is_longer_costs_messages(receives: int, visibility: float) -> None:
    """Where the failing gate does not help, which is up to five receives, the figure is exact."""
    lasts = budget(receives, visibility, breaks=True)
    assert lasts == (receives - 1) * visibility
    assert await dead_after(receives, visibility, lasts + 2.0)


async def test_the_failing_gate_makes_it_longer() -> None:
    assert budget(12, 1.0, breaks=True) > 2 * budget(12, 1.0, breaks=False) == 22.0
