"""What a replay shall do, and which letters it is about."""

from __future__ import annotations

from hashlib import sha256
from uuid import uuid4

import msgspec

from bridge.filtering import compile_filter
from bridge.replay.letter import Letter, view

RATE = 50.0
CONCURRENCY = 4
STOP_AFTER = 10
"""Failures in a row after which it stops by itself: the cause is not in the messages."""


def _run_id() -> str:
    return uuid4().hex


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Times are epoch seconds."""

    patterns: tuple[str, ...] = ()
    """A letter is meant if any matches, or there are none."""
    since: float | None = None
    until: float | None = None
    ids: frozenset[str] | None = None
    """Only these; none: all."""
    most: int | None = None
    """Letters to send; none: all."""
    rate: float = RATE
    """Letters a second; 0: as fast as it goes."""
    concurrency: int = CONCURRENCY
    """Requests of the target at once."""
    most_failures: int | None = None
    """Failures after which it stops; none: however many, as long as they are not in a row."""
    keep: bool = False
    """The originals stay."""
    defer: bool = False
    """The originals are elsewhere: what was sent stays so in the journal, to be deleted by a later run."""
    finish_only: bool = False
    """Sends nothing; deletes what the journal says was sent, until none of that is left."""
    dry_run: bool = False
    run: str = msgspec.field(default_factory=_run_id)

    def token(self, dlq: str, message_id: str) -> str:
        """For a FIFO target: new, so that the original's deduplication does not swallow the message, and the same for
        our own second try."""
        return sha256(f"{dlq} {message_id} {self.run}".encode()).hexdigest()


class Selection:
    """Which letters of the shelf ``arn`` are meant. Raises InvalidPattern."""

    def __init__(self, plan: Plan, arn: str) -> None:
        self._plan, self._arn = plan, arn
        self._matches = compile_filter(plan.patterns, "body")
        narrowed = (plan.ids, plan.since, plan.until) != (None, None, None)
        self._all = not (narrowed or plan.patterns or plan.finish_only)

    def __contains__(self, letter: Letter) -> bool:
        if self._all:
            return True
        plan, at = self._plan, letter.at
        if plan.finish_only or (plan.ids is not None and letter.id not in plan.ids):
            return False
        if plan.since is not None and (at is None or at < plan.since):
            return False
        if plan.until is not None and (at is None or at >= plan.until):
            return False
        return not plan.patterns or self._matches(view(letter, self._arn))
