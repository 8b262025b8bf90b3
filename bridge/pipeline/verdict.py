"""What becomes of each record: the words in which it is decided. ``decide.py`` decides."""

from __future__ import annotations

from math import inf
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from bridge.invocation import Outcome
from bridge.record import Batch, Record

Condition = Literal[
    "Success", "RetriesExhausted", "EventAgeExceeded", "ZeroReservedConcurrency", "RecursiveInvocationTerminated"
]
"""How an asynchronous event ended (DST-6; the last one is ours, since AWS tells no word for it)."""
StreamCondition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded", "MaximumPayloadSizeExceeded"]
"""Why records of a stream are given up (KIN-38, KIN-81)."""


class EventPolicy(msgspec.Struct, frozen=True):
    """What decides about asynchronous events. Destinations are ARNs; empty: none."""

    arn: str
    """Of the function, qualified."""
    retries: int = 2
    max_age: float = 21_600.0
    on_success: str = ""
    on_failure: str = ""
    dead_letter: str = ""
    hops: int = 0
    """Invocations of this function that its chain has had before."""


class StreamPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What decides about records of ordered sources: they are done, tried again here, or given up."""

    arn: str
    """Of the function, as the mapping names it."""
    mapping: str
    """UUID."""
    retries: float = inf
    """``MaximumRetryAttempts`` (KIN-62)."""
    max_age: float = inf
    """``MaximumRecordAgeInSeconds`` (KIN-66)."""
    bisect: bool = False
    """``BisectBatchOnFunctionError`` (KIN-63)."""
    windowed: bool = False
    """There are tumbling windows: an answer without ``state`` is a failure (TW-30)."""
    on_failure: str = ""
    """ARN of whom is told what was given up; empty: nobody."""
    block: bool = False
    """What cannot be reported is not given up (KIN-87)."""


class Policy(msgspec.Struct, frozen=True):
    """What of a mapping decides about its records.

    A queue brings failed records again by itself; of those we repeat only what never ran.
    """

    partial: bool = False
    """``ReportBatchItemFailures``: the answer is read (SQS-40); otherwise it is ignored (SQS-30, KIN-73)."""
    circling: tuple[Record, ...] = ()
    """Those of the batch whose chain has met the function too often (INV-40)."""
    events: EventPolicy | None = None
    """The record is an asynchronous event, and goes by these rules."""
    stream: StreamPolicy | None = None
    """The records are those of a stream, and go by these rules."""


class Now(NamedTuple):
    """One instant on both clocks: monotonic and epoch seconds."""

    mono: float
    wall: float


class Report(msgspec.Struct, frozen=True):
    """What is told to somebody about an asynchronous event before it is settled."""

    target: str
    """ARN."""
    condition: Condition
    record: Record
    function_arn: str
    """Qualified (DST-5)."""
    attempts: int
    """Invocations that it has had."""
    at: float
    """Epoch seconds."""
    outcome: Outcome | None = None
    """Of the last attempt; none when there was none, or it is not known any more."""
    dead_letter: bool = False
    """The target gets the event itself (DST-21), not a record about it."""

    @property
    def trace(self) -> str:
        """X-Ray trace header that goes along."""
        return self.record.trace


class BatchReport(msgspec.Struct, frozen=True):
    """What is told to somebody about records of a stream before they are given up (KIN-80)."""

    dead_letter: ClassVar[bool] = False
    trace: ClassVar[str] = ""

    target: str
    """ARN."""
    condition: StreamCondition
    batch: Batch
    """The records that are given up; those of a window's final invocation are what ``closes`` says."""
    function_arn: str
    mapping: str
    """UUID."""
    attempts: int
    """Invocations that it has had."""
    request_id: str
    """Of the last one."""
    at: float
    """Epoch seconds."""
    outcome: Outcome | None = None
    """Of the last attempt; none when the records were given up before one (KIN-82)."""
    block: bool = False
    """It is tried until it is delivered."""
    info: dict[str, Any] = {}
    """What the source says about where the records are."""
    payload: bytes = b""
    """The event that the function got, or would have got (KIN-85)."""


class Discard(NamedTuple):
    """A record that is given up, and why."""

    record: Record
    condition: Condition | StreamCondition


class Verdict(msgspec.Struct, frozen=True):
    """Every record of the batch is in exactly one of the first four."""

    done: tuple[Record, ...] = ()
    """Settled for good."""
    failed: tuple[Record, ...] = ()
    """A queue keeps them hidden until it brings them again."""
    retry: tuple[Batch, ...] = ()
    """We try again, in order, after ``delay``."""
    discard: tuple[Discard, ...] = ()
    """Given up: reported first, then settled for good."""
    reports: tuple[Report | BatchReport, ...] = ()
    """To be sent before anything is settled."""
    delay: float = 0.0
    """Seconds."""
    state: bytes | None = None
    """What the function answered as the state of its tumbling window, compact JSON; none: it stays as it was."""
