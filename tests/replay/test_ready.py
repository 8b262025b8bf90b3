"""Which letters may go now: a model of any order in which they come, go, end and fail."""

from __future__ import annotations

import random

import pytest

from bridge.replay.letter import Letter, Message
from bridge.replay.ready import Ready


def letter(number: int, group: str) -> Letter:
    attributes = {"MessageGroupId": group, "SequenceNumber": f"{number}"}
    return Letter(message=Message(id=f"{number}", body="", attributes=attributes))


@pytest.mark.parametrize("seed", range(50))
def test_groups_go_one_by_one_in_order_and_stop_at_a_failure(seed: int) -> None:
    """REPLAY-DO-4"""
    luck = random.Random(seed)
    ready = Ready(ordered=True)
    coming = [letter(number, f"group {luck.randrange(4)}") for number in range(60)]
    going: list[Letter] = []
    went: list[Letter] = []
    failed: set[str] = set()
    left: list[Letter] = []
    for _ in range(1000):
        match luck.randrange(3):
            case 0 if coming:
                one = coming.pop(0)
                if ready.stopped(one):
                    left.append(one)
                else:
                    ready.add(one)
            case 1:
                found = ready.next(luck.randrange(1, 11))
                groups = [one.message.group for one in going + found]
                assert len(set(groups)) == len(groups)
                assert not failed.intersection(one.message.group for one in found)
                going += found
                went += found
            case 2 if going:
                ended = going.pop(luck.randrange(len(going)))
                if luck.random() < 0.1:
                    failed.add(ended.message.group)
                    left += ready.stop(ended)
                ready.end([ended])
    assert len(ready) == len(going) == ready.going
    assert len(went) + len(left) == 60
    for group in range(4):
        order = [one.message.sequence for one in went if one.message.group == f"group {group}"]
        assert order == sorted(order)


def test_without_an_order_all_go_at_once() -> None:
    ready = Ready(ordered=False)
    for number in range(25):
        ready.add(letter(number, "g"))
    assert [len(ready.next(10)) for _ in range(4)] == [10, 10, 5, 0]
    assert ready.stop(letter(0, "g")) == []
