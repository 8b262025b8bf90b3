"""Turns a crash, a time-out and an error response into ``Failed``, in AWS's words, and says so once in the log."""

from __future__ import annotations

import signal

import msgspec
import structlog

from bridge.executors.http1 import BODY_LIMIT
from bridge.function import Function
from bridge.invocation import Failed, FailureKind, Invocation
from bridge.telemetry.logs import Once

log = structlog.get_logger()

SHOWN = 200
"""Characters of an error message that are logged."""


_KINDS: dict[str, FailureKind] = {"Sandbox.Timedout": "timeout", "Runtime.ExitError": "exit"}


class _ErrorObject(msgspec.Struct):
    """What errors have in common (INV-21)."""

    errorType: str = ""  # noqa: N815
    errorMessage: str = ""  # noqa: N815


class Failures:
    """Of one function."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._once = Once(log)

    def posted(self, invocation: Invocation, error: bytes, duration: float = 0.0, tail: bytes = b"") -> Failed:
        """The runtime reported an error: its bytes are the payload (RT-5)."""
        return self._failed("function", error or b"{}", invocation, duration, tail)

    def reported(
        self, invocation: Invocation, error: bytes, duration: float, *, tail: bytes = b"", version: str = ""
    ) -> Failed:
        """Whoever ran it elsewhere reported an error object; its type says how it ended (INV-23, INV-24)."""
        kind = _KINDS.get(parse_error(error).errorType, "function")
        return self._failed(kind, error or b"{}", invocation, duration, tail, version)

    def told(self, kind: FailureKind, error_type: str, message: str, invocation: Invocation, duration: float) -> Failed:
        """What we found out ourselves about an invocation elsewhere, as an error object."""
        error = msgspec.json.encode({"errorType": error_type, "errorMessage": message})
        return self._failed(kind, error, invocation, duration, b"")

    def too_large(self, invocation: Invocation, duration: float, tail: bytes) -> Failed:
        """The answer was longer than AWS allows (INV-9)."""
        message = f"Response payload size exceeded maximum allowed payload size ({BODY_LIMIT} bytes)."
        error = msgspec.json.encode({"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"})
        return self._failed("function", error, invocation, duration, tail)

    def timed_out(self, invocation: Invocation, duration: float, tail: bytes) -> Failed:
        """It took longer than the function's timeout (INV-23)."""
        what = f"Task timed out after {self._function.timeout:.2f} seconds"
        return self._failed(
            "timeout", _platform_error("Sandbox.Timedout", invocation, what), invocation, duration, tail
        )

    def exited(self, invocation: Invocation, status: int, duration: float, tail: bytes) -> Failed:
        """The process ended (INV-24)."""
        error = _platform_error("Runtime.ExitError", invocation, exit_text(status))
        return self._failed("exit", error, invocation, duration, tail)

    def out_of_memory(self, invocation: Invocation, duration: float, tail: bytes) -> Failed:
        """It used more than the function's memory, and was killed (INV-24)."""
        error = _platform_error("Runtime.ExitError", invocation, exit_text(-signal.SIGKILL))
        return self._failed("oom", error, invocation, duration, tail)

    def unstarted(self, invocation: Invocation, why: str) -> Failed:
        """No process could be started, or not with the credentials it should have."""
        error = _platform_error("Runtime.InvalidEntrypoint", invocation, why)
        return self._failed("unreachable", error, invocation, 0.0, b"")

    def _failed(
        self,
        kind: FailureKind,
        error: bytes,
        invocation: Invocation,
        duration: float,
        tail: bytes,
        version: str = "",
    ) -> Failed:
        shown = parse_error(error)
        message = shown.errorMessage.replace(f"RequestId: {invocation.request_id} Error: ", "")
        self._once.log(
            (invocation.mapping, kind, shown.errorType, message),
            "invocation_failed",
            function=self._function.name,
            mapping=invocation.mapping,
            request_id=invocation.request_id,
            kind=kind,
            error_type=shown.errorType,
            message=message if len(message) <= SHOWN else f"{message[:SHOWN]}…",
            duration_ms=round(duration * 1000, 2),
        )
        return Failed(kind, error, invocation.request_id, version or self._function.version, duration, tail)


def parse_error(error: bytes) -> _ErrorObject:
    """The type and message of an error payload, as far as it has them (it is never validated: RT-5)."""
    try:
        return msgspec.json.decode(error, type=_ErrorObject)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _ErrorObject()


def exit_text(status: int) -> str:
    """Why a process with this exit status ended (INV-24); negative: by that signal."""
    if status == 0:
        return "Runtime exited without providing a reason"
    if status > 0:
        return f"Runtime exited with error: exit status {status}"
    name = signal.strsignal(-status) or f"signal {-status}"
    return f"Runtime exited with error: signal: {name.lower()}"


def _platform_error(kind: str, invocation: Invocation, what: str) -> bytes:
    message = f"RequestId: {invocation.request_id} Error: {what}"
    return msgspec.json.encode({"errorType": kind, "errorMessage": message})
