"""What the daemon says about itself: one snapshot, of which every page, probe and command is a view."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping as Dict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from bridge.attempt import Attempt, FailedBatch


def iso(epoch: float, timespec: str = "milliseconds") -> str:
    """ISO 8601 in UTC, to the millisecond, or as ``timespec`` says."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


State = str
"""ESM-50: Creating, Enabling, Enabled, Disabling, Disabled, Updating, Deleting."""


class Gate(msgspec.Struct, frozen=True):
    """What holds something right now. ``since`` in epoch seconds; ``detail`` is one line for people."""

    name: str
    """One of ``GATES``."""
    since: float
    detail: str = ""


class Failure(msgspec.Struct, frozen=True):
    """One failed invocation or poll, without any payload."""

    at: float
    what: str
    """The error type: ``Sandbox.Timedout``, ``ValueError``, ``AccessDenied``."""
    message: str
    request_id: str = ""


class Blocked(msgspec.Struct, frozen=True):
    """A batch that is tried again, while all that comes after it in its partition waits. Times in epoch seconds."""

    record: str
    """Id of its first record: the sequence number."""
    records: int
    attempt: int
    """The next invocation of it, or the one that runs."""
    attempts: int | None
    """Invocations at the most; none: no limit (KIN-60)."""
    since: float
    """When it first failed."""
    next_at: float | None = None
    """When the next attempt begins; none: it runs, or waits for its turn."""
    why: str = ""
    """How the last try ended: ``function``, ``timeout``, ``throttled`` …"""

    def line(self) -> str:
        """All of it for people."""
        limit = f" of {self.attempts}" if self.attempts is not None else ", no limit"
        more = f" and {self.records - 1} more" if self.records > 1 else ""
        when = f", next at {iso(self.next_at)}" if self.next_at is not None else ", now"
        why = f" after {self.why}" if self.why else ""
        return f"record {self.record}{more}: attempt {self.attempt}{limit}{why}{when}"


class RunnerView(msgspec.Struct, frozen=True):
    """One runner of a partition."""

    partition: str
    gate: Gate
    in_flight: int
    """Records that it holds, collected or running."""
    oldest: float | None = None
    """Epoch seconds: when the oldest record arrived that it holds."""
    blocked: Blocked | None = None


class WaitView(msgspec.Struct, frozen=True):
    """Something that waits and is no runner: a shard, its reader, a message group."""

    what: str
    gate: Gate
    record: str = ""
    """Id of the record that it waits for, where that is known."""


class MappingView(msgspec.Struct, frozen=True, kw_only=True):
    """One mapping. ``ready``: it polls, or has no need to (paused, Disabled)."""

    name: str
    uuid: str
    function: str
    source_arn: str
    source: str
    state: State
    ready: bool
    gate: Gate | None = None
    """What holds it as a whole, else the gate of the runner that is held longest."""
    in_flight: int = 0
    lag_seconds: float | None = None
    """Age of the oldest record that it holds or saw last; none before the first poll."""
    last_error: str | None = None
    runners: tuple[RunnerView, ...] = ()
    waits: tuple[WaitView, ...] = ()
    """What waits at its source while its runners go on."""
    failures: tuple[Failure, ...] = ()
    filtered_ids: tuple[str, ...] = ()
    """The last few records that the filter removed."""
    polled: int = 0
    filtered: int = 0
    succeeded: int = 0
    """Records settled as done by an invocation."""
    failed: int = 0
    """Records left to the source after an invocation, or given up."""
    ordered: bool = False
    """Its source is an ordered one: a stream."""
    behind: float | None = None
    """Seconds between the tip of the source and the reader that is farthest back."""
    last_result: str = "No records processed"
    """LastProcessingResult (KIN-3, KIN-5)."""


class Ran(msgspec.Struct, frozen=True, array_like=True):
    """One invocation that is over: its seconds, and whether it succeeded."""

    seconds: float
    ok: bool


class FunctionView(msgspec.Struct, frozen=True, kw_only=True):
    """One function. ``waiting``: batches that have no slot yet, by mapping."""

    name: str
    arn: str
    concurrency: int
    busy: int
    idle: int
    starting: int
    waiting: dict[str, int] = {}
    invocations: int = 0
    errors: int = 0
    events: int = 0
    """Asynchronous events that are accepted and not finished."""
    waits: tuple[WaitView, ...] = ()
    """What is being made ready."""
    recent: tuple[Ran, ...] = ()
    """The last invocations that ran, the newest last."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole daemon at one moment."""

    version: str
    pid: int
    started_at: float
    at: float
    draining: bool
    starting: bool = False
    """Not all mappings are known yet."""
    buffered_bytes: int
    max_buffered_bytes: int
    mappings: tuple[MappingView, ...] = ()
    functions: tuple[FunctionView, ...] = ()
    asynchronous: tuple[MappingView, ...] = ()
    """What feeds functions from their asynchronous events, of those that have had some: FUNCTION:async."""


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping that is gone, whose positions were dropped. ``name``: the one it had when it ran last."""

    name: str
    uuid: str
    partitions: int


class Control(Protocol):
    """What the admin interface may do with the daemon. ``name`` is a mapping's name or UUID: KeyError when unknown."""

    def snapshot(self) -> Snapshot: ...

    def pause(self, name: str, *, wait: bool) -> Awaitable[MappingView]:
        """Stops receiving, gives back what was not started; with ``wait``, returns when nothing runs any more.
        Survives restarts until ``resume``."""
        ...

    def resume(self, name: str) -> Awaitable[MappingView]: ...

    def forget(self, name: str) -> Awaitable[Forgotten]:
        """Drops the positions of a mapping that is gone. UsageError: there are none under this name or UUID, or those
        of several, or the mapping exists."""
        ...

    def attempts(self, records: Collection[str]) -> Awaitable[Dict[str, tuple[Attempt, ...]]]:
        """What is known about the failed attempts at records with these ids."""
        ...

    def last_failed(self, name: str, most: int) -> Awaitable[tuple[FailedBatch, ...]]:
        """The last invocations of a mapping that failed, the newest first."""
        ...

    def backlog(self, name: str) -> Awaitable[int | None]:
        """Records that wait at the source, asked of it now (`/scale`); none when it cannot say."""
        ...
