"""Asynchronous invocations: takes events for functions, and runs each function that has some until there are none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import anyio
import structlog

from bridge.destinations.delivery import Delivery
from bridge.sources.event_queue import EventQueue, EventStore
from bridge.sources.invocations import event_mapping
from bridge.supervised import Asynchronous
from bridge.supervisor import Pauses, Supervisor

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.flow import Buffer
    from bridge.function import EventInvoke, Function
    from bridge.invoker import Invoker
    from bridge.ledger import Ledger
    from bridge.snapshot import MappingView
    from bridge.telemetry.metrics import FunctionMeter, Metrics
    from bridge.telemetry.traces import Traces

log = structlog.get_logger()


class Store(EventStore, Pauses, Protocol):
    """The parts of the state store that are needed here."""


class AsyncInvocations:
    """The asynchronous side of all functions. ``invoker`` gives that of a function by name, none while it is not in
    service: its events wait then (ASY-11). Work with it inside ``running``."""

    def __init__(
        self,
        store: Store,
        aws: Aws,
        metrics: Metrics,
        buffer: Buffer,
        invoker: Callable[[str], Invoker | None],
        *,
        traces: Traces | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._invoker = invoker
        self._events = EventQueue(store, self._meter)
        self.delivery = Delivery(aws, self._function, self._accept, self._meter)
        """To all destinations of this daemon."""
        asynchronous = Asynchronous(self._events, self.delivery)
        self._supervisor = Supervisor(
            aws, metrics, buffer, store, asynchronous=asynchronous, traces=traces, ledger=ledger
        )
        self._seen: dict[str, None] = {}
        """Functions that have had events."""
        self._turn = anyio.Lock()
        self._draining = False

    def __repr__(self) -> str:
        return f"<AsyncInvocations {self._events!r}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Events are accepted and invoked inside. Raises StateError when the store cannot be read."""
        async with self._events.running(), self._supervisor.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, name="asynchronous events")
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def accept(self, function: str, qualifier: str, payload: bytes, request_id: str, *, trace: str = "") -> None:
        """Returns when the event is on disk (ASY-1), also for a function that is not in service.

        ``function`` is a name of the configuration, ``qualifier`` a version or alias (empty: ``$LATEST``), ``payload``
        JSON text, ``request_id`` a UUID that all attempts share (ASY-2), ``trace`` the caller's X-Ray trace header.
        Raises Throttled when too much waits already, StateError when it cannot be written.
        """
        await self._events.accept(function, qualifier, payload, request_id, trace=trace)

    def configure(self, function: str, qualifier: str, settings: EventInvoke | None) -> None:
        """From now on events of this function and qualifier go by ``settings``; none: by the configuration (ASY-20)."""
        self._events.configure(function, qualifier, settings)

    def waiting(self, function: str) -> int:
        """Accepted events of a function that are not finished."""
        return self._events.waiting(function)

    @property
    def total(self) -> int:
        """Those of all functions."""
        return self._events.total

    def views(self) -> tuple[MappingView, ...]:
        """What feeds each function that has had events since the start."""
        return tuple(supervised.view() for supervised in self._supervisor.mappings)

    def uuid(self, name: str) -> str | None:
        """Of what feeds a function, by its name (FUNCTION:async); none: no function has this."""
        return next((it.mapping.uuid for it in self._supervisor.mappings if it.mapping.name == name), None)

    async def start(self) -> None:
        """Runs the events of each function that has had some and is in service, unless they run already."""
        async with self._turn:
            running = {supervised.mapping.function for supervised in self._supervisor.mappings}
            for name in self._seen:
                invoker = self._invoker(name)
                if invoker and name not in running and not self._draining:
                    await self._supervisor.add(event_mapping(invoker.function), invoker)

    async def stop(self, function: str) -> None:
        """Drains the events of one function: what waits goes on waiting until ``start``."""
        async with self._turn:
            for supervised in self._supervisor.mappings:
                if supervised.mapping.function == function:
                    await self._supervisor.remove(supervised.mapping.name)

    async def drain(self) -> None:
        """Starts nothing more; returns when nothing runs. Events are still accepted, for the next start."""
        self._draining = True
        await self._supervisor.drain()

    async def _follow(self) -> None:
        async for name in self._events.functions():
            self._seen[name] = None
            if self._invoker(name) is None:
                log.warning("async_events_without_function", function=name, events=self._events.waiting(name))
            await self.start()

    async def _accept(self, function: str, qualifier: str, payload: bytes, request_id: str, trace: str) -> None:
        await self.accept(function, qualifier, payload, request_id, trace=trace)

    def _function(self, name: str) -> Function | None:
        invoker = self._invoker(name)
        return invoker.function if invoker else None

    def _meter(self, name: str) -> FunctionMeter | None:
        invoker = self._invoker(name)
        return invoker.meter if invoker else None
