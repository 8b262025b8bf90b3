"""Slots of a function, shared fairly between its mappings, and the deadline around its executor."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import anyio
import msgspec
import structlog

from bridge.executors import Executor
from bridge.function import Function
from bridge.invocation import Failed, Invocation, Outcome, Succeeded
from bridge.snapshot import FunctionView, Ran

if TYPE_CHECKING:
    from bridge.telemetry.metrics import FunctionMeter

log = structlog.get_logger()

OVERTIME = 45.0
"""Seconds beyond the function's timeout for an executor to start code (twice the init limit) and to kill it."""

REMEMBERED = 60
"""Invocations whose durations are shown."""

RATE_EXCEEDED = b'{"errorType":"TooManyRequestsException","errorMessage":"Rate Exceeded."}'
"""INV-11."""

ERROR_TYPES: dict[str, Literal["unhandled", "timeout", "exit", "oom"]] = {
    "function": "unhandled",
    "timeout": "timeout",
    "exit": "exit",
    "oom": "oom",
}
"""``Failed.kind`` of what ran -> the label ``error_type`` (INV-20: today's runtimes report all as unhandled)."""


class Invoker:
    """Runs one function, at most ``function.concurrency`` times at once.

    A slot is taken when a batch is ready, never while a poll is parked: else idle mappings would hold every slot. Slots
    are given round-robin by mapping.
    """

    def __init__(self, executor: Executor, meter: FunctionMeter) -> None:
        self._executor = executor
        self._meter = meter
        self._lanes: deque[Lane] = deque()
        self._changed = anyio.Event()
        self._reserved = executor.function.reserved_concurrency
        self.busy = 0
        self.invocations = 0
        self.errors = 0
        self.recent: deque[Ran] = deque(maxlen=REMEMBERED)
        """The last invocations that ran."""

    def __repr__(self) -> str:
        return f"<Invoker {self.function.name}: {self.busy} of {self.limit} busy, {self.waiting} waiting>"

    @property
    def function(self) -> Function:
        """The settings that are in force."""
        return self._executor.function

    @property
    def executor(self) -> Executor:
        """What runs it."""
        return self._executor

    @property
    def meter(self) -> FunctionMeter:
        """Where what happens to the function is counted."""
        return self._meter

    @property
    def limit(self) -> int:
        """Invocations at once."""
        return self.function.most_at_once(self._reserved)

    @property
    def reserved(self) -> int | None:
        """The reserved concurrency in force; 0 throttles everything."""
        return self._reserved

    def reserve(self, concurrency: int | None) -> None:
        """Sets the reserved concurrency at once; what runs beyond it ends in peace."""
        self._reserved = concurrency
        self.grant()

    @property
    def waiting(self) -> int:
        """Batches that have no slot yet, over all mappings."""
        return sum(lane.waiting for lane in self._lanes)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The mappings that use this function."""
        return tuple(self._lanes)

    @contextmanager
    def lane(self, mapping: str, *, rejects: bool = False, ahead: bool = False) -> Iterator[Lane]:
        """A mapping's place in the queue for slots, for as long as the mapping runs. ``rejects``: while the reserved
        concurrency is 0 its batches do not wait, but fail (ASY-9). ``ahead``: it reads without regard to slots."""
        lane = Lane(self, mapping, rejects=rejects, ahead=ahead)
        self._lanes.append(lane)
        try:
            yield lane
        finally:
            self._lanes.remove(lane)
            self._wake()

    async def invoke(self, invocation: Invocation) -> Outcome:
        """One attempt in a slot that the caller holds. Never raises for what the handler does."""
        outcome: Outcome | None = None
        if self.limit == 0:
            self._meter.throttled()
            return Failed("reserved_zero", RATE_EXCEEDED, invocation.request_id)
        with anyio.move_on_after(self.function.limit + OVERTIME):
            outcome = await self._executor.invoke(invocation)
        if outcome is None:
            log.error("executor_stuck", function=self.function.name, request_id=invocation.request_id)
            outcome = timed_out(self.function, invocation)
        self._count(outcome)
        return outcome

    def view(self) -> FunctionView:
        """The function's part of the snapshot."""
        environments = self._executor.environments()
        return FunctionView(
            name=self.function.name,
            arn=self.function.arn,
            concurrency=self.limit,
            busy=environments.busy,
            idle=environments.idle,
            starting=environments.starting,
            waiting={lane.mapping: lane.waiting for lane in self._lanes},
            invocations=self.invocations,
            errors=self.errors,
            waits=environments.waits,
            recent=tuple(self.recent),
        )

    def _count(self, outcome: Outcome) -> None:
        if isinstance(outcome, Succeeded):
            self.invocations += 1
            self.recent.append(Ran(round(outcome.duration, 4), ok=True))
            self._meter.invocation("success", "", outcome.duration)
        elif outcome.ran:
            self.invocations += 1
            self.errors += 1
            self.recent.append(Ran(round(outcome.duration, 4), ok=False))
            self._meter.invocation("function_error", ERROR_TYPES[outcome.kind], outcome.duration)
        else:
            self._meter.throttled()

    # What lanes use.

    @property
    def spare(self) -> int:
        """Slots that batches already on their way do not need."""
        expected = sum(lane.waiting + max(0, lane.collecting - 1) for lane in self._lanes)
        return self.limit - self.busy - expected

    def grant(self) -> None:
        """Gives free slots to waiting batches, one mapping after the other."""
        passed = 0
        while (self.busy < self.limit or self.limit == 0) and passed < len(self._lanes):
            lane = self._lanes[0]
            self._lanes.rotate(-1)
            if lane.admit():
                self.busy += 1
                passed = 0
            else:
                passed += 1
        self._wake()

    def try_acquire(self) -> bool:
        """Takes a slot for a call that never waits, to be given back with ``release``; false: there is none (INV-11).
        A batch that waits for this function is not overtaken: it waits only while no slot is free."""
        if self.busy >= self.limit:
            self._meter.throttled()
            return False
        self.busy += 1
        return True

    def release(self) -> None:
        """A slot is free again."""
        self.busy -= 1
        self.grant()

    async def changed(self) -> None:
        """Waits until a slot was given or freed, or a lane collects less."""
        await self._changed.wait()

    def _wake(self) -> None:
        event, self._changed = self._changed, anyio.Event()
        event.set()


