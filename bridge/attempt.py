"""What is kept of attempts that failed: enough to say why a record died, and nothing of the record itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one record that failed."""

    record: str
    """Message id; sequence number; of an asynchronous event its request id."""
    number: int
    """Which attempt it was: of a message its receive count, elsewhere counted from 1; 0: none was used up."""
    mapping: str
    """The mapping's name then; asynchronous events have FUNCTION:async."""
    partition: str
    """The queue's name; the shard, with its lane."""
    at: float
    """Epoch seconds: when it ended."""
    request_id: str
    outcome: str
    """``function``, ``timeout``, ``exit``, ``oom``; ``throttled``, ``reserved_zero``, ``unreachable``: it did not run;
    ``partial``: the answer names it; ``response``: the answer is malformed; ``recursion``; ``cancelled``: the daemon
    did not wait for its end; ``lost``: somebody else has got it before it was invoked."""
    error_type: str = ""
    message: str = ""
    duration: float = 0.0
    log_tail: str = ""
    """What the handler printed last, a few kilobytes."""


class FailedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation that failed, for all or some of its records. Members as in ``Attempt``."""

    id: int
    """Nanoseconds since the epoch, unlike that of any other."""
    uuid: str
    """The mapping's."""
    mapping: str
    partition: str
    at: float
    request_id: str
    outcome: str
    error_type: str = ""
    message: str = ""
    duration: float = 0.0
    log_tail: str = ""
    records: tuple[tuple[str, int], ...] = ()
    """Id and number."""

    def attempts(self) -> Iterator[Attempt]:
        """One for each record."""
        for record, number in self.records:
            yield Attempt(
                record=record,
                number=number,
                mapping=self.mapping,
                partition=self.partition,
                at=self.at,
                request_id=self.request_id,
                outcome=self.outcome,
                error_type=self.error_type,
                message=self.message,
                duration=self.duration,
                log_tail=self.log_tail,
            )


class Bounds(NamedTuple):
    """How much is kept; what is older goes first."""

    age: float = 14 * 86_400.0
    """Seconds: as long as a queue may keep a dead letter."""
    per_record: int = 10
    """Attempts."""
    per_mapping: int = 2_000
    """Attempts, over all its records."""
    total: int = 20_000


BOUNDS = Bounds()
