"""The Lambda-compatible HTTP API (interfaces.md section 3): what it asks of the daemon, and what it answers with."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    import anyio

    from bridge.api.book import Book
    from bridge.aws import Aws
    from bridge.executors.versions import Versions
    from bridge.function import EventInvoke
    from bridge.invoker import Invoker
    from bridge.settings import Settings
    from bridge.stores import Store
    from bridge.supervisor import Supervisor
    from bridge.telemetry.traces import Traces


class AsyncQueue(Protocol):
    """Where asynchronous invocations wait (ASY-1)."""

    async def accept(self, function: str, qualifier: str, payload: bytes, request_id: str, *, trace: str = "") -> None:
        """Returns once the event is on disk; raises StateError when it is not, Throttled when too much waits already.
        ``function`` is a name of the configuration, ``qualifier`` what the caller said or empty; all attempts carry
        ``request_id`` (ASY-2) and the caller's ``trace`` header."""
        ...

    def configure(self, function: str, qualifier: str, settings: EventInvoke | None) -> None:
        """From now on events of this function and qualifier go by ``settings``; none: by the configuration (ASY-20)."""
        ...


class Host(Protocol):
    """What the API needs of the daemon."""

    @property
    def settings(self) -> Settings: ...

    @property
    def invokers(self) -> Dict[str, Invoker]:
        """The functions in service."""
        ...

    @property
    def versions(self) -> Dict[str, Versions]:
        """What runs them."""
        ...

    @property
    def supervisor(self) -> Supervisor: ...

    @property
    def store(self) -> Store: ...

    @property
    def aws(self) -> Aws: ...

    @property
    def book(self) -> Book:
        """The mappings made here."""
        ...

    @property
    def queue(self) -> AsyncQueue | None:
        """None: there is no asynchronous invocation."""
        ...

    @property
    def traces(self) -> Traces | None:
        """None: invocations are not traced."""
        ...

    @property
    def started_at(self) -> float:
        """Epoch seconds."""
        ...

    @property
    def changing(self) -> anyio.Lock:
        """Held while functions or mappings are changed."""
        ...


class Call(msgspec.Struct, frozen=True):
    """One request, checked against the model: ``given`` has the members of the operation's input by their names."""

    given: dict[str, Any]
    request_id: str
    trace_id: str = ""


Answer = dict[str, Any]
"""The members of the operation's output; what is None is left out."""


class ApiError(Exception):
    """An error of the model by its name (``ResourceNotFoundException``), or of the API's front, which is none of the
    model's and comes with its own ``status``. ``more`` are further members."""

    def __init__(self, name: str, message: str, *, status: int = 400, more: Dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.message = message
        self.status = status
        self.more = dict(more or {})


def invalid(message: str) -> ApiError:
    """InvalidParameterValueException."""
    return ApiError("InvalidParameterValueException", message)
