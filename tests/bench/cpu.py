"""CPU seconds of a process and of its family, as the kernel counts them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")


class Cpu(NamedTuple):
    """Seconds since the start: of the process alone, and of it with all its descendants, ended ones too."""

    alone: float
    family: float

    def since(self, earlier: Cpu) -> Cpu:
        return Cpu(self.alone - earlier.alone, self.family - earlier.family)


class _Line(NamedTuple):
    parent: int
    own: int
    reaped: int


def _line(pid: int) -> _Line | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None  # ended between the listing and the reading; its parent has counted it by then
    fields = text[text.rindex(")") + 2 :].split()  # proc(5): the name may hold anything, so count from its end
    return _Line(int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]))


def cpu_of(pid: int) -> Cpu:
    """What ``pid`` has used so far. Raises ProcessLookupError when it is gone."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    lines = {number: line for number in pids if (line := _line(number))}
    if pid not in lines:
        raise ProcessLookupError(pid)
    family, todo = 0, [pid]
    while todo:
        current = todo.pop()
        family += lines[current].own + lines[current].reaped
        todo += [child for child, line in lines.items() if line.parent == current]
    return Cpu(lines[pid].own / TICKS, family / TICKS)
