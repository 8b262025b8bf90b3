"""The straight path of a record: fetch, filter, batch, admit, invoke, decide, report, settle."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from math import floor, inf
from typing import TYPE_CHECKING

import anyio
import msgspec
import structlog

from bridge.errors import Draining, HoldLost, PartitionEnded
from bridge.flow import Flow
from bridge.gates import GateName
from bridge.invocation import Invocation, Outcome
from bridge.pipeline.batcher import Batcher
from bridge.pipeline.decide import admit, decide
from bridge.pipeline.verdict import BatchReport, Now, Report, Verdict
from bridge.pipeline.windows import Windows, frame_of
from bridge.record import Batch, Page, Record
from bridge.snapshot import Blocked, RunnerView
from bridge.station import Detail, Station, countdown
from bridge.telemetry.spans import NO_SPAN, Span

if TYPE_CHECKING:
    from bridge.sources import Partition

log = structlog.get_logger()

LONG_POLL = 20.0
"""Seconds that a receive waits for a first record (SQS-4)."""
PARKED_GRACE = 1.2
"""Seconds that a parked receive may go on when its runner drains: one that is cancelled may hide what it had taken.
Not of ordered sources, which are read again from where they stood."""
LAST_WORD = 5.0
"""Seconds for the last settles once nothing waits for us any more, and for a report that is under way at a drain."""
SMALL_BATCH = 1 << 18
"""Bytes of a batch of a shard while others are blocked and hold much."""
NO_RECORD = Record(id="", json=b"", arrived_at=0.0)
"""In place of the first record of a batch that has none."""


class Runner:
    """Runs a partition, alone or beside others of its kind. Whatever it fetched is settled, or on its way back to the
    source, when ``run`` ends, however it ends.
    """

    def __init__(
        self,
        flow: Flow,
        partition: Partition,
        *,
        wanted: Callable[[Runner], bool],
        polled: Callable[[Page, bool], None],
        ended: Callable[[Outcome], None],
    ) -> None:
        mapping, source = flow.mapping, flow.source
        tumbling = mapping.stream.tumbling_window if mapping.stream else 0.0
        self._flow = flow
        self._partition = partition
        self._wanted = wanted
        self._polled = polled
        self._ended = ended
        self._windows = Windows(
            partition.id, mapping.arn_in_events, tumbling, batching=mapping.window, kept=partition.state
        )
        self._batcher = Batcher(
            partition.id,
            mapping.batch_size,
            mapping.window,
            opens=source.window_opens,
            tumbling=self._windows.of if tumbling else None,
        )
        self._station = Station("starting", "has just been started")
        self._deferred_at = 0.0
        """Epoch seconds: when the batch that waits was not run first."""
        self._held: dict[Record, Span] = {}
        """With the span of the receive that brought it."""
        self._started: Sequence[Record] = ()
        self._caught_up = False
        self._blocked: Blocked | None = None
        self._settling: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<Runner {self._partition.id}: {self._station.gate.name}, {len(self._held)} held, {self._batcher!r}>"

    async def run(self) -> None:
        """Until it is drained, not wanted any more, cancelled, or its partition ends."""
        self._station.bind()
        try:
            await self._work()
        except HoldLost:
            self._let_go(tuple(self._held))  # not ours any more: no settle
        except Draining:
            log.debug("runner_drained", mapping=self._flow.mapping.name, held=len(self._held))
        finally:
            await self._give_back()

    async def _work(self) -> None:
        windows, batcher = self._windows, self._batcher
        try:
            while not self._station.draining and (batcher.count or self._wanted(self)):
                await self._round()
        except PartitionEnded:
            for batch in windows.ended(batcher.flush(), time.time()):
                await self._process(batch)
            self._station.at("settling", "the end of the shard")
            await self._partition.finish()

    async def _round(self) -> None:
        """What is due, once. Of what it processed nothing is kept while the next is waited for."""
        due, idle = await self._collect(), not self._batcher.count
        for batch in self._windows.around(due, time.time(), caught_up=self._caught_up, idle=idle):
            await self._process(batch)

    async def _collect(self) -> list[Batch]:
        """Fetches until batches are due (SQS-5); none when nothing came."""
        batcher, whole_seconds = self._batcher, not self._flow.source.ordered
        if not batcher.count:
            await self._may_receive()
        with self._flow.lane.collect():
            if not batcher.count:
                # The first poll is a short one: it shows at once that the mapping works.
                patience = min(LONG_POLL, max(1.0, self._windows.left(time.time())))
                await self._receive(patience if self._flow.polled else 0)
            while not (due := batcher.take(anyio.current_time())) and batcher.count:
                if self._is_enough:
                    return batcher.flush()
                left = batcher.left(anyio.current_time()) or 0.0
                if left < 1 and whole_seconds:
                    with self._station.waiting(*self._collecting(), since=self._since()):
                        await anyio.sleep(left)
                else:
                    await self._receive(min(LONG_POLL, floor(left) if whole_seconds else left))  # SQS-4
        return due

    async def _receive(self, wait: float) -> None:
        flow, batcher = self._flow, self._batcher
        page = Page()
        grace = 0.0 if flow.source.ordered else PARKED_GRACE
        with (
            self._station.waiting(*self._collecting(), grace=grace, due=wait + LONG_POLL, since=self._since()),
            flow.spans.receive(self._partition.id) as received,
        ):
            page = await self._partition.fetch(batcher.room, wait, self._most_bytes)
        received.gave(page)
        self._held.update(dict.fromkeys(page.records, received))
        self._caught_up = page.caught_up
        flow.buffer.take(page.records)
        kept, removed = flow.arrived(self._partition.id, page)
        self._polled(page, wait >= LONG_POLL and not page.records)
        batcher.add(kept, anyio.current_time())
        if removed:
            self._windows.passed(removed)
            await self._settle(Verdict(done=tuple(removed)), removed)  # SQS-65, KIN-39

    def _most_bytes(self) -> float:
        """Of a page of an ordered source."""
        return SMALL_BATCH if self._flow.buffer.short else inf

    @property
    def _is_enough(self) -> bool:
        """The open batch need not grow: what is held is short."""
        flow = self._flow
        return flow.source.ordered and flow.buffer.short and self._batcher.size >= SMALL_BATCH

    def _collecting(self) -> tuple[GateName, Detail]:
        """The gate while it fetches, and a detail that is true whenever somebody looks."""
        batcher, windows = self._batcher, self._windows
        if batcher.count:
            return "window", lambda: batcher.progress(anyio.current_time())
        if windows.gathered:
            return "tumbling", lambda: windows.progress(time.time())
        return "polling", "waits for records"

    def _since(self) -> float | None:
        """Epoch seconds: when what is collected began to be; none while there is nothing."""
        waited = self._batcher.waited(anyio.current_time())
        return None if waited is None else time.time() - waited

    async def _process(self, batch: Batch) -> None:
        """One batch to its end, its own retries in order."""
        queue = [batch]
        while queue:
            async with self._slot(queue.pop()) as batch:
                if not batch.records and not batch.closes:
                    continue
                outcome, verdict, span = await self._attempt(batch)
            await self._report(verdict)
            state, finals = self._windows.settled(batch, verdict)
            await self._settle(verdict, _left(batch, verdict), state, span)
            self._started = ()
            if outcome:
                self._note(batch, outcome, verdict)
            queue.extend(reversed((*finals, *verdict.retry)))
            if verdict.retry:
                await self._pause(verdict)
        self._batcher.invoked(anyio.current_time())

    async def _attempt(self, batch: Batch) -> tuple[Outcome | None, Verdict, Span]:
        """What becomes of the batch: without an invocation, or after one."""
        flow = self._flow
        policy = flow.source.policy(batch)
        fields = self._windows.fields(batch)
        unfit = admit(batch, policy, _now(), frame_of(fields))
        if unfit:
            flow.circled(self._partition.id, policy.circling)
            self._blocked = None
            return None, unfit, NO_SPAN
        request_id = batch.records[0].request_id if batch.records else None
        request_id = request_id or str(uuid.uuid4())
        received = (self._held.get(record, NO_SPAN) for record in batch.records)
        with flow.spans.process(self._partition.id, batch, request_id, received) as span:
            outcome = await self._invoke(batch, request_id, flow.source.event(batch, fields), span)
            verdict = decide(batch, outcome, policy, _now(), random.random())  # noqa: S311 - jitter
            span.ended(outcome, verdict)
        return outcome, verdict, span

    def _note(self, batch: Batch, outcome: Outcome, verdict: Verdict) -> None:
        """Writes an invocation down, once its records are on their way: the source need not wait for that."""
        flow = self._flow
        flow.ended(self._partition.id, batch, outcome, verdict, random.random())  # noqa: S311 - jitter
        self._blocked = flow.blocked(self._blocked, outcome, verdict)
        self._ended(outcome)

    async def _invoke(self, batch: Batch, request_id: str, payload: bytes, span: Span) -> Outcome:
        """The batch's records count as started from here on: they go back as failed, not as untouched."""
        flow = self._flow
        self._started = batch.records
        flow.started(batch, payload)
        first = batch.records[0] if batch.records else NO_RECORD
        invocation = Invocation(
            payload,
            request_id,
            flow.mapping.name,
            span.header(flow.source.trace(batch)),
            first.qualifier or flow.mapping.qualifier,
        )
        began, limit = anyio.current_time(), flow.invoker.function.timeout
        about = f"{len(batch.records)} records, request {invocation.request_id}"
        self._station.at("invoking", lambda: f"{about}, {anyio.current_time() - began:.1f} of {limit:g} s")
        return await flow.invoker.invoke(invocation)

    async def _pause(self, verdict: Verdict) -> None:
        """Before the next try. A drain ends it, and nothing of the batch is settled."""
        again, blocked = verdict.retry[0], self._blocked
        gate: GateName = "throttled" if again.deferrals else "retrying"
        next_one = countdown(f"{again.deferrals} tries without a start; the next", anyio.current_time() + verdict.delay)
        detail: Detail = next_one
        if blocked:
            self._blocked = blocked = msgspec.structs.replace(blocked, next_at=time.time() + verdict.delay)
            detail = blocked.line()
        elif again.deferrals <= 1:
            self._deferred_at = time.time()
        since = blocked.since if blocked else self._deferred_at
        with self._station.waiting(gate, detail, since=since), self._aside():
            await anyio.sleep(verdict.delay)
        if blocked:
            self._blocked = msgspec.structs.replace(blocked, next_at=None)

    def _aside(self) -> AbstractContextManager[None]:
        """While it waits: what a shard holds keeps no other from reading."""
        return self._flow.buffer.aside(self._held) if self._flow.source.ordered else nullcontext()

    async def _report(self, verdict: Verdict) -> None:
        """What is given up is somewhere safe before it is settled (KIN-88)."""
        for report in verdict.reports:
            if isinstance(report, BatchReport):
                await self._tell(self._located(report), grace=LAST_WORD)
            else:
                await self._tell(report, grace=inf)
        if verdict.discard:
            self._flow.discarded(self._partition.id, verdict)

    async def _tell(self, report: Report | BatchReport, grace: float) -> None:
        def trouble(line: str | None) -> None:
            self._station.at("reporting", f"to {report.target}" + (f": {line}" if line else ""))

        with self._station.waiting("reporting", f"to {report.target}", grace=grace), self._aside():
            await self._flow.tell(report, trouble)

    def _located(self, report: BatchReport) -> BatchReport:
        source, batch = self._flow.source, report.batch
        info = source.batch_info(self._partition.id, batch.span)
        return msgspec.structs.replace(report, info=info, payload=source.event(batch, self._windows.fields(batch)))

    async def _may_receive(self) -> None:
        """The gates before a receive. They keep messages in the queue, where no receive is counted against them."""
        flow, waiting = self._flow, self._station.waiting
        while True:
            now = anyio.current_time()
            if pause := flow.breaker.pause(now):
                failed = f"{flow.breaker.failures} invocations failed in a row; probes again"
                with waiting("failing", countdown(failed, now + pause)):
                    await anyio.sleep(pause)
            elif flow.buffer.full:
                with waiting("buffer", flow.buffer.line):
                    await flow.buffer.freed()
            elif not flow.lane.open:
                with waiting(flow.slot_gate, flow.slot_line):
                    await flow.lane.changed()
            else:
                return

    @asynccontextmanager
    async def _slot(self, batch: Batch) -> AsyncIterator[Batch]:
        """Waits for the batch's turn; gives what of it is still ours."""
        flow = self._flow
        aside = self._aside() if flow.invoker.limit == 0 else nullcontext()
        with self._station.waiting(flow.slot_gate, flow.slot_line), aside:
            await flow.lane.acquire()
        try:
            if self._station.draining:
                raise Draining  # a batch that has not started is given back, not invoked
            lost = await self._partition.hold(batch)
            if lost:
                self._let_go(lost)
                self._flow.lost(self._partition.id, lost)
                ours = tuple(record for record in batch.records if record not in set(lost))
                batch = msgspec.structs.replace(batch, records=ours)
            yield batch
        finally:
            self._flow.lane.release()

    async def _settle(
        self, verdict: Verdict, held: Sequence[Record], state: bytes | None = None, processed: Span = NO_SPAN
    ) -> None:
        """Shielded: what was decided is carried out also while being cancelled. ``held``: the same records as they were
        received, which a verdict may have changed."""
        if not held and state is None:
            return
        self._station.at("settling", f"{len(held)} records")
        self._let_go(held)
        done = (*verdict.done, *(record for record, _ in verdict.discard))
        span = self._flow.spans.settle(self._partition.id, held, processed)
        with anyio.CancelScope(shield=True) as self._settling, span:
            await self._partition.settle(done=done, failed=verdict.failed, state=state)
        if self._settling.cancelled_caught:
            log.warning("settle_cut_short", mapping=self._flow.mapping.name, records=len(held))
        self._settling = None

    async def _give_back(self) -> None:
        """What is still held goes back: at once if it was never started (SQS-25 otherwise)."""
        started = tuple(record for record in self._started if record in self._held)
        unstarted = tuple(record for record in self._held if record not in set(started))
        if not self._held:
            return
        if started:
            log.warning("invocation_cancelled", mapping=self._flow.mapping.name, records=len(started))
            self._flow.cancelled(self._partition.id, started)
        self._let_go((*started, *unstarted))
        self._station.at("returning", f"{len(started) + len(unstarted)} records")
        span = self._flow.spans.settle(self._partition.id, (*started, *unstarted), NO_SPAN)
        with anyio.move_on_after(LAST_WORD, shield=True) as scope, span:
            await self._partition.settle(failed=started, unstarted=unstarted)
        if scope.cancelled_caught:
            log.warning("give_back_cut_short", mapping=self._flow.mapping.name, records=len(started) + len(unstarted))

    def _let_go(self, records: Sequence[Record]) -> None:
        for record in records:
            del self._held[record]
        self._flow.buffer.free(records)

    # What others ask of it.

    def drain(self) -> None:
        """Fetch nothing more, finish what runs, give back what was collected and not started."""
        self._station.drain()

    def hurry(self) -> None:
        """Nobody waits for us any more: bounds the settle that may be under way. Cancel the task after it."""
        if self._settling:
            self._settling.deadline = anyio.current_time() + LAST_WORD

    @property
    def due(self) -> float:
        """Monotonic: when the present station should be over; inf where waiting is right."""
        return self._station.due

    def view(self) -> RunnerView:
        """What it does right now."""
        first = next(iter(self._held), None) if self._flow.source.ordered else None
        oldest = first.arrived_at if first else None
        return RunnerView(self._partition.id, self._station.gate, len(self._held), oldest, self._blocked)


def _now() -> Now:
    return Now(anyio.current_time(), time.time())


def _left(batch: Batch, verdict: Verdict) -> Sequence[Record]:
    """The records of the batch that it is over with."""
    if not verdict.retry:
        return batch.records
    again = {record for more in verdict.retry for record in more.records}
    return tuple(record for record in batch.records if record not in again)
