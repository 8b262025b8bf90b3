"""What can be found: every code with its level. The table in the README is the same."""

from __future__ import annotations

from math import isinf
from typing import Literal

import msgspec

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("note", "warning", "error")
"""From the least to the gravest. Notes never change the exit status."""

CODES: dict[str, Level] = {
    # whether it can be looked at
    "unreachable": "error",
    "no-answer": "error",
    "call-failed": "warning",
    "credentials-refused": "error",
    "permission-missing": "error",
    "source-missing": "error",
    "clock-skew": "warning",
    # queues
    "visibility-below-timeout": "warning",
    "visibility-below-advice": "note",
    "visibility-below-window": "note",
    "visibility-zero": "warning",
    "visibility-long": "warning",
    "no-dlq": "warning",
    "dlq-missing": "error",
    "dlq-wrong-kind": "error",
    "dlq-retention-short": "warning",
    "dlq-not-empty": "note",
    "expires-before-dlq": "warning",
    "max-receives-one": "error",
    "max-receives-low": "warning",
    "burn-budget": "note",
    "burn-budget-short": "warning",
    "throttle-receives": "warning",
    "in-flight-limit": "error",
    "fifo-look-ahead": "warning",
    "fifo-throughput": "note",
    "other-consumers": "warning",
    "lambda-competes": "warning",
    "queue-shared": "warning",
    # streams
    "no-retry-bound": "warning",
    "blocks-long": "warning",
    "good-records-given-up": "warning",
    "no-failure-destination": "warning",
    "age-above-retention": "warning",
    "position-trimmed": "error",
    "stream-ends": "warning",
    "consumer-not-active": "error",
    "shared-throughput": "warning",
    # both
    "backlog-old": "warning",
    "backlog-expiring": "error",
    "filter-matches-nothing": "warning",
    "filter-matches-everything": "note",
    "function-stopped": "error",
    "not-polling": "warning",
    "grace-below-timeout": "note",
    "idle-cost": "note",
    # functions and destinations
    "destination-missing": "error",
    "function-missing": "error",
    "function-unreachable": "error",
    "function-timeout-longer": "warning",
}


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be, or should be known."""

    code: str
    """A key of CODES."""
    message: str
    """The fact with its figures, and what comes of it."""
    fix: str = ""
    """What to do; empty: nothing has to be done."""

    @property
    def level(self) -> Level:
        return CODES[self.code]


def at_or_above(level: Level, least: Level) -> bool:
    """Whether ``level`` is as grave as ``least``."""
    return LEVELS.index(level) >= LEVELS.index(least)


def span(seconds: float) -> str:
    """A duration for people: `30 s`, `2 min`, `24 h`, `4 d`. Infinity is what endpoints do not tell."""
    if isinf(seconds):
        return "an unknown time"
    for unit, length, least in (("d", 86_400, 172_800), ("h", 3600, 3600), ("min", 60, 120)):
        if seconds >= least:
            return f"{_short(seconds / length)} {unit}"
    return f"{_short(seconds)} s"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
