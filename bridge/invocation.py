"""One call of a function, and how it ended."""

from __future__ import annotations

from typing import Literal

import msgspec

from bridge.function import LATEST

FailureKind = Literal["function", "timeout", "exit", "oom", "throttled", "reserved_zero", "unreachable"]


class Invocation(msgspec.Struct, frozen=True):
    """What an executor is asked to run.

    ``payload`` is the event as UTF-8 JSON, never parsed on the way. ``request_id`` is a lower-case UUID; retries of one
    asynchronous event share it. ``mapping`` names the mapping for log lines (empty: a direct call).
    """

    payload: bytes
    request_id: str
    mapping: str = ""
    trace_id: str = ""
    qualifier: str = ""
    """Version or alias; empty: the unqualified function."""
    client_context: str = ""
    """JSON text in ASCII, on one line; empty: none was given (RT-3)."""


class Succeeded(msgspec.Struct, frozen=True):
    """The handler returned. ``payload`` is its answer, JSON text as it came; ``duration`` in seconds without init."""

    payload: bytes
    request_id: str
    version: str = LATEST
    duration: float = 0.0
    log_tail: bytes = b""


class Failed(msgspec.Struct, frozen=True):
    """The invocation did not succeed. ``error`` is AWS's error object as JSON text (INV-20..25, RT-5).

    kind: ``function`` (the handler or its loading raised, or it answered too much or garbage), ``timeout``, ``exit``
    (the process ended), ``oom`` (it was killed for using more than its memory), ``throttled``, ``reserved_zero``
    (reserved concurrency 0), ``unreachable`` (never started).
    """

    kind: FailureKind
    error: bytes
    request_id: str
    version: str = LATEST
    duration: float = 0.0
    log_tail: bytes = b""

    @property
    def ran(self) -> bool:
        """Whether the handler got the event: only then an attempt is used up."""
        return self.kind in ("function", "timeout", "exit", "oom")


Outcome = Succeeded | Failed
