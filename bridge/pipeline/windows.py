"""Tumbling windows of one shard: which window a record is in, the state that goes from one invocation to the next, and
the final invocation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping as Dict, Sequence
from math import floor, inf
from types import MappingProxyType

import msgspec

from bridge.pipeline.batcher import ENVELOPE, PAYLOAD_LIMIT
from bridge.pipeline.verdict import Verdict
from bridge.record import Batch, Record, Span, Window
from bridge.snapshot import iso

STATE_LIMIT = 1_048_576
"""Bytes of a window's state (TW-32, TW-33)."""
LARGEST_EVENT_STATE = PAYLOAD_LIMIT - 4096
"""Bytes of a state that an event without records can carry (TW-52); its other members take less than the rest."""
GRACE = 1.0
"""Seconds after the end of a window, besides the batching window, for records that come late (TW-42)."""
NO_FIELDS: Dict[str, bytes] = MappingProxyType({})


class Kept(msgspec.Struct, omit_defaults=True):
    """What is stored with the position (TW-47)."""

    end: float
    start: float
    state: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """Not there: the window is closed, and no record may come into it any more."""
    early: bool = False
    """The state is too large: the invocation that takes it comes next."""
    first: tuple[str, float] = ("", 0.0)
    """Id and arrival of the first record, and of the last."""
    last: tuple[str, float] = ("", 0.0)
    records: int = 0

    @property
    def window(self) -> Window:
        return Window(self.start, self.end)


