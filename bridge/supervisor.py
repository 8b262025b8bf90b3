"""All mappings of the daemon: added, replaced, paused and removed, and watched for what stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import anyio

from bridge.flow import Buffer
from bridge.invoker import Invoker
from bridge.mapping import Mapping
from bridge.snapshot import MappingView
from bridge.supervised import Asynchronous, Supervised

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from bridge.aws import Aws
    from bridge.checkpoints import Checkpoints
    from bridge.destinations.delivery import Delivery
    from bridge.ledger import Ledger
    from bridge.telemetry.metrics import MappingMeter, Metrics
    from bridge.telemetry.traces import Traces

WATCH_EVERY = 1.0


class Pauses(Protocol):
    """Which mappings were paused, across restarts: the part of the state store that is needed here."""

    async def paused(self) -> frozenset[str]: ...

    async def pause(self, uuid: str) -> None: ...

    async def resume(self, uuid: str) -> None: ...


class Supervisor:
    """All mappings of the daemon."""

    def __init__(
        self,
        aws: Aws,
        metrics: Metrics,
        buffer: Buffer,
        pauses: Pauses,
        *,
        delivery: Delivery | None = None,
        asynchronous: Asynchronous | None = None,
        checkpoints: Checkpoints | None = None,
        traces: Traces | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._aws = aws
        self._delivery = delivery
        self._asynchronous = asynchronous
        self._checkpoints = checkpoints
        self._traces = traces
        self._ledger = ledger
        self._metrics = metrics
        self._buffer = buffer
        self._pauses = pauses
        self._mappings: dict[str, Supervised] = {}
        self._ended: dict[str, anyio.Event] = {}
        self._tasks: TaskGroup | None = None
        self._draining = False
        self.watched = anyio.Event()
        """Set and replaced after each look at the mappings: proof that the event loop and the watch are alive."""

    def __repr__(self) -> str:
        return f"<Supervisor {list(self._mappings.values())!r}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Mappings can be added inside; leaving cancels what still runs, settles bounded."""
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._watch, name="watch")
            try:
                yield
            finally:
                for supervised in self._mappings.values():
                    supervised.hurry()
                self._tasks.cancel_scope.cancel()

    @property
    def mappings(self) -> tuple[Supervised, ...]:
        """In the order in which they were added."""
        return tuple(self._mappings.values())

    async def add(self, mapping: Mapping, invoker: Invoker, *, state: str = "Creating") -> None:
        """Starts a mapping; returns at once. ``state``: what it is in until it polls."""
        assert self._tasks is not None  # noqa: S101 - only inside running()
        meter = self._metrics.mapping_meter(mapping.name, mapping.source, mapping.function)
        paused = mapping.uuid in await self._pauses.paused()
        supervised = Supervised(
            mapping,
            invoker,
            self._aws,
            meter,
            self._buffer,
            paused=paused,
            delivery=self._delivery,
            asynchronous=self._asynchronous,
            checkpoints=self._checkpoints,
            traces=self._traces,
            ledger=self._ledger,
            state=state,
        )
        self._mappings[mapping.name] = supervised
        ended = self._ended[mapping.name] = anyio.Event()
        self._tasks.start_soon(self._run, supervised, meter, ended, name=f"mapping {mapping.name}")

    async def remove(self, name: str) -> None:
        """Drains a mapping and forgets it."""
        supervised = self._mappings[name]
        supervised.close()
        await self._ended[name].wait()
        if self._mappings.get(name) is supervised:
            del self._mappings[name], self._ended[name]

    def remove_soon(self, name: str, then: Callable[[], Awaitable[None]]) -> None:
        """``remove``, without waiting for it, and ``then`` what follows; the mapping is Deleting from now on."""
        assert self._tasks is not None  # noqa: S101
        self._mappings[name].close("Deleting")
        self._tasks.start_soon(self._remove, name, then, name=f"delete {name}")

    async def _remove(self, name: str, then: Callable[[], Awaitable[None]]) -> None:
        await self.remove(name)
        await then()

    def replace_soon(self, mapping: Mapping, invoker: Invoker, state: str) -> None:
        """Drains the mapping of this name and starts it anew as ``mapping``; it is in ``state`` from now on until the
        new one polls."""
        assert self._tasks is not None  # noqa: S101
        self._mappings[mapping.name].close(state)
        self._tasks.start_soon(self._replace, mapping, invoker, state, name=f"update {mapping.name}")

    async def _replace(self, mapping: Mapping, invoker: Invoker, state: str) -> None:
        before = self._mappings[mapping.name]
        await self._ended[mapping.name].wait()
        if self._mappings.get(mapping.name) is before and not self._draining:
            await self.add(mapping, invoker, state=state)

    async def drain(self) -> None:
        """Drains all; returns when nothing runs any more."""
        self._draining = True
        for supervised in self._mappings.values():
            supervised.close()
        for ended in tuple(self._ended.values()):
            await ended.wait()

    def find(self, name: str) -> Supervised:
        """By name or UUID; KeyError when there is none."""
        for supervised in self._mappings.values():
            if name in (supervised.mapping.name, supervised.mapping.uuid):
                return supervised
        raise KeyError(name)

    async def pause(self, name: str, *, wait: bool) -> MappingView:
        """Survives restarts. With ``wait`` returns when nothing runs any more."""
        supervised = self.find(name)
        await self._pauses.pause(supervised.mapping.uuid)
        supervised.change(paused=True)
        if wait:
            await supervised.stopped()
        return supervised.view()

    async def resume(self, name: str) -> MappingView:
        """Undoes ``pause``."""
        supervised = self.find(name)
        await self._pauses.resume(supervised.mapping.uuid)
        supervised.change(paused=False)
        return supervised.view()

    async def _run(self, supervised: Supervised, meter: MappingMeter, ended: anyio.Event) -> None:
        try:
            await supervised.run()
        finally:
            meter.close()
            ended.set()

    async def _watch(self) -> None:
        while True:
            await anyio.sleep(WATCH_EVERY)
            for supervised in self._mappings.values():
                supervised.watch(anyio.current_time())
            event, self.watched = self.watched, anyio.Event()
            event.set()
