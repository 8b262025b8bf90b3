"""The ledger of the simulation finds each promise that is broken: histories that it must not believe."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import pytest

from bridge.position import Position
from bridge.snapshot import iso
from tests.simulation.ledger import Broken, Ledger

PLAIN: dict[str, Any] = {}


def ledger(*keys: str, **options: Any) -> Ledger:
    """The records 10, 11, … of these keys are in the shard `a`."""
    it = Ledger(**{"retries": 1, "bisect": False, "partial": False, "lanes": 1, **options})
    it.shard("a", ())
    for number, key in enumerate(keys, 10):
        it.put(str(number), key, "a", filtered=False)
    it.opened({"a": Position(position="TRIM_HORIZON")})
    return it


def after(number: int, **options: Any) -> Position:
    return Position(position=f"AFTER_SEQUENCE_NUMBER {number}", **options)


def handles(it: Ledger, *numbers: int, well: int | None = None) -> None:
    texts = [str(number) for number in numbers]
    it.begins(texts, PLAIN)
    it.ends(texts, len(texts) if well is None else well, PLAIN)


def document(numbers: Sequence[int], attempts: int, *, size: int | None = None, shard: str = "a") -> dict[str, Any]:
    info = {"shardId": shard, "startSequenceNumber": str(numbers[0]), "endSequenceNumber": str(numbers[-1])}
    info["batchSize"] = len(numbers) if size is None else size  # type: ignore[assignment]
    return {"requestContext": {"approximateInvokeCount": attempts}, "KinesisBatchInfo": info}


def test_a_run_that_keeps_all_promises_is_believed() -> None:
    it = ledger("x", "y", "x")
    handles(it, 10)
    it.moves({"a": after(10)})
    handles(it, 11, 12, well=0)
    handles(it, 11, 12, well=0)
    it.reported(document((11, 12), 2))
    it.moves({"a": after(12)})
    assert (it.open, it.behind) == ([], [])


def test_what_is_neither_handled_nor_given_up_is_open() -> None:
    it = ledger("x", "y")
    handles(it, 10)
    assert (it.open, it.behind) == ([1], ["a"])


def test_a_later_record_of_a_key_that_comes_first() -> None:
    it = ledger("x", "y", "x", lanes=2)
    handles(it, 11)  # another key may
    with pytest.raises(Broken, match="before 0"):
        it.begins(["12"], PLAIN)


def test_another_key_that_comes_first_in_a_shard_of_one_lane() -> None:
    with pytest.raises(Broken, match="before 0"):
        ledger("x", "y").begins(["11"], PLAIN)


def test_a_batch_in_the_wrong_order() -> None:
    with pytest.raises(Broken, match="not in order"):
        ledger("x", "y").begins(["11", "10"], PLAIN)


def test_what_was_done_before_the_restart_must_come_again_unless_it_was_stored() -> None:
    it = ledger("x", "x")
    handles(it, 10)
    it.opened({"a": after(10)})
    it.begins(["11"], PLAIN)
    it.opened({"a": Position(position="TRIM_HORIZON")})
    with pytest.raises(Broken, match="before 0"):
        it.begins(["11"], PLAIN)


def test_a_child_before_its_grandparent() -> None:
    it = ledger("x")
    it.shard("b", ("a",))
    it.shard("c", ("b",))
    it.put("20", "x", "c", filtered=False)
    with pytest.raises(Broken, match="ancestor a"):
        it.begins(["20"], PLAIN)


@pytest.mark.parametrize(
    ("position", "why"), [(after(11), "before"), (after(10, ended=True), "before"), (after(9), "went back")]
)
def test_a_position_that_is_ahead_or_goes_back(position: Position, why: str) -> None:
    it = ledger("x", "y")
    handles(it, 10)
    it.moves({"a": after(10)})
    with pytest.raises(Broken, match=why):
        it.moves({"a": position})


def test_a_shard_that_is_open_and_stored_as_ended() -> None:
    it = ledger("x")
    handles(it, 10)
    with pytest.raises(Broken, match="is open"):
        it.moves({"a": after(10, ended=True)})


def test_an_attempt_too_many() -> None:
    it = ledger("x", "y")
    for _ in range(2):
        handles(it, 10, 11, well=0)
    with pytest.raises(Broken, match="may 2"):
        handles(it, 10, 11, well=0)


def test_a_batch_that_fails_again_instead_of_being_halved() -> None:
    it = ledger("x", "y", bisect=True, retries=inf)
    handles(it, 10, 11, well=0)
    with pytest.raises(Broken, match="may 1"):
        handles(it, 10, 11, well=0)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (document((10, 11), 1), "failed 2 times"),
        (document((10, 11), 2, size=1), "nothing like this"),
        (document((10,), 2), "nothing like this"),
        (document((10, 11), 2, shard="b"), "is about a"),
    ],
)
def test_a_document_that_is_wrong(told: dict[str, Any], why: str) -> None:
    it = ledger("x", "y")
    for _ in range(2):
        handles(it, 10, 11, well=0)
    with pytest.raises(Broken, match=why):
        it.reported(told)


def test_a_document_too_early() -> None:
    it = ledger("x")
    handles(it, 10, well=0)
    with pytest.raises(Broken, match="failed 1 times"):
        it.reported(document((10,), 2))


def test_a_record_that_was_filtered_out() -> None:
    it = ledger()
    it.put("10", "x", "a", filtered=True)
    with pytest.raises(Broken, match="filtered"):
        it.begins(["10"], PLAIN)


def test_a_window_that_counts_twice() -> None:
    it = ledger("x")
    with pytest.raises(Broken, match="has counted"):
        it.begins(["10"], {"window": {}, "state": {"orders": [0]}})


NOW = 1_700_000_000.0


def aged(numbers: Sequence[int], at: float, *, size: int | None = None) -> dict[str, Any]:
    told = document(numbers, 1, size=size)
    told["requestContext"]["condition"] = "RecordAgeExceeded"
    return {**told, "timestamp": iso(at)}


def aging(*ages: float, **options: Any) -> Ledger:
    """Records of one key that are so old."""
    it = ledger(max_age=60.0, **options)
    for number, age in enumerate(ages, 10):
        it.put(str(number), "x", "a", filtered=False, at=NOW - age)
    return it


def test_a_record_that_is_too_old() -> None:
    with pytest.raises(Broken, match=r"60\.000 s old"):
        aging(60, 1).begins(["10"], PLAIN, NOW)


def test_records_that_were_given_up_as_too_old() -> None:
    it = aging(80, 70, 1)
    it.reported(aged((10, 11), NOW))
    it.moves({"a": after(11)})
    handles(it, 12)
    assert it.open == []


@pytest.mark.parametrize(
    ("told", "why"),
    [(aged((10, 12), NOW, size=3), "given up as too old at 1"), (aged((10, 12), NOW, size=2), "as 2 records")],
)
def test_a_document_about_records_that_are_not_too_old(told: dict[str, Any], why: str) -> None:
    with pytest.raises(Broken, match=why):
        aging(80, 70, 1).reported(told)


def test_attempts_go_on_when_a_record_of_the_batch_grew_too_old() -> None:
    it = aging(59, 1)
    handles(it, 10, 11, well=0)
    it.reported(aged((10,), NOW + 2))
    handles(it, 11, well=0)
    with pytest.raises(Broken, match="may 2"):
        handles(it, 11, well=0)


def test_what_was_trimmed_may_be_missing_and_nothing_else() -> None:
    it = ledger("x", "x", "x")
    it.trimmed("a", 12)
    it.begins(["12"], PLAIN)
    it.moves({"a": after(11)})
    assert it.open == [2]
    with pytest.raises(Broken, match="before"):
        it.moves({"a": after(12)})


def test_what_is_from_before_the_beginning() -> None:
    it = ledger()
    it.since = NOW
    it.put("10", "x", "a", filtered=False, at=NOW - 1)
    it.put("11", "x", "a", filtered=False, at=NOW + 0.1)
    assert it.open == [1]
    with pytest.raises(Broken, match="before the mapping's start"):
        it.begins(["10"], PLAIN)


def test_what_is_put_before_a_mapping_has_begun_may_be_missing() -> None:
    it = ledger("x")
    it.begun = False
    it.put("20", "x", "a", filtered=False)
    it.begun = True
    it.put("21", "x", "a", filtered=False)
    assert it.open == [0, 2]


def test_a_state_that_is_too_large_and_goes_on() -> None:
    it = ledger("x", state_limit=20)
    event = {"window": {"start": "0"}, "shardId": "a", "state": {"more": "x" * 20}, "isWindowTerminatedEarly": False}
    with pytest.raises(Broken, match="goes on"):
        it.begins(["10"], event)
    state = {"orders": [0], "more": "x" * 20}
    final = {**event, "state": state, "isWindowTerminatedEarly": True, "isFinalInvokeForWindow": True}
    it.begins([], final)
    it.ends([], 0, final)
    it.begins([], {**final, "state": {}, "isWindowTerminatedEarly": False})  # TW-51: the ordinary one has nothing left
