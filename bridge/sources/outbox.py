"""Entries on their way to a queue, in requests of up to ten, judged one by one and tried again where that may help."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import anyio

from bridge.faults import Backoff

ENTRIES = 10
"""The most that one batch request takes (SQS-80)."""
LONGEST_DELAY = 5.0

Entry = TypeVar("Entry")


class Outbox(Generic[Entry]):
    """Full tens go at once. Fewer go at once if nothing is on its way, else with the next ones, or after ``patience``
    seconds; a ``linger`` lets them wait for others in any case.

    ``send`` carries out one request and gives those of its entries that are to be tried again; whatever becomes of
    the others is settled there. They are tried again with jittered backoff until ``send`` gives none back. ``start``
    runs a request as a task.
    """

    def __init__(
        self,
        start: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        send: Callable[[Sequence[Entry]], Awaitable[Sequence[Entry]]],
        *,
        capacity: int,
        requests: Callable[[], int],
        patience: float,
        linger: float = 0.0,
    ) -> None:
        self._start, self._send = start, send
        self._capacity, self._requests = capacity, requests
        self._patience, self._linger = patience, linger
        self._pending: deque[Entry] = deque()
        self._entries = 0
        """Pending, on their way, or waiting to be tried again."""
        self._flying = 0
        """Requests on their way."""
        self._backoff = Backoff(most=LONGEST_DELAY)
        self._timer: asyncio.TimerHandle | None = None
        self._ripe = False
        """What is pending has waited long enough for others."""
        self._open = True
        self._moved: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<Outbox {self._entries} entries, {len(self._pending)} pending, {self._flying} requests on their way>"

    def __len__(self) -> int:
        return self._entries

    def put(self, entries: Iterable[Entry]) -> None:
        """Takes entries in. From here on they are on their way, whatever becomes of the caller."""
        before = len(self._pending)
        self._pending.extend(entries)
        self._entries += len(self._pending) - before
        self._pump()

    @property
    def crowded(self) -> bool:
        """It holds more than it should."""
        return self._entries > self._capacity

    async def room(self) -> None:
        """Waits while it holds more than it should: who settles faster than the queue answers is slowed down."""
        while self.crowded:
            await self._movement()

    async def flush(self) -> None:
        """Sends what is pending without waiting for others; returns when each entry is judged."""
        while self._entries:
            self._ripe = True
            self._pump()
            await self._movement()

    def close(self) -> int:
        """Sends nothing more. Gives how many entries are left without a judgement."""
        self._open = False
        self._disarm()
        return self._entries

    def _pump(self) -> None:
        """Starts the requests that are due."""
        while self._open and self._pending and self._flying < self._requests() and self._due():
            batch = [self._pending.popleft() for _ in range(min(ENTRIES, len(self._pending)))]
            self._flying += 1
            self._disarm()
            self._start(partial(self._deliver, batch))
        if self._pending and not self._timer and self._open:
            wait = self._linger or self._patience
            self._timer = asyncio.get_running_loop().call_later(wait, self._ripen)

    def _due(self) -> bool:
        idle = not self._flying and not self._linger
        return len(self._pending) >= ENTRIES or self._ripe or idle

    def _ripen(self) -> None:
        self._timer, self._ripe = None, True
        self._pump()

    def _disarm(self) -> None:
        self._ripe = False
        if self._timer:
            self._timer.cancel()
            self._timer = None

    async def _deliver(self, batch: Sequence[Entry]) -> None:
        again = await self._send(batch)
        self._flying -= 1
        self._entries -= len(batch) - len(again)
        if again:
            asyncio.get_running_loop().call_later(self._backoff.next(), self._requeue, again)
        else:
            self._backoff.reset()
        if self._moved:
            self._moved.set()
            self._moved = None
        self._pump()

    def _requeue(self, entries: Sequence[Entry]) -> None:
        self._pending.extendleft(reversed(entries))
        self._pump()

    async def _movement(self) -> None:
        """Waits until a request was answered."""
        self._moved = self._moved or anyio.Event()
        await self._moved.wait()
