"""The Prometheus metrics, named as tests/spec/metrics.md names them, and the meters that feed them.

A meter holds its children ready (``labels()`` costs several times an update), so that counting is cheap on the straight
path. All series of a meter stand at 0 from the start and go away when it is closed (MET-31).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Literal, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from bridge import __version__
from bridge.invocation import FailureKind
from bridge.pipeline.verdict import Condition, StreamCondition
from bridge.snapshot import Snapshot
from bridge.telemetry import logs
from bridge.telemetry.meter import AGES, BYTES, COUNTS, FUNCTION, MAPPING, SECONDS, Meter
from bridge.telemetry.stream_metrics import StreamFamilies, StreamMeter

PollResult = Literal["empty", "data", "error"]
FailedReason = FailureKind | Literal["partial", "response"]
"""Why the events of an invocation count as failed: the outcome's kind, named in ``batchItemFailures``, or an answer
that SQS-42 calls a complete failure."""
RetryReason = Literal["function_error", "partial", "throttle"]
InvocationResult = Literal["success", "function_error"]
ErrorType = Literal["", "handled", "unhandled", "timeout", "exit", "oom"]
"""Empty on success. ``unhandled`` is every error that the runtime reports (INV-20)."""

STATES = ("Creating", "Enabling", "Enabled", "Disabling", "Disabled", "Updating", "Deleting")  # ESM-50

MOST_CODES = 32
"""Error codes come from outside: so many make series of their own, the rest is counted as `other`."""
CODE = re.compile(r"[A-Za-z0-9._:#-]{1,80}")

# The creation time of each series would double the page and tells nothing that a counter's reset does not.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call,unused-ignore]


class Metrics:
    """All metrics of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._mapping_families = _MappingFamilies(self.registry)
        self._function_families = _FunctionFamilies(self.registry)
        self._mappings: dict[tuple[str, str, str], MappingMeter] = {}
        self._functions: dict[str, FunctionMeter] = {}
        self._api = ApiMeter(self.registry)
        self._buffered = Gauge(
            "bridge_buffered_bytes", "Payloads received and unfinished, all mappings together.", registry=self.registry
        )
        self._buffered_limit = Gauge(
            "bridge_buffered_limit_bytes", "The most that bridge_buffered_bytes may become.", registry=self.registry
        )
        self.checkpoint_seconds = Histogram(
            "bridge_checkpoint_seconds",
            "Time of one write of positions, which is of all mappings together.",
            registry=self.registry,
            buckets=SECONDS,
        )
        self.ledger_lost = Counter(
            "bridge_ledger_lost_total",
            "Failed attempts that are not in the failure ledger, since it could not be written.",
            registry=self.registry,
        )
        build = Gauge("bridge_build_info", "Always 1; the version is a label.", ["version"], registry=self.registry)
        build.labels(__version__).set(1)
        ProcessCollector(registry=self.registry)
        self.state_errors: Callable[[], int] = lambda: 0
        """How often the state store has failed; to be set by who opens it."""
        self.registry.register(_Count("bridge_log_lines_dropped", "Log lines that could not be written.", logs.dropped))
        failures = "Reads and writes of the state store that failed."
        self.registry.register(_Count("bridge_state_errors", failures, lambda: self.state_errors()))

    def mapping_meter(self, name: str, source: str, function: str) -> MappingMeter:
        """The meter of a mapping. Who asks twice gets the same one, and it stays until it was closed twice: a
        mapping's new runner may start while the old one counts its last."""
        key = (name, source, function)
        meter = self._mappings.get(key)
        if meter is None:
            forget = self._mappings.pop
            meter = self._mappings[key] = MappingMeter(self._mapping_families, key, lambda: forget(key))
        meter.opened += 1
        return meter

    def function_meter(self, function: str) -> FunctionMeter:
        """The meter of a function, shared and closed as that of a mapping."""
        meter = self._functions.get(function)
        if meter is None:
            forget = self._functions.pop
            meter = self._functions[function] = FunctionMeter(
                self._function_families, (function,), lambda: forget(function)
            )
        meter.opened += 1
        return meter

    def api_meter(self) -> ApiMeter:
        """The one meter of all requests to services."""
        return self._api

    def show(self, snapshot: Snapshot) -> None:
        """Sets the gauges that are views of the snapshot; called when somebody scrapes."""
        self._buffered.set(snapshot.buffered_bytes)
        self._buffered_limit.set(snapshot.max_buffered_bytes)
        for view in snapshot.mappings:
            if mapping := self._mappings.get((view.name, view.source, view.function)):
                mapping.state(view.state)
                mapping.in_flight(view.in_flight)
                mapping.lag(view.lag_seconds or 0.0)
                since = snapshot.at if view.ready else view.gate.since if view.gate else snapshot.started_at
                mapping.unready(max(0.0, snapshot.at - since))
                if view.ordered:
                    mapping.stream.show(view, snapshot.at)
        for shown in snapshot.functions:
            if function := self._functions.get(shown.name):
                function.workers(shown.idle, shown.busy, shown.starting)
                function.concurrent(shown.busy)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page for an `Accept` header, and its content type. Safe to call in a thread."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version in it is no version
            encode, content_type = choose_encoder("")
        return encode(self.registry), content_type


