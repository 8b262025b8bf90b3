"""Holds environments to their ``MemorySize``: looks at the memory of their processes while they work.

Linux only (by /proc); elsewhere nothing is enforced. Where the daemon may make control groups, they do it (cgroups.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

PROC = Path("/proc")
LOOK_EVERY = 0.2
"""Seconds between two looks at an environment that works. Its cost is that of two small files per process."""
MOST_PROCESSES = 256
"""Of one environment that are looked at."""


class Watched(Protocol):
    """What has a limit."""

    @property
    def pid(self) -> int: ...

    @property
    def working(self) -> bool:
        """Alive, and not waiting for an event."""

    def out_of_memory(self, used: int) -> None:
        """It used so many bytes, which are too many."""


class MemoryWatch:
    """Over the environments of a function, ``limit`` bytes each. One timer, and none while all of them wait.
    ``needed``: nobody else holds them to it.
    """

    def __init__(self, limit: int, environments: Collection[Watched], *, needed: bool = True) -> None:
        self._needed = needed
        self._limit = limit
        self._environments = environments
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """One of them starts to work."""
        if self._timer is None and self._needed and enforced():
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        working = [environment for environment in self._environments if environment.working]
        for environment in working:
            used = excess(environment.pid, self._limit)
            if used is not None:
                environment.out_of_memory(used)
        if working:
            self.wake()


def enforced() -> bool:
    """Whether this system tells what processes use."""
    return _PAGE > 0


def excess(pid: int, limit: int) -> int | None:
    """The bytes that the process and those below it use, if they are more than ``limit``.

    Resident pages are counted first, which is cheap; they count shared ones once for each process, so that what is too
    much is counted again by each process's share.
    """
    family = tuple(_family(pid))
    if sum(map(_resident, family)) <= limit:
        return None
    used = sum(map(_share, family))
    return used if used > limit else None


def _family(pid: int) -> Iterator[int]:
    pids, seen = [pid], 0
    while pids and seen < MOST_PROCESSES:
        seen += 1
        pid = pids.pop()
        yield pid
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  it runs several times a second
            pids += (int(word) for thread in threads for word in _read(f"/proc/{pid}/task/{thread}/children").split())
        except OSError:  # it has ended
            continue


def _resident(pid: int) -> int:
    words = _read(f"/proc/{pid}/statm").split()
    return int(words[1]) * _PAGE if words else 0


def _share(pid: int) -> int:
    """Its resident bytes, shared ones in proportion."""
    _, found, rest = _read(f"/proc/{pid}/smaps_rollup").partition(b"\nPss:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else _resident(pid)


def _read(path: str) -> bytes:
    """Nothing once the process has ended, or where the system keeps such a file from us."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  it runs several times a second
            return file.read()
    except OSError:
        return b""


_PAGE = os.sysconf("SC_PAGE_SIZE") if (PROC / "self" / "statm").exists() else 0
