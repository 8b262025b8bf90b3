"""OpenTelemetry traces: the only module that knows its SDK, which reads the ``OTEL_*`` variables itself.

Names and kinds follow the messaging and FaaS conventions of SCHEMA. Spans carry ids, counts and error types, never a
record's content or a handler's words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping as Dict, Sequence
from importlib.metadata import entry_points
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge import __version__
from bridge.errors import RemoteError
from bridge.executors.failures import parse_error
from bridge.invocation import Failed, Outcome
from bridge.lineage import caller
from bridge.record import Batch, Page, Record
from bridge.telemetry.logs import Once
from bridge.telemetry.spans import NO_SPAN, Span, Spans

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as OtelSpan

    from bridge.function import Function
    from bridge.mapping import Mapping
    from bridge.pipeline.verdict import Verdict

log = structlog.get_logger()

SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
SYSTEMS = {"sqs": "aws_sqs", "kinesis": "aws.kinesis", "dynamodb": "aws.dynamodb", "lambda": "aws.lambda"}
"""``messaging.system``: of SQS the convention has a word; the others are said likewise."""
TRIGGERS = {"dynamodb": "datasource", "lambda": "other"}
"""``faas.trigger``; whatever else delivers messages is ``pubsub``."""
PROTOCOLS = {"": "otlp_proto_http", "http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
LONGEST_TYPE = 80
"""Characters of an error type that a handler has chosen."""

_w3c = TraceContextTextMapPropagator()


class Traces:
    """All traces of one daemon, exported in batches from a thread of the SDK's own.

    Raises ImportError, ValueError or RuntimeError when the variables ask for what is not installed or cannot be.
    """

    def __init__(self, environ: Dict[str, str]) -> None:
        limits = SpanLimits()
        self._most_links: int | None = limits.max_links
        generator = environ.get("OTEL_PYTHON_ID_GENERATOR", "").strip()
        made: dict[str, Any] = {}
        if generator not in ("", "random"):
            made["id_generator"] = _installed("opentelemetry_id_generator", generator)()
        self._provider = TracerProvider(resource=_resource(), span_limits=limits, shutdown_on_exit=False, **made)
        for name in _exporter_names(environ):
            exporter: SpanExporter = _installed("opentelemetry_traces_exporter", name)()
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("bridge", __version__, SCHEMA)
        self._complaints = _Complaints()
        self._complaints.open()

    def spans(self, mapping: Mapping, function: Function) -> Spans:
        """Those of a mapping that feeds this function."""
        return MappingSpans(self._tracer, self._most_links, mapping, function)

    def invocation(self, function: Function, qualifier: str, request_id: str, trace: str) -> Span:
        """Around a synchronous invocation, whose caller gave this X-Ray header."""
        parent = _of_header(trace)
        attributes: dict[str, str | int] = {"faas.trigger": "http", **_invoked(function, qualifier, request_id)}
        return _Process(
            self._tracer.start_span(function.name, _within(parent) if parent else None, SpanKind.SERVER, attributes)
        )

    async def close(self, limit: float) -> None:
        """Sends what is left, for at most ``limit`` seconds; what is not sent by then is lost, and said to be."""
        loop, sent = asyncio.get_running_loop(), anyio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has gone meanwhile: nobody waits
                loop.call_soon_threadsafe(sent.set)

        # A thread that the interpreter does not wait for: a collector that hangs must not keep the daemon.
        threading.Thread(target=shut_down, name="traces", daemon=True).start()
        with anyio.move_on_after(limit) as scope:
            await sent.wait()
        if scope.cancelled_caught:
            log.warning("traces_cut_short", limit=limit)
        self._complaints.close()


def _resource() -> Resource:
    """What the variables say about this service, and what we know where they say nothing."""
    given = Resource.create()
    own = {"service.version": __version__} if "service.version" not in given.attributes else {}
    if str(given.attributes.get("service.name", "")).startswith("unknown_service"):
        own["service.name"] = "bridge"
    return given.merge(Resource(own))


def _exporter_names(environ: Dict[str, str]) -> Iterator[str]:
    names = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    for name in dict.fromkeys(part.strip() for part in names.split(",")):
        if name != "otlp":
            yield name
            continue
        variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        protocol = next((value.strip() for it in variables if (value := environ.get(it, ""))), "")
        if protocol not in PROTOCOLS:
            raise ValueError(f"no OTLP protocol {protocol!r}; known are: http/protobuf, grpc")
        yield PROTOCOLS[protocol]


def _installed(group: str, name: str) -> Any:
    found = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        known = ", ".join(sorted(point.name for point in entry_points(group=group)))
        raise ValueError(f"no package here provides {name!r} for {group}; there are: {known}")
    return found.load()


class _Complaints(logging.Handler):
    """What the SDK says about traces that it cannot send: once, then counted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._once = Once(log)
        self._logger = logging.getLogger("opentelemetry")

    def open(self) -> None:
        self._logger.addHandler(self)
        self._logger.propagate = False

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        self._once.log((record.name, record.levelno), "traces_not_sent", detail=record.getMessage()[:300])