class _MappingFamilies:
    """What is counted per mapping (metrics.md, sections 2, 3 and 5)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"bridge_esm_{name}", text, (*MAPPING, *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"bridge_esm_{name}", text, (*MAPPING, *labels), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"bridge_esm_{name}", text, MAPPING, registry=registry, buckets=buckets)

        self.polls = counter("polls_total", "Polls of the source, by what they gave.", "result")
        self.polled = counter("polled_events_total", "Events read from the source (PolledEventCount).")
        self.polled_bytes = counter("polled_bytes_total", "Bytes of the events read, as the function gets them.")
        self.poll_errors = counter("poll_errors_total", "Failed polls (PollingErrorCount), by error code.", "error")
        self.age = histogram("message_age_seconds", "Age of the oldest event of a poll when it was received.", AGES)
        self.filtered = counter("filtered_events_total", "Events removed by the filter (FilteredOutEventCount).")
        self.batch_size = histogram("batch_size", "Events per batch.", COUNTS)
        self.batch_bytes = histogram("batch_bytes", "Bytes of the events of a batch.", BYTES)
        self.invoked = counter(
            "invoked_events_total", "Events in invocations, counted again at each retry (InvokedEventCount)."
        )
        self.failed_invoke = counter(
            "failed_invoke_events_total", "Events whose invocation failed (FailedInvokeEventCount).", "reason"
        )
        self.invoke_errors = counter("invoke_errors_total", "Batches whose invocation failed (InvokeErrorCount).")
        self.retries = counter("retries_total", "Batches that were or will be tried again, by cause.", "reason")
        self.deleted = counter(
            "deleted_events_total", "Messages that the queue confirmed as deleted (DeletedEventCount)."
        )
        self.in_flight = gauge("in_flight_events", "Events received and not settled yet.")
        self.lag = gauge("lag_seconds", "Age of the oldest event that is held, or was seen last.")
        self.retention = gauge("retention_seconds", "How long the source keeps its events; 0: not known.")
        self.unready = gauge("unready_seconds", "How long the mapping has not polled although it should; 0: it does.")
        self.pollers = gauge("pollers", "Pollers of the source that run now (ProvisionedPollers).")
        self.stream = StreamFamilies(counter, gauge, histogram)
        self.state = gauge("state", "1 for the state that the mapping is in, 0 for the others.", "state")


class _FunctionFamilies:
    """What is counted per function (metrics.md, section 4)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.invocations = Counter(
            "bridge_invocations_total",
            "Invocations in which the handler ran (Invocations, Errors).",
            (*FUNCTION, "outcome", "error_type"),
            registry=registry,
        )
        self.throttles = Counter(
            "bridge_throttles_total", "Invocations rejected for concurrency (Throttles).", FUNCTION, registry=registry
        )
        self.duration = Histogram(
            "bridge_invocation_duration_seconds",
            "Time in the handler, without the start of its environment (Duration).",
            FUNCTION,
            registry=registry,
            buckets=SECONDS,
        )
        self.concurrent = Gauge(
            "bridge_concurrent_executions",
            "Environments that run the handler now (ConcurrentExecutions).",
            FUNCTION,
            registry=registry,
        )
        self.workers = Gauge(
            "bridge_workers", "Execution environments, by what they do now.", (*FUNCTION, "state"), registry=registry
        )
        self.events_received = Counter(
            "bridge_async_events_received_total",
            "Asynchronous events accepted (AsyncEventsReceived).",
            FUNCTION,
            registry=registry,
        )
        self.event_age = Histogram(
            "bridge_async_event_age_seconds",
            "Age of asynchronous events at each attempt (AsyncEventAge).",
            FUNCTION,
            registry=registry,
            buckets=AGES,
        )
        self.events_dropped = Counter(
            "bridge_async_events_dropped_total",
            "Asynchronous events given up, by condition (AsyncEventsDropped).",
            (*FUNCTION, "reason"),
            registry=registry,
        )
        self.delivery_failures = Counter(
            "bridge_destination_delivery_failures_total",
            "Records that a destination did not take, by condition (DestinationDeliveryFailures).",
            (*FUNCTION, "condition"),
            registry=registry,
        )
        self.dead_letter_errors = Counter(
            "bridge_dead_letter_errors_total",
            "Asynchronous events that a dead-letter queue did not take (DeadLetterErrors).",
            FUNCTION,
            registry=registry,
        )
        self.recursive_dropped = Counter(
            "bridge_recursive_dropped_total",
            "Events that were not invoked because their chain ran in a circle (RecursiveInvocationsDropped).",
            FUNCTION,
            registry=registry,
        )


