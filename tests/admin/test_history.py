"""The ring behind the charts."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import msgspec

from bridge.admin.history import History, Samples
from bridge.snapshot import MappingView
from tests.admin.control import STARTED, ScriptedControl, view


def add(history: History, seconds: float, *views: MappingView) -> None:
    history.add(msgspec.structs.replace(ScriptedControl(*views).snapshot(), at=STARTED + seconds))


def shown(samples: Samples, name: str, kind: str) -> Sequence[float | None]:
    values = getattr(samples.mappings[name], kind)
    return [None if isnan(value) else value for value in values]


def test_a_sample_tells_what_came_since_the_one_before() -> None:
    history = History()
    add(history, 0, view("orders", polled=100, failed=3, in_flight=7))
    add(history, 5, view("orders", polled=150, failed=5, in_flight=0, lag_seconds=1.5))
    samples = history.since(0)
    assert (samples.sequence, samples.every, samples.kept) == (2, 5.0, 180)
    assert shown(samples, "orders", "rate") == [None, 10]
    assert shown(samples, "orders", "failed") == [None, 2]
    assert shown(samples, "orders", "in_flight") == [7, 0]
    assert shown(samples, "orders", "lag") == [None, 1.5]
    assert b'"rate":[null,10.0]' in msgspec.json.encode(samples)


def test_only_the_new_ones_for_who_has_the_others() -> None:
    history = History()
    for second in range(5):
        add(history, second, view("orders", in_flight=second))
    assert shown(history.since(3), "orders", "in_flight") == [3, 4]
    assert shown(history.since(5), "orders", "in_flight") == []


def test_the_ring_keeps_the_newest() -> None:
    history = History(kept=4)
    for second in range(11):
        add(history, second, view("orders", in_flight=second))
    assert shown(history.since(0), "orders", "in_flight") == [7, 8, 9, 10]
    assert shown(history.since(9), "orders", "in_flight") == [9, 10]


def test_a_mapping_that_starts_anew_begins_at_zero() -> None:
    history = History()
    add(history, 0, view("orders", polled=100))
    add(history, 10, view("orders", polled=20))
    assert shown(history.since(0), "orders", "rate") == [None, 2]


def test_a_clock_that_goes_back_gives_no_rate() -> None:
    history = History()
    add(history, 10, view("orders", polled=100))
    add(history, 9, view("orders", polled=200))
    assert shown(history.since(0), "orders", "rate") == [None, None]


def test_mappings_that_come_later_began_at_zero_and_those_that_are_gone_are_forgotten() -> None:
    history = History()
    add(history, 0, view("orders"))
    add(history, 1, view("orders"), view("clicks", in_flight=2, polled=30, failed=1))
    assert shown(history.since(0), "clicks", "in_flight") == [None, 2]
    assert shown(history.since(0), "clicks", "rate") == [None, 30]
    assert shown(history.since(0), "clicks", "failed") == [None, 1]
    add(history, 2, view("clicks", in_flight=3))
    assert list(history.since(0).mappings) == ["clicks"]


def test_so_many_mappings_and_no_more() -> None:
    history = History(most=3)
    add(history, 0, *(view(f"m{number}") for number in range(10)))
    assert list(history.since(0).mappings) == ["m0", "m1", "m2"]
