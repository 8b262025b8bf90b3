"""The rules of streams: every record of a batch in exactly one place, in its order, tried as often as it may be."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from math import ceil, inf, log2
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from bridge.invocation import Failed, FailureKind, Outcome, Succeeded
from bridge.mapping import Mapping, SourceArn, StreamOptions
from bridge.pipeline.batcher import ENVELOPE, PAYLOAD_LIMIT
from bridge.pipeline.decide import admit, decide
from bridge.pipeline.streams import backoff, stream_policy
from bridge.pipeline.verdict import BatchReport, Discard, Now, Policy, StreamPolicy, Verdict
from bridge.record import Batch, Record, Span, Window
from tests.records import record

NOW = Now(mono=1000.0, wall=1.7e9)
TARGET = "arn:aws:sqs:eu-west-1:123456789012:given-up"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:worker"


def policy(*, partial: bool = False, **options: Any) -> Policy:
    return Policy(partial, stream=StreamPolicy(**{"arn": ARN, "mapping": "a uuid", "on_failure": TARGET, **options}))


def batch(count: int = 3, **options: Any) -> Batch:
    """Its records are named from 0 on, and have just come."""
    items = tuple(msgspec.structs.replace(record(str(n)), arrived_at=NOW.wall) for n in range(count))
    return Batch(items, "shard", "size", **options)


def aged(*ages: float) -> Batch:
    items = tuple(msgspec.structs.replace(record(str(n)), arrived_at=NOW.wall - age) for n, age in enumerate(ages))
    return Batch(items, "shard", "size")


def sized(*sizes: int) -> Batch:
    return Batch(tuple(record(str(n), size=size) for n, size in enumerate(sizes)), "shard", "size")


def ids(records: Sequence[Record]) -> str:
    return "".join(it.id for it in records)


def succeeded(answer: Any = None) -> Succeeded:
    return Succeeded(json.dumps(answer).encode(), "a request")


def failures(*names: Any) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": name} for name in names]}


def failed(kind: FailureKind = "function") -> Failed:
    return Failed(kind, b"{}", "a request")


def fate(verdict: Verdict) -> tuple[str, list[str], str]:
    """Done, tried again batch by batch, given up."""
    given_up = [discard.record for discard in verdict.discard]
    return ids(verdict.done), [ids(again.records) for again in verdict.retry], ids(given_up)


RAN: tuple[FailureKind, ...] = ("function", "timeout", "exit", "oom")
NOT_RUN: tuple[FailureKind, ...] = ("throttled", "unreachable", "reserved_zero")


def test_all_kinds_of_failures_are_covered() -> None:
    assert {*RAN, *NOT_RUN} == {*get_args(FailureKind)}


# After an attempt.


@pytest.mark.parametrize(
    ("rule", "outcome", "options", "expected"),
    [
        ("success", succeeded(), {}, ("0123", [], "")),
        ("KIN-73", succeeded(failures("1")), {}, ("0123", [], "")),
        ("KIN-73", Succeeded(b"no json", ""), {"bisect": True}, ("0123", [], "")),
        ("KIN-60", failed(), {}, ("", ["0123"], "")),
        ("KIN-62", failed(), {"retries": 1}, ("", ["0123"], "")),
        ("KIN-62, KIN-68", failed(), {"retries": 0}, ("", [], "0123")),
        ("KIN-63", failed(), {"bisect": True}, ("", ["01", "23"], "")),
        ("KIN-64", failed(), {"bisect": True, "retries": 0}, ("", ["01", "23"], "")),
        ("KIN-61", failed("throttled"), {"bisect": True, "retries": 0}, ("", ["0123"], "")),
        ("KIN-70", succeeded({}), {"partial": True}, ("0123", [], "")),
        ("KIN-71", succeeded(failures("3", "2")), {"partial": True}, ("01", ["23"], "")),
        ("KIN-75", succeeded(failures("1")), {"partial": True, "bisect": True}, ("0", ["123"], "")),
        ("KIN-75", failed(), {"partial": True, "bisect": True}, ("", ["01", "23"], "")),
        ("KIN-76", failed(), {"partial": True}, ("", ["0123"], "")),
        ("KIN-77", succeeded(failures("0")), {"partial": True, "bisect": True}, ("", ["01", "23"], "")),
        ("KIN-74", succeeded(failures("0")), {"partial": True, "retries": 0}, ("", [], "0123")),
        ("KIN-72", succeeded(failures("x")), {"partial": True}, ("", ["0123"], "")),
        ("KIN-72", succeeded(failures("1", "x")), {"partial": True}, ("", ["0123"], "")),
        ("KIN-72", succeeded(failures("")), {"partial": True, "bisect": True}, ("", ["01", "23"], "")),
        ("KIN-72", Succeeded(b"no json", ""), {"partial": True, "retries": 0}, ("", [], "0123")),
        ("TW-30", succeeded(), {"windowed": True}, ("", ["0123"], "")),
        ("TW-30", succeeded(failures("1")), {"windowed": True, "partial": True}, ("", ["0123"], "")),
        ("TW-30", succeeded({"state": 1}), {"windowed": True, "retries": 0}, ("", [], "0123")),
        ("TW-30", succeeded({"state": {}}), {"windowed": True}, ("0123", [], "")),
        ("TW-61", succeeded({"state": {}, **failures("1")}), {"windowed": True, "partial": True}, ("0", ["123"], "")),
    ],
)
def test_fates(rule: str, outcome: Outcome, options: dict[str, Any], expected: tuple[str, list[str], str]) -> None:
    assert fate(decide(batch(4), outcome, policy(**options), NOW)) == expected, rule


@pytest.mark.parametrize("kind", RAN)
def test_every_failure_that_ran_uses_up_an_attempt(kind: FailureKind) -> None:  # KIN-62
    (again,) = decide(batch(attempt=2, deferrals=3), failed(kind), policy(retries=2), NOW).retry
    assert (again.attempt, again.deferrals, again.trigger) == (3, 0, "retry")


@pytest.mark.parametrize("kind", NOT_RUN)
def test_what_did_not_run_uses_up_none(kind: FailureKind) -> None:  # KIN-61
    (again,) = decide(batch(attempt=2, deferrals=3), failed(kind), policy(retries=0), NOW).retry
    assert (again.attempt, again.deferrals, again.trigger) == (2, 4, "retry")


def test_halves_of_an_odd_batch_are_new_ones_the_left_the_smaller() -> None:  # KIN-64
    left, right = decide(batch(5, attempt=4), failed(), policy(bisect=True, retries=3), NOW).retry
    assert (ids(left.records), ids(right.records)) == ("01", "234")
    assert (left.attempt, right.attempt) == (1, 1)


def test_a_single_record_cannot_be_halved() -> None:  # KIN-64
    assert fate(decide(batch(1), failed(), policy(bisect=True, retries=0), NOW)) == ("", [], "0")


def test_progress_makes_a_new_batch() -> None:  # KIN-74
    (rest,) = decide(batch(3, attempt=3), succeeded(failures("2")), policy(partial=True, retries=3), NOW).retry
    assert (ids(rest.records), rest.attempt) == ("2", 1)


def test_halves_and_remainders_stay_in_their_window() -> None:  # TW-4
    window = Window(0.0, 60.0)
    halves = decide(batch(4, window=window), failed(), policy(bisect=True), NOW).retry
    rest = decide(
        batch(4, window=window), succeeded({"state": {}, **failures("2")}), policy(partial=True, windowed=True), NOW
    ).retry
    assert {again.window for again in (*halves, *rest)} == {window}


def test_a_final_invocation_is_given_up_whole() -> None:  # TW-46, TW-64
    first, last = record("4"), record("9")
    final = Batch((), "shard", "final", attempt=2, window=Window(0.0, 60.0), closes=Span(first, last, 6))
    verdict = decide(final, failed(), policy(bisect=True, partial=True, retries=1, windowed=True), NOW)
    assert fate(verdict) == ("", [], "")
    (report,) = verdict.reports
    assert isinstance(report, BatchReport)
    assert (report.batch.span, report.attempts) == ((first, last, 6), 2)


@pytest.mark.parametrize("retries", [0, 1, 2, 3, 10_000, inf])
@pytest.mark.parametrize("tries", [1, 2, 3, 4, 10_001, 20_000])
def test_a_batch_has_one_attempt_more_than_retries(retries: float, tries: int) -> None:  # KIN-60, KIN-62
    verdict = decide(batch(attempt=tries), failed(), policy(retries=retries), NOW)
    assert bool(verdict.discard) == (tries == retries + 1 or tries > retries)
    assert bool(verdict.retry) == (tries <= retries)


# Pauses.


def test_pauses_double_up_to_half_a_minute() -> None:  # KIN-69
    assert [backoff(vain, 1.0) for vain in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff(100_000, 1.0) == 30
    assert backoff(6, 0.5) == 15


def test_a_failing_batch_has_about_eight_invocations_in_a_minute() -> None:  # KIN-69: 7..10 with full jitter
    at, count, work = 0.0, 0, batch()
    while at < 60:
        verdict = decide(work, failed(), policy(), NOW, luck=0.5)
        (work,) = verdict.retry
        at, count = at + 0.3 + verdict.delay, count + 1
    assert 7 <= count <= 10


def test_progress_and_halves_begin_with_the_shortest_pause() -> None:  # KIN-69
    late = batch(4, attempt=9, deferrals=9)
    assert decide(late, failed(), policy(bisect=True), NOW).delay == 1
    assert decide(late, succeeded(failures("1")), policy(partial=True), NOW).delay == 1
    assert decide(late, failed(), policy(), NOW).delay == 30
    assert decide(late, failed("throttled"), policy(), NOW).delay == 30


# Before an attempt.


def test_what_is_young_and_fits_goes_ahead() -> None:
    assert admit(aged(0, 59.9), policy(max_age=60), NOW) is None
    assert admit(aged(1e9), policy(), NOW) is None  # no limit


@pytest.mark.parametrize(
    ("ages", "kept", "gone", "runs"),
    [
        ((60, 0, 0), ["12"], "0", 1),  # V9; exactly as old as it may be is too old
        ((80, 70, 0), ["2"], "01", 1),
        ((80, 70, 60), [], "012", 1),
        ((0, 80, 0, 90), ["02"], "13", 2),  # KIN-14: arrivals may go backwards
    ],
)
def test_what_is_too_old_is_given_up_alone(ages: tuple[float, ...], kept: list[str], gone: str, runs: int) -> None:
    """KIN-66, KIN-67."""
    verdict = admit(aged(*ages), policy(max_age=60), NOW)
    assert verdict
    assert fate(verdict) == ("", kept, gone)
    assert len(verdict.reports) == runs
    assert all(isinstance(report, BatchReport) and report.outcome is None for report in verdict.reports)
    assert {discard.condition for discard in verdict.discard} == {"RecordAgeExceeded"}


def test_the_rest_is_tried_at_once_as_the_attempt_that_it_is() -> None:  # KIN-66
    work = msgspec.structs.replace(aged(80, 0), attempt=3, deferrals=2, window=Window(0, 60))
    verdict = admit(work, policy(max_age=60), NOW)
    assert verdict
    (rest,) = verdict.retry
    assert (rest.attempt, rest.deferrals, rest.window, verdict.delay) == (3, 2, Window(0, 60), 0)


@pytest.mark.parametrize(("attempt", "told"), [(1, 1), (2, 1), (5, 4)])
def test_documents_about_age_tell_of_the_attempts_before(attempt: int, told: int) -> None:  # KIN-83
    verdict = admit(msgspec.structs.replace(aged(80), attempt=attempt), policy(max_age=60), NOW)
    assert verdict
    (report,) = verdict.reports
    assert isinstance(report, BatchReport)
    assert (report.attempts, report.outcome) == (told, None)
    assert report.request_id


def test_a_record_that_can_never_fit_does_not_block_its_shard() -> None:  # KIN-38
    room = PAYLOAD_LIMIT - ENVELOPE
    assert admit(sized(room), policy(), NOW) is None
    verdict = admit(sized(100, room + 1, 100), policy(), NOW)
    assert verdict
    assert fate(verdict) == ("", ["02"], "1")
    assert verdict.discard[0].condition == "MaximumPayloadSizeExceeded"


def test_records_that_do_not_fit_beside_a_state_go_in_several_batches() -> None:  # TW-34
    room = PAYLOAD_LIMIT - 1_000_000
    work = sized(*[(room - 2) // 3] * 4)  # three and their commas just fit
    verdict = admit(work, policy(), NOW, frame=1_000_000)
    assert verdict
    assert fate(verdict) == ("", ["012", "3"], "")
    verdict = admit(work, policy(), NOW, frame=1_000_001)
    assert verdict
    assert fate(verdict) == ("", ["01", "23"], "")


def test_without_a_destination_nobody_is_told() -> None:
    quiet = policy(max_age=60, retries=0, on_failure="")
    before, after = admit(aged(80), quiet, NOW), decide(batch(), failed(), quiet, NOW)
    assert before
    assert (before.reports, after.reports) == ((), ())
    assert before.discard
    assert after.discard


# All of it.

OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.sampled_from(get_args(FailureKind)).map(failed),
    st.lists(st.sampled_from(["0", "1", "2", "5", "x", "", None])).map(lambda names: succeeded(failures(*names))),
    st.lists(st.sampled_from("012")).map(lambda names: succeeded({"state": {}, **failures(*names)})),
    st.binary(max_size=40).map(lambda payload: Succeeded(payload, "a request")),
)
POLICIES = st.builds(
    policy,
    partial=st.booleans(),
    bisect=st.booleans(),
    windowed=st.booleans(),
    retries=st.sampled_from([0, 1, 2, inf]),
    max_age=st.sampled_from([60, inf]),
    on_failure=st.sampled_from(["", TARGET]),
)


@given(OUTCOMES, POLICIES, st.integers(1, 7), st.integers(1, 4), st.floats(0, 1))
def test_every_record_is_in_exactly_one_place_in_order(
    outcome: Outcome, rules: Policy, count: int, attempt: int, luck: float
) -> None:
    work = batch(count, attempt=attempt)
    verdict = decide(work, outcome, rules, NOW, luck)
    again = [it for more in verdict.retry for it in more.records]
    placed = [*verdict.done, *(it for it, _ in verdict.discard), *again]
    assert [id(it) for it in placed] == [id(it) for it in work.records]
    assert verdict.failed == ()
    assert 0 <= verdict.delay <= 30
    assert all(more.records for more in verdict.retry)
    assert bool(verdict.reports) == bool(verdict.discard and rules.stream and rules.stream.on_failure)


@given(st.lists(st.tuples(st.sampled_from([0, 59, 60, 80]), st.integers(40, 400)), min_size=1), st.integers(0, 300))
@example([(0, 100), (80, 400), (0, 100)], 0)
def test_what_is_admitted_fits_and_loses_nothing(items: list[tuple[float, int]], frame: int) -> None:
    """KIN-38, KIN-66, TW-34."""
    records = tuple(
        msgspec.structs.replace(record(str(n), size=size), arrived_at=NOW.wall - age)
        for n, (age, size) in enumerate(items)
    )
    work = Batch(records, "shard", "size")
    taken = PAYLOAD_LIMIT - 500 + frame  # there is little room beside a state
    verdict = admit(work, policy(max_age=60), NOW, taken)
    again = [it for more in verdict.retry for it in more.records] if verdict else [*records]
    gone = [it for it, _ in verdict.discard] if verdict else []
    assert [it for it in records if it in again] == again
    assert [it for it in records if it in gone] == gone
    assert len(again) + len(gone) == len(records)
    for more in verdict.retry if verdict else (work,):
        assert taken + more.size + len(more.records) - 1 <= PAYLOAD_LIMIT
    for it in records:
        assert (it in gone) == (it.arrived_at <= NOW.wall - 60 or len(it.json) > PAYLOAD_LIMIT - taken)


def played(work: Batch, rules: Policy, handler: Callable[[Batch], Outcome]) -> tuple[list[str], list[Discard]]:
    """Batches that the handler had, with their fates one after the other, as a lane works them off."""
    queue = deque([work])
    given_to_it: list[str] = []
    given_up: list[Discard] = []
    while queue:
        one = queue.popleft()
        given_to_it.append(ids(one.records))
        verdict = decide(one, handler(one), rules, NOW)
        given_up += verdict.discard
        queue.extendleft(reversed(verdict.retry))
    return given_to_it, given_up


@given(st.integers(1, 2000), st.data(), st.integers(0, 5))
def test_bisect_finds_one_poison_record_quickly(count: int, data: st.DataObject, retries: int) -> None:  # KIN-64
    bad = str(data.draw(st.integers(0, count - 1)))
    invocations, given_up = played(
        batch(count),
        policy(bisect=True, retries=retries),
        lambda one: failed() if bad in [it.id for it in one.records] else succeeded(),
    )
    assert [it.id for it, _ in given_up] == [bad]
    assert len(invocations) <= 1 + 2 * ceil(log2(count)) + retries


@given(st.integers(1, 40), st.sets(st.integers(0, 39)), st.booleans(), st.booleans(), st.integers(0, 3))
def test_only_poison_is_given_up_and_all_else_is_done_in_order(
    count: int, poison: set[int], bisect: bool, partial: bool, retries: int
) -> None:
    """KIN-63, KIN-71, KIN-74: of a batch that is cut at what fails; without either all of it is given up."""
    bad = [str(n) for n in sorted(poison) if n < count]
    done: list[str] = []

    def handler(one: Batch) -> Outcome:
        names = [it.id for it in one.records]
        worst = next((name for name in names if name in bad), None)
        done.extend(names[: names.index(worst)] if worst and partial else [] if worst else names)
        if worst is None:
            return succeeded()
        return succeeded(failures(worst)) if partial else failed()

    _, given_up = played(batch(count), policy(bisect=bisect, partial=partial, retries=retries), handler)
    lost = [it.id for it, _ in given_up]
    assert done == sorted(done, key=int)
    assert sorted(done + lost, key=int) == [str(n) for n in range(count)]
    whole = [str(n) for n in range(count)]
    assert lost == (bad if bisect or not bad else whole[int(bad[0]) :] if partial else whole)


def test_the_policy_says_what_the_mapping_says() -> None:
    options = StreamOptions(retries=3, max_age=70, bisect=True, tumbling_window=5, on_failure=TARGET, block=True)
    mapping = Mapping(
        name="m", uuid="u", function="worker", source_arn=SourceArn.parse(TARGET), partial=True, stream=options
    )
    made = stream_policy(mapping, ARN)
    assert made == Policy(
        True,
        stream=StreamPolicy(
            arn=ARN, mapping="u", retries=3, max_age=70, bisect=True, windowed=True, on_failure=TARGET, block=True
        ),
    )
    aliased = stream_policy(msgspec.structs.replace(mapping, qualifier="live"), ARN)
    assert aliased.stream
    assert aliased.stream.arn == f"{ARN}:live"
    with pytest.raises(TypeError, match="none of an ordered source"):
        stream_policy(msgspec.structs.replace(mapping, stream=None), ARN)