class MappingMeter(Meter):
    """Counts for one mapping. One update per poll or batch is meant, none per event."""

    def __init__(self, families: _MappingFamilies, labels: tuple[str, ...], forget: Callable[[], object]) -> None:
        super().__init__(labels, forget)
        self._families = families
        self._polls = self.children(families.polls, get_args(PollResult))
        self._polled = self.child(families.polled)
        self._polled_bytes = self.child(families.polled_bytes)
        self._poll_errors: dict[str, Counter] = {}
        self._age = self.child(families.age)
        self._filtered = self.child(families.filtered)
        self._batch_size = self.child(families.batch_size)
        self._batch_bytes = self.child(families.batch_bytes)
        self._invoked = self.child(families.invoked)
        self._failed_invoke = self.children(families.failed_invoke, _words(FailedReason))
        self._invoke_errors = self.child(families.invoke_errors)
        self._retries = self.children(families.retries, get_args(RetryReason))
        self._deleted = self.child(families.deleted)
        self._in_flight = self.child(families.in_flight)
        self._lag = self.child(families.lag)
        self._retention = self.child(families.retention)
        self._unready = self.child(families.unready)
        self._pollers = self.child(families.pollers)
        self._states = self.children(families.state, STATES)
        self._stream: StreamMeter | None = None

    @property
    def stream(self) -> StreamMeter:
        """What is counted besides for ordered sources: there from the first time that somebody asks for it."""
        if self._stream is None:
            self._stream = StreamMeter(self._families.stream, self.child)
        return self._stream

    def poll(self, result: PollResult) -> None:
        """One poll came back."""
        self._polls[result].inc()

    def polled(self, events: int, size_bytes: int) -> None:
        """``events`` records were read, ``size_bytes`` of JSON."""
        self._polled.inc(events)
        self._polled_bytes.inc(size_bytes)

    def poll_error(self, code: str) -> None:
        """A poll failed with the service's error ``code``."""
        if self.opened:
            _by_code(self._poll_errors, code, lambda known: self.child(self._families.poll_errors, known)).inc()

    def message_age(self, seconds: float) -> None:
        """How old the oldest record of a poll was when it was received."""
        self._age.observe(max(0.0, seconds))

    def filtered(self, events: int) -> None:
        """The filter removed ``events`` records."""
        self._filtered.inc(events)

    def batch(self, records: int, size_bytes: int) -> None:
        """A batch was let go by the batcher."""
        self._batch_size.observe(records)
        self._batch_bytes.observe(size_bytes)

    def invoked(self, events: int) -> None:
        """``events`` records went into an invocation; each attempt counts."""
        self._invoked.inc(events)

    def failed_invoke(self, events: int, reason: FailedReason) -> None:
        """The invocation of ``events`` records failed, or its answer named failures (then all of the batch count)."""
        self._failed_invoke[reason].inc(events)

    def invoke_error(self) -> None:
        """The invocation of a batch failed."""
        self._invoke_errors.inc()

    def retried(self, reason: RetryReason) -> None:
        """A batch, or what is left of it, comes again."""
        self._retries[reason].inc()

    def deleted(self, events: int) -> None:
        """The source confirmed that ``events`` records are deleted."""
        self._deleted.inc(events)

    def in_flight(self, events: int) -> None:
        """``events`` records are received and not settled."""
        self._in_flight.set(events)

    def lag(self, seconds: float) -> None:
        """The oldest event that is held, or was seen last, is so old."""
        self._lag.set(seconds)

    def retention(self, seconds: float) -> None:
        """The source keeps its events so long."""
        self._retention.set(seconds if isfinite(seconds) else 0.0)

    def unready(self, seconds: float) -> None:
        """For so long it has not polled although it should."""
        self._unready.set(seconds)

    def pollers(self, running: int) -> None:
        """So many pollers run now."""
        self._pollers.set(running)

    def state(self, name: str) -> None:
        """The mapping is in this state of ESM-50."""
        for state, child in self._states.items():
            child.set(state == name)


