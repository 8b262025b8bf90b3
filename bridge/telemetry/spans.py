"""What a mapping's work is traced by: nothing, unless traces are on; traces.py is what traces then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping as Dict, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from bridge.invocation import Outcome
    from bridge.pipeline.verdict import Verdict
    from bridge.record import Batch, Page, Record
    from bridge.telemetry.traces import Traces

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Span:
    """Around one step of the work, as a context manager. This one traces nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def gave(self, page: Page) -> None:
        """What the receive has brought."""

    def header(self, before: str) -> str:
        """The X-Ray trace header of the invocation inside; ``before``: what it would be without a trace."""
        return before

    def ended(self, outcome: Outcome, verdict: Verdict | None = None) -> None:
        """How the invocation went, and what that means for its records."""

    def refused(self, codes: Sequence[str]) -> None:
        """Why messages of the request inside were not settled, a code for each of them."""


NO_SPAN = Span()


class Spans:
    """Those of one mapping. These trace nothing."""

    def receive(self, partition: str) -> Span:  # noqa: ARG002
        """Around one fetch; shown when it gives records, or fails."""
        return NO_SPAN

    def process(self, partition: str, batch: Batch, request_id: str, received: Iterable[Span]) -> Span:  # noqa: ARG002
        """Around one attempt; ``received``: the receives that brought the batch's records, repeated or not."""
        return NO_SPAN

    def settle(self, partition: str, records: Iterable[Record], processed: Span) -> Span:  # noqa: ARG002
        """Around the last word about records; ``processed``: the attempt that they come from, or NO_SPAN."""
        return NO_SPAN

    settling: object = None
    """Inside the ``settle`` of a queue: what its messages say, when they are deleted, about where they come from."""

    def delete(self, partition: str, messages: Iterable[tuple[str, object]]) -> Span:  # noqa: ARG002
        """Around a request that deletes messages of a queue, each with its id and what ``settling`` was for it."""
        return NO_SPAN


NO_SPANS = Spans()


def asked(environ: Dict[str, str]) -> str:
    """Which variable asks for traces, by OpenTelemetry's own rules; empty: none does, or they are switched off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if exporter := environ.get("OTEL_TRACES_EXPORTER", "").strip().lower():
        return "" if exporter == "none" else "OTEL_TRACES_EXPORTER"
    return next((name for name in ENDPOINTS if environ.get(name)), "")


def open_traces(environ: Dict[str, str]) -> Traces | None:
    """None unless they are asked for; and when they cannot be made, which is said in one line: an environment that a
    whole cluster shares must not keep anybody's records waiting."""
    variable = asked(environ)
    if not variable:
        return None
    try:
        from bridge.telemetry.traces import Traces

        return Traces(environ)
    except (ImportError, ValueError, RuntimeError) as error:
        import structlog

        missing = isinstance(error, ImportError)
        why = "install the extra otel: pip install 'bridge[otel]'" if missing else str(error)
        structlog.get_logger().warning("traces_unavailable", asked_by=variable, detail=why)
        return None
