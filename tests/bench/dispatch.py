"""What it costs to hand an event to a handler, against an aiohttp.web server of the same protocol and against the
obvious worker behind a socket pair; with the goals beside the figures.

    python -m tests.bench.dispatch [--quick] [--only NAME] [--rounds N] [--seconds S]

The candidates take turns, and medians over the rounds are compared: what else runs on the machine hits all of them. CPU
is that of the calling process alone. It fails where a figure is twice as bad as its goal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bridge.telemetry.logs import configure
from tests.bench.dispatchers import CLIENTS, Figures, records, run

MIB6 = 599_300
"""Bytes of each of ten bodies in an event of just below 6 MB."""


class Goal(NamedTuple):
    """``value`` of the medians is to be at most, or at least, ``limit``."""

    what: str
    value: Callable[[Mapping[str, Figures]], float]
    limit: float
    unit: str
    at_least: bool = False
    binds: bool = True

    @property
    def text(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:.3g}{self.unit}"

    def reached(self, value: float, slack: float = 1.0) -> bool:
        return value * slack >= self.limit if self.at_least else value <= self.limit * slack


class Case(NamedTuple):
    """One comparison; ``candidates`` are keys of DISPATCHERS."""

    what: str
    client: str
    size: int
    candidates: Sequence[str]
    goals: Sequence[Goal] = ()
    turns: bool = False


CASES: Mapping[str, Case] = {
    "runtime-api": Case(
        "10 records, AWS's own Python client (awslambdaric)",
        "awslambdaric",
        256,
        ("ours", "aiohttp.web"),
        (
            Goal("invocations per second, of aiohttp.web's", lambda f: f["ours"].rate / f["aiohttp.web"].rate,
                 1.3, "x", at_least=True),
            Goal("parent CPU, of aiohttp.web's", lambda f: f["ours"].cpu / f["aiohttp.web"].cpu, 1 / 1.3, "x"),
        ),
    ),
    "small": Case(
        "10 records, our Python client",
        "python",
        256,
        ("ours", "aiohttp.web", "naive"),
        (
            # Of a worker without the Runtime API; with it, the goal is that of the case above.
            Goal("p50, of naive's", lambda f: f["ours"].p50 / f["naive"].p50, 0.6, "x", binds=False),
            Goal("parent CPU", lambda f: f["ours"].cpu * 1e3, 0.1, " ms"),
        ),
    ),
    "node": Case("10 records, our Node.js client", "node", 256, ("ours", "aiohttp.web")),
    "large": Case(
        "6 MB, our Python client",
        "python",
        MIB6,
        ("ours", "aiohttp.web", "naive"),
        (
            Goal("parent CPU, of naive's", lambda f: f["ours"].cpu / f["naive"].cpu, 0.4, "x"),
            Goal("longest turn of the event loop", lambda f: f["ours"].turn * 1e3, 20, " ms"),
        ),
        turns=True,
    ),
}  # fmt: skip


def measured(case: Case, rounds: int, seconds: float) -> dict[str, list[Figures]]:
    """Every candidate once in each round, in turns that change their order."""
    found = records(10, case.size)
    figures: dict[str, list[Figures]] = {name: [] for name in case.candidates}
    for number in range(rounds):
        for name in case.candidates if number % 2 == 0 else reversed(case.candidates):
            with tempfile.TemporaryDirectory() as folder:
                function = CLIENTS[case.client].function(Path(folder))
                figures[name].append(run(name, function, found, seconds, turns=case.turns))
    return figures


def medians(figures: Sequence[Figures]) -> Figures:
    return Figures(*map(statistics.median, zip(*figures, strict=True)))


def table(figures: Mapping[str, Sequence[Figures]]) -> list[str]:
    """A line per candidate."""
    lines = []
    for name, found in figures.items():
        middle = medians(found)
        rates = [figure.rate for figure in found]
        spread = (max(rates) - min(rates)) / middle.rate * 50
        turn = f"   longest turn {middle.turn * 1e3:5.1f} ms" if middle.turn else ""
        lines.append(
            f"  {name:12} {middle.rate:7.0f} inv/s ±{spread:2.0f}%   p50 {middle.p50 * 1e3:7.3f} ms"
            f"   p99 {middle.p99 * 1e3:7.3f} ms   parent CPU {middle.cpu * 1e3:7.3f} ms{turn}"
        )
    return lines


def judged(case: Case, figures: Mapping[str, Sequence[Figures]]) -> tuple[list[str], bool]:
    """A line per goal, and whether none of them is missed by more than half."""
    middles = {name: medians(found) for name, found in figures.items()}
    lines, good = [], True
    for goal in case.goals:
        value = goal.value(middles)
        word = "reached" if goal.reached(value) else "missed" if goal.binds else "missed, does not bind"
        lines.append(f"  {goal.what}: {value:.2f}{goal.unit}   goal {goal.text}: {word}")
        good = good and (not goal.binds or goal.reached(value, slack=2.0))
    return lines, good


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="3 rounds of 0.4 seconds: half a minute in all")
    options.add_argument("--only", choices=CASES, help="one of the cases")
    options.add_argument("--rounds", type=int)
    options.add_argument("--seconds", type=float, help="of each measurement")
    given = options.parse_args()
    rounds, seconds = given.rounds or (3 if given.quick else 7), given.seconds or (0.4 if given.quick else 2.0)
    configure("info")
    print(f"One environment, one caller; {os.cpu_count()} cores; medians of {rounds} rounds of {seconds:g} s.")
    good = True
    for name in [given.only] if given.only else CASES:
        case = CASES[name]
        absent = CLIENTS[case.client].absent
        print(f"\n{name}: {case.what}{f': left out, {absent}' if absent else ''}", flush=True)
        if not absent:
            figures = measured(case, rounds, seconds)
            lines, fine = judged(case, figures)
            good = good and fine
            print(*table(figures), *lines, sep="\n", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
