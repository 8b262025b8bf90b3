"""An event loop that notes how long it was deaf: the CPU time of its longest turn, from one look at the sockets to the
next. CPU time, so that what else runs on the machine does not count.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Any


class _Selector(selectors.DefaultSelector):
    longest = 0.0
    _since: float | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        if self._since is not None:
            self.longest = max(self.longest, time.thread_time() - self._since)
        ready = super().select(timeout)
        self._since = time.thread_time()
        return ready


class TurnsLoop(asyncio.SelectorEventLoop):
    """Costs a microsecond a turn: for events that are long enough not to notice."""

    def __init__(self) -> None:
        self._turns = _Selector()
        super().__init__(self._turns)

    def forget(self) -> None:
        """From now on is what counts."""
        self._turns.longest = 0.0

    @property
    def longest(self) -> float:
        """Seconds."""
        return self._turns.longest
