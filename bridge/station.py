"""Where a runner stands: the gate that it shows, when it should be past it, and waits that end when it drains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import anyio

from bridge.errors import Draining
from bridge.snapshot import Gate


class Station:
    """One runner's place on its way. It does one thing at a time."""

    def __init__(self) -> None:
        self.gate = Gate("starting", time.time())
        self.due = inf
        """Monotonic: when the runner should be past it; inf where waiting is right."""
        self.draining = False
        self._wait: tuple[anyio.CancelScope, float] | None = None

    def __repr__(self) -> str:
        return f"<Station {self.gate.name}{', draining' if self.draining else ''}>"

    def at(self, gate: str, detail: str, due: float = inf) -> None:
        """It has come here. ``due``: seconds until it should be past it."""
        if gate != self.gate.name or detail != self.gate.detail:
            self.gate = Gate(gate, time.time(), detail)
        self.due = anyio.current_time() + due

    @contextmanager
    def waiting(self, gate: str, detail: str, *, grace: float = 0.0, due: float = inf) -> Iterator[None]:
        """A wait that a drain ends after ``grace``; raises Draining when it did."""
        self.at(gate, detail, due)
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

    def drain(self) -> None:
        """Ends the wait that is under way, after its grace, and each that follows."""
        self.draining = True
        if self._wait:
            scope, grace = self._wait
            scope.deadline = min(scope.deadline, anyio.current_time() + grace)
