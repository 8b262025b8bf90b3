"""Control groups (version 2) of execution environments, where the service manager has delegated the daemon's own one to
it: the kernel itself holds an environment to its memory then, and ends all that it has started, wherever it went.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from itertools import count
from pathlib import Path

import structlog

from bridge.leash import Leash

log = structlog.get_logger()

MOUNTED = Path("/sys/fs/cgroup")
DELEGATED = "user.delegate"
"""What systemd, from version 251 on, notes at a group with ``Delegate=``."""
OWN = "daemon"
"""The group in which the daemon itself goes on: one that has groups with limits below it may hold no processes."""


def delegated(ours: Path = Path("/proc/self/cgroup"), mounted: Path = MOUNTED) -> Path | None:
    """The daemon's group, if it may make others below it and limit their memory. To be called once, early: what it
    starts later runs where it runs itself by then."""
    with suppress(OSError):
        for line in ours.read_text().splitlines():
            if line.startswith("0::/"):
                group = mounted / line[4:]
                if os.getxattr(group, DELEGATED) == b"1":
                    return divided(group)
    return None


def divided(group: Path) -> Path | None:
    """The group, once its processes have moved below it, and groups beside them can have limits of memory."""
    try:
        if "memory" not in (group / "cgroup.controllers").read_text().split():
            return None
        below = group / OWN
        below.mkdir(exist_ok=True)
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (below / "cgroup.procs").write_text(pid)
        (group / "cgroup.subtree_control").write_text("+memory")
    except OSError as error:
        log.info("cgroups_not_used", group=str(group), reason=str(error))
        return None
    return group


class Cgroup:
    """That of one environment, ``limit`` bytes at the most. Raises OSError."""

    _numbers = count(1)

    def __init__(self, parent: Path, limit: int, leash: Leash) -> None:
        self._leash = leash
        self.folder = parent / f"environment-{os.getpid()}-{next(self._numbers)}"
        self.folder.mkdir()
        leash.hold_folder(self.folder)
        try:
            (self.folder / "memory.max").write_text(str(limit))
            (self.folder / "memory.oom.group").write_text("1")
            with suppress(FileNotFoundError):  # a kernel that does not count swap
                (self.folder / "memory.swap.max").write_text("0")
        except OSError:
            self.remove()
            raise

    def __repr__(self) -> str:
        return f"<Cgroup {self.folder}>"

    def add(self, pid: int) -> None:
        """The process and what it starts from now on. Raises OSError."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel has killed something of it for its memory."""
        return re.search(r"^oom_kill [1-9]", _read(self.folder / "memory.events"), re.MULTILINE) is not None

    def kill(self) -> None:
        """All of it, at once."""
        with suppress(OSError):  # a kernel before 5.14 has no such file; the process group is killed anyway
            (self.folder / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """When its processes have ended. If one of them has not been reaped yet, the leash removes it in the end."""
        with suppress(OSError):
            self.folder.rmdir()
            self._leash.release_folder(self.folder)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # it has been removed
        return ""
