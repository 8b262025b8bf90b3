"""What the daemon says about itself: one snapshot, of which every page, probe and command is a view."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import msgspec

State = str
"""ESM-50: Creating, Enabling, Enabled, Disabling, Disabled, Updating, Deleting."""


class Gate(msgspec.Struct, frozen=True):
    """What holds something right now. ``since`` in epoch seconds; ``detail`` is one line for people."""

    name: str
    """window, slot, buffer, failing, throttled, group, paused, opening, state, endpoint, draining, polling …"""
    since: float
    detail: str = ""


class Failure(msgspec.Struct, frozen=True):
    """One failed invocation or poll, without any payload."""

    at: float
    what: str
    """The error type: ``Sandbox.Timedout``, ``ValueError``, ``AccessDenied``."""
    message: str
    request_id: str = ""


class RunnerView(msgspec.Struct, frozen=True):
    """One runner of a partition."""

    partition: str
    gate: Gate
    in_flight: int
    """Records that it holds, collected or running."""


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
    failures: tuple[Failure, ...] = ()
    filtered_ids: tuple[str, ...] = ()
    """The last few records that the filter removed."""
    polled: int = 0
    filtered: int = 0
    succeeded: int = 0
    """Records settled as done by an invocation."""
    failed: int = 0
    """Records left to the source after an invocation."""


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

    def backlog(self, name: str) -> Awaitable[int | None]:
        """Records that wait at the source, asked of it now (`/scale`); none when it cannot say."""
        ...
