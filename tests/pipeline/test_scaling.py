"""How many runners a queue deserves."""

from __future__ import annotations

import random

from bridge.pipeline.scaling import Scaling


def poll(
    scaling: Scaling, records: int, times: int = 1, *, enough: bool = False, idle: bool = False, now: float = 0.0
) -> int:
    for _ in range(times):
        scaling.polled(records, full=records == 10, enough=enough, idle=idle, now=now)
    return scaling.runners


def test_one_while_idle_and_five_at_the_first_records() -> None:  # SQS-15
    scaling = Scaling()
    assert scaling.runners == 1
    assert poll(scaling, 0, 50) == 1
    assert poll(scaling, 1) == 5


def test_one_more_for_each_full_poll_while_no_batch_waits() -> None:  # SQS-19
    scaling = Scaling()
    poll(scaling, 10)
    assert poll(scaling, 10, 3) == 8
    assert poll(scaling, 10, 3, enough=True) == 8


def test_thin_polls_lead_back_to_one() -> None:
    scaling = Scaling()
    poll(scaling, 10, 4)
    assert poll(scaling, 0, 3) == 7
    assert poll(scaling, 2, 3) == 6
    assert poll(scaling, 0, 100) == 1


def test_one_long_poll_for_nothing_each_leads_back_to_one() -> None:
    scaling = Scaling()
    poll(scaling, 10, 16)
    assert scaling.runners == 20
    assert poll(scaling, 0, 20, idle=True) == 1
    assert poll(scaling, 1) == 5


def test_a_steady_trickle_does_not_swing() -> None:
    scaling = Scaling()
    poll(scaling, 1)
    assert poll(scaling, 1, 12) == 1
    assert {poll(scaling, 1) for _ in range(50)} == {1}
    poll(scaling, 0, 3)
    assert poll(scaling, 1) == 5  # it had rested


def test_maximum_concurrency_is_a_cap() -> None:  # SQS-16
    scaling = Scaling(most=2)
    assert poll(scaling, 10, 100) == 3  # two invocations, and one batch on its way
    assert scaling.concurrency == 2


def test_growth_is_limited_per_minute() -> None:  # SQS-15
    scaling = Scaling()
    assert poll(scaling, 10, 1000, now=0.0) == 301
    assert poll(scaling, 10, 1000, now=59.0) == 301
    assert poll(scaling, 10, 1000, now=61.0) == 601
    assert poll(scaling, 10, 9000, now=122.0) == 901
    for minute in range(3, 9):
        poll(scaling, 10, 1000, now=minute * 61.0)
    assert scaling.concurrency == 1250
    assert scaling.runners == 1251


def test_provisioned_pollers_never_fall_below_their_minimum() -> None:  # SQS-18
    scaling = Scaling(idle=3, first=3, most=40, growth=1000)
    assert poll(scaling, 0, 20) == 3
    assert poll(scaling, 10, 100) == 41
    assert poll(scaling, 0, 1000) == 3


def test_function_errors_lower_the_concurrency_and_success_brings_it_back() -> None:  # SQS-34
    scaling = Scaling()
    poll(scaling, 10, 20)
    before = scaling.runners
    for _ in range(20):
        scaling.ended(failed=True)
    assert scaling.concurrency == 1
    assert scaling.runners <= 2 < before
    for _ in range(2000):
        scaling.ended(failed=False)
    assert scaling.runners == before


def test_with_partial_responses_it_does_not_fall() -> None:  # SQS-34
    scaling = Scaling(falls=False)
    poll(scaling, 10, 20)
    before = scaling.runners
    for _ in range(20):
        scaling.ended(failed=True)
    assert scaling.runners == before


def throughput(error_rate: float) -> float:
    """Mean share of the concurrency that is left at an error rate."""
    dice = random.Random(1)
    scaling = Scaling(most=100)
    poll(scaling, 10, 500)
    seen = []
    for _ in range(40_000):
        scaling.ended(failed=dice.random() < error_rate)
        seen.append(scaling.concurrency / 100)
    return sum(seen) / len(seen)


def test_few_errors_cost_little_many_cost_most() -> None:  # SQS-21: 1 % cost about 20 %, 10 % about 85 %
    assert throughput(0.0) == 1.0
    assert 0.6 < throughput(0.01) < 0.95
    assert throughput(0.10) < 0.25