class Windows:
    """One open window at a time (TW-12). Times are epoch seconds. ``length`` 0: there are none, and all says so.

    ``of`` runs ahead of the rest: records are put into windows as they are read, in order, and the batches that come of
    them are invoked later, in order too. ``kept`` is what ``settled`` gave last, also before a restart.
    """

    def __init__(self, partition: str, source_arn: str, length: float, *, batching: float, kept: bytes) -> None:
        self._partition, self._arn = partition, source_arn
        self._length = length
        self._grace = GRACE + batching
        self._open: Kept | None = None
        self._reading: Window | None = None
        self._closed_until = -inf
        self._seen = -inf
        if length and kept:
            self._restore(msgspec.json.decode(kept, type=Kept))

    def __repr__(self) -> str:
        return f"<Windows of {self._length:g} s: {'one' if self._open else 'none'} open>"

    def _restore(self, kept: Kept) -> None:
        if kept.state is msgspec.UNSET:
            self._closed_until = kept.end
        else:
            self._open, self._reading = kept, kept.window

    def of(self, record: Record) -> Window:
        """The window that the next record of the shard is in (TW-11); never one before that of an earlier record, nor
        one that is closed (TW-13)."""
        if self._reading is None or record.arrived_at >= self._reading.end:
            start = floor(max(record.arrived_at, self._closed_until) / self._length) * self._length
            self._reading = Window(start, start + self._length)
        return self._reading

    def passed(self, records: Sequence[Record]) -> None:
        """These were filtered out: they open no window (TW-44), but they show how late it is in the shard."""
        if self._length:
            self._seen = max(self._seen, *(record.arrived_at for record in records))

    def around(self, batches: Sequence[Batch], wall: float, *, caught_up: bool, idle: bool) -> Iterator[Batch]:
        """The batches, and the final invocations that come before or after them (TW-42). Each is to be processed before
        the next is taken. ``idle``: nothing else of this shard is waiting here."""
        if not self._length:
            yield from batches
            return
        if self._open and self._open.early:
            yield self._final(early=True)
        for batch in batches:
            if self._open and batch.window != self._open.window:
                yield self._final()
            yield batch
        if self._open and idle:
            over = caught_up and wall >= self._open.end + self._grace
            if over or self._seen >= self._open.end:
                yield self._final()

    def ended(self, batches: Sequence[Batch], wall: float) -> Iterator[Batch]:
        """The last batches of the shard, and the end of its window, which may come before its time (TW-53)."""
        yield from self.around(batches, wall, caught_up=False, idle=False)
        if self._open:
            yield self._final(early=wall < self._open.end)

    def left(self, wall: float) -> float:
        """Seconds until the open window is over, if nothing comes; inf when there is none."""
        return max(0.0, self._open.end + self._grace - wall) if self._open else inf

    @property
    def gathered(self) -> int:
        """Records that the open window has gathered; 0 when there is none."""
        return self._open.records if self._open else 0

    def progress(self, wall: float) -> str:
        """How far the open window is, for people."""
        kept = self._open
        if kept is None:
            return "no window is open"
        edges = " to ".join(iso(edge, "seconds") for edge in kept.window)
        return f"the window {edges} gathered {kept.records} records; ends in {max(0.0, self.left(wall)):.1f} s"

    def fields(self, batch: Batch) -> Dict[str, bytes]:
        """What the event has besides its records (TW-20)."""
        if batch.window is None:
            return NO_FIELDS
        start, end = (iso(edge, "seconds") for edge in batch.window)
        return {
            "window": msgspec.json.encode({"start": start, "end": end}),
            "state": self._state(),
            "shardId": msgspec.json.encode(self._partition),
            "eventSourceARN": msgspec.json.encode(self._arn),
            "isFinalInvokeForWindow": b"true" if batch.closes else b"false",
            "isWindowTerminatedEarly": b"true" if batch.early else b"false",
        }

    def settled(self, batch: Batch, verdict: Verdict) -> tuple[bytes | None, tuple[Batch, ...]]:
        """After a verdict: what to store with the position, none to leave it, and what to invoke before the rest of the
        batch. A batch that failed or was given up leaves the state as it was (TW-60, TW-63)."""
        if batch.window is None:
            return None, ()
        if batch.closes:
            return (None, ()) if verdict.retry else (self._closed(), ())
        if verdict.state is None or not verdict.done:
            return None, ()
        self._open = self._grown(batch.window, verdict.done, verdict.state)
        return msgspec.json.encode(self._open), (self._final(early=True),) if self._open.early else ()

    def _state(self) -> bytes:
        if self._open is None or self._open.state is msgspec.UNSET:
            return b"{}"
        return bytes(self._open.state)

    def _grown(self, window: Window, records: Sequence[Record], state: bytes) -> Kept:
        """The open window with these records in it (TW-61)."""
        was = self._open
        return Kept(
            end=window.end,
            start=window.start,
            state=msgspec.Raw(state if len(state) <= LARGEST_EVENT_STATE else self._state()),  # TW-52
            early=len(state) > STATE_LIMIT,
            first=was.first if was else (records[0].id, records[0].arrived_at),
            last=(records[-1].id, records[-1].arrived_at),
            records=(was.records if was else 0) + len(records),
        )

    def _final(self, *, early: bool = False) -> Batch:
        kept = self._open
        assert kept is not None  # noqa: S101 - the callers have looked
        first, last = (Record(id=name, json=b"", arrived_at=at) for name, at in (kept.first, kept.last))
        span = Span(first, last, kept.records)
        return Batch((), self._partition, "final", window=kept.window, early=early, closes=span)

    def _closed(self) -> bytes:
        """The final invocation is over. That of a state that was too large leaves its window open, with a fresh state
        (TW-51); another leaves none, and nothing that comes late opens it again (TW-45)."""
        kept = self._open
        assert kept is not None  # noqa: S101 - it was this window's final invocation
        if kept.early:
            self._open = msgspec.structs.replace(kept, state=msgspec.Raw(b"{}"), early=False)
            return msgspec.json.encode(self._open)
        self._open = None
        self._closed_until = kept.end
        if self._reading == kept.window:
            self._reading = None
        return msgspec.json.encode(Kept(kept.end, kept.start))


def frame_of(fields: Dict[str, bytes]) -> int:
    """Bytes of an event besides its records."""
    return ENVELOPE + sum(len(name) + len(value) + 4 for name, value in fields.items())
