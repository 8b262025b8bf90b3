"""How much waits at the sources: asked of them only when somebody wants to know, and not too often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import anyio

from bridge.errors import BridgeError
from bridge.snapshot import Control

KEPT = 15.0
"""Seconds for which an answer, also a missing one, is good enough."""
DEADLINE = 2.0
"""Seconds that a scrape waits for all sources together; scalers give up after three."""
AT_ONCE = 10


class Backlogs:
    """Asks the sources of mappings for their backlog. Answers are cached; askers at the same time share a round."""

    def __init__(self, control: Control, clock: Callable[[], float] = time.monotonic) -> None:
        self._control = control
        self._clock = clock
        self._known: dict[str, tuple[float, int | None]] = {}
        self._round = anyio.Lock()

    async def ask(self, names: Iterable[str]) -> dict[str, int | None]:
        """The backlog by mapping; none where the source cannot say, fails, or takes too long."""
        names = tuple(names)
        async with self._round:
            now = self._clock()
            self._known = {name: known for name in names if (known := self._known.get(name)) and now - known[0] < KEPT}
            due = [name for name in names if name not in self._known]
            self._known.update(dict.fromkeys(due, (now, None)))
            limiter = anyio.Semaphore(AT_ONCE)
            with anyio.move_on_after(DEADLINE):
                async with anyio.create_task_group() as tasks:
                    for name in due:
                        tasks.start_soon(self._ask, name, now, limiter)
            return {name: self._known[name][1] for name in names}

    async def _ask(self, name: str, now: float, limiter: anyio.Semaphore) -> None:
        async with limiter:
            try:
                self._known[name] = (now, await self._control.backlog(name))
            except (BridgeError, KeyError):
                return  # stays unknown: the mapping's own gate says what is wrong with its source