class Lane:
    """One mapping's claim on the slots of a function."""

    def __init__(self, invoker: Invoker, mapping: str, *, rejects: bool, ahead: bool) -> None:
        self.mapping = mapping
        self._rejects = rejects
        self._ahead = ahead
        self.limit: int | None = None
        """The mapping's own concurrency (MaximumConcurrency, SQS-16; lowered after errors, SQS-34)."""
        self.collecting = 0
        self.busy = 0
        self._invoker = invoker
        self._queue: deque[anyio.Event] = deque()

    @property
    def waiting(self) -> int:
        """Received batches without a slot."""
        return len(self._queue)

    @property
    def open(self) -> bool:
        """Whether a receive may start: no batch of this mapping is on its way or waits, or each that is will find a
        free slot at once. So a mapping never holds more than one received batch that waits, and messages are not
        received, and their receive count not raised, for nothing."""
        if self._ahead:
            return True
        if self._invoker.limit == 0:
            return self._rejects
        return self.collecting + self.waiting == 0 or self._invoker.spare > 0

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Around the receives that make up one batch."""
        if self._ahead:
            yield
            return
        self.collecting += 1
        try:
            yield
        finally:
            self.collecting -= 1
            self._invoker.grant()

    async def changed(self) -> None:
        """Waits until ``open`` may have become true."""
        await self._invoker.changed()

    async def acquire(self) -> None:
        """One invocation's right to run; waits for it in turn. To be given back with ``release``."""
        turn = anyio.Event()
        self._queue.append(turn)
        self._invoker.grant()
        try:
            await turn.wait()
        except BaseException:
            if turn in self._queue:
                self._queue.remove(turn)
            else:
                self.release()
            raise

    def release(self) -> None:
        """The invocation is over."""
        self.busy -= 1
        self._invoker.release()

    def admit(self) -> bool:
        """Lets the first waiting batch go, if this mapping may run one more."""
        if self._invoker.limit == 0 and not self._rejects:
            return False
        if not self._queue or (self.limit is not None and self.busy >= self.limit):
            return False
        self.busy += 1
        self._queue.popleft().set()
        return True


def timed_out(function: Function, invocation: Invocation) -> Failed:
    """INV-23."""
    message = f"RequestId: {invocation.request_id} Error: Task timed out after {function.timeout:.2f} seconds"
    error = msgspec.json.encode({"errorType": "Sandbox.Timedout", "errorMessage": message})
    return Failed("timeout", error, invocation.request_id, duration=function.timeout)
