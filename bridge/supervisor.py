"""Runs the mappings: their states, restarts and pauses, and the watch over what stands still."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio
import msgspec
import structlog

from bridge.crew import Crew
from bridge.errors import BridgeError, StateError, first_cause
from bridge.flow import Buffer, Filter, Flow, Tally
from bridge.invoker import Invoker
from bridge.mapping import Mapping
from bridge.pipeline.breaker import Breaker
from bridge.snapshot import Failure, Gate, MappingView, RunnerView
from bridge.sources import Source, Surroundings, source_class

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from bridge.aws import Aws
    from bridge.checkpoints import Checkpoints
    from bridge.destinations.delivery import Delivery
    from bridge.sources.event_queue import EventQueue
    from bridge.telemetry.metrics import MappingMeter, Metrics

log = structlog.get_logger()

FIRST_RESTART = 0.5
LONGEST_RESTART = 30.0
FORGIVEN_AFTER = 60.0
"""A mapping that ran so many seconds begins its restart delays anew."""
STALL_MARGIN = 10.0
"""Seconds that a station may be late before its mapping counts as stalled."""
WATCH_EVERY = 1.0


class Pauses(Protocol):
    """Which mappings were paused, across restarts: the part of the state store that is needed here."""

    async def paused(self) -> frozenset[str]: ...

    async def pause(self, uuid: str) -> None: ...

    async def resume(self, uuid: str) -> None: ...


class Asynchronous(NamedTuple):
    """What the sources of asynchronous events need besides."""

    events: EventQueue
    delivery: Delivery


class Supervised:
    """One mapping: opens its source, runs its crews, and starts them again with back-off when they fall."""

    def __init__(
        self,
        mapping: Mapping,
        invoker: Invoker,
        aws: Aws,
        meter: MappingMeter,
        buffer: Buffer,
        *,
        paused: bool,
        delivery: Delivery | None = None,
        asynchronous: Asynchronous | None = None,
        checkpoints: Checkpoints | None = None,
        state: str = "Creating",
    ) -> None:
        self.mapping = mapping
        self.paused = paused
        self._invoker = invoker
        self._aws = aws
        self._meter = meter
        self._buffer = buffer
        self._asynchronous = asynchronous
        self._checkpoints = checkpoints
        self._delivery = asynchronous.delivery if asynchronous else delivery
        self._breaker = Breaker()
        self._tally = Tally()
        self._flow: Flow | None = None
        self._crews: list[Crew] = []
        self._attempt: anyio.CancelScope | None = None
        self._partitions: anyio.CancelScope | None = None
        self._changed = anyio.Event()
        self._closing = False
        self._trouble: Gate | None = None
        self._stalled = False
        self._hindered = False
        """There was trouble since it came into its state."""
        self.state = state if self.wanted else "Disabled"
        self._last_state = "Deleting"
        self._since = time.time()
        meter.state(self.state)

    def __repr__(self) -> str:
        return f"<Supervised {self.mapping.name}: {self.state}, {self._crews!r}>"

    @property
    def wanted(self) -> bool:
        """Whether it should poll."""
        return self.mapping.enabled and not self.paused and not self._closing

    @property
    def ready(self) -> bool:
        """It polls and the source answers, or it has no need to."""
        if self.state != "Enabled":
            return self.state == "Disabled"
        return self._trouble is None and not self._stalled

    @property
    def since(self) -> float:
        """Epoch seconds: when it came into its state."""
        return self._since

    @property
    def turning(self) -> bool:
        """Between two steady states, and nothing has come in the way of the second (ESM-54)."""
        return self.state not in ("Enabled", "Disabled") and not self._hindered

    @property
    def explained(self) -> bool:
        """It has polled, or stands in a state that ``show`` explains."""
        gate = self._trouble or self._held_by()
        return self.ready or (gate is not None and gate.name not in ("starting", "polling"))

    # Its life.

    async def run(self) -> None:
        """Until ``close``; polls whenever it is wanted."""
        delay = FIRST_RESTART
        while not self._closing:
            if not self.wanted:
                self._become("Disabled")
                await self._changed.wait()
                continue
            started = anyio.current_time()
            failure = await self._try()
            if anyio.current_time() - started > FORGIVEN_AFTER:
                delay = FIRST_RESTART
            if failure and self.wanted:
                self._fell(failure)
                with anyio.move_on_after(delay * random.uniform(0.5, 1)):  # noqa: S311 - jitter
                    await self._changed.wait()
                delay = min(delay * 2, LONGEST_RESTART)
        self._become(self._last_state)

    async def _try(self) -> BaseException | None:
        """Runs until it is drained, or gives what made it fall."""
        try:
            with anyio.CancelScope() as self._attempt:
                await self._open_and_run()
        except Exception as error:  # noqa: BLE001 - a crash here restarts this mapping, never its neighbours
            return first_cause(error)
        finally:
            self._attempt, self._partitions, self._flow, self._crews = None, None, None, []
        if self._stalled:
            await self._aws.renew(self.mapping.source, self.mapping.aws, self.mapping.source_arn.region)
            return BridgeError("it stood still and was started again with fresh clients")
        return None

    async def _open_and_run(self) -> None:
        mapping, function = self.mapping, self._invoker.function
        kind = source_class(mapping.source)
        asynchronous = self._asynchronous
        events = asynchronous.events if asynchronous else None
        positions = self._checkpoints.of(mapping) if self._checkpoints else None
        surroundings = Surroundings(self._aws, self._meter, function.timeout, self._told, function, events, positions)
        with self._invoker.lane(mapping.name, rejects=kind.rejects, ahead=kind.ordered) as lane:
            async with kind(mapping, surroundings) as source:
                self._flow = Flow(
                    mapping=mapping,
                    source=source,
                    filter=Filter(mapping, source.view, source.data_key),
                    invoker=self._invoker,
                    lane=lane,
                    buffer=self._buffer,
                    breaker=self._breaker if kind.probes else Breaker(inf),
                    meter=self._meter,
                    tally=self._tally,
                    delivery=self._delivery,
                )
                await self._run_partitions(source, self._flow)

    async def _run_partitions(self, source: Source, flow: Flow) -> None:
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as self._partitions:
                async for partition in source.partitions():
                    crew = Crew(flow, partition, polled=self._polled)
                    self._crews.append(crew)
                    tasks.start_soon(self._run_crew, crew, name=f"crew {self.mapping.name} {partition.id}")
            self._partitions = None
            if not self.wanted:
                self._drain()

    async def _run_crew(self, crew: Crew) -> None:
        await crew.run()
        self._crews.remove(crew)
        self._tally.behind.pop(crew.partition, None)

    def _polled(self) -> None:
        """A poll came back: it works."""
        self._told(None)
        self._stalled = False
        if self.wanted and self.state != "Enabled":
            self._become("Enabled")

    def _told(self, line: str | None) -> None:
        """The source says what it waits for, or that it goes on."""
        self._tally.alive_at = anyio.current_time()
        self._hindered = self._hindered or line is not None
        if line is None:
            if self._trouble and self._flow:
                log.info("mapping_recovered", mapping=self.mapping.name)
            self._trouble = None
        elif self._trouble is None or self._trouble.detail != line:
            self._trouble = Gate("endpoint", time.time(), line)
            log.warning("mapping_waits", mapping=self.mapping.name, detail=line)

    def _fell(self, failure: BaseException) -> None:
        line = str(failure) or type(failure).__name__
        known = isinstance(failure, BridgeError)
        self._hindered = True
        if self._trouble is None or self._trouble.detail != line:
            log.error("mapping_failed", mapping=self.mapping.name, error=line, exc_info=None if known else failure)
            self._tally.failures.append(Failure(at=time.time(), what=type(failure).__name__, message=line[:300]))
            name = "state" if isinstance(failure, StateError) else "opening" if known else "crashed"
            self._trouble = Gate(name, time.time(), line)

    # What others ask of it.

    def change(self, *, paused: bool) -> None:
        """Pauses or resumes."""
        if paused != self.paused:
            self.paused = paused
            if self.mapping.enabled:
                self._become("Disabling" if paused else "Enabling")
            self._turn()

    def enable(self, enabled: bool) -> None:
        """Switches the mapping on or off for good, as its own option ``Enabled`` does."""
        if enabled != self.mapping.enabled:
            self.mapping = msgspec.structs.replace(self.mapping, enabled=enabled)
            if not self.paused:
                self._become("Enabling" if enabled else "Disabling")
            self._turn()

    def close(self, state: str = "") -> None:
        """Drains; ``run`` returns when all is settled. ``state``: what it is in meanwhile."""
        self._closing = True
        if state:
            self._last_state = state
            self._become(state)
        self._turn()

    def hurry(self) -> None:
        """Before ``run`` is cancelled: bounds the settles that may be under way."""
        for crew in self._crews:
            crew.hurry()

    async def stopped(self) -> None:
        """Returns when nothing runs any more."""
        while self.state != "Disabled" and not self._closing:
            await self._changed.wait()

    def watch(self, now: float) -> None:
        """Restarts the mapping when one of its stations is much later than it should be."""
        late = now - STALL_MARGIN
        if (
            self._attempt
            and not self._stalled
            and self._tally.alive_at < late
            and any(c.due() < late for c in self._crews)
        ):
            log.error("mapping_stalled", mapping=self.mapping.name, runners=repr(self._crews))
            self._stalled = True
            self.hurry()
            self._attempt.cancel()

    async def backlog(self) -> int | None:
        """Records that wait at the source."""
        return await self._flow.source.backlog() if self._flow else None

    def _turn(self) -> None:
        if not self.wanted:
            self._drain()
        self._signal()

    def _drain(self) -> None:
        if self._partitions:
            self._partitions.cancel()
        elif self._attempt and not self._crews:
            self._attempt.cancel()  # still opening
        for crew in self._crews:
            crew.drain()

    def _become(self, state: str) -> None:
        if state != self.state:
            log.debug("mapping_state", mapping=self.mapping.name, state=state, was=self.state)
            self.state = state
            self._hindered = False
            self._since = time.time()
            self._meter.state(state)
            self._signal()

    def _signal(self) -> None:
        event, self._changed = self._changed, anyio.Event()
        event.set()

    # What it says about itself.

    def view(self) -> MappingView:
        """A snapshot."""
        runners = tuple(view for crew in self._crews for view in crew.views())
        tally, mapping = self._tally, self.mapping
        last = tally.failures[-1] if tally.failures else None
        return MappingView(
            name=mapping.name,
            uuid=mapping.uuid,
            function=mapping.function,
            source_arn=str(mapping.source_arn),
            source=mapping.source,
            state=self.state,
            ready=self.ready,
            gate=self._gate() or self._held_by() or Gate("opening", self._since, "opens its source"),
            in_flight=sum(view.in_flight for view in runners),
            lag_seconds=self._lag(runners),
            last_error=f"{last.what}: {last.message}" if last else None,
            runners=runners,
            failures=tuple(tally.failures),
            filtered_ids=tuple(tally.removed),
            polled=tally.polled,
            filtered=tally.filtered,
            succeeded=tally.succeeded,
            failed=tally.failed,
            ordered=mapping.stream is not None,
            behind=max(tally.behind.values(), default=None),
            last_result=self.last_result,
        )

    @property
    def last_result(self) -> str:
        """LastProcessingResult (KIN-5, KIN-33)."""
        return f"PROBLEM: {self._trouble.detail}" if self._trouble else self._tally.last_result

    def _lag(self, runners: Sequence[RunnerView]) -> float | None:
        """It grows while a record that we hold is not finished."""
        lag = self._tally.lag
        held = [runner.oldest for runner in runners if runner.oldest is not None]
        return max(lag or 0.0, time.time() - min(held)) if held else lag

    def _gate(self) -> Gate | None:
        if self._closing or self.state == "Disabling":
            return Gate("draining", self._since, "finishes what runs, gives back the rest")
        if not self.mapping.enabled:
            return Gate("disabled", self._since, "Enabled is false in the configuration")
        if self.paused:
            return Gate("paused", self._since, "until it is resumed")
        return self._trouble

    def _held_by(self) -> Gate | None:
        """The gate of the runner that is held longest: first of those that are stuck, last of those that wait for
        records, who are not held."""
        gates = (runner.gate for crew in self._crews for runner in crew.views())
        return min(gates, key=_urgency, default=None)


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
    ) -> None:
        self._aws = aws
        self._delivery = delivery
        self._asynchronous = asynchronous
        self._checkpoints = checkpoints
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


def _urgency(gate: Gate) -> tuple[bool, bool, float]:
    return gate.name != "retrying", gate.name == "polling", gate.since
