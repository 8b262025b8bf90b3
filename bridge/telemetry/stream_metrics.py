"""What is counted for mappings of ordered sources alone (metrics.md, sections 2, 3 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, get_args

from prometheus_client import Counter, Gauge, Histogram

from bridge.pipeline.verdict import StreamCondition
from bridge.snapshot import MappingView
from bridge.telemetry.meter import AGES, Family

DroppedReason = Literal["age", "retries", "size", "delivery"]
REASONS: dict[StreamCondition, DroppedReason] = {
    "RecordAgeExceeded": "age",
    "RetryAttemptsExhausted": "retries",
    "MaximumPayloadSizeExceeded": "size",
}


class _Labelled(Protocol):
    """``labels()`` of a family under a mapping's own labels."""

    def __call__(self, family: Family, /, *more: str) -> Family: ...


class StreamFamilies:
    """The families; ``counter``, ``gauge`` and ``histogram`` make one that has a mapping's labels."""

    def __init__(
        self,
        counter: Callable[..., Counter],
        gauge: Callable[..., Gauge],
        histogram: Callable[[str, str, tuple[float, ...]], Histogram],
    ) -> None:
        self.iterator_age = histogram(
            "iterator_age_seconds", "Age of the last event of a batch when it goes to the function (IteratorAge).", AGES
        )
        self.oldest = gauge(
            "oldest_unprocessed_age_seconds", "Age of the oldest event that was read and is not finished; 0: none."
        )
        self.blocked = gauge("blocked_seconds", "How long the batch has been failing that blocks a shard longest.")
        self.behind = gauge(
            "millis_behind_latest", "How far the reader that is farthest back is from the tip, milliseconds."
        )
        self.bisects = counter("bisects_total", "Batches that were cut in halves (BisectBatchOnFunctionError).")
        self.dropped = counter(
            "dropped_events_total", "Events given up of which no destination knows (DroppedEventCount).", "reason"
        )
        self.delivered = counter(
            "failure_destination_events_total",
            "Events given up whose record a destination has (OnFailureDestinationDeliveredEventCount).",
        )
        self.undelivered = counter(
            "failure_destination_errors_total",
            "Records about events that a destination did not take (OnFailureDestinationDeliveryErrorCount).",
        )
        self.gaps = counter("gaps_total", "Positions that had expired: events were lost before they were read.")


class StreamMeter:
    """Counts for one mapping of an ordered source."""

    def __init__(self, families: StreamFamilies, child: _Labelled) -> None:
        self._iterator_age = child(families.iterator_age)
        self._oldest = child(families.oldest)
        self._blocked = child(families.blocked)
        self._behind = child(families.behind)
        self._bisects = child(families.bisects)
        self._dropped = {reason: child(families.dropped, reason) for reason in get_args(DroppedReason)}
        self._delivered = child(families.delivered)
        self._undelivered = child(families.undelivered)
        self._gaps = child(families.gaps)

    def iterator_age(self, seconds: float) -> None:
        """A batch goes to the function; its last record is so old (KIN-110)."""
        self._iterator_age.observe(max(0.0, seconds))

    def bisected(self) -> None:
        """A batch was cut in halves."""
        self._bisects.inc()

    def dropped(self, events: int, reason: DroppedReason) -> None:
        """Events were given up, and nobody was told."""
        self._dropped[reason].inc(events)

    def delivered(self, events: int) -> None:
        """Events were given up, and the destination has the record about them."""
        self._delivered.inc(events)

    def undelivered(self, events: int) -> None:
        """The destination did not take the record about these events; they are lost (MET-10)."""
        self._undelivered.inc()
        self.dropped(events, "delivery")

    def gap(self) -> None:
        """A stored position had expired at the source."""
        self._gaps.inc()

    def show(self, view: MappingView, at: float) -> None:
        """Sets what is a view of the snapshot (KIN-111): no value stands still while a shard is stuck."""
        held = [runner.oldest for runner in view.runners if runner.oldest is not None]
        blocked = [runner.blocked.since for runner in view.runners if runner.blocked]
        self._oldest.set(max(0.0, at - min(held, default=at)))
        self._blocked.set(max(0.0, at - min(blocked, default=at)))
        self._behind.set(round(max(view.behind or 0.0, 0.0) * 1000))
