"""How mappings fare."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.admin.judgement import BROKEN, SLOW, judge, judged
from bridge.gates import GATES
from bridge.snapshot import Blocked, Gate, RunnerView
from tests.admin.control import ORDERS, STARTED, ScriptedControl, view

STUCK = RunnerView("shard-1", Gate("retrying", 900.0), 10, 890.0, Blocked("42", 10, 4, None, 850.0))


@pytest.mark.parametrize(
    ("fields", "level", "words", "since"),
    [
        ({"gate": Gate("polling", 0.0)}, "ok", "", None),
        ({}, "ok", "", None),
        ({"gate": Gate("window", 0.0)}, "ok", "", None),
        ({"gate": Gate("paused", 0.0), "state": "Disabled"}, "off", "", None),
        ({"gate": Gate("disabled", 0.0), "state": "Disabled"}, "off", "", None),
        ({"gate": Gate("slot", 990.0)}, "ok", "", None),
        ({"gate": Gate("slot", 960.0)}, "warn", SLOW["slot"], 960.0),
        ({"gate": Gate("buffer", 960.0)}, "warn", SLOW["buffer"], 960.0),
        (
            {"gate": Gate("polling", 0.0), "runners": (STUCK,)},
            "warn",
            "a batch of shard-1 fails again and again",
            850.0,
        ),
        ({"gate": Gate("opening", 995.0), "state": "Creating", "ready": False}, "ok", "", None),
        ({"gate": Gate("opening", 980.0), "state": "Creating", "ready": False}, "bad", BROKEN["opening"], 980.0),
        (
            {"gate": Gate("opening", 995.0), "state": "Creating", "ready": False, "last_error": "NotFound: no queue"},
            "bad",
            BROKEN["opening"],
            995.0,
        ),
        ({"gate": Gate("starting", 980.0), "ready": False}, "warn", "it does not poll", 980.0),
        ({"gate": Gate("draining", 900.0), "ready": False, "state": "Disabling"}, "ok", "", None),
    ],
)
def test_level_and_words(fields: dict[str, Any], level: str, words: str, since: float | None) -> None:
    found = judge(view("m", **fields), 1000.0)
    assert (found.level, found.words, found.since) == (level, words, since)


@pytest.mark.parametrize("gate", sorted(BROKEN))
def test_what_is_broken_is_bad_at_once(gate: str) -> None:
    assert judge(view("m", gate=Gate(gate, 999.0)), 1000.0).level == "bad"


def test_only_gates_that_there_are() -> None:
    assert BROKEN.keys() | SLOW.keys() <= set(GATES)


def test_all_by_name() -> None:
    control = ScriptedControl(ORDERS, view("broken", ready=False, gate=Gate("crashed", STARTED)))
    assert {name: found.level for name, found in judged(control.snapshot()).items()} == {
        "orders": "ok",
        "broken": "bad",
    }
