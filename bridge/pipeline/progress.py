"""How far a shard is safely done when its records finish out of order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
P = TypeVar("P")


class Progress(Generic[T, P]):
    """What of a shard is open, in its order, and the position that follows. Items are told apart by identity or
    equality, as they themselves define.

    ``bound``: items from the oldest unfinished one on to the newest; where there are as many, ``full`` says that no
    more should be read (KIN-52). What is opened all the same is kept.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._first = 0
        self._next = 0
        self._numbers: dict[T, int] = {}
        self._finished: set[int] = set()
        self._positions: deque[P | None] = deque()
        self._safe: P | None = None
        self._trails = False
        """The newest item stands for a position alone."""

    def __repr__(self) -> str:
        return f"<Progress {len(self._numbers)} open, {self.spread} from the first of them on>"

    @property
    def spread(self) -> int:
        """Items from the oldest unfinished one on to the newest, finished ones among them included."""
        return self._next - self._first

    @property
    def oldest(self) -> T | None:
        """The first item that is not finished; none: all are."""
        return next(iter(self._numbers), None)

    @property
    def full(self) -> bool:
        """No more should be read before the oldest item is finished."""
        return self.spread >= self._bound

    @property
    def safe(self) -> P | None:
        """The highest position of which all before it, and itself, is finished; none before there is one."""
        return self._safe

    def opened(self, items: Iterable[tuple[T, P | None]]) -> None:
        """The next items in order, each with the position that is reached once it and all before it are finished; none:
        a part of something whose last part has the position."""
        for item, position in items:
            self._numbers[item] = self._next
            self._positions.append(position)
            self._next += 1
            self._trails = False

    def passed(self, position: P) -> None:
        """There is nothing up to this position but what was opened before (KIN-101). However often it is called in a
        row, it counts as one item at the most."""
        if not self.spread:
            self._safe = position
        elif self._trails:
            self._positions[-1] = position
        else:
            self._positions.append(position)
            self._finished.add(self._next)
            self._next += 1
            self._trails = True

    def finished(self, items: Iterable[T]) -> bool:
        """Whether ``safe`` has moved. Items that are not open are passed over."""
        for item in items:
            number = self._numbers.pop(item, None)
            if number is not None:
                self._finished.add(number)
        return self._advance()

    def _advance(self) -> bool:
        moved = False
        while self._first in self._finished:
            self._finished.discard(self._first)
            self._first += 1
            position = self._positions.popleft()
            if position is not None:
                self._safe, moved = position, True
        return moved
