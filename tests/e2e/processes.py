"""What runs on this machine, as /proc tells it: the tests check with it that nothing is left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Process(NamedTuple):
    """A process, told from a later one with the same pid by when it was started."""

    pid: int
    born: int

    def __repr__(self) -> str:
        return f"<{self.pid} {command(self.pid)}>"

    @property
    def alive(self) -> bool:
        """It exists and has not ended: a zombie has."""
        found = _stat(self.pid)
        return found is not None and found.born == self.born and found.state not in "ZX"


class _Stat(NamedTuple):
    state: str
    parent: int
    born: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def process(pid: int) -> Process | None:
    """The process that has this pid now."""
    found = _stat(pid)
    return Process(pid, found.born) if found else None


def command(pid: int) -> str:
    """Its command line, for messages."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(gone)"


def _all() -> Iterator[tuple[int, _Stat]]:
    if not PROC.is_dir():  # a system without it sees less
        return
    for entry in os.scandir(PROC):
        if entry.name.isdigit() and (found := _stat(int(entry.name))):
            yield int(entry.name), found


def descendants(pid: int) -> set[Process]:
    """All below a process."""
    children: dict[int, list[Process]] = {}
    for number, found in _all():
        children.setdefault(found.parent, []).append(Process(number, found.born))
    below: set[Process] = set()
    queue = [pid]
    while queue:
        mine = children.get(queue.pop(), [])
        below.update(mine)
        queue += [child.pid for child in mine]
    return below


def marked(text: str) -> set[Process]:
    """All whose command line or environment has this text in it."""
    sought = text.encode()
    return {
        Process(pid, found.born)
        for pid, found in _all()
        if found.state not in "ZX" and any(sought in _bytes(pid, name) for name in ("cmdline", "environ"))
    }


def _bytes(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:  # gone, or somebody else's
        return b""


def listeners(*pids: int) -> set[str]:
    """The inodes of the TCP sockets on which these processes listen. An inode is a better name than a port, which
    somebody else may take a moment later."""
    return {link for pid in pids for link in _sockets(pid)} & listening()


def listening() -> set[str]:
    """The inodes of all listening TCP sockets."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in _lines(PROC / "net" / name)]
    return {row[9] for row in rows if row[3] == "0A"}


def hosts(*pids: int) -> set[str]:
    """The addresses, without ports, on which these processes listen."""
    inodes = {link for pid in pids for link in _sockets(pid)}
    return {
        _address(row[1].partition(":")[0], family)
        for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6))
        for row in map(str.split, _lines(PROC / "net" / name))
        if row[3] == "0A" and row[9] in inodes
    }


def _address(words: str, family: socket.AddressFamily) -> str:
    """Of the kernel's hexadecimal words, each in this machine's byte order."""
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    return socket.inet_ntop(family, packed)


def is_listening(port: int) -> bool:
    """Whether anything listens on this TCP port."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in _lines(PROC / "net" / name)]
    return any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()[1:] if file.exists() else []


def _sockets(pid: int) -> Iterator[str]:
    try:
        for entry in (PROC / str(pid) / "fd").iterdir():
            target = str(entry.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return
