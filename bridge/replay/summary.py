"""What a replay has done: the figures of a run, and the fate of each letter."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from bridge.replay.letter import Letter

MOST_NAMED = 1000
"""Ids that are kept for the summary; all are counted."""

What = Literal["sent", "kept", "failed", "undeleted", "skipped", "deleted", "would_send", "came_back", "exported"]
"""``deleted``: an earlier run had sent it. ``undeleted``: it was sent and could not be deleted."""


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one letter."""

    letter: Letter
    what: What
    new_id: str = ""
    target: str = ""
    reason: str = ""
    detail: str = ""
    """What is peculiar to this letter."""
    maybe_twice: bool = False
    """It may have been sent more than once."""


class Summary(msgspec.Struct, kw_only=True):
    """The figures of a run, while it goes on and at its end."""

    read: int = 0
    matched: int = 0
    sent: int = 0
    deleted: int = 0
    resumed: int = 0
    """Of those deleted, what an earlier run had sent."""
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    """By reason."""
    undeleted: Counter[str] = msgspec.field(default_factory=Counter)
    """Sent, but the original could not be deleted; by reason."""
    skipped: Counter[str] = msgspec.field(default_factory=Counter)
    """Left where they were, by reason; without those that were not meant."""
    came_back: int = 0
    """Sent by this run and dead again."""
    possible_duplicates: int = 0
    duplicate_ids: list[str] = msgspec.field(default_factory=list)
    """Of the first MOST_NAMED of them."""
    left: int | None = None
    """Letters that are there at the end; none: not known."""
    damaged: int = 0
    stopped: str = ""
    """Why it stopped before its end; empty: it did not."""
    broken: bool = False
    """It stopped since the shelf cannot be reached."""
    interrupted: bool = False

    @property
    def failures(self) -> int:
        """Letters that were to be replayed and could not be, to the end."""
        return self.failed.total() + self.undeleted.total() + self.skipped.total() + self.came_back + self.damaged

    @property
    def complete(self) -> bool:
        """All that was meant is done."""
        return not (self.failures or self.stopped or self.interrupted)

    def duplicate(self, letter: Letter) -> None:
        self.possible_duplicates += 1
        if len(self.duplicate_ids) < MOST_NAMED:
            self.duplicate_ids.append(letter.id)
