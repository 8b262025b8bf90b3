"""The straight path of a record: fetch, filter, batch, admit, invoke, decide, report, settle."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from math import floor, inf
from typing import TYPE_CHECKING

import anyio
import msgspec
import structlog

from bridge.errors import Draining, HoldLost, PartitionEnded
from bridge.flow import Flow
from bridge.invocation import Invocation, Outcome
from bridge.pipeline.batcher import Batcher
from bridge.pipeline.verdict import Now, Verdict, admit, decide
from bridge.record import Batch, Page, Record
from bridge.snapshot import Gate, RunnerView

if TYPE_CHECKING:
    from bridge.sources import Partition

log = structlog.get_logger()

LONG_POLL = 20.0
"""Seconds that a receive waits for a first record (SQS-4)."""
PARKED_GRACE = 1.2
"""Seconds that a parked receive may go on when its runner drains: one that is cancelled may hide what it had taken."""
LAST_WORD = 5.0
"""Seconds for the last settles once nothing waits for us any more."""


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
        self._flow = flow
        self._partition = partition
        self._wanted = wanted
        self._polled = polled
        self._ended = ended
        self._batcher = Batcher(partition.id, flow.mapping.batch_size, flow.mapping.window)
        self._held: dict[Record, None] = {}
        self._started: Sequence[Record] = ()
        self._draining = False
        self._waits: tuple[anyio.CancelScope, float] | None = None
        self._settling: anyio.CancelScope | None = None
        self._gate = Gate("starting", time.time())
        self.due = inf
        """Monotonic: when the present station should be over; inf where waiting is right."""

    def __repr__(self) -> str:
        return f"<Runner {self._partition.id}: {self._gate.name}, {len(self._held)} held, {self._batcher!r}>"

    async def run(self) -> None:
        """Until it is drained, not wanted any more, cancelled, or its partition ends."""
        try:
            await self._work()
        except HoldLost:
            self._let_go(tuple(self._held))  # not ours any more: no settle
        except Draining:
            log.debug("runner_drained", mapping=self._flow.mapping.name, held=len(self._held))
        finally:
            await self._give_back()

    async def _work(self) -> None:
        try:
            while not self._draining and (self._batcher.count or self._wanted(self)):
                for batch in await self._collect():
                    await self._process(batch)
        except PartitionEnded:
            for batch in self._batcher.flush():
                await self._process(batch)
            await self._partition.finish()

    def drain(self) -> None:
        """Fetch nothing more, finish what runs, give back what was collected and not started."""
        self._draining = True
        if self._waits:
            scope, grace = self._waits
            scope.deadline = min(scope.deadline, anyio.current_time() + grace)

    def hurry(self) -> None:
        """Nobody waits for us any more: bounds the settle that may be under way. Cancel the task after it."""
        if self._settling:
            self._settling.deadline = anyio.current_time() + LAST_WORD

    def view(self) -> RunnerView:
        """What it does right now."""
        return RunnerView(self._partition.id, self._gate, len(self._held))

    async def _collect(self) -> list[Batch]:
        """Fetches until batches are due (SQS-5); none when nothing came."""
        if not self._batcher.count:
            await self._may_receive()
        with self._flow.lane.collect():
            if not self._batcher.count:
                # The first poll is a short one: it shows at once that the mapping works.
                await self._receive(LONG_POLL if self._flow.polled else 0)
            while not (due := self._batcher.take(anyio.current_time())) and self._batcher.count:
                left = self._batcher.left(anyio.current_time()) or 0.0
                if left >= 1:
                    await self._receive(min(LONG_POLL, floor(left)))  # SQS-4: never past the window
                else:
                    with self._waiting("window", self._window_detail()):
                        await anyio.sleep(left)
        return due

    async def _receive(self, wait: float) -> None:
        flow = self._flow
        page = Page()
        with self._waiting(*self._polling(), grace=PARKED_GRACE, due=wait + LONG_POLL):
            page = await self._partition.fetch(self._batcher.room, wait)
        self._held.update(dict.fromkeys(page.records))
        flow.buffer.take(page.records)
        kept, removed = flow.arrived(page)
        self._polled(page, wait >= LONG_POLL and not page.records)
        if removed:
            await self._settle(done=removed, held=removed)  # SQS-65
        self._batcher.add(kept, anyio.current_time())

    async def _process(self, batch: Batch) -> None:
        """One batch to its end, its own retries in order."""
        flow = self._flow
        queue = [batch]
        while queue:
            async with self._slot(queue.pop()) as batch:
                if not batch.records:
                    continue
                policy = flow.source.policy(batch)
                flow.circled(policy.circling)
                ended = admit(batch, policy, _now()) or await self._invoke(batch)
            luck = random.random()  # noqa: S311 - jitter
            verdict = ended if isinstance(ended, Verdict) else decide(batch, ended, policy, _now())
            await self._report(verdict)
            given_up = tuple(record for record, _ in verdict.discard)
            await self._settle(done=(*verdict.done, *given_up), failed=verdict.failed, held=_left(batch, verdict))
            if not isinstance(ended, Verdict):
                flow.ended(batch, ended, verdict, luck)
                self._ended(ended)
            if verdict.retry:
                self._started = ()
                queue.extend(reversed(verdict.retry))
                with self._waiting("throttled", f"{verdict.retry[0].deferrals} tries without a start"):
                    await anyio.sleep(verdict.delay * (0.5 + luck / 2))

    async def _invoke(self, batch: Batch) -> Outcome:
        """The batch's records count as started from here on: they go back as failed, not as untouched."""
        flow = self._flow
        self._started = batch.records
        payload = flow.source.event(batch, {})
        flow.meter.batch(len(batch.records), len(payload))
        first = batch.records[0]
        invocation = Invocation(
            payload,
            first.request_id or str(uuid.uuid4()),
            flow.mapping.name,
            flow.source.trace(batch),
            first.qualifier or flow.mapping.qualifier,
        )
        self._at("invoking", f"{len(batch.records)} records, request {invocation.request_id}")
        return await flow.invoker.invoke(invocation)

    async def _report(self, verdict: Verdict) -> None:
        """What is given up is somewhere safe before it is settled."""
        flow = self._flow
        if verdict.discard:
            flow.discarded(verdict.discard)
        for report in verdict.reports:
            self._at("reporting", f"to {report.target}")
            if flow.delivery:
                await flow.delivery.send(report, flow.invoker.function)

    async def _may_receive(self) -> None:
        """The gates before a receive. They keep messages in the queue, where no receive is counted against them."""
        flow = self._flow
        while True:
            if pause := flow.breaker.pause(anyio.current_time()):
                detail = f"{flow.breaker.failures} invocations failed in a row; probes again in {pause:.1f} s"
                with self._waiting("failing", detail):
                    await anyio.sleep(pause)
            elif flow.buffer.full:
                with self._waiting("buffer", f"{flow.buffer.held} of {flow.buffer.limit} bytes are received and open"):
                    await flow.buffer.freed()
            elif not flow.lane.open:
                with self._waiting(*self._slot_gate()):
                    await flow.lane.changed()
            else:
                return

    @asynccontextmanager
    async def _slot(self, batch: Batch) -> AsyncIterator[Batch]:
        """Waits for the batch's turn; gives what of it is still ours."""
        with self._waiting(*self._slot_gate()):
            await self._flow.lane.acquire()
        try:
            if self._draining:
                raise Draining  # a batch that has not started is given back, not invoked
            lost = await self._partition.hold(batch)
            if lost:
                self._let_go(lost)
                ours = tuple(record for record in batch.records if record not in set(lost))
                batch = msgspec.structs.replace(batch, records=ours)
            yield batch
        finally:
            self._flow.lane.release()

    async def _settle(
        self, done: Sequence[Record] = (), failed: Sequence[Record] = (), *, held: Sequence[Record]
    ) -> None:
        """Shielded: what was decided is carried out also while being cancelled. ``held``: the same records as they were
        received, which a verdict may have changed."""
        self._at("settling", f"{len(held)} records")
        self._let_go(held)
        with anyio.CancelScope(shield=True) as self._settling:
            await self._partition.settle(done=done, failed=failed)
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
        self._let_go((*started, *unstarted))
        with anyio.move_on_after(LAST_WORD, shield=True) as scope:
            await self._partition.settle(failed=started, unstarted=unstarted)
        if scope.cancelled_caught:
            log.warning("give_back_cut_short", mapping=self._flow.mapping.name, records=len(started) + len(unstarted))

    def _let_go(self, records: Sequence[Record]) -> None:
        for record in records:
            del self._held[record]
        self._flow.buffer.free(records)

    @contextmanager
    def _waiting(self, gate: str, detail: str, *, grace: float = 0.0, due: float = inf) -> Iterator[None]:
        """A wait that a drain ends after ``grace``; raises Draining when it did."""
        self._at(gate, detail, due)
        with anyio.CancelScope() as scope:
            if self._draining:
                scope.deadline = anyio.current_time() + grace
            self._waits = (scope, grace)
            try:
                yield
            finally:
                self._waits = None
        if scope.cancelled_caught:
            raise Draining

    def _at(self, gate: str, detail: str, due: float = inf) -> None:
        if gate != self._gate.name or detail != self._gate.detail:
            self._gate = Gate(gate, time.time(), detail)
        self.due = anyio.current_time() + due

    def _polling(self) -> tuple[str, str]:
        return ("window", self._window_detail()) if self._batcher.count else ("polling", "waits for records")

    def _window_detail(self) -> str:
        mapping = self._flow.mapping
        waited = mapping.window - (self._batcher.left(anyio.current_time()) or 0.0)
        return f"{waited:.1f} of {mapping.window:g} s, {self._batcher.count} of {mapping.batch_size} records"

    def _slot_gate(self) -> tuple[str, str]:
        invoker, lane = self._flow.invoker, self._flow.lane
        if invoker.limit == 0:
            return "throttled", f"the reserved concurrency of {invoker.function.name} is 0"
        if lane.limit is not None and lane.busy >= lane.limit:
            return "concurrency", f"{lane.busy} of {lane.limit} invocations of this mapping run"
        return "slot", f"{invoker.busy} of {invoker.limit} environments of {invoker.function.name} are busy"


def _now() -> Now:
    return Now(anyio.current_time(), time.time())


def _left(batch: Batch, verdict: Verdict) -> Sequence[Record]:
    """The records of the batch that it is over with."""
    if not verdict.retry:
        return batch.records
    again = {record for more in verdict.retry for record in more.records}
    return tuple(record for record in batch.records if record not in again)
