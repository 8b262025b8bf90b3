"""Holds the daemon's children: when it dies, by whatever means, their process groups are killed and their temporary
folders are removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
import structlog

from bridge.errors import BridgeError

log = structlog.get_logger()

GUARD = Path(__file__).with_name("runtimes") / "guard.py"
LAST_WORK = 10.0
"""Seconds the guard gets for its work when the leash is closed."""


class Leash:
    """A small process, the guard, waits at the other end of a pipe. When this end closes, because the leash is left or
    because the daemon was killed, it kills every group and removes every folder that is held and not released.

    An async context manager. Groups that leave their session by ``setsid`` are out of its reach.
    """

    def __init__(self) -> None:
        self._held: dict[bytes, None] = {}
        self._entered = False
        self._pipe = -1
        self._guard: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Leash: guard {self._guard.pid if self._guard else 'not started'}, {len(self._held)} held>"

    async def __aenter__(self) -> Self:
        self._open()
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        guard, self._guard = self._guard, None
        if guard is None:
            return
        os.close(self._pipe)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_see_off, guard)

    def hold_group(self, group: int) -> None:
        """From now on the process group ``group`` does not outlive the daemon. Raises BridgeError without a guard."""
        self._hold(b"group %d" % group)

    def release_group(self, group: int) -> None:
        """Call it before the group's leader is reaped: afterwards its number may belong to somebody else."""
        self._release(b"group %d" % group)

    def hold_folder(self, folder: str | os.PathLike[str]) -> None:
        """From now on ``folder`` and all in it does not outlive the daemon."""
        self._hold(b"folder " + os.fsencode(Path(folder).absolute()))

    def release_folder(self, folder: str | os.PathLike[str]) -> None:
        """The folder is gone, or is to stay."""
        self._release(b"folder " + os.fsencode(Path(folder).absolute()))

    def _hold(self, what: bytes) -> None:
        if not self._entered:
            raise RuntimeError("a leash holds only what it gets between its entry and its exit")
        self._held[what] = None
        try:
            self._tell(b"+" + what)
        except BridgeError:
            del self._held[what]
            raise

    def _release(self, what: bytes) -> None:
        self._held.pop(what, None)
        if self._guard is None:
            return
        try:
            self._tell(b"-" + what)
        except BridgeError as error:  # the next hold tries again
            log.error("guard_missing", error=str(error))

    def _tell(self, entry: bytes) -> None:
        """Writes to the guard; a new one, in place of one that was killed, is told all that is held at once."""
        if self._guard is None:
            self._open()
            return
        try:
            os.write(self._pipe, entry + b"\0")
        except BrokenPipeError:
            guard, self._guard = self._guard, None
            os.close(self._pipe)
            guard.kill()
            log.warning("guard_replaced", pid=guard.pid, status=guard.wait())
            self._open()

    def _open(self) -> None:
        """Starts a guard and tells it all that is held. Raises BridgeError."""
        theirs, self._pipe = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD)],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # a Ctrl-C at the terminal is for the daemon
            )
        except OSError as error:
            os.close(self._pipe)
            raise BridgeError(f"cannot start the guard of child processes: {error}") from error
        finally:
            os.close(theirs)
        for what in self._held:
            os.write(self._pipe, b"+" + what + b"\0")


def _see_off(guard: subprocess.Popen[bytes]) -> None:
    try:
        guard.wait(LAST_WORK)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
