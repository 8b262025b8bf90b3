"""How soon an environment is started again when those before it ended badly."""

from __future__ import annotations

import time

import anyio

FREE = 4
"""Bad ends in a row that cost no time: a poison message or two is nothing unusual."""
FIRST = 0.1
LONGEST = 2.0


class Restarts:
    """After some bad ends without an answer in between, each further start waits longer: crashes must not spin."""

    def __init__(self) -> None:
        self._bad_ends = 0
        self._not_before = 0.0

    @property
    def delay(self) -> float:
        """Seconds that a start would wait now."""
        return max(0.0, self._not_before - time.monotonic())

    def ended_badly(self) -> None:
        """An environment did not start, or its process ended unasked."""
        self._bad_ends += 1
        if self._bad_ends > FREE:
            wait = min(LONGEST, FIRST * 2.0 ** min(self._bad_ends - FREE - 1, 10))
            self._not_before = time.monotonic() + wait

    def answered(self) -> None:
        """An environment did its work."""
        self._bad_ends = 0
        self._not_before = 0.0

    async def pause(self) -> None:
        """Waits until a start is due."""
        if self.delay:
            await anyio.sleep(self.delay)
