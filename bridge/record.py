"""What flows: records, the pages they arrive in and the batches they leave in."""

from __future__ import annotations

from math import inf
from typing import Any, Literal, NamedTuple

import msgspec

Trigger = Literal["size", "bytes", "window", "flush", "retry", "final"]
"""Why the batcher let a batch go."""


class Record(msgspec.Struct, frozen=True, eq=False):
    """One delivery of one event. It holds the event for the handler and the receipt for its source.

    Two deliveries of one message are two records: identity, not equality, is what counts.
    """

    id: str
    """What a handler names in ``batchItemFailures``."""
    json: bytes
    """The record as it will stand in the event, encoded once; its length is its size."""
    arrived_at: float
    """Epoch seconds, as the source reports it."""
    deliveries: int = 1
    """How often the source has handed it out, this time included."""
    attempts: int = 0
    """Invocations it already used up (asynchronous events; elsewhere 0)."""
    held_until: float = inf
    """Monotonic seconds, fixed at receive: when the source takes it back by itself. A verdict says otherwise about an
    asynchronous event that failed: then it is when the next attempt may start."""
    receipt: Any = None
    """Whatever the source needs to settle it. Nobody else looks inside."""
    request_id: str | None = None
    """Asynchronous events keep one request id over all attempts."""
    qualifier: str = ""
    """Version or alias that an asynchronous event is for; empty: what the mapping says."""
    trace: str = ""
    """X-Ray trace header that it came with."""
    traceparent: str = ""
    """W3C trace context that it came with."""


class Page(msgspec.Struct, frozen=True, eq=False):
    """What one fetch gave."""

    records: tuple[Record, ...] = ()
    caught_up: bool = True
    """The source had nothing more at that moment."""
    lag: float | None = None
    """Seconds between the tip of the source and this page, where the source tells."""
    full: bool = False
    """As many records as were asked for: more are probably waiting."""
    answered: bool = True
    """False: the time was over before the source gave an answer; the page says nothing about it."""


class Window(NamedTuple):
    """A tumbling window: epoch seconds, the end not included (TW-11)."""

    start: float
    end: float


class Span(NamedTuple):
    """A run of records of one shard: its first, its last, and how many there are."""

    first: Record
    last: Record
    length: int


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Records that go to the handler together. The final invocation of a tumbling window has none (TW-41)."""

    records: tuple[Record, ...]
    partition: str
    trigger: Trigger
    attempt: int = 1
    """The invocation that this batch goes into, counted from 1."""
    deferrals: int = 0
    """How often in a row it was not run: throttled, or out of reach. Such a try uses up no attempt."""
    request_id: str = ""
    """Of the invocation before, if there was one."""
    window: Window | None = None
    """The tumbling window that it belongs to."""
    early: bool = False
    """It ends its window, or the window's state, before the time (TW-50, TW-53)."""
    closes: Span | None = None
    """Of a window's final invocation: the records that the window gathered."""

    @property
    def size(self) -> int:
        """Bytes of the records' JSON, without envelope and separators."""
        return sum(len(record.json) for record in self.records)

    @property
    def span(self) -> Span:
        """What it stands for: its records, or those of the window that it closes."""
        return self.closes or Span(self.records[0], self.records[-1], len(self.records))
