"""The rules of asynchronous events: attempts, age, and who is told."""

from __future__ import annotations

import msgspec

from bridge.invocation import Failed, Outcome, Succeeded
from bridge.pipeline.verdict import Condition, Discard, EventPolicy, Now, Report, Verdict
from bridge.record import Record

FIRST_RETRY = 60.0
"""Seconds before the first retry; the second waits twice as long (ASY-4)."""
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 300.0
"""Seconds for which a throttled event is put off (ASY-5)."""
MOST_HOPS = 16
"""Invocations of one function in one chain (INV-40)."""


def admit(record: Record, policy: EventPolicy, now: Now) -> Verdict | None:
    """Before an attempt: none lets it go ahead."""
    if policy.hops >= MOST_HOPS:  # INV-41
        return _given_up(record, "RecursiveInvocationTerminated", None, policy, now)
    if now.wall - record.arrived_at > policy.max_age:  # ASY-6: it waited too long
        return _given_up(record, "EventAgeExceeded", None, policy, now)
    return None


def decide(record: Record, outcome: Outcome, policy: EventPolicy, now: Now) -> Verdict:
    """After an attempt.

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
