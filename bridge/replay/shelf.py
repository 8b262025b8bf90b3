"""Where dead letters lie: the contract of a queue, a bucket and a dump."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec

from bridge.replay.letter import Letter


class Count(msgspec.Struct, frozen=True):
    """How many letters there are, as the shelf itself says; approximate."""

    waiting: int
    held: int = 0
    """Received by somebody, ourselves included, and not settled."""
    damaged: int = 0
    """Came to us, but not as they were sent: left alone."""


class Shelf(Protocol):
    """Dead letters in one place. An async context manager: inside it what was taken is held, by a heartbeat if that is
    needed; leaving it releases whatever is neither deleted nor released, cancelled or not. May be used concurrently."""

    arn: str
    """Of the place; with a letter's id the key of the journal."""
    fifo: bool
    """Whether letters of one group must stay in order."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def count(self) -> Count:
        """Raises RemoteError."""
        ...

    async def take(self, n: int) -> list[Letter]:
        """At least one letter and at most ``n`` that are not held already; none: nothing is left. A group's letters
        come in order. It waits as long as it must to know. Raises RemoteError; passing faults are waited out."""
        ...

    def end(self) -> None:
        """``take`` gives nothing more: what it waits for is not waited for any longer."""
        ...

    def holds(self, letter: Letter) -> bool:
        """Whether it was taken and nobody else can have taken it since."""
        ...

    def park(self, letters: Sequence[Letter]) -> None:
        """These are not wanted any more; they stay held so that this run does not take them again, and are released
        when it ends."""
        ...

    async def release(self, letters: Sequence[Letter]) -> None:
        """Gives them back at once. What cannot be given back comes again by itself. Never raises RemoteError."""
        ...

    async def delete(self, letters: Sequence[Letter]) -> list[str]:
        """Deletes them, and says for each, in order, why it could not be deleted: empty, it is gone. Server faults were
        tried again. Never raises RemoteError."""
        ...
