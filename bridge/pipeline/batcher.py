"""The batching window: collects records into batches by count, bytes and time, and says why it let one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Literal

from bridge.record import Batch, Record, Trigger, Window

PAYLOAD_LIMIT = 6_291_456
"""Bytes of the final JSON, metadata of each record included (SQS-8)."""
ENVELOPE = len('{"Records":[]}')

WindowOpens = Literal["first record", "after invocation"]
"""When a batching window begins (KIN-37)."""


class Batcher:
    """One open batch at a time (SQS-7). Times are monotonic seconds.

    The first record opens the window, or it has opened when the invocation before ended (KIN-37). A record that does
    not fit any more, or is of another tumbling window (TW-4), opens the next batch (SQS-8).
    """

    def __init__(
        self,
        partition: str,
        size: int,
        window: float,
        *,
        opens: WindowOpens = "first record",
        tumbling: Callable[[Record], Window] | None = None,
        limit: int = PAYLOAD_LIMIT,
    ) -> None:
        self._partition = partition
        self._size = size
        self._window = window
        self._follows = opens == "after invocation"
        self._tumbling = tumbling
        self._limit = limit
        self._ready: list[Batch] = []
        self._open: list[Record] = []
        self._bytes = ENVELOPE
        self._of: Window | None = None
        self._opened_at = -inf
        self._closes_at = inf

    def __repr__(self) -> str:
        return f"<Batcher {len(self._open)} of {self._size} records, {self._bytes} bytes, {len(self._ready)} ready>"

    @property
    def count(self) -> int:
        """Records in the open batch."""
        return len(self._open)

    @property
    def room(self) -> int:
        """How many more records the open batch takes."""
        return self._size - len(self._open)

    @property
    def size(self) -> int:
        """Bytes of the event with the open batch."""
        return self._bytes

    def left(self, now: float) -> float | None:
        """Seconds until the open batch must go; none when there is no open batch."""
        return max(0.0, self._closes_at - now) if self._open else None

    def waited(self, now: float) -> float | None:
        """Seconds since the window of the open batch began; none when there is no open batch."""
        return self._window - max(0.0, self._closes_at - now) if self._open else None

    def progress(self, now: float) -> str:
        """How far the open batch is, for people."""
        waited = self._window - (self.left(now) or 0.0)
        return f"{waited:.1f} of {self._window:g} s, {self.count} of {self._size} records"

    def invoked(self, now: float) -> None:
        """An invocation has ended: the next window opens, where it follows."""
        if self._follows:
            self._opened_at = now
            if self._open:
                self._closes_at = now + self._window

    def add(self, records: Iterable[Record], now: float) -> None:
        """Takes records in, in order."""
        opens_at = self._opened_at if self._follows else now
        for record in records:
            if self._tumbling and (of := self._tumbling(record)) != self._of:
                if self._open:
                    self._close("flush")
                self._of = of
            weight = len(record.json) + (1 if self._open else 0)
            if self._open and self._bytes + weight > self._limit:
                self._close("bytes")
                weight = len(record.json)
            if not self._open:
                self._closes_at = opens_at + self._window
            self._open.append(record)
            self._bytes += weight
            if len(self._open) >= self._size:
                self._close("size")

    def take(self, now: float) -> list[Batch]:
        """The batches that are due, in order; each is given once."""
        if self._open and now >= self._closes_at:
            self._close("window")
        ready, self._ready = self._ready, []
        return ready

    def flush(self) -> list[Batch]:
        """Everything, because nothing will follow."""
        if self._open:
            self._close("flush")
        ready, self._ready = self._ready, []
        return ready

    def _close(self, trigger: Trigger) -> None:
        self._ready.append(Batch(tuple(self._open), self._partition, trigger, window=self._of))
        self._open = []
        self._bytes = ENVELOPE
        self._closes_at = inf
