"""Slows a mapping down whose function fails every time, and probes whether it works again."""

from __future__ import annotations

from math import inf

TOLERATED = 5
"""So many failed invocations in a row are a handler's business; more are an outage."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Breaker:
    """Counts failures in a row over all runners of a mapping. Times are monotonic seconds.

    While it is open there is a pause before each receive, so that an outage costs few receive counts: a message that is
    not received cannot move towards the dead-letter queue.
    """

    def __init__(self, tolerated: float = TOLERATED) -> None:
        self._tolerated = tolerated
        self._failures = 0
        self._resume_at = -inf

    def __repr__(self) -> str:
        return f"<Breaker {'open' if self.open else 'closed'}, {self._failures} failures in a row>"

    @property
    def open(self) -> bool:
        """Only probes go through."""
        return self._failures >= self._tolerated

    @property
    def failures(self) -> int:
        """Failed invocations in a row."""
        return self._failures

    def ended(self, *, failed: bool, now: float, luck: float) -> None:
        """An invocation ended. ``luck`` in 0..1 jitters the pause between its half and its whole."""
        if not failed:
            self._failures = 0
            self._resume_at = -inf
            return
        self._failures += 1
        if self.open:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - self._tolerated, 16))
            self._resume_at = now + pause * (0.5 + luck / 2)

    def pause(self, now: float) -> float:
        """Seconds until the next probe may be received; 0 while closed."""
        return max(0.0, self._resume_at - now)
