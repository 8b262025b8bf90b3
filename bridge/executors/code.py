"""Notices that the code of a function has changed on disk."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread

EVERY = 0.5
"""Seconds between two looks, at least."""
SHARE = 0.02
"""Of one processor, the most that looking may take: a large folder is looked at less often."""
QUIET = 0.2
"""Seconds without a change that end a burst of changes."""
MOST_FILES = 20_000

_NO_CODE = frozenset({"__pycache__", "node_modules", "venv"})

State = dict[str, tuple[int, int, int]]
"""Path -> time of the last change, size and number of each file."""


async def changes(folder: Path) -> AsyncIterator[None]:
    """Once per burst of changes to files in ``folder``, after it has ended. Installed packages and names that begin
    with a dot do not count.
    """
    seen, wait = await _look(folder)
    while True:
        await anyio.sleep(wait)
        now, wait = await _look(folder)
        if now == seen:
            continue
        while now != seen:
            seen = now
            await anyio.sleep(max(QUIET, wait - EVERY))
            now, wait = await _look(folder)
        yield


async def _look(folder: Path) -> tuple[State, float]:
    """What is there, and how long to wait for the next look."""
    began = time.monotonic()
    state = await anyio.to_thread.run_sync(state_of, folder)
    return state, max(EVERY, (time.monotonic() - began) / SHARE)


def state_of(folder: Path) -> State:
    """The first files of the folder, MOST_FILES at most."""
    state: State = {}
    folders = [str(folder)]
    while folders:
        try:
            entries = sorted(os.scandir(folders.pop()), key=lambda entry: entry.name)
        except OSError:  # it has just gone, or we may not look into it
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _NO_CODE:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
                continue
            try:
                found = entry.stat()
            except OSError:
                continue
            state[entry.path] = (found.st_mtime_ns, found.st_size, found.st_ino)
            if len(state) >= MOST_FILES:
                return state
    return state
