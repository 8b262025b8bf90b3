"""Every code has its line in the README, and a test that provokes it."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path

import pytest

import bridge
from bridge.doctor.checks_streams import attempts_take
from bridge.doctor.findings import CODES, LEVELS, Finding, at_or_above, span

README = (Path(bridge.__file__).parent.parent / "README.md").read_text()


def test_the_table_in_the_readme_is_complete() -> None:
    section = README.split("\n## Doctor\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| .+ \|$", section, re.MULTILINE)
    assert dict(rows) == CODES
    assert len(rows) == len(CODES)


def test_each_code_is_provoked() -> None:
    here = Path(__file__)
    texts = "".join(file.read_text() for file in here.parent.glob("test_*.py") if file != here)
    assert [code for code in CODES if f'"{code}"' not in texts] == []


def test_each_code_is_one_that_checks_give() -> None:
    package = Path(bridge.__file__).parent / "doctor"
    texts = "".join(file.read_text() for file in package.glob("*.py") if file.name != "findings.py")
    assert [code for code in CODES if f'"{code}"' not in texts] == []


def test_levels() -> None:
    assert [level for level in LEVELS if at_or_above(level, "warning")] == ["warning", "error"]
    assert Finding("no-dlq", "").level == "warning"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (30, "30 s"),
        (119, "119 s"),
        (120, "2 min"),
        (86_400, "24 h"),
        (345_600, "4 d"),
        (5400, "1.5 h"),
        (inf, "an unknown time"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(("retries", "seconds"), [(0, 0), (1, 0.5), (3, 3.5), (5, 15.5), (7, 45.5), (inf, inf)])
def test_how_long_attempts_take(retries: float, seconds: float) -> None:  # KIN-69
    assert attempts_take(retries) == seconds
