"""Runs a function with all its versions: each in an executor of its own, which starts nothing until it is needed."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from importlib import import_module
from types import TracebackType
from typing import Self

from bridge.executors import EXECUTORS, Environments, Executor, Surroundings
from bridge.executors.failures import Failures
from bridge.function import LATEST, Function
from bridge.invocation import Invocation, Outcome
from bridge.versions import at, resolve


class Versions:
    """An executor of the whole function. An alias is resolved at each attempt. Entering it raises UsageError when a
    version can never run as configured."""

    def __init__(self, function: Function, surroundings: Surroundings) -> None:
        kind = executor_class(function)
        self.function = function
        self._executors = {
            version: kind(at(function, version), surroundings) for version in (LATEST, *function.versions)
        }
        self._failures = Failures(function)
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Versions {list(self._executors.values())!r}>"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for executor in self._executors.values():
                await stack.enter_async_context(executor)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def invoke(self, invocation: Invocation) -> Outcome:
        version = resolve(self.function, invocation.qualifier, random.random())  # noqa: S311 - shares, no secret
        if version is None:  # it has gone since the event was accepted
            message = f"Function not found: {self.function.qualified(invocation.qualifier)}"
            return self._failures.told("unreachable", "ResourceNotFoundException", message, invocation, 0.0)
        return await self._executors[version].invoke(invocation)

    def environments(self) -> Environments:
        """Of all versions together."""
        each = [executor.environments() for executor in self._executors.values()]
        failing = next((it.failing for it in each if it.failing), "")
        return Environments(
            sum(it.idle for it in each),
            sum(it.busy for it in each),
            sum(it.starting for it in each),
            failing,
            tuple(wait for it in each for wait in it.waits),
        )

    def provision(self, count: int) -> None:
        """Of ``$LATEST``; of another see ``version``."""
        self._executors[LATEST].provision(count)

    def version(self, version: str) -> Executor:
        """What runs this version; KeyError when there is none."""
        return self._executors[version]


def executor_class(function: Function) -> type[Executor]:
    """The class that EXECUTORS names for the function's kind."""
    module, _, name = EXECUTORS[function.kind].partition(":")
    kind: type[Executor] = getattr(import_module(module), name)
    return kind
