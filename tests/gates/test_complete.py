"""Every gate has its row in the README, a test that drives it, and is used; and there are no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import bridge
from bridge.gates import GATES, GateName
from tests.gates import test_functions, test_mappings, test_queues, test_streams

ROOT = Path(bridge.__file__).parent
DRIVERS = (test_queues, test_streams, test_mappings, test_functions)


def driven() -> Iterator[str]:
    """The gates that tests say they drive."""
    for module in DRIVERS:
        for test in vars(module).values():
            yield from (mark.args[0] for mark in getattr(test, "pytestmark", ()) if getattr(mark, "name", "") == "gate")


def named() -> Iterator[str]:
    """The gates that the code names, wherever it says what something waits for."""
    for file in ROOT.rglob("*.py"):
        if file.name != "gates.py":
            yield from (
                node.value
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Constant) and node.value in GATES
            )


def test_each_gate_has_a_meaning() -> None:
    assert tuple(GATES) == tuple(sorted(GATES, key=get_args(GateName).index))
    assert set(GATES) == set(get_args(GateName))


def test_each_gate_is_driven() -> None:
    assert set(driven()) == set(GATES)


def test_each_gate_is_used() -> None:
    assert set(named()) == set(GATES)


def test_each_gate_is_in_the_readme() -> None:
    section = (ROOT.parent / "README.md").read_text().split("**When something waits.**")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z]+)` \| (.+?) \| .+ \|$", section, re.MULTILINE)
    assert dict(rows) == GATES
    assert len(rows) == len(GATES)
