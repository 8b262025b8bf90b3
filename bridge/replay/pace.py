"""How fast letters are sent."""

from __future__ import annotations

import anyio


class Pace:
    """At most ``rate`` letters a second; 0: no limit."""

    def __init__(self, rate: float, stop: anyio.Event) -> None:
        self._rate, self._stop = rate, stop
        self._next = 0.0

    def chunk(self, most: int) -> int:
        """How many may go at once without making a burst of it: a fifth of a second's."""
        return most if not self._rate else max(1, min(most, int(self._rate / 5)))

    async def wait(self, letters: int) -> bool:
        """Returns when so many may go; false: it was stopped meanwhile."""
        if self._rate:
            now = anyio.current_time()
            at = max(now, self._next)
            self._next = at + letters / self._rate
            if at > now:
                with anyio.move_on_after(at - now):
                    await self._stop.wait()
        return not self._stop.is_set()
