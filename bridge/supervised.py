"""One mapping at work: its state, its restarts, and what it says about itself."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import anyio
import msgspec
import structlog

from bridge.crew import Crew
from bridge.errors import BridgeError, StateError, first_cause
from bridge.flow import Buffer, Filter, Flow, Tally
from bridge.gates import GateName
from bridge.invoker import Invoker
from bridge.mapping import Mapping
from bridge.pipeline.breaker import Breaker
from bridge.snapshot import Failure, Gate, MappingView, RunnerView, WaitView
from bridge.sources import Source, Surroundings, source_class
from bridge.station import Station
from bridge.telemetry.spans import NO_SPANS

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.checkpoints import Checkpoints
    from bridge.destinations.delivery import Delivery
    from bridge.ledger import Ledger
    from bridge.sources.event_queue import EventQueue
    from bridge.telemetry.metrics import MappingMeter
    from bridge.telemetry.traces import Traces

log = structlog.get_logger()

FIRST_RESTART = 0.5
LONGEST_RESTART = 30.0
FORGIVEN_AFTER = 60.0
"""A mapping that ran so many seconds begins its restart delays anew."""
STALL_MARGIN = 10.0
"""Seconds that a station may be late before its mapping counts as stalled."""


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
        traces: Traces | None = None,
        ledger: Ledger | None = None,
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
        self._traces = traces
        self._ledger = ledger
        self._delivery = asynchronous.delivery if asynchronous else delivery
        self._breaker = Breaker()
        self._tally = Tally()
        self._flow: Flow | None = None
        self._crews: list[Crew] = []
        self._attempt: anyio.CancelScope | None = None
        self._partitions: anyio.CancelScope | None = None
        self._changed = anyio.Event()
        self._closing = False
        self._station = Station("opening", "waits for its turn to open its source")
        self._trouble: Gate | None = None
        self._next_try = inf
        """Monotonic: when a mapping that fell is started again."""
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
        self._station.bind()
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
                with anyio.move_on_after(delay * random.uniform(0.5, 1)) as pause:  # noqa: S311 - jitter
                    self._next_try = pause.deadline
                    await self._changed.wait()
                self._next_try = inf
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
            if self._trouble and self._trouble.name == "endpoint" and self.mapping.stream:
                self._trouble = None  # who told it will not tell its end
        if self._stalled:
            self._station.at("stalled", "gets fresh clients")
            await self._aws.renew(self.mapping.source, self.mapping.aws, self.mapping.source_arn.region)
            return Stalled()
        return None

    async def _open_and_run(self) -> None:
        mapping, function = self.mapping, self._invoker.function
        kind = source_class(mapping.source)
        asynchronous = self._asynchronous
        events = asynchronous.events if asynchronous else None
        positions = self._checkpoints.of(mapping) if self._checkpoints else None
        spans = self._traces.spans(mapping, function) if self._traces else NO_SPANS
        surroundings = Surroundings(
            self._aws, self._meter, function.timeout, self._told, function, events, positions, spans
        )
        self._station.at("opening", "opens its source")
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
                    spans=spans,
                    ledger=self._ledger,
                )
                try:
                    await self._run_partitions(source, self._flow)
                finally:
                    self._station.at("closing", "settles what is on its way, for a few seconds at the most")

    async def _run_partitions(self, source: Source, flow: Flow) -> None:
        self._station.at("opening", "looks for what there is to read")
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as self._partitions:
                async for partition in source.partitions():
                    crew = Crew(flow, partition, polled=self._polled)
                    self._crews.append(crew)
                    tasks.start_soon(self._run_crew, crew, name=f"crew {self.mapping.name} {partition.id}")
            stopped, self._partitions = self._partitions.cancel_called, None
            if stopped or not self.wanted:
                self._drain()  # also those that were found while it stopped, though it may be wanted again

    async def _run_crew(self, crew: Crew) -> None:
        await crew.run()
        self._crews.remove(crew)
        self._tally.behind.pop(crew.partition, None)

    def _polled(self) -> None:
        """A poll came back: it works. That one shard does says nothing about the trouble of another."""
        self._tally.alive_at = anyio.current_time()
        if self._flow and not (self._flow.source.ordered and self._trouble and self._trouble.name == "endpoint"):
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
            self._is_held("endpoint", line)
            log.warning("mapping_waits", mapping=self.mapping.name, detail=line)

    def _fell(self, failure: BaseException) -> None:
        line = str(failure) or type(failure).__name__
        known = isinstance(failure, BridgeError)
        self._hindered = True
        if self._trouble is None or self._trouble.detail != line:
            log.error("mapping_failed", mapping=self.mapping.name, error=line, exc_info=None if known else failure)
            self._tally.failures.append(Failure(at=time.time(), what=type(failure).__name__, message=line[:300]))
            self._is_held(_gate_of(failure), line)

    def _is_held(self, gate: GateName, line: str) -> None:
        """Trouble of one kind goes on, also if the words for it change."""
        known = self._trouble
        since = known.since if known and known.name == gate else time.time()
        self._trouble = Gate(gate, since, line)

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
        waits = self._flow.source.waits() if self._flow else ()
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
            gate=self._gate() or self._held_by(waits) or self._station.gate,
            in_flight=sum(view.in_flight for view in runners),
            lag_seconds=self._lag(runners),
            last_error=f"{last.what}: {last.message}" if last else None,
            runners=runners,
            waits=waits,
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
            held = sum(view.in_flight for crew in self._crews for view in crew.views())
            return Gate("draining", self._since, f"finishes what runs, gives back the rest: {held} records are held")
        if not self.mapping.enabled:
            return Gate("disabled", self._since, "Enabled is false in the configuration")
        if self.paused:
            return Gate("paused", self._since, "until it is resumed")
        if self._trouble and self._next_try < inf:
            left = max(0.0, self._next_try - anyio.current_time())
            line = f"{self._trouble.detail}; it is started again in {left:.1f} s"
            return msgspec.structs.replace(self._trouble, detail=line)
        return self._trouble

    def _held_by(self, waits: Sequence[WaitView] = ()) -> Gate | None:
        """The gate that holds longest: first of runners that are stuck, then of others, then of what waits at the
        source, last of runners that wait for records, who are not held."""
        runners = [runner.gate for crew in self._crews for runner in crew.views()]
        held = [gate for gate in runners if gate.name != "polling"]
        return min(held or [wait.gate for wait in waits] or runners, key=_urgency, default=None)


class Stalled(BridgeError):
    """It stood still and was started again with fresh clients."""


def _gate_of(failure: BaseException) -> GateName:
    """What holds a mapping that fell so."""
    match failure:
        case Stalled():
            return "stalled"
        case StateError():
            return "state"
        case BridgeError():
            return "opening"
    return "crashed"


def _urgency(gate: Gate) -> tuple[bool, float]:
    return gate.name != "retrying", gate.since
