"""The calls that an executor of somebody else's handlers has in flight, ended when it is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf

import anyio

from bridge.errors import BridgeError
from bridge.executors import Environments

CLOSING = 5.0
"""Seconds that calls get to end once they are cancelled."""


class CallEnded(BridgeError):
    """The executor was left while the call was in flight."""


class Calls:
    """Counts them, bounds each in time, and can end them all."""

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._changed = anyio.Event()
        self.closed = False

    @property
    def environments(self) -> Environments:
        """Each call is an environment that works."""
        return Environments(busy=len(self._scopes))

    def provision(self, count: int) -> None:
        """Nothing can be started ahead."""
        if count:
            raise ValueError("what runs elsewhere is started elsewhere")

    async def run(self, call: Callable[[], Awaitable[None]], limit: float = inf) -> bool:
        """Whether ``call`` was over within ``limit`` seconds. Raises CallEnded when ``close`` came first."""
        with anyio.CancelScope(deadline=anyio.current_time() + limit) as scope:
            self._scopes.add(scope)
            try:
                await call()
            finally:
                self._scopes.discard(scope)
                self._changed.set()
        if scope.cancelled_caught and self.closed:
            raise CallEnded
        return not scope.cancelled_caught

    async def close(self) -> None:
        """Ends all of them."""
        self.closed = True
        for scope in tuple(self._scopes):
            scope.cancel()
        with suppress(TimeoutError), anyio.CancelScope(shield=True):
            with anyio.fail_after(CLOSING):
                while self._scopes:
                    self._changed = anyio.Event()
                    await self._changed.wait()
