"""Every record of a batch ends in exactly one place."""

from __future__ import annotations

import json
from math import inf
from typing import get_args

import pytest
from hypothesis import given, strategies as st

from bridge.invocation import Failed, FailureKind, Outcome, Succeeded
from bridge.pipeline.decide import LONGEST_DEFERRAL, admit, decide
from bridge.pipeline.verdict import Now, Policy, Verdict
from bridge.record import Batch
from tests.records import record

NOW = Now(mono=1000.0, wall=1.7e9)


def batch(*names: str, held_until: float = inf, deferrals: int = 0) -> Batch:
    items = tuple(record(name, held_until=held_until) for name in names)
    return Batch(items, "queue", "size", deferrals=deferrals)


def ids(records: object) -> list[str]:
    return [item.id for item in records]  # type: ignore[attr-defined]


def succeeded(answer: object) -> Succeeded:
    return Succeeded(json.dumps(answer).encode(), "id")


def failures(*names: str) -> dict[str, object]:
    return {"batchItemFailures": [{"itemIdentifier": name} for name in names]}


def test_success_deletes_all_whatever_was_answered() -> None:  # SQS-30
    work = batch("a", "b")
    assert decide(work, succeeded(failures("a")), Policy(partial=False), NOW) == Verdict(done=work.records)


def test_what_runs_in_a_circle_fails_and_the_rest_goes_on() -> None:  # SQS-36
    work = batch("a", "b", "c")
    first, second, third = work.records
    verdict = admit(work, Policy(circling=(second,)), NOW)
    assert verdict is not None
    assert (verdict.failed, verdict.done, verdict.delay) == ((second,), (), 0.0)
    assert [again.records for again in verdict.retry] == [(first, third)]
    assert admit(work, Policy(circling=work.records), NOW) == Verdict(failed=work.records)
    assert admit(work, Policy(), NOW) is None


@pytest.mark.parametrize("kind", ["function", "timeout", "exit"])
@pytest.mark.parametrize("partial", [False, True])
def test_a_function_error_deletes_nothing(kind: FailureKind, partial: bool) -> None:  # SQS-32, SQS-43
    work = batch("a", "b")
    assert decide(work, Failed(kind, b"{}", "id"), Policy(partial), NOW) == Verdict(failed=work.records)


def test_partial_failures_split_the_batch_in_its_order() -> None:  # SQS-40
    verdict = decide(batch("a", "b", "c", "d"), succeeded(failures("d", "b")), Policy(partial=True), NOW)
    assert (ids(verdict.done), ids(verdict.failed)) == (["a", "c"], ["b", "d"])


def test_a_malformed_answer_fails_the_batch() -> None:  # SQS-42
    verdict = decide(batch("a", "b"), succeeded(failures("a", "x")), Policy(partial=True), NOW)
    assert (ids(verdict.done), ids(verdict.failed)) == ([], ["a", "b"])


@pytest.mark.parametrize("kind", ["throttled", "unreachable", "reserved_zero"])
def test_what_did_not_run_is_tried_again_while_it_is_hidden(kind: FailureKind) -> None:  # SQS-35
    work = batch("a", "b", held_until=NOW.mono + 30)
    verdict = decide(work, Failed(kind, b"{}", "id"), Policy(), NOW)
    (again,) = verdict.retry
    assert (again.records, again.trigger, again.attempt, again.deferrals) == (work.records, "retry", 1, 1)
    assert 0 < verdict.delay < 30
    assert not verdict.done
    assert not verdict.failed


def test_it_is_given_up_when_the_visibility_would_end_before_the_next_try() -> None:  # SQS-35
    held = [record("a", held_until=NOW.mono + 300), record("b", held_until=NOW.mono + 0.4)]
    verdict = decide(Batch(tuple(held), "q", "size"), Failed("throttled", b"{}", "id"), Policy(), NOW)
    assert ids(verdict.failed) == ["a", "b"]
    assert not verdict.retry


def test_deferrals_back_off_up_to_a_limit() -> None:  # SQS-35
    delays, work = [], batch("a")
    for _ in range(40):
        verdict = decide(work, Failed("throttled", b"{}", "id"), Policy(), NOW)
        delays.append(verdict.delay)
        (work,) = verdict.retry
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DEFERRAL


KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.sampled_from(KINDS).map(lambda kind: Failed(kind, b"{}", "id")),
    st.lists(st.sampled_from(["r0", "r1", "r2", "r3", "zz", ""])).map(lambda names: succeeded(failures(*names))),
    st.binary(max_size=40).map(lambda payload: Succeeded(payload, "id")),
)


@given(OUTCOMES, st.integers(1, 4), st.booleans(), st.floats(-10, 100), st.integers(0, 20))
def test_every_record_is_in_exactly_one_place(
    outcome: Outcome, count: int, partial: bool, hidden_for: float, deferrals: int
) -> None:
    work = batch(*(f"r{n}" for n in range(count)), held_until=NOW.mono + hidden_for, deferrals=deferrals)
    verdict = decide(work, outcome, Policy(partial), NOW)
    places = [*verdict.done, *verdict.failed, *(item for again in verdict.retry for item in again.records)]
    assert sorted(ids(places)) == sorted(ids(work.records))
    assert {id(item) for item in places} == {id(item) for item in work.records}
