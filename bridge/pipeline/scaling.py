"""How many runners a partition deserves right now."""

from __future__ import annotations

from collections import deque
from math import ceil

IDLE_POLLS = 3
"""So many thin polls in a row cost one runner; one that waited its whole time for nothing does so alone."""
THIN = 5
"""A poll with fewer records than this is thin: one poller fewer would have collected them too."""
FALL = 0.75
"""What a function error leaves of the concurrency; with RISE it gives about the throughput of SQS-21."""
RISE = 1 / 400
"""What a success gives back, as a share of the most that is allowed."""


class Scaling:
    """Grows while polls keep bringing records (SQS-19), falls back while they are thin, falls on function errors.

    ``idle``: runners while nothing comes; ``first``: at the first records (SQS-15); ``most``: concurrent invocations
    at the most; ``growth``: runners added in any 60 s at the most; ``falls``: function errors lower it (SQS-34).
    ``per_poller``: runners that AWS would count as one poller (SQS-18).
    """

    def __init__(
        self,
        *,
        idle: int = 1,
        first: int = 5,
        most: int = 1250,
        growth: int = 300,
        falls: bool = True,
        per_poller: int = 1,
    ) -> None:
        self._idle = idle
        self._first = first
        self._most = most
        self._growth = growth
        self._falls = falls
        self._per_poller = per_poller
        self._wanted = idle
        self._ceiling = float(most)
        self._thin = 0
        self._resting = True
        self._added: deque[tuple[float, int]] = deque()

    def __repr__(self) -> str:
        return f"<Scaling {self.runners} runners, at most {self.concurrency} invocations>"

    @property
    def concurrency(self) -> int:
        """How many invocations may run at once."""
        return max(1, int(self._ceiling))

    @property
    def runners(self) -> int:
        """How many runners there should be: one may collect while the others' invocations run."""
        return max(self._idle, min(self._wanted, self.concurrency + 1))

    def pollers(self, runners: int) -> int:
        """How many pollers so many runners are (``ProvisionedPollers``)."""
        return max(min(runners, self._idle), ceil(runners / self._per_poller))

    def polled(self, records: int, *, full: bool, enough: bool, idle: bool, now: float) -> None:
        """A poll ended. ``enough``: more runners would not help, since a batch waits for a slot, or each slot has its
        runner. ``idle``: nothing came in the time of a whole long poll."""
        if records >= THIN or full:
            self._thin = 0
        else:
            self._thin += IDLE_POLLS if idle else 1
        if records and self._resting:
            self._resting = False
            self._thin = 0
            self._grow(self._first - self._wanted, now)
        elif full and not enough:
            self._grow(1, now)
        elif self._thin >= IDLE_POLLS:
            self._thin = 0
            self._wanted = max(self._idle, self._wanted - 1)
            self._resting = not records and self._wanted == self._idle

    def ended(self, *, failed: bool) -> None:
        """An invocation ended; ``failed``: with a function error, or throttled."""
        if failed and self._falls:
            self._ceiling = max(1.0, min(self._ceiling, self._wanted) * FALL)
        elif not failed:
            self._ceiling = min(self._most, self._ceiling + max(self._wanted, self._first) * RISE)

    def _grow(self, by: int, now: float) -> None:
        while self._added and self._added[0][0] <= now - 60:
            self._added.popleft()
        allowed = self._growth - sum(count for _, count in self._added)
        by = min(by, allowed, self._most + 1 - self._wanted)
        if by > 0:
            self._wanted += by
            self._added.append((now, by))
