"""How far a shard is done when its records finish out of order."""

from __future__ import annotations

from hypothesis import given, strategies as st

from bridge.pipeline.progress import Progress


def opened(*items: str, bound: int = 100) -> Progress[str, str]:
    progress = Progress[str, str](bound)
    progress.opened((item, item.upper()) for item in items)
    return progress


def safe(progress: Progress[str, str]) -> str | None:
    return progress.safe


def test_nothing_is_safe_before_the_first_record_is_finished() -> None:  # KIN-52, V12
    progress = opened("a", "b", "c")
    assert not progress.finished(["b", "c"])
    assert safe(progress) is None
    assert progress.finished(["a"])
    assert safe(progress) == "C"


def test_parts_of_a_record_move_the_position_together() -> None:  # KIN-45
    progress = Progress[str, str](100)
    progress.opened([("a.0", None), ("a.1", "A"), ("b", "B")])
    assert not progress.finished(["a.0"])
    assert progress.finished(["a.1"])
    assert progress.safe == "A"


def test_what_is_not_open_is_passed_over() -> None:
    progress = opened("a")
    assert progress.finished(["a", "a", "x"])
    assert not progress.finished(["a"])


def test_an_empty_stretch_moves_the_position_after_what_is_before_it() -> None:  # KIN-101
    progress = opened("a")
    seen = [safe(progress)]
    progress.passed("P")
    seen.append(safe(progress))
    assert progress.finished(["a"])
    seen.append(safe(progress))
    progress.passed("Q")
    assert [*seen, safe(progress)] == [None, None, "P", "Q"]


def test_it_is_full_by_the_distance_from_the_oldest_unfinished_one() -> None:  # KIN-52
    progress = opened("a", "b", "c", bound=3)
    assert progress.full
    progress.finished(["b", "c"])
    assert (progress.spread, progress.full) == (3, True)
    progress.finished(["a"])
    assert (progress.spread, progress.full) == (0, False)


@given(st.permutations(range(30)))
def test_the_safe_position_is_never_ahead_of_unfinished_work(order: list[int]) -> None:  # KIN-52
    progress = Progress[int, str](100)
    progress.opened((item, str(item)) for item in range(30))
    finished: set[int] = set()
    for item in order:
        progress.finished([item])
        finished.add(item)
        expected = next((number for number in range(31) if number not in finished), 30) - 1
        assert progress.safe == (str(expected) if expected >= 0 else None)
    assert progress.spread == 0
