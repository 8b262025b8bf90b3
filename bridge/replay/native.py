"""AWS's own message move task: started, watched, cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import msgspec

from bridge.errors import RemoteError, ServiceFault
from bridge.faults import persist
from bridge.replay.entries import CALL_TIMEOUT
from bridge.replay.queues import Queue

LOOK = 1.0
"""Seconds between two looks at the task."""
PATIENCE = 60.0
MOST_RATE = 500
"""Messages a second: more is not to be had."""
FACTS = "no filter, no report for each message, at most 500 messages a second and 36 hours, only queues fed by SQS"


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """How far the task is."""

    status: str
    """``RUNNING``, ``COMPLETED``, ``CANCELLING``, ``CANCELLED`` or ``FAILED``."""
    moved: int = 0
    total: int | None = None
    reason: str = ""
    """Why it failed."""


async def hand_over(
    queue: Queue,
    destination: Queue | None,
    rate: int | None,
    *,
    stop: anyio.Event,
    on_progress: Callable[[Moved], None],
) -> Moved:
    """Has AWS move all messages of ``queue``: to ``destination``, else to where they came from. Returns when the task
    is over; ``stop`` cancels it. Raises RemoteError."""
    request: dict[str, Any] = {"SourceArn": queue.arn}
    if destination:
        request["DestinationArn"] = destination.arn
    if rate:
        request["MaxNumberOfMessagesPerSecond"] = rate
    answer = await queue.api.call("StartMessageMoveTask", request, timeout=CALL_TIMEOUT)
    handle = answer["TaskHandle"]
    cancelled = False
    while True:
        moved = await _look(queue, handle)
        on_progress(moved)
        if moved.status not in ("RUNNING", "CANCELLING"):
            return moved
        if stop.is_set() and not cancelled:
            cancelled = await _cancel(queue, handle)
        if stop.is_set():
            await anyio.sleep(LOOK)
        else:
            with anyio.move_on_after(LOOK):
                await stop.wait()


async def _look(queue: Queue, handle: str) -> Moved:
    query = {"SourceArn": queue.arn, "MaxResults": 10}

    async def ask() -> dict[str, Any]:
        return await queue.api.call("ListMessageMoveTasks", query, timeout=CALL_TIMEOUT)

    until = anyio.current_time() + PATIENCE
    tasks = (await persist(ask, trouble=lambda _: None, until=until)).get("Results") or ()
    # A task that is over has no handle any more: then it is the latest one.
    ours = [task for task in tasks if task.get("TaskHandle") == handle] or list(tasks[:1])
    if not ours:
        raise ServiceFault(f"the message move task of {queue.name} is not listed")
    task = ours[0]
    return Moved(
        status=task.get("Status", ""),
        moved=int(task.get("ApproximateNumberOfMessagesMoved") or 0),
        total=task.get("ApproximateNumberOfMessagesToMove"),
        reason=task.get("FailureReason", ""),
    )


async def _cancel(queue: Queue, handle: str) -> bool:
    """Whether it was taken; it may be over by now, which the next look tells."""
    try:
        await queue.api.call("CancelMessageMoveTask", {"TaskHandle": handle}, timeout=CALL_TIMEOUT)
    except RemoteError:
        return False
    return True
