"""The ledger of the simulation finds each promise that is broken: histories that it must not believe."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import pytest

from bridge.position import Position
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
