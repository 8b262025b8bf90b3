"""A child process that leads a session and process group of its own, killed and reaped as a whole."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping as Dict, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from bridge.executors.cgroups import Cgroup
from bridge.leash import Leash


class Child:
    """Starts ``command`` in ``folder`` with ``variables`` and nothing else of our environment. Raises OSError.

    ``ended`` is called once, in the event loop, after the process has ended by itself or by ``kill``, with its exit
    status: negative for a signal. By then its whole group is killed, and the process is reaped. ``cgroup`` is what it
    and all that it starts run in.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        variables: Dict[str, str],
        leash: Leash,
        ended: Callable[[int], None],
        cgroup: Cgroup | None = None,
    ) -> None:
        self.out_of_memory = False
        """Whether it ended because the kernel killed something of it for its memory."""
        self._leash = leash
        self._cgroup = cgroup
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._gone = False
        try:
            leash.hold_group(self.pid)
            if cgroup is not None:
                cgroup.add(self.pid)
        except BaseException:
            self.kill()
            self._process.wait()
            raise
        self._watch()

    def __repr__(self) -> str:
        return f"<Child {self.pid}: {'gone' if self._gone else 'alive'}>"

    @property
    def pid(self) -> int:
        """Of the process, and the number of its group."""
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdout)

    @property
    def stderr(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stderr)

    def kill(self) -> None:
        """Sends SIGKILL to the group, and to whatever left it within its cgroup. ``ended`` follows."""
        if not self._gone:
            # macOS answers PermissionError for a group of which only the unreaped leader is left.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            if self._cgroup is not None:
                self._cgroup.kill()

    def peak_memory(self) -> int | None:
        """Bytes of memory the process had at most, where the system tells."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_bytes()
        except OSError:
            return None
        _, found, rest = status.partition(b"VmHWM:")
        return int(rest.split(maxsplit=1)[0]) * 1024 if found else None

    def _watch(self) -> None:
        """Waits for the end without reaping: until then the number of the process cannot become somebody else's."""
        try:
            watch = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # another system than Linux, or a sandbox that forbids it
            threading.Thread(target=self._watch_in_thread, name=f"child-{self.pid}", daemon=True).start()
        else:
            self._loop.add_reader(watch, self._on_end, watch)

    def _watch_in_thread(self) -> None:
        _wait_unreaped(self.pid)
        with suppress(RuntimeError):  # the loop is closed: the guard of the leash takes over
            self._loop.call_soon_threadsafe(self._on_end, None)

    def _on_end(self, watch: int | None) -> None:
        if watch is not None:
            self._loop.remove_reader(watch)
            os.close(watch)
        self.kill()  # what the leader left behind
        self._leash.release_group(self.pid)
        self._gone = True
        status = self._process.wait()
        if self._cgroup is not None:
            self.out_of_memory = self._cgroup.out_of_memory
            self._cgroup.remove()
        self._ended(status)


def _wait_unreaped(pid: int) -> None:
    if sys.platform == "darwin" and not hasattr(os, "waitid"):  # Python before 3.13
        queue = select.kqueue()
        exits = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        with suppress(ProcessLookupError):  # it has ended already
            queue.control([exits], 1)
        queue.close()
    else:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
