"""The bench's figures and the table that shows them: medians, their spread, and ratios between candidates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Throughput(NamedTuple):
    """One emptied backlog: messages per CPU second, per second, and requests per 1000 messages."""

    per_cpu_second: float
    per_cpu_second_family: float
    per_second: float
    requests_per_1000: float


class Latency(NamedTuple):
    """Milliseconds from arrival to deletion; requests per 1000 messages; share of a core, children included."""

    p50: float
    p99: float
    requests_per_1000: float
    load: float


class Idle(NamedTuple):
    """``requests`` in ``seconds``, after ``quiet`` seconds without a message; share of a core, children included."""

    requests: int
    quiet: float
    seconds: float
    load: float

    @property
    def per_hour(self) -> float:
        return self.requests * 3600 / self.seconds


@dataclass
class Figures:
    """What one candidate showed."""

    name: str
    throughput: list[Throughput] = field(default_factory=list)
    latency: Latency | None = None
    idle: Idle | None = None


class _Row(NamedTuple):
    title: str
    values: Callable[[Figures], Sequence[float]]
    digits: int = 0


_ROWS = (
    _Row("messages per CPU second, daemon alone", lambda f: [t.per_cpu_second for t in f.throughput]),
    _Row("messages per CPU second, with children", lambda f: [t.per_cpu_second_family for t in f.throughput]),
    _Row("messages per second, all on one core", lambda f: [t.per_second for t in f.throughput]),
    _Row("requests per 1000 messages, backlog", lambda f: [t.requests_per_1000 for t in f.throughput]),
    _Row("requests per 1000 messages, 20 a second", lambda f: [f.latency.requests_per_1000] if f.latency else []),
    _Row("arrival to deletion at 20 a second, p50 ms", lambda f: [f.latency.p50] if f.latency else [], 2),
    _Row("arrival to deletion at 20 a second, p99 ms", lambda f: [f.latency.p99] if f.latency else [], 2),
    _Row("% of a core at 20 a second", lambda f: [f.latency.load * 100] if f.latency else [], 1),
    _Row("idle requests per queue and hour", lambda f: [f.idle.per_hour] if f.idle else []),
    _Row("% of a core idle", lambda f: [f.idle.load * 100] if f.idle else [], 2),
)


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    middle = statistics.median(values)
    if len(values) == 1 or not middle:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ±{(max(values) - min(values)) / middle * 50:.0f}%"


def _ratio(first: Sequence[float], second: Sequence[float]) -> str:
    if not first or not second or not statistics.median(second):
        return "-"
    return f"{statistics.median(first) / statistics.median(second):.2f}x"


def table(figures: Sequence[Figures]) -> str:
    """A line per figure, a column per candidate, then the first candidate's ratio to each other one."""
    first, others = figures[0], figures[1:]
    rows = [["", *(f.name for f in figures), *(f"{first.name}/{f.name}" for f in others)]]
    for row in _ROWS:
        mine = row.values(first)
        rows.append(
            [
                row.title,
                *(_cell(row.values(f), row.digits) for f in figures),
                *(_ratio(mine, row.values(f)) for f in others),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    idle = {f.name: f.idle for f in figures if f.idle}
    if idle:
        seen = ", ".join(f"{name} {figure.requests}" for name, figure in idle.items())
        seconds, quiet = next(iter(idle.values())).seconds, min(figure.quiet for figure in idle.values())
        lines.append(
            f"Idle: counted in {seconds:g} s after {quiet:.0f} s without a message ({seen}), times {3600 / seconds:g}."
        )
    lines.append("Medians; ± is half the span between the extremes.")
    return "\n".join(lines)
