"""Where something stands: the gate that it shows, since when, when it should be past it, and waits that end when it
drains. Whatever waits has a station, its own or that of the task in which it is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import NamedTuple

import anyio

from bridge.errors import Draining
from bridge.gates import GateName
from bridge.snapshot import Gate

Name = GateName | Callable[[], GateName]
Detail = str | Callable[[], str]
"""One line for people. Functions are asked when somebody looks."""

_station: ContextVar[Station | None] = ContextVar("station", default=None)


class _Wait(NamedTuple):
    """One wait within another."""

    gate: Name
    since: float
    detail: Detail


class Station:
    """One task's place on its way. It does one thing at a time; what is inside of that shows in its place."""

    def __init__(self, gate: GateName = "starting", detail: Detail = "") -> None:
        self.due = inf
        """Monotonic: when it should be past it; inf where waiting is right."""
        self.draining = False
        self._gate: Name = gate
        self._since = time.time()
        self._detail: Detail = detail
        self._inner: list[_Wait] = []
        self._task: asyncio.Task[object] | None = None
        self._wait: tuple[anyio.CancelScope, float] | None = None

    def __repr__(self) -> str:
        return f"<Station {self.name}{', draining' if self.draining else ''}>"

    @property
    def name(self) -> GateName:
        """Of the gate that holds it now."""
        gate = self._inner[-1].gate if self._inner else self._gate
        return gate() if callable(gate) else gate

    @property
    def gate(self) -> Gate:
        """What holds it now."""
        _, since, detail = self._inner[-1] if self._inner else (self._gate, self._since, self._detail)
        return Gate(self.name, since, detail() if callable(detail) else detail)

    @property
    def whole(self) -> Gate:
        """The outer gate, with what inside of it holds now."""
        detail = self._detail() if callable(self._detail) else self._detail
        if self._inner:
            detail = f"{detail}: {self.gate.name}, {self.gate.detail}"
        gate = self._gate() if callable(self._gate) else self._gate
        return Gate(gate, self._since, detail)

    def bind(self) -> None:
        """What this task waits for from now on, however deep inside, shows here (see ``held``)."""
        self._task = asyncio.current_task()
        _station.set(self)

    @property
    def here(self) -> bool:
        """It is that of the running task."""
        return self._task is asyncio.current_task()

    def at(self, gate: Name, detail: Detail = "", due: float = inf, since: float | None = None) -> None:
        """It has come here. ``due``: seconds until it should be past it; ``since``: epoch seconds, if not from now
        on."""
        if since is not None:
            self._since = since
        elif gate != self._gate:
            self._since = time.time()
        self._gate, self._detail = gate, detail
        self.due = anyio.current_time() + due

    @contextmanager
    def waiting(
        self, gate: Name, detail: Detail, *, grace: float = 0.0, due: float = inf, since: float | None = None
    ) -> Iterator[None]:
        """A wait that a drain ends after ``grace``; raises Draining when it did."""
        self.at(gate, detail, due, since)
        with anyio.CancelScope() as scope:
            if self.draining:
                scope.deadline = anyio.current_time() + grace
            self._wait = (scope, grace)
            try:
                yield
            finally:
                self._wait = None
        if scope.cancelled_caught:
            raise Draining

    @contextmanager
    def inside(self, gate: GateName, detail: Detail) -> Iterator[None]:
        """A wait within the present one."""
        wait = _Wait(gate, time.time(), detail)
        self._inner.append(wait)
        try:
            yield
        finally:
            self._inner.remove(wait)

    def drain(self) -> None:
        """Ends the wait that is under way, after its grace, and each that follows."""
        self.draining = True
        if self._wait:
            scope, grace = self._wait
            scope.deadline = min(scope.deadline, anyio.current_time() + grace)


@contextmanager
def held(gate: GateName, detail: Detail) -> Iterator[None]:
    """A wait of the running task, wherever in its calls it is; shown by its station, if it has one."""
    station = _station.get()
    if station is None or not station.here:
        yield
        return
    with station.inside(gate, detail):
        yield


def countdown(what: str, until: float) -> Callable[[], str]:
    """A detail that says how long it will take; ``until``: monotonic."""
    return lambda: f"{what} in {max(0.0, until - anyio.current_time()):.1f} s"
