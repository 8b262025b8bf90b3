"""The rules of streams: what is too old or too large, attempts, bisect, partial answers, and the pause between."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from uuid import NAMESPACE_OID, uuid5

import msgspec

from bridge.invocation import Outcome, Succeeded
from bridge.mapping import Mapping
from bridge.pipeline.batcher import PAYLOAD_LIMIT
from bridge.pipeline.responses import finished, window_state
from bridge.pipeline.verdict import BatchReport, Discard, Now, Policy, StreamCondition, StreamPolicy, Verdict
from bridge.record import Batch, Record

FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 30.0
"""Seconds, before luck, between two attempts (KIN-69)."""


def stream_policy(mapping: Mapping, function_arn: str) -> Policy:
    """What a mapping of an ordered source says. ``function_arn`` is the unqualified one."""
    options = mapping.stream
    if options is None:
        raise TypeError(f"mapping {mapping.name!r} is none of an ordered source")
    stream = StreamPolicy(
        arn=f"{function_arn}:{mapping.qualifier}" if mapping.qualifier else function_arn,
        mapping=mapping.uuid,
        retries=options.retries,
        max_age=options.max_age,
        bisect=options.bisect,
        windowed=options.tumbling_window > 0,
        on_failure=options.on_failure,
        block=options.block,
    )
    return Policy(partial=mapping.partial, stream=stream)


def admit(batch: Batch, policy: StreamPolicy, now: Now, frame: int) -> Verdict | None:
    """Before an attempt: none lets the batch go ahead. ``frame``: bytes of the event besides its records.

    Each record that is too old (KIN-66), or would not even fit alone (KIN-38), is given up; the rest is tried at once
    as the attempt that it is, in several batches if it is too large together with its window's state (TW-34).
    """
    if batch.closes:
        return _admit_final(batch, policy, now)
    records, room = batch.records, PAYLOAD_LIMIT - frame
    youngest_dead = now.wall - policy.max_age
    if _fits(records, room) and all(record.arrived_at > youngest_dead for record in records):
        return None

    def condition(record: Record) -> StreamCondition | None:
        if record.arrived_at <= youngest_dead:  # KIN-67
            return "RecordAgeExceeded"
        return "MaximumPayloadSizeExceeded" if len(record.json) > room else None

    runs = [(why, tuple(run)) for why, run in groupby(records, condition)]
    kept = tuple(record for why, run in runs if not why for record in run)
    return Verdict(
        retry=tuple(msgspec.structs.replace(batch, records=piece) for piece in _pieces(kept, room)),
        discard=tuple(Discard(record, why) for why, run in runs if why for record in run),
        reports=tuple(
            _report(msgspec.structs.replace(batch, records=run), why, None, policy, now)
            for why, run in runs
            if why and policy.on_failure
        ),
    )


def _admit_final(batch: Batch, policy: StreamPolicy, now: Now) -> Verdict | None:
    """A window's final invocation is as old as its end, before which it could not be sent. It is tried once in any case
    (TW-46)."""
    tried = batch.attempt > 1 or batch.deferrals > 0
    if not tried or batch.window is None or now.wall - batch.window.end < policy.max_age:
        return None
    return Verdict(reports=(_report(batch, "RecordAgeExceeded", None, policy, now),) if policy.on_failure else ())


def decide(batch: Batch, outcome: Outcome, policy: StreamPolicy, now: Now, luck: float, *, partial: bool) -> Verdict:
    """After an attempt.

    ==================================  =================================================================
    success                             done
    the answer names records            those before the first of them are done, the rest is a new batch
                                        with all its attempts (KIN-71, KIN-74, KIN-75)
    throttled, out of reach             again, without end; it uses up no attempt (KIN-61)
    function error, useless answer,     in halves with all their attempts, if bisect is on (KIN-63, 64),
    the first record is named (KIN-77)  else again, until the attempts are used up (KIN-62): given up
    ==================================  =================================================================
    """
    records = batch.records
    if isinstance(outcome, Succeeded):
        state = window_state(outcome.payload) if policy.windowed else None
        valid = state is not None or not policy.windowed  # TW-30
        done = (finished(outcome.payload, records) if partial else len(records)) if valid else None
        if done == len(records):
            return Verdict(done=records, state=state)
        if done:
            rest = Batch(records[done:], batch.partition, "retry", request_id=outcome.request_id, window=batch.window)
            return Verdict(done=records[:done], retry=(rest,), delay=backoff(1, luck), state=state)
    elif not outcome.ran:
        again = msgspec.structs.replace(batch, trigger="retry", deferrals=batch.deferrals + 1)
        return Verdict(retry=(again,), delay=backoff(again.deferrals, luck))
    if policy.bisect and len(records) > 1:
        return Verdict(retry=_halves(batch, outcome.request_id), delay=backoff(1, luck))
    if batch.attempt > policy.retries:
        return _exhausted(batch, outcome, policy, now)
    again = msgspec.structs.replace(
        batch, trigger="retry", attempt=batch.attempt + 1, deferrals=0, request_id=outcome.request_id
    )
    return Verdict(retry=(again,), delay=backoff(batch.attempt, luck))


def backoff(vain: int, luck: float) -> float:
    """Seconds after so many vain tries in a row (KIN-69)."""
    return luck * float(min(FIRST_BACKOFF * 2 ** min(vain - 1, 16), LONGEST_BACKOFF))


def _halves(batch: Batch, request_id: str) -> tuple[Batch, Batch]:
    """Left first, and of an odd number the smaller one; both with all their attempts (KIN-63, KIN-64)."""
    middle = len(batch.records) // 2
    left, right = batch.records[:middle], batch.records[middle:]
    fresh = Batch(left, batch.partition, "retry", request_id=request_id, window=batch.window)
    return fresh, msgspec.structs.replace(fresh, records=right)


def _fits(records: tuple[Record, ...], room: int) -> bool:
    return sum(len(record.json) for record in records) + max(0, len(records) - 1) <= room


def _pieces(records: tuple[Record, ...], room: int) -> Iterator[tuple[Record, ...]]:
    """The records in order, as many at a time as fit. Each of them fits alone."""
    piece: list[Record] = []
    used = 0
    for record in records:
        weight = len(record.json) + 1
        if piece and used + weight - 1 > room:
            yield tuple(piece)
            piece, used = [], 0
        piece.append(record)
        used += weight
    if piece:
        yield tuple(piece)


def _exhausted(batch: Batch, outcome: Outcome, policy: StreamPolicy, now: Now) -> Verdict:
    """KIN-68. Of a window's final invocation nothing but the state is given up (TW-46)."""
    why: StreamCondition = "RetryAttemptsExhausted"
    return Verdict(
        discard=tuple(Discard(record, why) for record in batch.records),
        reports=(_report(batch, why, outcome, policy, now),) if policy.on_failure else (),
    )


def _report(
    batch: Batch, condition: StreamCondition, outcome: Outcome | None, policy: StreamPolicy, now: Now
) -> BatchReport:
    """Before any attempt there is neither a request nor an outcome; AWS tells of one attempt all the same (KIN-83)."""
    before = batch.request_id or str(uuid5(NAMESPACE_OID, f"{policy.mapping}:{batch.partition}:{batch.span.first.id}"))
    return BatchReport(
        target=policy.on_failure,
        condition=condition,
        batch=batch,
        function_arn=policy.arn,
        mapping=policy.mapping,
        attempts=batch.attempt if outcome else max(1, batch.attempt - 1),
        request_id=outcome.request_id if outcome else before,
        at=now.wall,
        outcome=outcome,
        block=policy.block,
    )
