"""Warm environments that wait for work: the most recently used leaves first, the one unused for too long is retired."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar


class Retirable(Protocol):
    """What may wait here."""

    def retire(self) -> None: ...


T = TypeVar("T", bound=Retirable)


class Idle(Generic[T]):
    """``timeout`` in seconds; ``least`` of them stay however long they wait. One timer for all, set to the end of the
    one that has waited longest.
    """

    def __init__(self, timeout: float, least: int = 0) -> None:
        self._timeout = timeout
        self._least = least
        self._waiting: dict[T, float] = {}  # until when, in the order in which they came
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, member: T) -> None:
        """It has nothing to do from now on."""
        loop = asyncio.get_running_loop()
        self._waiting[member] = end = loop.time() + self._timeout
        if self._timer is None:
            self._timer = loop.call_at(end, self._retire)

    def take(self) -> T | None:
        """The one used last, if any."""
        return self._waiting.popitem()[0] if self._waiting else None

    def remove(self, member: T) -> bool:
        """It ended while it waited. Whether it did wait here."""
        return self._waiting.pop(member, None) is not None

    def keep(self, least: int) -> None:
        """So many of them stay from now on."""
        self._least = least
        if self._timer is None:
            self._retire()

    def close(self) -> None:
        """Lets go of all."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _retire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while len(self._waiting) > self._least:
            member, end = next(iter(self._waiting.items()))
            if end > loop.time():
                self._timer = loop.call_at(end, self._retire)
                return
            del self._waiting[member]
            member.retire()