class MappingSpans(Spans):
    """The spans of one mapping."""

    def __init__(self, tracer: Tracer, most_links: int | None, mapping: Mapping, function: Function) -> None:
        source = mapping.source
        self.tracer = tracer
        self.most_links = most_links
        self.destination = destination(mapping)
        self._sharded = mapping.stream is not None
        self._continues = source == "lambda"
        self._deletes = source == "sqs"
        self._about = {
            "messaging.system": SYSTEMS.get(source, source),
            "messaging.destination.name": self.destination,
            "bridge.mapping": mapping.name,
        }
        self._function, self._qualifier = function, mapping.qualifier
        self._trigger = TRIGGERS.get(source, "pubsub")

    def receive(self, partition: str) -> Span:
        return _Receive(self, partition)

    def process(self, partition: str, batch: Batch, request_id: str, received: Iterable[Span]) -> Span:
        records = batch.records
        attributes = {
            **self.attributes("process", partition, [record.id for record in records]),
            **_invoked(self._function, (records and records[0].qualifier) or self._qualifier, request_id),
            "faas.trigger": self._trigger,
            "bridge.attempt": batch.attempt,
        }
        before = [Link(it.context) for it in dict.fromkeys(received) if isinstance(it, _Receive) and it.context]
        parent = None
        if self._continues and records:  # AWS goes on with an asynchronous event's own trace; a batch has many
            parent = next((_within(context) for context in contexts(records[0])), None)
        span = self.tracer.start_span(
            f"process {self.destination}",
            parent,
            SpanKind.CONSUMER,
            attributes,
            (*before, *self.links(records, len(before))),
        )
        return _Process(span)

    def settle(self, partition: str, records: Iterable[Record], processed: Span) -> Span:
        attempt = processed if isinstance(processed, _Process) else None
        if self._deletes:
            return _HandOver(self, attempt)
        return self._settle(partition, [record.id for record in records], (attempt,) if attempt else ())

    def delete(self, partition: str, messages: Iterable[tuple[str, object]]) -> Span:
        ids: list[str] = []
        attempts: dict[_Process, None] = {}
        for message, attempt in messages:
            ids.append(message)
            if isinstance(attempt, _Process):
                attempts[attempt] = None
        return self._settle(partition, ids, tuple(attempts)) if ids else NO_SPAN

    def _settle(self, partition: str, ids: Sequence[str], attempts: Sequence[_Process]) -> Span:
        """Within the attempt whose messages they are; one request for those of several has links to them."""
        parent = _within(attempts[0].context) if len(attempts) == 1 else None
        links = () if parent else tuple(Link(attempt.context) for attempt in attempts[: self.most_links])
        attributes = self.attributes("settle", partition, ids)
        return _Settle(self.tracer.start_span(f"settle {self.destination}", parent, SpanKind.CLIENT, attributes, links))

    def attributes(self, operation: str, partition: str, ids: Sequence[str]) -> dict[str, str | int]:
        """What each span says about its operation and records."""
        attributes: dict[str, str | int] = {
            **self._about,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.batch.message_count": len(ids),
        }
        if self._sharded:
            attributes["messaging.destination.partition.id"] = partition
        if len(ids) == 1:
            attributes["messaging.message.id"] = ids[0]
        return attributes

    def links(self, records: Iterable[Record], taken: int = 0) -> Iterable[Link]:
        """To the contexts that the messages came with, as many as the SDK would keep."""
        found = (
            Link(context, {"messaging.message.id": record.id}) for record in records for context in contexts(record)
        )
        return islice(found, None if self.most_links is None else max(0, self.most_links - taken))