class FunctionMeter(Meter):
    """Counts for one function."""

    def __init__(self, families: _FunctionFamilies, labels: tuple[str, ...], forget: Callable[[], object]) -> None:
        super().__init__(labels, forget)
        self._invocations = {
            ("success", ""): self.child(families.invocations, "success", ""),
            **{
                ("function_error", kind): self.child(families.invocations, "function_error", kind)
                for kind in get_args(ErrorType)
                if kind
            },
        }
        self._throttles = self.child(families.throttles)
        self._duration = self.child(families.duration)
        self._concurrent = self.child(families.concurrent)
        self._workers = self.children(families.workers, ("idle", "busy", "starting"))
        conditions, all_conditions = get_args(Condition), (*get_args(Condition), *get_args(StreamCondition))
        self._events_received = self.child(families.events_received)
        self._event_age = self.child(families.event_age)
        self._events_dropped = self.children(families.events_dropped, conditions[1:])
        self._delivery_failures = self.children(families.delivery_failures, all_conditions)
        self._dead_letter_errors = self.child(families.dead_letter_errors)
        self._recursive_dropped = self.child(families.recursive_dropped)

    def invocation(self, outcome: InvocationResult, error_type: ErrorType, seconds: float) -> None:
        """The handler ran for ``seconds``. ``error_type`` is empty on success, else one of the others."""
        self._invocations[outcome, error_type].inc()
        self._duration.observe(seconds)

    def throttled(self) -> None:
        """An invocation was rejected for want of concurrency; it is no invocation and no error."""
        self._throttles.inc()

    def concurrent(self, running: int) -> None:
        """So many environments run the handler now."""
        self._concurrent.set(running)

    def workers(self, idle: int, busy: int, starting: int) -> None:
        """What the environments do now."""
        self._workers["idle"].set(idle)
        self._workers["busy"].set(busy)
        self._workers["starting"].set(starting)

    def event_received(self) -> None:
        """An asynchronous event was accepted."""
        self._events_received.inc()

    def event_age(self, seconds: float) -> None:
        """An attempt of an asynchronous event begins; it was accepted so long ago."""
        self._event_age.observe(max(0.0, seconds))

    def event_dropped(self, condition: Condition | StreamCondition) -> None:
        """An asynchronous event was given up."""
        self._events_dropped[condition].inc()
        if condition == "RecursiveInvocationTerminated":
            self.recursion_stopped(1)

    def recursion_stopped(self, events: int) -> None:
        """Events were not invoked, for their chain ran in a circle (INV-41)."""
        self._recursive_dropped.inc(events)

    def delivery_failure(self, condition: Condition | StreamCondition) -> None:
        """A destination did not take a record; the record is lost (DST-4)."""
        self._delivery_failures[condition].inc()

    def dead_letter_error(self) -> None:
        """A dead-letter queue did not take an event; the event is lost (DST-22)."""
        self._dead_letter_errors.inc()


class ApiMeter:
    """Counts the requests to services: what AWS bills, and where throttling shows first."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "bridge_source_api_requests_total",
            "Requests to services, by operation and answer (OK or the error code).",
            ("service", "op", "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "bridge_source_api_seconds",
            "Time until a service answered; a long poll waits on purpose.",
            ("service", "op"),
            registry=registry,
            buckets=SECONDS,
        )
        self._codes: dict[tuple[str, str], dict[str, Counter]] = {}
        self._times: dict[tuple[str, str], Histogram] = {}

    def observe(self, service: str, op: str, code: str, seconds: float) -> None:
        """One request came back. ``service`` and ``op`` as the SDK spells them (`sqs`, `ReceiveMessage`), ``code``
        ``OK`` or the error code."""
        key = (service, op)
        codes = self._codes.get(key)
        if codes is None:
            codes = self._codes[key] = {"OK": self._requests.labels(service, op, "OK")}
            self._times[key] = self._seconds.labels(service, op)
        _by_code(codes, code, lambda known: self._requests.labels(service, op, known)).inc()
        self._times[key].observe(seconds)


class _Count:
    """A counter that somebody else counts: log lines that could not be written cannot be logged, and show here."""

    def __init__(self, name: str, text: str, value: Callable[[], int]) -> None:
        self._name, self._text, self._value = name, text, value

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(self._name, self._text, value=self._value())


def _by_code(children: dict[str, Counter], code: str, make: Callable[[str], Counter]) -> Counter:
    """The child for ``code``, or for `other` when the code does not look like one or too many are known."""
    child = children.get(code)
    if child is None:
        known = code if len(children) < MOST_CODES and CODE.fullmatch(code) else "other"
        child = children.get(known) or children.setdefault(known, make(known))
    return child


def _words(union: object) -> tuple[str, ...]:
    """All words of a union of literals, in order."""
    return tuple(word for part in get_args(union) for word in (get_args(part) or (part,)))
