"""A failing function is slowed down and probed."""

from __future__ import annotations

from hypothesis import given, strategies as st

from bridge.pipeline.breaker import LONGEST_PAUSE, TOLERATED, Breaker


def test_a_few_failures_are_a_handlers_business() -> None:
    breaker = Breaker()
    for _ in range(TOLERATED - 1):
        breaker.ended(failed=True, now=0.0, luck=1.0)
    assert not breaker.open
    assert breaker.pause(0.0) == 0


def test_more_in_a_row_pause_longer_and_longer_up_to_a_minute() -> None:
    breaker, pauses = Breaker(), []
    for _ in range(60):
        breaker.ended(failed=True, now=0.0, luck=1.0)
        pauses.append(breaker.pause(0.0))
    assert pauses[TOLERATED - 1] > 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    assert breaker.pause(LONGEST_PAUSE) == 0


def test_one_success_closes_it() -> None:
    breaker = Breaker()
    for _ in range(20):
        breaker.ended(failed=True, now=0.0, luck=0.0)
    breaker.ended(failed=False, now=1.0, luck=0.0)
    assert (breaker.open, breaker.failures, breaker.pause(1.0)) == (False, 0, 0)


@given(st.lists(st.booleans(), max_size=200), st.floats(0, 1))
def test_the_pause_is_bounded_and_jittered(history: list[bool], luck: float) -> None:
    breaker = Breaker()
    for failed in history:
        breaker.ended(failed=failed, now=10.0, luck=luck)
        assert 0 <= breaker.pause(10.0) <= LONGEST_PAUSE
        assert (breaker.pause(10.0) > 0) == breaker.open
