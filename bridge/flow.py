"""What the runners of one mapping share: where their records come from and go to, and what has happened so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isinf
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import structlog

from bridge.filtering import compile_filter
from bridge.gates import GateName
from bridge.invocation import Failed, Outcome, Succeeded
from bridge.mapping import Mapping
from bridge.pipeline.breaker import Breaker
from bridge.pipeline.responses import failed_ids
from bridge.pipeline.verdict import BatchReport, Report, Verdict
from bridge.record import Batch, Page, Record
from bridge.snapshot import Blocked, Failure
from bridge.telemetry.spans import NO_SPANS, Spans
from bridge.telemetry.stream_metrics import REASONS

if TYPE_CHECKING:
    from bridge.destinations.delivery import Delivery
    from bridge.invoker import Invoker, Lane
    from bridge.ledger import Ledger
    from bridge.sources import Source
    from bridge.telemetry.metrics import MappingMeter

log = structlog.get_logger()

REMEMBERED_FAILURES = 10
REMEMBERED_IDS = 10
LONGEST_KEPT = 1024
"""Characters of an error message in the failure ledger."""
JUDGED_AFTER = 1000
"""Records after which a filter that lets all or nothing through is worth a warning."""


class Buffer:
    """Payloads received and unfinished, in bytes, over the whole process: ``max_buffered_bytes``.

    Those of shards that are blocked are in nobody's way: at least half of the limit is left to what moves, and while
    the blocked have the other half, other shards go on in small batches. So it holds no more than the limit, the one
    batch that reached it, and a small batch of each shard beyond.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.blocked = 0
        """Of ``held``."""
        self._freed = anyio.Event()

    def __repr__(self) -> str:
        return f"<Buffer {self.held} of {self.limit} bytes, {self.blocked} blocked>"

    @property
    def full(self) -> bool:
        """No receive may start."""
        return self.held - self.blocked >= max(self.limit - self.blocked, self.limit // 2)

    @property
    def short(self) -> bool:
        """Shards take small batches: each may be the next one that is blocked."""
        return self.full or self.blocked >= self.limit // 2

    @contextmanager
    def aside(self, records: Iterable[Record]) -> Iterator[None]:
        """They are blocked, for as long as it takes."""
        size = sum(len(record.json) for record in records)
        self.blocked += size
        self._wake()
        try:
            yield
        finally:
            self.blocked -= size

    def take(self, records: Sequence[Record]) -> None:
        """Counts received records in."""
        self.held += sum(len(record.json) for record in records)

    def free(self, records: Sequence[Record]) -> None:
        """Counts settled records out."""
        self.held -= sum(len(record.json) for record in records)
        self._wake()

    def _wake(self) -> None:
        if not self.full:
            event, self._freed = self._freed, anyio.Event()
            event.set()

    def line(self) -> str:
        """How full it is, for people."""
        return f"{self.held} of {self.limit} bytes are received and open"

    async def freed(self) -> None:
        """Waits until there may be room again."""
        await self._freed.wait()


class Filter:
    """A mapping's filter criteria; without any, everything passes (FLT-1)."""

    def __init__(self, mapping: Mapping, view: Callable[[Record], Any], data_key: str) -> None:
        self._mapping = mapping
        self._view = view
        self._matches = compile_filter(mapping.patterns, data_key) if mapping.patterns else None
        self._seen = 0
        self._passed = 0

    def split(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
        """Those that match, and the rest."""
        if self._matches is None:
            return records, ()
        kept: list[Record] = []
        rest: list[Record] = []
        for record in records:
            (kept if self._matches(self._view(record)) else rest).append(record)
        self._judge(len(records), len(kept))
        return kept, rest

    def _judge(self, seen: int, passed: int) -> None:
        before = self._seen
        self._seen += seen
        self._passed += passed
        if before < JUDGED_AFTER <= self._seen and self._passed in (0, self._seen):
            log.warning(
                "filter_match_rate",
                mapping=self._mapping.name,
                records=self._seen,
                rate=100 if self._passed else 0,
                detail="the filter lets everything through" if self._passed else "the filter removes every record",
            )


class Tally(msgspec.Struct, eq=False):
    """What has happened to one mapping since the daemon started; it outlives restarts of the mapping."""

    polled: int = 0
    filtered: int = 0
    succeeded: int = 0
    failed: int = 0
    removed: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=REMEMBERED_IDS))
    """Ids that the filter removed last."""
    failures: deque[Failure] = msgspec.field(default_factory=lambda: deque(maxlen=REMEMBERED_FAILURES))
    lag: float | None = None
    """Seconds; none before the first poll."""
    behind: dict[str, float] = {}
    """Likewise, of each partition of an ordered source."""
    last_result: str = "No records processed"
    """How the last invocation ended, in AWS's words (KIN-3, KIN-5)."""
    alive_at: float = 0.0
    """Monotonic: when the source last showed that it works, or said why it cannot."""


