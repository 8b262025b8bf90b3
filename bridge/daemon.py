"""The daemon: start order, stop order, signals, reload, and what it says about itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeVar

import anyio
import msgspec
import structlog

from bridge import __version__
from bridge.admin.server import AdminServer
from bridge.api.book import Book
from bridge.asynchronous import AsyncInvocations
from bridge.aws import Aws, Credentials
from bridge.checkpoints import Checkpoints, the_gone
from bridge.errors import BridgeError, ConfigError
from bridge.executors import Surroundings
from bridge.executors.cgroups import delegated
from bridge.executors.versions import Versions
from bridge.flow import Buffer
from bridge.function import AwsSettings, Function
from bridge.invoker import Invoker
from bridge.leash import Leash
from bridge.ledger import Ledger
from bridge.mapping import Mapping
from bridge.notify import Notifier
from bridge.replay.desk import DaemonDesk
from bridge.settings import Settings
from bridge.signals import catch
from bridge.snapshot import Forgotten, FunctionView, MappingView, Snapshot
from bridge.stores import open_store
from bridge.supervisor import Supervisor
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.spans import open_traces

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from bridge.api.server import ApiServer
    from bridge.attempt import Attempt, FailedBatch
    from bridge.stores import Store
    from bridge.telemetry.traces import Traces

log = structlog.get_logger()

RESTART_ONLY = (
    "state", "admin_host", "admin_port", "admin_token", "api_host", "api_port", "api_keys", "max_buffered_bytes",
    "log_level", "log_format",
)  # fmt: skip
"""Settings that a reload does not touch."""
TRACES_LIMIT = 5.0
"""Seconds, of shutdown_grace, in which the last traces may be sent."""


class Stage(Protocol):
    """Where the daemon plays: on the endpoints that are configured, or on one of our own."""

    @property
    def credentials(self) -> Callable[[AwsSettings], Credentials] | None:
        """In place of the usual AWS chain; none: that."""
        ...

    async def adapt(self, settings: Settings) -> Settings:
        """The settings to run with; called at the start and at each reload."""
        ...


class AsConfigured:
    """The settings as they are."""

    credentials = None

    def __init__(self, _leash: Leash) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def adapt(self, settings: Settings) -> Settings:
        return settings


class Hosted(NamedTuple):
    """A function in service."""

    invoker: Invoker
    versions: Versions
    stop: anyio.Event
    ended: anyio.Event


class Daemon:
    """Everything that ``bridge run`` runs. ``load`` reads the configuration again for a reload.

    ``stage`` makes the endpoint to run on, once there is a leash to hold it.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        *,
        stage: Callable[[Leash], AbstractAsyncContextManager[Stage]] = AsConfigured,
        signals: bool = True,
    ) -> None:
        self.settings = settings
        self._load = load
        self._make_stage = stage
        self._signals = signals
        self.metrics = Metrics()
        self.admin: AdminServer | None = None
        self.api: ApiServer | None = None
        self.changing = anyio.Lock()
        """Held while functions or mappings are changed."""
        self.started_at = time.time()
        self.book: Book
        self._buffer = Buffer(settings.max_buffered_bytes)
        self._notifier = Notifier()
        self._functions: dict[str, Hosted] = {}
        self._leash = Leash()
        self._cgroups: Path | None = None
        self._store: Store | None = None
        self._checkpoints: Checkpoints
        self.traces: Traces | None = None
        """None: they are off."""
        self._ledger: Ledger
        self._supervisor: Supervisor | None = None
        self.queue: AsyncInvocations | None = None
        """Takes asynchronous invocations; none while it starts, and then the API refuses them."""
        self._hosts: TaskGroup | None = None
        self._aws: Aws
        self._stage: Stage
        self.stopping = anyio.Event()
        """Set by the first signal, or ``stop``."""
        self._reloading = anyio.Event()
        self._started = False
        self._ready = False
        self._status = 0

    def __repr__(self) -> str:
        return f"<Daemon {self._supervisor!r}>"

    @property
    def supervisor(self) -> Supervisor:
        """Raises BridgeError before the mappings are started."""
        if self._supervisor is None:
            raise BridgeError("the daemon is still starting; try again in a moment")
        return self._supervisor

    @property
    def store(self) -> Store:
        """Only while it runs."""
        assert self._store is not None  # noqa: S101
        return self._store

    @property
    def aws(self) -> Aws:
        """Only while it runs."""
        return self._aws

    @property
    def invokers(self) -> dict[str, Invoker]:
        """The functions in service."""
        return {name: hosted.invoker for name, hosted in self._functions.items()}

    @property
    def versions(self) -> dict[str, Versions]:
        """What runs them."""
        return {name: hosted.versions for name, hosted in self._functions.items()}

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> int:
        """Until a signal or ``stop``; gives the exit status. Started when the mappings are."""
        async with anyio.create_task_group() as tasks:
            if self._signals:
                await tasks.start(self._listen, tasks.cancel_scope, name="signals")
            await self._live(task_status)
            tasks.cancel_scope.cancel()
        return self._status

    def stop(self) -> None:
        """Drains, then ends."""
        self.stopping.set()

    def reload(self) -> None:
        """Reads the configuration again."""
        self._reloading.set()

    # Start and stop, in this order.

    async def _live(self, task_status: TaskStatus[None]) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._leash)
            self._cgroups = delegated()
            self.traces = open_traces(os.environ)
            self._store = await stack.enter_async_context(open_store(self.settings.state))
            self.metrics.state_errors = lambda: self.store.failures
            self._checkpoints = await stack.enter_async_context(
                Checkpoints(self._store, self.metrics.checkpoint_seconds.observe).running()
            )
            self._ledger = await stack.enter_async_context(Ledger(self._store, self.metrics.ledger_lost.inc).running())
            if self.settings.admin_host is not None:
                self.admin = await stack.enter_async_context(
                    AdminServer(
                        self,
                        self.metrics,
                        self.settings.admin_host,
                        self.settings.admin_port or 0,
                        self.settings.admin_token,
                        DaemonDesk(self),
                    )
                )
            self._stage = await stack.enter_async_context(self._make_stage(self._leash))
            aws = Aws(self.metrics.api_meter(), credentials=self._stage.credentials)
            self._aws = await stack.enter_async_context(aws)
            self.settings = await self._stage.adapt(self.settings)
            self.book = Book(self._store, self._checkpoints)
            await self.book.open()
            await stack.enter_async_context(self._hosting())
            for function in self.settings.functions.values():
                await self._host(function)
            self.queue = AsyncInvocations(
                self._store,
                self._aws,
                self.metrics,
                self._buffer,
                self._invoker,
                traces=self.traces,
                ledger=self._ledger,
            )
            self.book.configure(self.queue)
            await stack.enter_async_context(self.queue.running())
            self._supervisor = Supervisor(
                self._aws,
                self.metrics,
                self._buffer,
                self._store,
                delivery=self.queue.delivery,
                checkpoints=self._checkpoints,
                traces=self.traces,
                ledger=self._ledger,
            )
            await stack.enter_async_context(self._supervisor.running())
            for mapping in self.settings.mappings.values():
                await self._supervisor.add(mapping, self._functions[mapping.function].invoker)
            await self.book.start(self)
            self.api = await self._serve_api(stack)
            self._started = True
            log.info(
                "started",
                version=__version__,
                mappings=len(self.settings.mappings),
                config=self.settings.file,
                admin=f"{self.admin.host}:{self.admin.port}" if self.admin else "off",
                api=self.api.address if self.api else "off",
            )
            task_status.started()
            await self._watch_until_stopped()
            await self._drain()

    async def _serve_api(self, stack: AsyncExitStack) -> ApiServer | None:
        settings = self.settings
        if settings.api_host is None:
            return None
        from bridge.api.server import ApiServer

        server = ApiServer(self, settings.api_host, settings.api_port or 0, settings.api_keys)
        return await stack.enter_async_context(server)

    async def _watch_until_stopped(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell_manager, name="service manager")
            tasks.start_soon(self._reload_when_told, name="reload")
            await self.stopping.wait()
            tasks.cancel_scope.cancel()

    async def _drain(self) -> None:
        """Stop receiving, let running invocations end, settle, give back what was not started."""
        self._notifier.stopping("draining")
        log.info("draining", grace=self.settings.shutdown_grace)
        with anyio.move_on_after(self.settings.shutdown_grace) as grace:
            async with anyio.create_task_group() as tasks:
                if self.admin:
                    tasks.start_soon(self.admin.drain, name="replays")
                if self.api:
                    tasks.start_soon(self.api.drain, name="api")
                tasks.start_soon(self.supervisor.drain, name="mappings")
                if self.queue:
                    tasks.start_soon(self.queue.drain, name="events")
            if self.traces:
                await self.traces.close(TRACES_LIMIT)
        if grace.cancelled_caught:
            left = {view.name: view.in_flight for view in self.snapshot().mappings if view.in_flight}
            log.warning("shutdown_grace_over", grace=self.settings.shutdown_grace, cancelled=left)
        log.info("stopped")

    async def _listen(
        self, scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        arrived = catch(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        task_status.started()
        while True:
            number = await arrived.get()
            if number == signal.SIGHUP:
                self.reload()
            elif self.stopping.is_set():
                self._status = 128 + number
                log.warning("stopped_at_once", signal=signal.Signals(number).name)
                scope.cancel()
            else:
                self.stop()

    # Functions.

    @asynccontextmanager
    async def _hosting(self) -> AsyncIterator[None]:
        """The task group that owns the executors; they end after the mappings."""
        async with anyio.create_task_group() as self._hosts:
            try:
                yield
            finally:
                for hosted in self._functions.values():
                    hosted.stop.set()

    async def _host(self, function: Function) -> None:
        assert self._hosts is not None  # noqa: S101
        await self._hosts.start(self._serve, function, name=f"function {function.name}")

    async def _serve(self, function: Function, *, task_status: TaskStatus[None]) -> None:
        credentials = self._aws.credentials(function.aws)
        surroundings = Surroundings(self._leash, credentials, aws=self._aws, cgroups=self._cgroups)
        meter = self.metrics.function_meter(function.name)
        ended = anyio.Event()
        try:
            async with Versions(function, surroundings) as executor:
                invoker = Invoker(executor, meter)
                if function.name in self.book.reserved:
                    invoker.reserve(self.book.reserved[function.name])
                self.book.provision(executor)
                hosted = Hosted(invoker, executor, anyio.Event(), ended)
                self._functions[function.name] = hosted
                task_status.started()
                await hosted.stop.wait()
        finally:
            meter.close()
            ended.set()

    def _invoker(self, name: str) -> Invoker | None:
        """Of a function in service."""
        hosted = self._functions.get(name)
        return hosted.invoker if hosted else None

    async def _dismiss(self, name: str) -> None:
        hosted = self._functions.pop(name)
        hosted.stop.set()
        await hosted.ended.wait()

    # Reload.

    async def _reload_when_told(self) -> None:
        while True:
            await self._reloading.wait()
            self._reloading = anyio.Event()
            self._notifier.reloading()
            try:
                new = await self._stage.adapt(self._load())
                async with self.changing:
                    await self._reload(new)
            except ConfigError as error:
                log.error("reload_failed", problems=error.problems[:20], kept="the configuration from before")
            except BridgeError as error:
                log.error("reload_failed", problems=[str(error)], kept="what could be kept")
            self._notifier.ready(self._summary())

    async def _reload(self, new: Settings) -> None:
        """Touches only what changed: drains those mappings, and no others, then starts them anew."""
        old = self.settings
        changed = {name for name, function in old.functions.items() if differs(function, new.functions.get(name))}
        stale = [
            name
            for name, mapping in old.mappings.items()
            if differs(mapping, new.mappings.get(name)) or mapping.function in changed
        ]
        made_here = [it.mapping for it in self.supervisor.mappings if it.mapping.name not in old.mappings]
        async with anyio.create_task_group() as tasks:
            for name in (*stale, *(it.name for it in made_here if it.function in changed)):
                tasks.start_soon(self.supervisor.remove, name)
            if self.queue:
                for name in changed:
                    tasks.start_soon(self.queue.stop, name)  # ASY-11
        for name in changed & self._functions.keys():
            await self._dismiss(name)
        fixed = {name: getattr(old, name) for name in RESTART_ONLY}
        self.settings = msgspec.structs.replace(new, **fixed)
        for name, function in new.functions.items():
            if name not in self._functions:
                await self._host(function)
        if self.queue:
            await self.queue.start()
        running = {supervised.mapping.name for supervised in self.supervisor.mappings}
        for name, mapping in new.mappings.items():
            if name not in running:
                await self.supervisor.add(mapping, self._functions[mapping.function].invoker)
        await self.book.start(self)
        ignored = [name for name in RESTART_ONLY if getattr(new, name) != fixed[name]]
        if ignored:
            log.warning("reload_needs_restart", settings=ignored)
        log.info("reloaded", restarted=[name for name in stale if name in new.mappings],
                 removed=[name for name in stale if name not in new.mappings], functions=sorted(changed))  # fmt: skip

    # What it says about itself.

    async def _tell_manager(self) -> None:
        """READY, STATUS and the watchdog: fed by the supervisor's own loop, so that it starves when that is stuck."""
        fed = 0.0
        while True:
            await self.supervisor.watched.wait()
            if not self._ready and all(supervised.explained for supervised in self.supervisor.mappings):
                self._ready = True
                self._notifier.ready(self._summary())
                log.info("ready", mappings=self._summary())
            if self._notifier.watchdog and anyio.current_time() - fed >= self._notifier.watchdog / 3:
                fed = anyio.current_time()
                self._notifier.alive()
                self._notifier.status(self._summary())

    def _summary(self) -> str:
        mappings = self.supervisor.mappings
        polling = sum(supervised.state == "Enabled" and supervised.ready for supervised in mappings)
        return f"{polling} of {len(mappings)} mappings poll"

    def snapshot(self) -> Snapshot:
        """The state of everything, as `/state` gives it."""
        mappings = self._supervisor.mappings if self._supervisor else ()
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            started_at=self.started_at,
            at=time.time(),
            draining=self.stopping.is_set(),
            starting=not self._started,
            buffered_bytes=self._buffer.held,
            max_buffered_bytes=self._buffer.limit,
            mappings=tuple(supervised.view() for supervised in mappings),
            asynchronous=self.queue.views() if self.queue else (),
            functions=tuple(self._view_of(hosted.invoker) for hosted in self._functions.values()),
        )

    def _view_of(self, invoker: Invoker) -> FunctionView:
        events = self.queue.waiting(invoker.function.name) if self.queue else 0
        return msgspec.structs.replace(invoker.view(), events=events)

    async def pause(self, name: str, *, wait: bool) -> MappingView:
        """Control: KeyError when there is no such mapping."""
        return await self.supervisor.pause(name, wait=wait)

    async def resume(self, name: str) -> MappingView:
        """Control."""
        return await self.supervisor.resume(name)

    async def forget(self, name: str) -> Forgotten:
        """Control."""
        async with self.changing:
            there = {uuid: uuid for uuid in self.book.mappings}
            there |= {it.mapping.uuid: it.mapping.name for it in self.supervisor.mappings}
            gone = the_gone(name, await self._checkpoints.stored(), there)
            await self._checkpoints.forget(gone.uuid)
        forgotten = Forgotten(**gone._asdict())
        log.info("positions_forgotten", mapping=forgotten.name, uuid=forgotten.uuid, partitions=forgotten.partitions)
        return forgotten

    async def attempts(self, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
        """Control."""
        return await self._ledger.attempts(records)

    async def last_failed(self, name: str, most: int) -> tuple[FailedBatch, ...]:
        """Control."""
        uuid = self.queue.uuid(name) if self.queue else None
        return await self._ledger.last_failed(uuid or self.supervisor.find(name).mapping.uuid, most)

    async def backlog(self, name: str) -> int | None:
        """Control."""
        return await self.supervisor.find(name).backlog()


Entry = TypeVar("Entry", Function, Mapping)


def differs(old: Entry, new: Entry | None) -> bool:
    """Whether an entry of the configuration says something else now, wherever in the file it stands."""
    return new is None or msgspec.structs.replace(new, where=old.where) != old
