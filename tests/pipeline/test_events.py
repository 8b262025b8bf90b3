"""Verdicts about asynchronous events, as a table and as a property."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from bridge.invocation import Failed, FailureKind, Outcome, Succeeded
from bridge.pipeline.decide import admit, decide
from bridge.pipeline.events import MOST_HOPS
from bridge.pipeline.verdict import EventPolicy, Now, Policy, Verdict
from bridge.record import Batch, Record

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:worker:$LATEST"
NOW = Now(50.0, 1000.0)


def batch(*, age: float = 0.0, attempts: int = 0, deliveries: int = 1) -> Batch:
    record = Record(id="id", json=b"{}", arrived_at=NOW.wall - age, attempts=attempts, deliveries=deliveries)
    return Batch((record,), "worker", "size")


def policy(**options: object) -> Policy:
    return Policy(events=EventPolicy(ARN, **options))  # type: ignore[arg-type]


def failed(kind: FailureKind = "function") -> Failed:
    return Failed(kind, b"{}", "id")


def fate(verdict: Verdict) -> str:
    """Condition, or the delay until the next attempt and the attempts used up."""
    if verdict.done:
        return "done"
    if verdict.discard:
        return verdict.discard[0].condition
    (record,) = verdict.failed
    return f"{record.held_until - NOW.mono:g} s, {record.attempts}"


@pytest.mark.parametrize(
    ("kind", "attempts", "deliveries", "age", "options", "expected"),
    [
        ("function", 0, 1, 0, {}, "60 s, 1"),  # ASY-4
        ("timeout", 1, 2, 60, {}, "120 s, 2"),
        ("exit", 2, 3, 180, {}, "RetriesExhausted"),
        ("function", 0, 1, 0, {"retries": 0}, "RetriesExhausted"),
        ("function", 1, 2, 61, {"retries": 1, "max_age": 60.0}, "RetriesExhausted"),  # ASY-8
        ("function", 0, 1, 0, {"max_age": 60.0}, "EventAgeExceeded"),  # ASY-7
        ("function", 0, 1, 1, {"max_age": 62.0}, "60 s, 1"),
        ("function", 1, 2, 61, {"max_age": 90.0}, "EventAgeExceeded"),
        ("throttled", 0, 1, 0, {"retries": 0}, "1 s, 0"),  # ASY-5
        ("throttled", 1, 5, 0, {}, "8 s, 1"),
        ("unreachable", 0, 40, 0, {}, "300 s, 0"),
        ("throttled", 0, 10_000, 21_000, {}, "300 s, 0"),
        ("throttled", 0, 10_000, 21_400, {}, "EventAgeExceeded"),
        ("reserved_zero", 0, 1, 0, {}, "ZeroReservedConcurrency"),  # ASY-9
        ("reserved_zero", 1, 2, 90, {}, "ZeroReservedConcurrency"),
    ],
)
def test_after_a_failure(
    kind: FailureKind, attempts: int, deliveries: int, age: float, options: dict[str, float], expected: str
) -> None:
    verdict = decide(batch(age=age, attempts=attempts, deliveries=deliveries), failed(kind), policy(**options), NOW)
    assert fate(verdict) == expected


@pytest.mark.parametrize(
    ("age", "hops", "expected"),
    [
        (0, 0, None),
        (21_600, 15, None),
        (21_600.1, 0, "EventAgeExceeded"),  # ASY-6
        (0, MOST_HOPS, "RecursiveInvocationTerminated"),  # INV-41
    ],
)
def test_before_an_attempt(age: float, hops: int, expected: str | None) -> None:
    verdict = admit(batch(age=age), policy(hops=hops), NOW)
    assert (fate(verdict) if verdict else None) == expected


def test_records_of_a_queue_are_admitted_unseen() -> None:
    assert admit(Batch((), "queue", "size"), Policy(), NOW) is None


def test_reports_go_where_that_is_asked_for() -> None:  # DST-2, DST-20
    targets = {"on_success": "good", "on_failure": "bad", "dead_letter": "letters"}
    (only,) = decide(batch(), Succeeded(b"1", "id"), policy(**targets), NOW).reports
    assert (only.target, only.condition, only.attempts, only.dead_letter) == ("good", "Success", 1, False)
    first, second = decide(batch(attempts=2), failed(), policy(**targets), NOW).reports
    assert [(it.target, it.dead_letter, it.attempts) for it in (first, second)] == [
        ("bad", False, 3),
        ("letters", True, 3),
    ]
    assert decide(batch(), failed(), policy(**targets), NOW).reports == ()
    assert decide(batch(attempts=2), failed(), policy(), NOW).reports == ()  # ASY-10


def test_each_event_is_in_exactly_one_place() -> None:
    chance = random.Random(7)
    for _ in range(20_000):
        kind = chance.choice(("succeeded", *get_args(FailureKind)))
        outcome: Outcome = Succeeded(b"1", "id") if kind == "succeeded" else failed(kind)
        event = batch(age=chance.uniform(0, 25_000), attempts=chance.randrange(3), deliveries=chance.randrange(1, 50))
        settings = policy(
            retries=chance.randrange(3), max_age=chance.uniform(60, 21_600), on_success="s", on_failure="f"
        )
        verdict = decide(event, outcome, settings, NOW)
        places = (verdict.done, verdict.failed, verdict.retry, verdict.discard)
        assert sum(map(len, places)) == 1
        assert len(verdict.reports) == 1 - len(verdict.failed)
        for record in verdict.failed:
            assert NOW.mono < record.held_until
            assert record.attempts - event.records[0].attempts == (isinstance(outcome, Failed) and outcome.ran)
