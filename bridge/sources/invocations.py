"""The accepted asynchronous events of one function, a source with one partition: each event is a batch of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping as Dict, Sequence
from math import isinf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.lowlevel
import msgspec

from bridge.errors import BridgeError
from bridge.event import Event
from bridge.function import LATEST, Function
from bridge.lineage import hops, lengthened
from bridge.mapping import Mapping, SourceArn
from bridge.pipeline.batcher import WindowOpens
from bridge.pipeline.scaling import Scaling
from bridge.pipeline.verdict import EventPolicy, Policy
from bridge.record import Batch, Page, Record, Span
from bridge.snapshot import Gate, WaitView
from bridge.sources import Bound, Limits, Surroundings, unlimited

if TYPE_CHECKING:
    from bridge.sources.event_queue import EventQueue, Line

RETRIES = 2  # ASY-4
MAX_AGE = 21_600.0  # ASY-6


def event_mapping(function: Function) -> Mapping:
    """The mapping that feeds a function from its asynchronous events."""
    name = f"{function.name}:async"  # no name of the configuration has a colon
    arn = SourceArn.parse(function.arn)
    return Mapping(name=name, uuid=name, function=function.name, source_arn=arn, batch_size=1)


class InvocationSource:
    """The source of one function. Needs ``Surroundings.function`` and ``events``."""

    data_key = ""
    probes = False  # AWS retries at its own pace (ASY-4, ASY-5)
    rejects = True
    ordered = False
    window_opens: WindowOpens = "first record"

    def __init__(self, mapping: Mapping, surroundings: Surroundings) -> None:
        if surroundings.events is None:
            raise BridgeError(f"{mapping.name}: there is no queue of asynchronous events here")
        self._function: Function = surroundings.function
        self._events: EventQueue = surroundings.events
        self._line = self._events.line(self._function.name)
        self._partition = InvocationPartition(self._line, self._events, self._function, surroundings)

    def __repr__(self) -> str:
        return f"<InvocationSource {self._line!r}>"

    @classmethod
    def limits(cls, mapping_source: str) -> Limits:
        return Limits(f"the asynchronous events of {mapping_source}", Bound(1, 1, 1), Bound(0, 0, 0))

    async def __aenter__(self) -> Self:
        await anyio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.release_all()

    async def partitions(self) -> AsyncIterator[InvocationPartition]:
        yield self._partition

    def policy(self, batch: Batch) -> Policy:
        """By the qualifier of the event: settings are per function, version or alias (ASY-20)."""
        (record,) = batch.records
        settings = self._events.settings(self._function, record.qualifier)
        return Policy(
            events=EventPolicy(
                arn=self._function.qualified(record.qualifier or LATEST),
                retries=RETRIES if settings.retries is None else settings.retries,
                max_age=MAX_AGE if settings.max_age is None else settings.max_age,
                on_success=settings.on_success,
                on_failure=settings.on_failure,
                dead_letter=self._function.dead_letter,
                hops=hops(record.trace, self._function.arn) - 1,
            )
        )

    def scaling(self) -> Scaling:
        return Scaling(falls=False)

    def trace(self, batch: Batch) -> str:
        return batch.records[0].trace

    def event(self, batch: Batch, extra: Dict[str, bytes]) -> bytes:  # noqa: ARG002 - there are no windows here
        return batch.records[0].json

    def view(self, record: Record) -> Any:
        return msgspec.json.decode(record.json)

    def batch_info(self, partition: str, span: Span) -> dict[str, Any]:  # noqa: ARG002 - a queue has no such documents
        return {}

    def waits(self) -> tuple[WaitView, ...]:
        later = self._line.later
        if later is None:
            return ()
        first, events = later
        left = max(0.0, first.due_at - time.time())
        detail = f"{events} events wait for their next attempt; the first, {first.request_id}, is due in {left:.1f} s"
        return (WaitView(self._partition.id, Gate("due", first.accepted_at, detail), first.request_id),)

    async def backlog(self) -> int | None:
        return len(self._line)


class InvocationPartition:
    """The events of one function. Several runners may take from it."""

    state = b""

    def __init__(self, line: Line, events: EventQueue, function: Function, surroundings: Surroundings) -> None:
        self.id = f"{line.function}:async"
        self._line, self._events, self._arn, self._meter = line, events, function.arn, surroundings.meter

    async def fetch(self, limit: int, wait: float, size: Callable[[], float] = unlimited) -> Page:  # noqa: ARG002
        """One event at the most: each is invoked, retried and reported by itself."""
        await anyio.lowlevel.checkpoint()
        deadline = anyio.current_time() + wait
        while True:
            while waiting := self._line.claim():
                try:
                    event = await self._events.read(waiting)
                except BaseException:
                    self._line.release(waiting.request_id)  # cancelled, or the store fails: it waits again
                    raise
                if event:
                    return self._page(event)
                self._line.drop(waiting.request_id)
            left = deadline - anyio.current_time()
            if left <= 0:
                self._meter.poll("empty")
                return Page()
            await self._line.change(left)

    async def hold(self, batch: Batch) -> tuple[Record, ...]:
        await anyio.lowlevel.checkpoint()
        if meter := self._events.meter(self._line.function):
            for record in batch.records:
                meter.event_age(time.time() - record.arrived_at)
        return tuple(record for record in batch.records if not self._line.holds(record.id))

    async def settle(
        self,
        done: Sequence[Record] = (),
        failed: Sequence[Record] = (),
        unstarted: Sequence[Record] = (),
        *,
        state: bytes | None = None,  # noqa: ARG002 - no position, no state
    ) -> None:
        """``failed`` come again at their ``held_until``, with their ``attempts`` used up: both are on disk when it
        returns, so that no runner waits for them. Those without such a time were not judged; they come at once, as
        they were, and so do ``unstarted``."""
        for record in done:
            await self._line.finish(record.id)
        for record in failed:
            if isinf(record.held_until):
                self._line.release(record.id)
            else:
                due_at = time.time() + record.held_until - anyio.current_time()
                await self._line.postpone(record.id, due_at, record.attempts)
        for record in unstarted:
            self._line.release(record.id)

    async def finish(self) -> None:
        """There is always more to come: nothing ends here."""

    def _page(self, event: Event) -> Page:
        lag = max(0.0, time.time() - event.accepted_at)
        record = Record(
            id=event.request_id,
            json=event.payload,
            arrived_at=event.accepted_at,
            deliveries=event.deliveries + 1,
            attempts=event.attempts,
            request_id=event.request_id,
            qualifier=event.qualifier,
            trace=lengthened(event.trace, self._arn),
        )
        self._meter.poll("data")
        self._meter.polled(1, len(event.payload))
        self._meter.message_age(lag)
        more = self._line.ready
        return Page((record,), caught_up=not more, lag=lag, full=more)
