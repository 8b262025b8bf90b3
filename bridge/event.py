"""Asynchronous events as they are kept between their acceptance and their end."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True):
    """One accepted event. Times in epoch seconds."""

    request_id: str
    """Given to the caller, and the request id of every attempt (ASY-2)."""
    function: str
    """The function's name in the configuration."""
    payload: bytes
    """JSON text."""
    accepted_at: float
    due_at: float
    """When the next attempt may start."""
    qualifier: str = ""
    """The version or alias that it is for, as its caller said it."""
    attempts: int = 0
    """Invocations used up (ASY-4)."""
    deliveries: int = 0
    """How often it was handed out and put off: attempts, and throttled ones (ASY-5)."""
    trace: str = ""
    """X-Ray trace header, with the lineage that recursion detection counts (INV-40)."""

    @property
    def waiting(self) -> Waiting:
        """What of it is kept in memory."""
        return Waiting(
            self.request_id, self.function, len(self.payload), self.due_at, self.accepted_at, self.attempts,
            self.deliveries,
        )  # fmt: skip


class Waiting(msgspec.Struct, frozen=True):
    """An event without its payload: what a queue keeps in memory of those that wait."""

    request_id: str
    function: str
    size: int
    """Bytes of the payload."""
    due_at: float
    accepted_at: float
    attempts: int = 0
    deliveries: int = 0
