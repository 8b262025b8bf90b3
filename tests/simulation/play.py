"""Plays a plan: the whole daemon in one virtual loop, with a stream, a store, a destination and a handler that do what
the plan says. Raises Broken, with the trail of the run, if a promise is not kept."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from bridge.errors import StateError
from bridge.mapping import SourceArn
from bridge.pipeline import windows
from bridge.position import Move, Position
from bridge.telemetry.metrics import Metrics
from tests.clock import VirtualLoop
from tests.simulation.ledger import Broken, Ledger
from tests.simulation.plan import Act, Change, Plan
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_table import FaultyTable
from tests.sources.shard_model import Shard
from tests.streams.world import NAME, Call, Disk, ScriptedDestination, StreamWorld, failures, numbers_of
from tests.world import NotRun

LIMIT = 3600.0
"""Seconds in which all must be done."""
DRAINED_WITHIN = 45.0
"""Seconds for a drain, whatever is slow or fails."""
TRAIL = 80
"""Lines of it that a failure shows."""
METRICS = Metrics()
"""Of all runs: nobody looks."""
UNTOLD = ("source_arn", "mapping", "request_id")
"""Said by each line, or never twice the same."""
ALARMING = ("mapping_stalled", "settle_cut_short", "executor_stuck")


def play(plan: Plan) -> Ledger:
    """The ledger of a run that kept all promises."""
    random.seed(plan.seed)
    options = plan.options
    ledger = Ledger(
        retries=options.retries,
        bisect=options.bisect,
        partial=plan.partial,
        lanes=options.lanes,
        max_age=options.max_age,
        state_limit=plan.state_limit,
    )
    before, limit = structlog.get_config(), windows.STATE_LIMIT
    windows.STATE_LIMIT = plan.state_limit or limit
    structlog.configure(processors=[_listener(ledger)], cache_logger_on_first_use=False)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(_run(plan, ledger))
        if ledger.broken:
            raise ledger.broken
    except Exception as error:
        told = "\n".join((f"seed {plan.seed}: {ledger.broken or error!r}", *ledger.trail[-TRAIL:]))
        raise Broken(told) from error
    finally:
        structlog.configure(**before)
        windows.STATE_LIMIT = limit
    return ledger


def _listener(ledger: Ledger) -> Callable[..., Any]:
    """What the daemon says belongs to the trail; its own crashes are no promise kept."""

    def listen(logger: Any, level: str, event: dict[str, Any]) -> Any:
        words = ", ".join(f"{name}={value}" for name, value in event.items() if name not in UNTOLD)
        ledger.note(f"  {level}: {words}")
        if event["event"] == "mapping_state" and event["state"] == "Enabled":
            ledger.begun = True
        if event.get("exc_info") or event["event"] in ALARMING:
            ledger.broke(Broken(words))
        raise structlog.DropEvent

    return listen


async def _run(plan: Plan, ledger: Ledger) -> None:
    async with anyio.create_task_group() as tasks:
        stage = Stage(plan, ledger, tasks)
        tasks.start_soon(stage.act)
        await stage.watch()
        if not ledger.broken:
            await stage.halt()
        tasks.cancel_scope.cancel()
    ledger.over()


class Stage(StreamWorld):
    """One run."""

    def __init__(self, plan: Plan, ledger: Ledger, tasks: TaskGroup) -> None:
        self.plan, self.ledger = plan, ledger
        stream = (FaultyKinesis if plan.kind == "kinesis" else FaultyTable)(shards=plan.shards)
        for name, value in plan.shape.items():
            setattr(stream, name, value)
        if plan.travel:
            way = plan.dice("network")
            stream.travel = lambda: way.uniform(0, plan.travel)
        options = {name: getattr(plan.options, name) for name in plan.options.__struct_fields__}
        if plan.options.starting_timestamp is not None:
            options["starting_timestamp"] = ledger.since = time.time() + plan.options.starting_timestamp
        ledger.begun = plan.options.starting_position != "LATEST"
        super().__init__(
            self._handle,
            tasks,
            stream=stream,
            concurrency=plan.environments,
            buffer=plan.buffer,
            metrics=METRICS,
            batch_size=plan.batch_size,
            window=plan.window,
            partial=plan.partial,
            patterns=plan.patterns,
            **options,
        )
        if isinstance(stream, FaultyKinesis) and plan.pushed:
            self._change(source_arn=SourceArn.parse(stream.consumer_arn))
        self.disk = LedgerDisk(plan, ledger)
        self.destination = LedgerDestination(self)
        self._fates = dict(plan.fates)
        self._dice = plan.dice("handler")
        self._acting = True
        self._tell_shards()

    # Actors.

    async def act(self) -> None:
        began = anyio.current_time()
        for act in sorted([*self.plan.acts, Act(self.plan.starts_after, "start")], key=lambda act: act.at):
            await anyio.sleep(max(0.0, began + act.at - anyio.current_time()))
            if act.what != "put":
                self.ledger.note(f"{anyio.current_time() - began:.1f} s: {act.what} {act.detail or ''}")
            await self._do(act)
        self._acting = False

    async def watch(self) -> None:
        """Until all is done, or a promise is broken."""
        ledger = self.ledger
        with anyio.move_on_after(LIMIT):
            while not ledger.broken and (self._is_acting or not ledger.begun or ledger.open or ledger.behind):
                await anyio.sleep(0.5)
            return
        ledger.broke(Broken(f"lost: {ledger.open}, not committed: {ledger.behind}"))

    async def halt(self) -> None:
        """Drains the daemon, which takes no longer than it may."""
        assert self.daemon
        try:
            with anyio.fail_after(DRAINED_WITHIN):
                await self.daemon.stop()
        except TimeoutError:
            self.ledger.broke(Broken(f"the drain hangs: {self.daemon.supervisor!r}"))

    async def _do(self, act: Act) -> None:
        stream, detail = self.stream, act.detail
        match act.what:
            case "start":
                self.start()
            case "put":
                self._put(detail)
            case "split" | "roll" | "merge" | "forget" | "trim" | "vanish":
                self._reshape(act.what, detail)
            case "refuse":
                operation, codes = detail
                stream.refuse(self._operation(operation), *map(self._code, codes))
            case "cut_off":
                stream.cut_off(self._operation(detail))
            case "slow":
                stream.slow(self._operation(detail[0]), detail[1])
            case "blank":
                stream.blank(detail)
            case "repeat":
                stream.repeat(detail)
            case "expire":
                stream.expire()
            case "store fails":
                self.disk.faults += detail
            case "queue fails":
                self.destination.refusals += ["ServiceUnavailable"] * detail
            case "queue is away":
                self.destination.down = "AccessDenied" if self.plan.options.block else "ServiceUnavailable"
                self._tasks.start_soon(self._come_back, detail)
            case "hide":
                if self.ledger.stored:  # a first listing must be whole: nobody can know what it lacks
                    stream.hide(*detail)
            case "steal":
                if isinstance(stream, FaultyKinesis):
                    stream.steal()
            case "crash" | "restart" | "pause" | "reload" | "outage" if self.daemon is None:
                pass  # nobody is there
            case "outage":
                await self.kill()
                self.daemon = None
                self._tasks.start_soon(self._start_after, detail)
            case "crash":
                self.disk.hardened = detail
                await self.kill()
                self.start()
            case "restart":
                await self.halt()
                self.start()
            case "pause":
                await self._pause(detail)
            case "reload":
                self._reload(detail)
            case _:
                raise AssertionError(act)

    async def _pause(self, seconds: float) -> None:
        assert self.daemon
        supervisor = self.daemon.supervisor
        await supervisor.pause(NAME, wait=False)
        await anyio.sleep(seconds)
        await supervisor.resume(NAME)

    def _reload(self, change: Change) -> None:
        """The mapping is drained, and goes on with other options."""
        assert self.daemon
        self.ledger.lanes = change.lanes
        options = self.mappings[0].stream
        assert options
        lanes = msgspec.structs.replace(options, lanes=change.lanes)
        self._change(stream=lanes, batch_size=change.batch_size, window=change.window)
        self.daemon.supervisor.replace_soon(self.mappings[0], self.daemon.invoker, "Updating")

    def _change(self, **options: Any) -> None:
        self.mappings = [msgspec.structs.replace(self.mappings[0], **options)]

    @property
    def _is_acting(self) -> bool:
        return self._acting or self.daemon is None

    async def _start_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self.start()

    async def _come_back(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self.destination.down = ""

    def _put(self, key: str) -> None:
        (number,) = self.put(str(len(self.ledger.entries)), key=key)
        home = next(it for it in self.stream.shards.values() if it.records and it.records[-1].number == int(number))
        wire = home.records[-1].wire
        if self.plan.kind == "kinesis":
            at, lane_key = wire["ApproximateArrivalTimestamp"], key
        else:
            at, lane_key = wire["dynamodb"]["ApproximateCreationDateTime"], f'{{"id":{{"S":"{key}"}}}}'
        self.ledger.put(number, key, home.id, filtered=self.plan.filters(key), at=at, lane_key=lane_key)

    def _lose(self, way: str, detail: Any) -> None:
        """Records that are gone, and whole shards."""
        stream, ledger = self.stream, self.ledger
        share, part = detail if way == "trim" else (detail, 1.0)
        shards = [it for it in stream.shards.values() if way == "trim" or self._is_oldest(it)]
        if not shards:
            return
        shard = shards[int(share * len(shards))]
        if way == "vanish":
            stream.forget(shard.id)
            ledger.trimmed(shard.id)
        elif shard.records:
            stream.trim(shard.id, str(shard.records[int(part * len(shard.records))].number))
            ledger.trimmed(shard.id, shard.horizon)

    def _is_oldest(self, shard: Shard) -> bool:
        """Shards go in the order in which they ended."""
        return shard.last is not None and not any(parent in self.stream.shards for parent in shard.parents)

    def _reshape(self, way: str, share: Any) -> None:
        stream = self.stream
        shards = sorted(stream.open, key=lambda name: stream.shards[name].hashes)
        if way in ("trim", "vanish"):
            self._lose(way, share)
            return
        at = int(share * len(shards))
        if way == "forget":
            for name in [name for name in stream.shards if name not in shards]:
                if self.ledger.has_ended(name):
                    stream.forget(name)
        elif way == "split":
            stream.split(shards[at])
        elif way == "roll":
            stream.roll(shards[at])
        elif at + 1 < len(shards):
            stream.merge(shards[at], shards[at + 1])
        self._tell_shards()

    def _tell_shards(self) -> None:
        for shard in self.stream.shards.values():
            self.ledger.shard(shard.id, shard.parents)

    def _operation(self, name: str) -> str:
        lists = "ListShards" if self.plan.kind == "kinesis" else "DescribeStream"
        return {"list": lists, "read": "SubscribeToShard" if self.plan.pushed else "GetRecords"}.get(name, name)

    def _code(self, name: str) -> str:
        return {"throttled": self.stream.throttled, "expired": self.stream.expired}.get(name, name)

    # The handler.

    async def _handle(self, call: Call) -> Any:
        ledger, dice = self.ledger, self._dice
        if dice.random() < self.plan.throttles:
            raise NotRun
        numbers = numbers_of(call.event)
        try:
            ledger.begins(numbers, call.event, time.time())
            await anyio.sleep(dice.choice((0.0, 0.0, 0.05, 0.5, 3.0)))
            well, answer = self._answer(numbers, call.event)
            ledger.ends(numbers, well, call.event)
        except Broken as error:
            ledger.broke(error)
            raise
        if well < len(numbers) and not (self.plan.partial and answer):
            raise ValueError("scripted")
        if answer is not None and self.plan.options.tumbling_window:
            orders = [ledger.entries[number].order for number in numbers[:well]]
            state: dict[str, Any] = {"orders": [*call.event["state"].get("orders", []), *orders]}
            if self.plan.state_limit and dice.random() < 0.2:
                state["more"] = "x" * self.plan.state_limit
            answer = {**answer, "state": state}
        return answer

    def _answer(self, numbers: Sequence[str], event: dict[str, Any]) -> tuple[int, Any]:
        """How many records from the first one on went well, and the answer; none: it raises."""
        dice, windowed = self._dice, self.plan.options.tumbling_window
        orders = [self.ledger.entries[number].order for number in numbers]
        bad = next((at for at, order in enumerate(orders) if self._fates.get(order, 0) > 0), len(orders))
        if bad == len(orders):
            others = [] if windowed else [None] if self.plan.partial else [None, "fine"]
            return bad, dice.choice(({}, {"batchItemFailures": []}, *others))
        self._fates[orders[bad]] -= 1
        if not self.plan.partial or dice.random() < 0.2:
            return 0, None
        if dice.random() < 0.1:
            return 0, failures("")
        named = [numbers[bad], *dice.sample(numbers[bad:], k=dice.randint(0, len(numbers) - bad))]
        dice.shuffle(named)
        return bad, failures(*named)


class LedgerDisk(Disk):
    """Slow and failing as the plan says; the ledger judges what is written."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        super().__init__()
        self._slowest, self._dice, self._ledger = plan.slow_store, plan.dice("store"), ledger

    @property
    def delay(self) -> float:
        """Another one each time."""
        return self._dice.uniform(0, self._slowest)

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._slowest = seconds

    async def positions(self, mapping: str, source: str) -> dict[str, Position]:
        found = await super().positions(mapping, source)
        self._ledger.opened(found)
        return found

    async def move_positions(self, moves: Sequence[Move]) -> None:
        try:
            await super().move_positions(moves)
        except StateError as error:
            self._ledger.note(f"not stored: {error}")
            raise
        try:
            self._ledger.moves({move.partition: move.position for move in moves if move.position})
        except Broken as error:
            self._ledger.broke(error)
        for move in moves:
            if move.position is None:
                self._ledger.forgot(move.partition)


class LedgerDestination(ScriptedDestination):
    """The ledger judges what it is told."""

    def _take(self, document: str | bytes) -> None:
        super()._take(document)
        try:
            self._world.ledger.reported(json.loads(document))  # type: ignore[attr-defined]
        except Broken as error:
            self._world.ledger.broke(error)  # type: ignore[attr-defined]
