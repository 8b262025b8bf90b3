"""Outlives the daemon by a moment: when its standard input ends, it kills the process groups and removes the folders
that it was told about. Started by bridge/leash.py as ``python -I -S guard.py``.

The input is a sequence of entries, each ended by a zero byte: ``+group PGID``, ``-group PGID``, ``+folder PATH``,
``-folder PATH``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

TRIES = 50
PAUSE = 0.1


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # these are meant for the daemon
        signal.signal(number, signal.SIG_IGN)
    groups: dict[bytes, None] = {}
    folders: dict[bytes, None] = {}
    for entry in entries(sys.stdin.fileno()):
        word, _, name = entry.partition(b" ")
        held = groups if word.endswith(b"group") else folders
        if word.startswith(b"+"):
            held[name] = None
        else:
            held.pop(name, None)
    for group in groups:
        kill(int(group))
    for folder in folders:
        remove(folder)


def entries(source: int) -> Iterator[bytes]:
    """The entries in order, until the other end of the pipe is closed. A torn last one is left out."""
    rest = b""
    while data := os.read(source, 65536):
        *whole, rest = (rest + data).split(b"\0")
        yield from whole


def kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # gone already (macOS says so by the second)
        return


def remove(folder: bytes) -> None:
    """What was just killed may write for a moment longer: a folder that did not go is tried again."""
    import shutil

    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
