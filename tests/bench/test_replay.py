"""A replay stays cheap, in time and in memory."""

from __future__ import annotations

import shutil

import pytest

from tests.bench.replay import NAIVE, OURS, Figure, measure, run, table
from tests.bench.sqs import Cores
from tests.conftest import missing


@pytest.fixture(autouse=True)
def compiler() -> None:
    if shutil.which("cc") is None:
        missing("a C compiler (cc)")


def test_a_message_costs_a_fraction_of_the_naive_loop() -> None:
    """Four times less, measured at leisure; half of that however busy the machine."""
    figures = measure(rounds=1, messages=1500)
    best = {name: max(it.per_cpu_second for it in values) for name, values in figures.items()}
    assert best[OURS] > 2 * best[NAIVE], table(figures)


def test_ten_thousand_messages_in_bounded_memory() -> None:
    """REPLAY-DONT-13. 40 MB of bodies; what is in hand at once and what is remembered are a small part of that."""
    figure = run(OURS, 10_000, Cores.apart(), body=4096)
    assert figure.grown < 10_000


def test_the_table_shows_the_ratio() -> None:
    figures = {NAIVE: [Figure(1000, 9), Figure(1200, 9), Figure(1100, 8)], OURS: [Figure(5500, 2)]}
    lines = table(figures).splitlines()
    assert "5.00x" in lines[2]
    assert lines[1].startswith(NAIVE)
