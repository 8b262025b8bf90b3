"""What becomes of each record once its invocation has ended."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from bridge.invocation import Outcome, Succeeded
from bridge.pipeline.responses import failed_ids
from bridge.record import Batch, Record

FIRST_DEFERRAL = 0.5
LONGEST_DEFERRAL = 20.0


class Policy(msgspec.Struct, frozen=True):
    """What of a mapping decides about its records.

    The source brings failed records again by itself; we repeat only what never ran.
    """

    partial: bool = False
    """``ReportBatchItemFailures``: the answer is read (SQS-40); otherwise it is ignored (SQS-30)."""


class Now(NamedTuple):
    """One instant on both clocks: monotonic and epoch seconds."""

    mono: float
    wall: float


class Verdict(msgspec.Struct, frozen=True):
    """Every record of the batch is in exactly one of the three."""

    done: tuple[Record, ...] = ()
    """Settled for good."""
    failed: tuple[Record, ...] = ()
    """A queue keeps them hidden until it brings them again."""
    retry: tuple[Batch, ...] = ()
    """We try again, in order, after ``delay``."""
    delay: float = 0.0
    """Seconds at most; the caller may jitter it downwards."""


def decide(batch: Batch, outcome: Outcome, policy: Policy, now: Now) -> Verdict:
    """The fate of each record of ``batch`` after ``outcome``."""
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
