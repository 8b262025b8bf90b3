"""What becomes of each record: ``admit`` before an attempt, ``decide`` after it. The rules of queues stand here, those
of asynchronous events and of streams beside it."""

from __future__ import annotations

import msgspec

from bridge.invocation import Outcome, Succeeded
from bridge.pipeline import events, streams
from bridge.pipeline.batcher import ENVELOPE
from bridge.pipeline.responses import failed_ids
from bridge.pipeline.verdict import Now, Policy, Verdict
from bridge.record import Batch, Record

FIRST_DEFERRAL = 0.5
LONGEST_DEFERRAL = 20.0


def admit(batch: Batch, policy: Policy, now: Now, frame: int = ENVELOPE) -> Verdict | None:
    """Before each attempt: none lets the batch go ahead, else this is its fate without one. ``frame``: bytes of the
    event besides its records."""
    if policy.stream:
        return streams.admit(batch, policy.stream, now, frame)
    if policy.events:
        (record,) = batch.records
        return events.admit(record, policy.events, now)
    return _stopped(batch, policy.circling) if policy.circling else None


def _stopped(batch: Batch, circling: tuple[Record, ...]) -> Verdict:
    """SQS-36: it counts as an attempt that failed. The others go on at once."""
    rest = tuple(record for record in batch.records if record not in circling)
    again = msgspec.structs.replace(batch, records=rest, trigger="retry")
    return Verdict(failed=circling, retry=(again,) if rest else ())


def decide(batch: Batch, outcome: Outcome, policy: Policy, now: Now, luck: float = 1.0) -> Verdict:
    """The fate of each record of ``batch`` after ``outcome``. ``luck`` in 0..1 shortens delays, so that those who
    failed together do not come back together."""
    if policy.stream:
        return streams.decide(batch, outcome, policy.stream, now, luck, partial=policy.partial)
    if policy.events:
        (record,) = batch.records
        return events.decide(record, outcome, policy.events, now)
    if isinstance(outcome, Succeeded):
        return _answered(batch, outcome.payload, policy)
    if outcome.ran:
        return Verdict(failed=batch.records)  # SQS-32, SQS-43
    return _deferred(batch, now, luck)


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


def _deferred(batch: Batch, now: Now, luck: float) -> Verdict:
    """SQS-35: what did not run is tried again until the earliest visibility of the batch is over."""
    delay: float = min(FIRST_DEFERRAL * 2**batch.deferrals, LONGEST_DEFERRAL)
    if now.mono + delay >= min(record.held_until for record in batch.records):
        return Verdict(failed=batch.records)
    again = msgspec.structs.replace(batch, trigger="retry", deferrals=min(batch.deferrals + 1, 16))
    return Verdict(retry=(again,), delay=delay * (0.5 + luck / 2))
