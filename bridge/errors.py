"""What bridge raises on purpose. A class's docstring is its default message."""

from __future__ import annotations

from collections.abc import Iterator


class BridgeError(Exception):
    """Something went wrong."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class UsageError(BridgeError):
    """The command cannot be carried out as it was given."""


class ConfigError(UsageError):
    """The configuration has problems. Each of ``problems`` is one line: where, what is wrong, what is allowed."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class StateError(UsageError):
    """The state store cannot be used."""


# What can go wrong at the far side of a source or of AWS. `aws.py` makes them out of error codes.


class RemoteError(BridgeError):
    """The service answered with an error."""

    code: str = ""
    """The service's own error code, for logs and metrics."""
    request_id: str = ""
    """The service's own name for the request, where it said one. It is a note, not in the message: an error that
    repeats says the same each time."""

    def __init__(self, message: str = "", *, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.code = code or type(self).__name__
        self.request_id = request_id
        if request_id:
            self.add_note(f"request id {request_id}")


class Throttled(RemoteError):
    """The service is throttling these requests."""


class OverLimit(RemoteError):
    """Too many messages of this queue are in flight."""


class AccessDenied(RemoteError):
    """The credentials may not do this."""


class ExpiredCredentials(RemoteError):
    """The credentials have expired."""


class NotFound(RemoteError):
    """The resource does not exist."""


class Unreachable(RemoteError):
    """The endpoint does not answer."""


class ServiceFault(RemoteError):
    """The service failed."""


class Rejected(RemoteError):
    """The service refused the request."""


# Control flow with a name, documented in the contracts.


class OddAnswer(BridgeError):
    """The answer is none of the protocol in which the request was made."""


class PartitionEnded(BridgeError):
    """Everything of this partition has been fetched, and nothing will follow."""


class HoldLost(BridgeError):
    """The partition is not ours any more."""


class Draining(BridgeError):
    """The wait was given up because its mapping drains."""


def first_cause(error: BaseException) -> BaseException:
    """The first error inside nested exception groups."""
    return next(_leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
