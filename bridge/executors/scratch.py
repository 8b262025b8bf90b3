"""The private temporary folder of each execution environment: its ``/tmp``, found by ``TMPDIR``."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from functools import partial
from pathlib import Path

from bridge.leash import Leash


class Scratch:
    """Folders of mode 0700 below the system's temporary folder, held by the leash. What an environment that was reset
    has left is there for the next one (RT-33); what one that was retired has left is removed.
    """

    def __init__(self, leash: Leash) -> None:
        self._leash = leash
        self._free: list[Path] = []
        self._taken: set[Path] = set()
        self._removals: set[asyncio.Future[None]] = set()

    def take(self) -> Path:
        """For an environment that starts now. Raises OSError, and BridgeError when the leash cannot hold it."""
        if self._free:
            folder = self._free.pop()
        else:
            folder = Path(tempfile.mkdtemp(prefix="bridge-tmp-"))
            try:
                self._leash.hold_folder(folder)
            except BaseException:
                folder.rmdir()
                raise
        self._taken.add(folder)
        return folder

    def keep(self, folder: Path) -> None:
        """Its environment was reset: a new one takes its place."""
        self._taken.discard(folder)
        self._free.append(folder)

    def remove(self, folder: Path) -> None:
        """Its environment was retired."""
        self._taken.discard(folder)
        removal = asyncio.get_running_loop().run_in_executor(None, partial(shutil.rmtree, folder, ignore_errors=True))
        self._removals.add(removal)
        removal.add_done_callback(partial(self._removed, folder))

    async def close(self) -> None:
        """Removes all of them. Their processes have ended."""
        for folder in (*self._free, *self._taken):
            self.remove(folder)
        self._free.clear()
        if self._removals:
            await asyncio.wait(self._removals)

    def _removed(self, folder: Path, removal: asyncio.Future[None]) -> None:
        self._removals.discard(removal)
        if not folder.exists():  # else the leash removes it in the end
            self._leash.release_folder(folder)