class _Step(Span):
    """A span of ours that is open."""

    def __init__(self, span: OtelSpan) -> None:
        self.span = span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            _fail(self.span, _type_of(error))
        self.span.end()

    @property
    def context(self) -> SpanContext:
        return self.span.get_span_context()


class _Process(_Step):
    """One attempt."""

    def header(self, before: str) -> str:
        """The trace and span here, and the lineage of before, by which AWS and we count hops (INV-40)."""
        context = self.context
        trace = f"{context.trace_id:032x}"
        lineage = "".join(f";{part}" for part in before.split(";") if part.startswith("Lineage="))
        sampled = int(context.trace_flags.sampled)
        return f"Root=1-{trace[:8]}-{trace[8:]};Parent={context.span_id:016x};Sampled={sampled}{lineage}"

    def ended(self, outcome: Outcome, verdict: Verdict | None = None) -> None:
        span = self.span
        span.set_attribute("faas.version", outcome.version)
        if isinstance(outcome, Failed):
            _fail(span, parse_error(outcome.error).errorType[:LONGEST_TYPE] or outcome.kind)
            return
        if verdict is None:
            return
        failed = len(verdict.failed) + len(verdict.discard) + sum(len(again.records) for again in verdict.retry)
        if failed:  # in the words of bridge_esm_failed_invoke_events_total
            _fail(span, "partial" if verdict.done else "response")
            span.set_attribute("bridge.failed_message_count", failed)


class _Settle(_Step):
    """The last word about records."""

    def refused(self, codes: Sequence[str]) -> None:
        if codes:
            _fail(self.span, codes[0])
            self.span.set_attribute("bridge.failed_message_count", len(codes))


class _HandOver(Span):
    """Messages are handed to those who delete them, in requests that they may share with others'."""

    def __init__(self, spans: MappingSpans, attempt: _Process | None) -> None:
        self._spans, self._attempt = spans, attempt

    def __enter__(self) -> Self:
        self._spans.settling = self._attempt
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spans.settling = None


class _Receive(Span):
    """One fetch. It becomes a span when it has brought something: an idle queue is polled for ever."""

    def __init__(self, spans: MappingSpans, partition: str) -> None:
        self.context: SpanContext | None = None
        self._spans, self._partition = spans, partition
        self._began = time.time_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, RemoteError):
            span = self._span(())
            _fail(span, _type_of(error))
            span.end()

    def gave(self, page: Page) -> None:
        if page.records:
            span = self._span(page.records)
            self.context = span.get_span_context()
            span.end()

    def _span(self, records: Sequence[Record]) -> OtelSpan:
        spans = self._spans
        attributes = spans.attributes("receive", self._partition, [record.id for record in records])
        links = tuple(spans.links(records))
        return spans.tracer.start_span(
            f"receive {spans.destination}", None, SpanKind.CLIENT, attributes, links, self._began
        )


def _invoked(function: Function, qualifier: str, request_id: str) -> dict[str, str]:
    """What runs, and under which id."""
    return {
        "faas.name": function.name,
        "faas.invocation_id": request_id,
        "aws.lambda.invoked_arn": function.qualified(qualifier),
    }


def destination(mapping: Mapping) -> str:
    """The name of the queue, stream, table or function."""
    resource = mapping.source_arn.resource
    return resource if mapping.source == "sqs" else re.split("[/:]", resource)[1]


def contexts(record: Record) -> Iterator[SpanContext]:
    """Those that the record came with: of its attribute ``traceparent``, and of X-Ray's header if that says another."""
    w3c = None
    if record.traceparent:
        w3c = get_current_span(_w3c.extract({"traceparent": record.traceparent})).get_span_context()
        if w3c.is_valid:
            yield w3c
    if record.trace and (xray := _of_header(record.trace)) and xray != w3c:
        yield xray


def _of_header(header: str) -> SpanContext | None:
    """None where the header names no parent."""
    named = caller(header)
    if named is None:
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if named.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(named.trace, 16), int(named.span, 16), is_remote=True, trace_flags=flags)


def _within(context: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(context))


def _fail(span: OtelSpan, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)


def _type_of(error: BaseException) -> str:
    if isinstance(error, anyio.get_cancelled_exc_class()):
        return "cancelled"
    return error.code if isinstance(error, RemoteError) else type(error).__qualname__
