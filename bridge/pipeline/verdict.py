"""What becomes of each record once its invocation has ended."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from bridge.invocation import Failed, Outcome, Succeeded
from bridge.pipeline.responses import failed_ids
from bridge.record import Batch, Record

FIRST_DEFERRAL = 0.5
LONGEST_DEFERRAL = 20.0


FIRST_RETRY = 60.0
"""Seconds before the first retry of an asynchronous event; the second waits twice as long (ASY-4)."""
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 300.0
"""Seconds for which a throttled asynchronous event is put off (ASY-5)."""
MOST_HOPS = 16
"""Invocations of one function in one chain (INV-40)."""

Condition = Literal[
    "Success", "RetriesExhausted", "EventAgeExceeded", "ZeroReservedConcurrency", "RecursiveInvocationTerminated"
]
"""How an asynchronous event ended (DST-6; the last one is ours, since AWS tells no word for it)."""


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


class Policy(msgspec.Struct, frozen=True):
    """What of a mapping decides about its records.

    The source brings failed records again by itself; we repeat only what never ran.
    """

    partial: bool = False
    """``ReportBatchItemFailures``: the answer is read (SQS-40); otherwise it is ignored (SQS-30)."""
    circling: tuple[Record, ...] = ()
    """Those of the batch whose chain has met the function too often (INV-40)."""
    events: EventPolicy | None = None
    """The record is an asynchronous event, and goes by these rules."""


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


class Discard(NamedTuple):
    """A record that is given up, and why."""

    record: Record
    condition: Condition


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
    reports: tuple[Report, ...] = ()
    """To be sent before anything is settled."""
    delay: float = 0.0
    """Seconds at most; the caller may jitter it downwards."""


def admit(batch: Batch, policy: Policy, now: Now) -> Verdict | None:
    """Before each attempt: none lets the batch go ahead, else this is its fate without one."""
    events = policy.events
    if events is None:
        return _stopped(batch, policy.circling) if policy.circling else None
    (record,) = batch.records
    if events.hops >= MOST_HOPS:  # INV-41
        return _given_up(record, "RecursiveInvocationTerminated", None, events, now)
    if now.wall - record.arrived_at > events.max_age:  # ASY-6: it waited too long
        return _given_up(record, "EventAgeExceeded", None, events, now)
    return None


def _stopped(batch: Batch, circling: tuple[Record, ...]) -> Verdict:
    """SQS-36: it counts as an attempt that failed. The others go on at once."""
    rest = tuple(record for record in batch.records if record not in circling)
    again = msgspec.structs.replace(batch, records=rest, trigger="retry")
    return Verdict(failed=circling, retry=(again,) if rest else ())


def decide(batch: Batch, outcome: Outcome, policy: Policy, now: Now) -> Verdict:
    """The fate of each record of ``batch`` after ``outcome``."""
    if policy.events:
        (record,) = batch.records
        return _decide_event(record, outcome, policy.events, now)
    if isinstance(outcome, Succeeded):
        return _answered(batch, outcome.payload, policy)
    if outcome.ran:
        return Verdict(failed=batch.records)  # SQS-32, SQS-43
    return _deferred(batch, now)


def _answered(batch: Batch, payload: bytes, policy: Policy) -> Verdict:
    if not policy.partial:
        return Verdict(done=batch.records)  # SQS-30
    named = failed_ids(payload, {record.id for record in batch.records})
    if named is None:
        return Verdict(failed=batch.records)
    if not named:
        return Verdict(done=batch.records)
    return Verdict(
        done=tuple(record for record in batch.records if record.id not in named),
        failed=tuple(record for record in batch.records if record.id in named),
    )


def _deferred(batch: Batch, now: Now) -> Verdict:
    """SQS-35: what did not run is tried again until the earliest visibility of the batch is over."""
    delay: float = min(FIRST_DEFERRAL * 2**batch.deferrals, LONGEST_DEFERRAL)
    if now.mono + delay >= min(record.held_until for record in batch.records):
        return Verdict(failed=batch.records)
    again = msgspec.structs.replace(batch, trigger="retry", deferrals=min(batch.deferrals + 1, 16))
    return Verdict(retry=(again,), delay=delay)


def _decide_event(record: Record, outcome: Outcome, policy: EventPolicy, now: Now) -> Verdict:
    """An asynchronous event.

    ============================  ==========================================================
    success                       done (DST-2)
    reserved concurrency 0        given up at once (ASY-9)
    throttled, out of reach       put off by 1 s to 5 min, uses up no attempt (ASY-5)
    function error                put off by 60 s, then 120 s (ASY-4), given up after that
    its next attempt comes later  given up at once (ASY-7)
    than its greatest age
    ============================  ==========================================================
    """
    if isinstance(outcome, Succeeded):
        attempts = record.attempts + 1
        report = Report(policy.on_success, "Success", record, policy.arn, attempts, now.wall, outcome)
        return Verdict(done=(record,), reports=(report,) if policy.on_success else ())
    if outcome.kind == "reserved_zero":
        return _given_up(record, "ZeroReservedConcurrency", outcome, policy, now)
    attempts = record.attempts + outcome.ran
    if attempts > policy.retries and outcome.ran:  # ASY-8: retries win over age
        return _given_up(record, "RetriesExhausted", outcome, policy, now)
    delay = FIRST_RETRY * attempts if outcome.ran else _backoff(record)
    if now.wall - record.arrived_at + delay >= policy.max_age:  # ASY-7
        return _given_up(record, "EventAgeExceeded", outcome, policy, now)
    return Verdict(failed=(msgspec.structs.replace(record, attempts=attempts, held_until=now.mono + delay),))


def _backoff(record: Record) -> float:
    """Doubles with each time that it was handed out in vain (ASY-5)."""
    vain = record.deliveries - 1 - record.attempts
    return float(min(FIRST_BACKOFF * 2 ** min(vain, 16), LONGEST_BACKOFF))


def _given_up(record: Record, condition: Condition, outcome: Failed | None, policy: EventPolicy, now: Now) -> Verdict:
    """DST-2, DST-20: both a record about it and the event itself go where that is asked for."""
    attempts = record.attempts + (outcome is not None and outcome.ran)
    reports = tuple(
        Report(target, condition, record, policy.arn, attempts, now.wall, outcome, dead_letter)
        for target, dead_letter in ((policy.on_failure, False), (policy.dead_letter, True))
        if target
    )
    return Verdict(discard=(Discard(record, condition),), reports=reports)
