"""The fast client stays fast."""

from __future__ import annotations

import shutil

import pytest

from tests.bench.client import NAMES, SDK_ALONE, measure, table
from tests.conftest import missing


@pytest.fixture(autouse=True)
def compiler() -> None:
    if shutil.which("cc") is None:
        missing("a C compiler (cc)")


def test_the_fast_client_costs_a_fraction_of_the_sdk() -> None:
    """Five times less, measured at leisure; half of that however busy the machine."""
    figures = measure(rounds=2, requests=800)
    least = {name: min(values) for name, values in figures.items()}
    alone, ours, fast = (least[name] for name in NAMES)
    assert ours < alone, table(figures)
    assert fast * 2.5 < alone, table(figures)


def test_the_table_shows_ratios_to_the_sdk() -> None:
    figures = dict(zip(NAMES, ([1.0, 1.2, 0.8], [0.5, 0.5, 0.5], [0.2, 0.3, 0.25]), strict=True))
    lines = table(figures).splitlines()
    assert lines[1].startswith(SDK_ALONE)
    assert [line.split()[-1] for line in lines[1:]] == ["1.00x", "2.00x", "4.00x"]
