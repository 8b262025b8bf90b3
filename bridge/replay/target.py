"""Where dead letters are sent: the contract of a queue and a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from bridge.replay.letter import Letter


class Sent(msgspec.Struct, frozen=True):
    """The target has it."""

    new_id: str = ""
    """Of the message or request that it became."""
    target: str = ""
    """ARN."""
    maybe_twice: bool = False
    """An earlier try, whose answer was lost, may have arrived as well."""
    detail: str = ""
    """What else is worth telling of this letter, in one line."""


class Refused(msgspec.Struct, frozen=True):
    """The target has not taken it."""

    reason: str
    """One line without the body; the same for the same cause, since they are counted by it."""
    sender_fault: bool = False
    """It will fail again as it is."""
    target: str = ""
    maybe_sent: bool = False
    """A try whose answer was lost may have arrived nevertheless, or a part of what the letter stands for has."""
    alone: bool = False
    """That says nothing about the next letter: expired ones, for example, lie in front of all others."""
    detail: str = ""
    """What is peculiar to this letter, in one line without the body."""


Outcome = Sent | Refused


class Parcel(msgspec.Struct, frozen=True):
    """A letter to be sent."""

    letter: Letter
    token: str
    """The same when the same letter is sent a second time after an attempt of which nobody knows whether it arrived:
    for targets that suppress doubles."""


class Target(Protocol):
    """One place to send to. May be used concurrently; of one group of a FIFO shelf it is given one letter at a time."""

    most: int
    """Letters that ``send`` takes at once."""

    @property
    def name(self) -> str:
        """For people: what it is, and in which account and region."""
        ...

    def arn(self, letter: Letter) -> str:
        """Where this letter would go; empty: nowhere."""
        ...

    async def check(self, *, dry: bool) -> None:
        """Before the first letter is taken: it exists, is of the right kind and takes what is sent. Sends nothing;
        ``dry``: asks only what reads. Raises UsageError with what to do, RemoteError."""
        ...

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """What became of each, in order. Server faults were tried again, for a bounded time. Never raises
        RemoteError."""
        ...
