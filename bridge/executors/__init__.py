"""What runs a function: the contract that every executor keeps. tests/contracts/executor.py is its specification."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import msgspec

from bridge.function import Function
from bridge.invocation import Invocation, Outcome
from bridge.snapshot import WaitView

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.executors.credentials import CredentialSource
    from bridge.executors.output import OutputSink
    from bridge.leash import Leash

EXECUTORS = {
    "python": "bridge.executors.process:ProcessExecutor",
    "url": "bridge.executors.http:HttpExecutor",
    "lambda": "bridge.executors.aws_lambda:LambdaExecutor",
    "nodejs": "bridge.executors.process:ProcessExecutor",
    "provided": "bridge.executors.process:ProcessExecutor",
}
"""``Function.kind`` -> ``module:Class``."""


class Surroundings(msgspec.Struct, frozen=True):
    """What an executor is given besides its function."""

    leash: Leash
    """Holds whatever it starts."""
    credentials: CredentialSource | None = None
    """The AWS chain that ``function.aws`` describes; none: children get no keys."""
    output: OutputSink | None = None
    """Where lines of handlers go; none: to the log."""
    aws: Aws | None = None
    """For functions that run on AWS."""
    cgroups: Path | None = None
    """The control group below which each environment gets its own; none: their memory is watched."""


class Environments(NamedTuple):
    """How many execution environments stand ready, run, and start right now."""

    idle: int = 0
    busy: int = 0
    starting: int = 0
    failing: str = ""
    """Why none could be started ahead when that was last tried; empty: it could, or was not asked for."""
    waits: tuple[WaitView, ...] = ()
    """What is being made ready while invocations go on."""


class Executor(Protocol):
    """Runs one function. An async context manager: entering makes it ready, without starting code, and raises
    UsageError when it can never run as configured; leaving ends all that still runs (killed, whole process groups) and
    leaves nothing behind.
    """

    function: Function

    def __init__(self, function: Function, surroundings: Surroundings) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    async def invoke(self, invocation: Invocation) -> Outcome:
        """One attempt. May be called concurrently, up to ``function.concurrency`` times; the caller sees to that.

        How the handler fares is the return value, never an exception: only a bug of ours raises. Bounded in time by
        itself: the function's timeout, and the limit of its init. Cancelled: the environment is killed.
        """
        ...

    def environments(self) -> Environments:
        """A snapshot for metrics and ``show``."""
        ...

    def provision(self, count: int) -> None:
        """So many environments are started ahead and kept from now on, in place of ``function.provisioned``. Raises
        ValueError where there is nothing to be started."""
        ...