class Flow(msgspec.Struct, eq=False):
    """One mapping at work."""

    mapping: Mapping
    source: Source
    filter: Filter
    invoker: Invoker
    lane: Lane
    buffer: Buffer
    breaker: Breaker
    meter: MappingMeter
    tally: Tally
    delivery: Delivery | None = None
    """Where reports go; none: nowhere."""
    spans: Spans = NO_SPANS
    ledger: Ledger | None = None
    """Where failed attempts are written down."""
    polled: bool = False
    """Since its source was opened."""
    pollers: int = 0

    def staffed(self, change: int) -> None:
        """So many pollers more."""
        self.pollers += change
        self.meter.pollers(self.pollers)

    def arrived(self, partition: str, page: Page) -> tuple[Sequence[Record], Sequence[Record]]:
        """Counts a page in; gives the records that match the filter, and the rest."""
        self.tally.alive_at = anyio.current_time()
        if page.answered:
            self.polled = True
            self.tally.polled += len(page.records)
            if self.source.ordered:
                self.tally.behind[partition] = page.lag or 0.0
                self.tally.lag = max(self.tally.behind.values())
            else:
                self.tally.lag = page.lag if page.records else 0.0
        kept, removed = self.filter.split(page.records)
        if removed:
            self.tally.filtered += len(removed)
            self.tally.removed.extend(record.id for record in removed)
            self.meter.filtered(len(removed))
        return kept, removed

    def started(self, batch: Batch, payload: bytes) -> None:
        """Counts a batch that goes to the function."""
        self.meter.batch(len(batch.records), len(payload))
        if self.source.ordered and batch.records:
            self.meter.stream.iterator_age(time.time() - batch.records[-1].arrived_at)

    def ended(self, partition: str, batch: Batch, outcome: Outcome, verdict: Verdict, luck: float) -> None:
        """Writes down how an invocation went: tally, metrics, breaker, one log line."""
        self.tally.succeeded += len(verdict.done)
        self.tally.failed += len(verdict.failed)
        if isinstance(outcome, Failed):
            self.tally.failures.append(failure_of(outcome))
            self.meter.invoke_error()
        if self.ledger and (isinstance(outcome, Failed) or verdict.failed or verdict.retry or verdict.discard):
            self._write_down(self.ledger, partition, batch, outcome, verdict)
        if isinstance(outcome, Succeeded) or outcome.ran:
            self.meter.invoked(len(batch.records))
            errored = isinstance(outcome, Failed)
            self.tally.last_result = "PROBLEM: Function call failed" if errored else "OK"
            self.breaker.ended(failed=errored, now=anyio.current_time(), luck=luck)
            self._count_failed(batch, outcome, verdict)
        else:
            self.meter.retried("throttle")
        about = {"shard": partition} if self.source.ordered else {}
        log.info(
            "batch_done",
            mapping=self.mapping.name,
            function=self.mapping.function,
            request_id=outcome.request_id,
            batch_size=len(batch.records),
            trigger=batch.trigger,
            outcome="success" if isinstance(outcome, Succeeded) else outcome.kind,
            failed=len(verdict.failed),
            retried=sum(len(again.records) for again in verdict.retry),
            duration_ms=round(outcome.duration * 1000, 1),
            attempt=batch.attempt,
            **about,
        )

    def _write_down(self, ledger: Ledger, partition: str, batch: Batch, outcome: Outcome, verdict: Verdict) -> None:
        """What did not run and is tried again here was no attempt."""
        ran = isinstance(outcome, Succeeded) or outcome.ran
        if not (ran or verdict.failed or verdict.discard):
            return
        failed: Sequence[Record] = batch.records or batch.span[:2]
        if isinstance(outcome, Failed):
            kind: str = outcome.kind
            failure = failure_of(outcome, LONGEST_KEPT)
            error = failure.what, failure.message
        else:
            named = failed_ids(outcome.payload, {record.id for record in batch.records})
            kind, error = ("partial" if named else "response"), ("", "")
            failed = [record for record in batch.records if record.id in named] if named else failed
        ledger.note(
            self.mapping,
            partition,
            [(record.id, self._number(batch, record, ran=ran)) for record in failed],
            outcome=kind,
            request_id=outcome.request_id,
            error=error,
            duration=outcome.duration,
            log_tail=outcome.log_tail,
        )

    def _number(self, batch: Batch, record: Record, *, ran: bool) -> int:
        """Of the attempt at a record."""
        if self.source.ordered:
            return batch.attempt
        return record.attempts + ran if record.request_id else record.deliveries

    def blocked(self, before: Blocked | None, outcome: Outcome, verdict: Verdict) -> Blocked | None:
        """What blocks a partition of an ordered source now, if ``before`` did so until this invocation."""
        options = self.mapping.stream
        if options is None or not verdict.retry:
            return None
        again = verdict.retry[0]
        first, _, records = again.span
        return Blocked(
            record=first.id,
            records=records,
            attempt=again.attempt,
            attempts=None if isinf(options.retries) else int(options.retries) + 1,
            since=before.since if before and before.record == first.id else time.time(),
            why="answer" if isinstance(outcome, Succeeded) else outcome.kind,
        )

    def circled(self, partition: str, records: Sequence[Record]) -> None:
        """Writes down what is not invoked because its chain runs in a circle (SQS-36)."""
        if not records:
            return
        self.tally.failed += len(records)
        what, message = "RecursiveInvocationException", "a chain of invocations that runs in a circle"
        self.tally.failures.append(Failure(at=time.time(), what=what, message=message))
        self._note(partition, records, "recursion", (what, message))
        self.invoker.meter.recursion_stopped(len(records))
        log.warning(
            "recursion_stopped", mapping=self.mapping.name, function=self.mapping.function, records=len(records)
        )

    def cancelled(self, partition: str, records: Sequence[Record]) -> None:
        """Writes down what ran and was not waited for: it may have cost the records an attempt."""
        if not self.source.ordered:
            self._note(partition, records, "cancelled", ("", "the daemon ended before the handler did"))

    def lost(self, partition: str, records: Sequence[Record]) -> None:
        """Writes down what was taken from us before it was invoked: it cost the records a receive."""
        self._note(partition, records, "lost", ("", "its receipt went stale before the invocation; it comes again"))

    def _note(self, partition: str, records: Sequence[Record], outcome: str, error: tuple[str, str]) -> None:
        if self.ledger:
            numbered = [(record.id, record.attempts or record.deliveries) for record in records]
            self.ledger.note(self.mapping, partition, numbered, outcome=outcome, error=error)

    async def tell(self, report: Report | BatchReport, trouble: Callable[[str | None], None]) -> None:
        """Sends a report, and counts what came of it. ``trouble`` is told in one line what it waits for."""
        if not self.delivery:
            return
        delivered = await self.delivery.send(report, self.invoker.function, trouble=trouble)
        if isinstance(report, BatchReport):
            events = len(report.batch.records)
            if delivered:
                self.meter.stream.delivered(events)
            else:
                self.meter.stream.undelivered(events)

    def discarded(self, partition: str, verdict: Verdict) -> None:
        """Writes down what is given up (AsyncEventsDropped, DroppedEventCount)."""
        self.tally.failed += len(verdict.discard)
        if self.source.ordered:
            self._records_discarded(partition, verdict)
            return
        for record, condition in verdict.discard:
            self.invoker.meter.event_dropped(condition)
            log.warning(
                "async_event_dropped",
                function=self.mapping.function,
                request_id=record.request_id,
                condition=condition,
                attempts=record.attempts,
            )

    def _records_discarded(self, partition: str, verdict: Verdict) -> None:
        for why, reason in REASONS.items():
            records = [record for record, condition in verdict.discard if condition == why]
            if not records:
                continue
            if not verdict.reports:
                self.meter.stream.dropped(len(records), reason)
            log.warning(
                "records_discarded",
                mapping=self.mapping.name,
                shard=partition,
                condition=why,
                records=len(records),
                first=records[0].id,
                last=records[-1].id,
            )

    def slot_gate(self) -> GateName:
        """What a batch waits for that has no slot yet."""
        lane = self.lane
        if self.invoker.limit == 0:
            return "throttled"
        if lane.limit is not None and lane.busy >= lane.limit:
            return "concurrency" if self.mapping.maximum_pollers is None else "pollers"
        return "slot"

    def slot_line(self) -> str:
        """The detail of that gate."""
        invoker, lane = self.invoker, self.lane
        match self.slot_gate():
            case "throttled":
                return f"the reserved concurrency of {invoker.function.name} is 0"
            case "slot":
                return f"{invoker.busy} of {invoker.limit} environments of {invoker.function.name} are busy"
            case _:
                return f"{lane.busy} of {lane.limit} invocations of this mapping run"

    def _count_failed(self, batch: Batch, outcome: Outcome, verdict: Verdict) -> None:
        """ESM-97: a non-empty failure list counts all events of its invocation."""
        if isinstance(outcome, Failed):
            self.meter.failed_invoke(len(batch.records), outcome.kind)
            self.meter.retried("function_error")
        elif verdict.failed or verdict.retry or verdict.discard:
            self.meter.failed_invoke(len(batch.records), "partial" if verdict.done else "response")
            self.meter.retried("partial")
        if len(verdict.retry) > 1:
            self.meter.stream.bisected()


def failure_of(outcome: Failed, longest: int = 300) -> Failure:
    """What is remembered of a failed invocation: type and message, never a payload."""
    try:
        error = msgspec.json.decode(outcome.error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None
    if not isinstance(error, dict):
        error = {}
    what = str(error.get("errorType") or outcome.kind)
    message = str(error.get("errorMessage") or "")
    return Failure(at=time.time(), what=what[:80], message=message[:longest], request_id=outcome.request_id)
