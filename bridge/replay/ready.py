"""Letters that wait to be sent, and which of them may go now. Decisions only: it never waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bridge.replay.letter import Letter


class Ready:
    """With ``ordered`` the letters of one group go one at a time and in order, and not at all behind a failure."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._waiting: deque[Letter] = deque()
        self._busy: set[str] = set()
        self._stopped: set[str] = set()
        self._going = 0

    def __repr__(self) -> str:
        return f"<Ready {len(self._waiting)} waiting, {self._going} going, {len(self._stopped)} groups stopped>"

    def __len__(self) -> int:
        """Letters in hand: waiting, or going."""
        return len(self._waiting) + self._going

    @property
    def going(self) -> int:
        """Letters that were handed out and have not ended."""
        return self._going

    def stopped(self, letter: Letter) -> bool:
        """Whether something before it in its group has failed."""
        return letter.message.group in self._stopped

    def add(self, letter: Letter) -> None:
        self._waiting.append(letter)

    def next(self, most: int) -> list[Letter]:
        """Up to so many that may go now; each must be ended."""
        if not self._ordered:
            found = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        else:
            found = self._heads(most)
        self._going += len(found)
        return found

    def _heads(self, most: int) -> list[Letter]:
        found: list[Letter] = []
        left: deque[Letter] = deque()
        passed: set[str] = set()
        for letter in self._waiting:
            group = letter.message.group
            if len(found) < most and group not in self._busy and group not in passed:
                self._busy.add(group)
                found.append(letter)
            else:
                passed.add(group)
                left.append(letter)
        self._waiting = left
        return found

    def end(self, letters: Sequence[Letter]) -> None:
        """They are sent, or will not be. Their groups go on."""
        self._going -= len(letters)
        if self._ordered:
            self._busy.difference_update(letter.message.group for letter in letters)

    def stop(self, letter: Letter) -> list[Letter]:
        """It failed. Gives what waits behind it in its group, which will not go any more."""
        if not self._ordered:
            return []
        group = letter.message.group
        self._stopped.add(group)
        behind = [it for it in self._waiting if it.message.group == group]
        if behind:
            self._waiting = deque(it for it in self._waiting if it.message.group != group)
        return behind

    def clear(self) -> list[Letter]:
        """Takes out all that waits."""
        left = list(self._waiting)
        self._waiting.clear()
        return left
