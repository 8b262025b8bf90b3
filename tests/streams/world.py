"""A daemon's inside with a scripted stream at one end and a scripted handler at the other: real sources, runners,
supervisor, checkpoints and delivery, in one virtual loop. It can be stopped, killed and started again on its store.

    async with streaming(handler, batch_size=3, retries=2, on_failure=QUEUE) as it:
        it.put("1", "2", "3")
        it.start()
        await it.finished()
        assert it.trail == ["F(1,2,3)"] * 3

What the handler is told, and what the trail is written in, are the names that were put: each is a record's body, and
its key too unless the test says otherwise.
"""

from __future__ import annotations

import inspect
import json
import random
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping as Dict, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple, Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from bridge.checkpoints import Checkpoints
from bridge.destinations.delivery import Delivery
from bridge.errors import StateError
from bridge.executors import Environments
from bridge.flow import Buffer
from bridge.function import Function
from bridge.invocation import Failed, Invocation, Outcome, Succeeded
from bridge.invoker import Invoker
from bridge.ledger import Ledger
from bridge.mapping import Mapping, SourceArn, StreamOptions
from bridge.position import Move, Position
from bridge.snapshot import MappingView
from bridge.sources import SOURCES
from bridge.sources.shards import Where
from bridge.stores import StateUrl
from bridge.stores.memory import MemoryStore
from bridge.supervisor import Supervisor
from bridge.telemetry.metrics import Metrics
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_sqs import CutOff, Refused
from tests.sources.faulty_streams import FaultyStream, LocalStreams
from tests.world import MemoryPauses, NotRun

SOURCES.setdefault("kinesis", "bridge.sources.kinesis:KinesisSource")
SOURCES.setdefault("dynamodb", "bridge.sources.dynamodb:DynamoDBSource")

NAME, UUID, FUNCTION = "orders", "uuid-of-orders", "arn:aws:lambda:eu-west-1:123456789012:function:worker"
QUEUE, TOPIC, BUCKET = (
    "arn:aws:sqs:eu-west-1:123456789012:given-up",
    "arn:aws:sns:eu-west-1:123456789012:given-up",
    "arn:aws:s3:::given-up",
)


class Call(NamedTuple):
    """One invocation, as the handler sees it."""

    names: list[str]
    """Of its records."""
    event: dict[str, Any]
    nth: int
    """Invocations before it."""


Handler = Callable[[Call], Any | Awaitable[Any]]
"""Its answer, as JSON or as the bytes themselves; what it raises is a function error, NotRun none."""


class Handled(NamedTuple):
    """One invocation that has ended; ``at`` is the loop's time at its start."""

    at: float
    names: list[str]
    event: dict[str, Any]
    outcome: Outcome

    def __str__(self) -> str:
        """In the words of the acceptance vectors: F, S, P and the first record that the answer names, T for throttled;
        ``final`` for what has no records."""
        inside = f"({','.join(self.names)})" if self.names else "(final)"
        if isinstance(self.outcome, Failed):
            return ("F" if self.outcome.ran else "T") + inside
        return (f"P{self._named}" if self._named else "S") + inside

    @property
    def _named(self) -> str:
        assert isinstance(self.outcome, Succeeded)
        try:
            answer = json.loads(self.outcome.payload or b"null")
        except ValueError:
            return ""
        failures = (answer.get("batchItemFailures") if isinstance(answer, dict) else None) or ()
        said = [entry.get("itemIdentifier") for entry in failures if isinstance(entry, dict)]
        numbers = numbers_of(self.event)
        return next((name for name, number in zip(self.names, numbers, strict=True) if number in said), "")


def numbers_of(event: dict[str, Any]) -> list[str]:
    """The sequence numbers in an event of either service."""
    return [
        record["kinesis"]["sequenceNumber"] if "kinesis" in record else record["dynamodb"]["SequenceNumber"]
        for record in event["Records"]
    ]


def names_of(event: dict[str, Any]) -> list[str]:
    """What was put, of an event of either service."""
    return [
        b64decode(record["kinesis"]["data"]).decode()
        if "kinesis" in record
        else record["dynamodb"].get("NewImage", {}).get("body", {}).get("S", "")
        for record in event["Records"]
    ]


def failures(*numbers: str) -> dict[str, Any]:
    """An answer that names these sequence numbers."""
    return {"batchItemFailures": [{"itemIdentifier": number} for number in numbers]}


class ScriptedDestination:
    """A queue, a topic and a bucket at once. It keeps what it is given, and refuses as the test says."""

    def __init__(self, world: StreamWorld) -> None:
        self._world = world
        self.refusals: list[str] = []
        """Codes of the next requests' errors."""
        self.down = ""
        """The code of all."""
        self.delay = 0.0
        """Seconds that an answer takes after its request was carried out."""
        self.documents: list[dict[str, Any]] = []
        self.keys: list[str] = []
        """Of objects in the bucket."""
        self.positions: list[str] = []
        """What was stored when each document came, by the last name that is done."""

    async def handle(self, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        if self.refusals or self.down:
            raise Refused(self.refusals.pop(0) if self.refusals else self.down)
        match operation:
            case "GetQueueUrl":
                return {"QueueUrl": "http://queue"}
            case "SendMessage":
                self._take(params["MessageBody"])
            case "Publish":
                self._take(params["Message"])
            case "PutObject":
                self.keys.append(params["Key"])
                self._take(params["Body"])
        await anyio.sleep(self.delay)
        return {}

    def _take(self, document: str | bytes) -> None:
        self.documents.append(json.loads(document))
        self.positions.append(self._world.committed())

    @property
    def told(self) -> list[tuple[Any, ...]]:
        """Of each document: condition, batchSize, attempts, first and last name, and ``functionError``, or
        ``absent``."""
        return [self._told(document) for document in self.documents]

    def _told(self, document: dict[str, Any]) -> tuple[Any, ...]:
        info = next(value for name, value in document.items() if name.endswith("BatchInfo"))
        context, response = document["requestContext"], document.get("responseContext")
        names = self._world.names
        return (
            context["condition"],
            info["batchSize"],
            context["approximateInvokeCount"],
            names[info["startSequenceNumber"]],
            names[info["endSequenceNumber"]],
            response["functionError"] if response else "absent",
        )


class Disk(MemoryStore):
    """What outlives a daemon."""

    def __init__(self) -> None:
        super().__init__(StateUrl.parse("memory:"))
        self.delay: float = 0.0
        """Seconds that a write takes."""
        self.faults = 0
        """So many writes fail."""
        self.faults_of = ""
        """All that this mapping (UUID) writes fails."""
        self.hardened = False
        """A write that was under way when its daemon died has happened all the same."""
        self.writes: list[dict[str, Position | None]] = []

    async def move_positions(self, moves: Sequence[Move]) -> None:
        if self.faults:
            self.faults -= 1
            raise StateError("the disk is full")
        if any(move.mapping == self.faults_of for move in moves):
            raise StateError("the disk is full for it")
        await super().move_positions(moves)
        self.writes.append({move.partition: move.position for move in moves})


class Daemon:
    """From its start to its end, or its death: nothing that it does afterwards has an effect, as after kill -9."""

    def __init__(self, world: StreamWorld) -> None:
        self.dead = False
        self._world = world
        self._scope = anyio.CancelScope()
        self._stop = anyio.Event()
        self.over = anyio.Event()
        near: Any = Mortal(self, world.stream)
        far = {service: Mortal(self, world.destination) for service in ("sqs", "sns", "s3")}
        aws: Any = LocalStreams(near, **far)
        self.buffer = Buffer(world.buffer)
        invoker = self.invoker = Invoker(MortalExecutor(self, world), world.metrics.function_meter(world.function.name))
        store: Any = MortalStore(self, world.disk)
        self._checkpoints = Checkpoints(store, world.metrics.checkpoint_seconds.observe)
        delivery = Delivery(aws, lambda name: world.function, _accept_nothing, lambda name: invoker.meter)
        self.supervisor = Supervisor(
            aws,
            world.metrics,
            self.buffer,
            world.pauses,
            delivery=delivery,
            checkpoints=self._checkpoints,
            ledger=world.kept,
        )

    async def run(self) -> None:
        try:
            with self._scope:
                async with self._checkpoints.running(), self.supervisor.running():
                    for mapping in self._world.mappings:
                        await self.supervisor.add(mapping, self.invoker)
                    await self._stop.wait()
                    await self.supervisor.drain()
        finally:
            self.over.set()

    async def stop(self) -> None:
        """Drains it, as SIGTERM does."""
        self._stop.set()
        await self.over.wait()

    async def kill(self) -> None:
        self.dead = True
        self._scope.cancel()
        await self.over.wait()


async def _accept_nothing(name: str, qualifier: str, payload: bytes, request_id: str, trace: str) -> None:
    raise AssertionError(f"{name} is no destination here")


class Mortal:
    """A service, for as long as its client lives."""

    def __init__(self, daemon: Daemon, server: Any) -> None:
        self.service = getattr(server, "service", "")
        self._daemon, self._server = daemon, server

    async def handle(self, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        if self._daemon.dead:
            raise CutOff({})
        answer: dict[str, Any] = await self._server.handle(operation, params)
        if self._daemon.dead:
            raise CutOff(answer)
        return answer

    async def events(self, operation: str, params: Dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        async with aclosing(self._server.events(operation, params)) as events:
            async for event in events:
                if self._daemon.dead:
                    raise CutOff({})
                yield event


class MortalStore:
    """The disk, for as long as its daemon lives."""

    def __init__(self, daemon: Daemon, disk: Disk) -> None:
        self._daemon, self._disk = daemon, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    async def move_positions(self, moves: Sequence[Move]) -> None:
        begun = not self._daemon.dead
        await anyio.sleep(self._disk.delay)
        if self._daemon.dead and not (begun and self._disk.hardened):
            raise StateError("nobody is there any more")
        await self._disk.move_positions(moves)


class MortalExecutor:
    """Runs the handler in the test's own loop."""

    def __init__(self, daemon: Daemon, world: StreamWorld) -> None:
        self.function = world.function
        self.running = 0
        self._daemon, self._world = daemon, world

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self.running == 0

    def environments(self) -> Environments:
        return Environments(busy=self.running)

    def provision(self, count: int) -> None:
        raise ValueError("it has no environments")

    async def invoke(self, invocation: Invocation) -> Outcome:
        world = self._world
        event = json.loads(invocation.payload)
        started, call = anyio.current_time(), Call(names_of(event), event, len(world.handled))
        self.running += 1
        try:
            outcome = await self._outcome(call, invocation.request_id)
        finally:
            self.running -= 1
        if not self._daemon.dead:
            world.handled.append(Handled(started, call.names, event, outcome))
        return outcome

    async def _outcome(self, call: Call, request_id: str) -> Outcome:
        await anyio.lowlevel.checkpoint()
        try:
            answer = self._world.handler(call)
            if inspect.isawaitable(answer):
                answer = await answer
        except NotRun as refusal:
            return Failed(refusal.kind, b'{"errorType":"Throttled"}', request_id)
        except Exception as error:
            body = {"errorType": type(error).__name__, "errorMessage": str(error)}
            return Failed("function", json.dumps(body).encode(), request_id)
        return Succeeded(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), request_id)


class StreamWorld:
    """A stream, a disk, a destination, and the daemons that come and go."""

    def __init__(
        self,
        handler: Handler,
        tasks: TaskGroup,
        *,
        stream: FaultyStream | None = None,
        source: str = "",
        concurrency: int = 16,
        buffer: int = 1 << 28,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        self.handler = handler
        self.stream = stream or FaultyKinesis("orders")
        self.function = Function(
            name="worker", arn=FUNCTION, kind="python", timeout=600.0, max_environments=concurrency
        )
        self.buffer = buffer
        self.metrics = metrics or Metrics()
        self.pauses = MemoryPauses()
        self.disk = Disk()
        self.destination = ScriptedDestination(self)
        self.handled: list[Handled] = []
        self.names: dict[str, str] = {}
        """Sequence number -> name."""
        self.mappings = [mapping(source or self.stream.arn, **options)]
        self.daemon: Daemon | None = None
        self.kept: Ledger | None = None
        """Given by tests that look into it."""
        self._tasks = tasks

    # What a test does.

    def put(self, *names: str, key: str = "", shard: str = "") -> list[str]:
        """The sequence numbers."""
        numbers = [self.stream.put(key or name, name, shard=shard) for name in names]
        self.names.update(zip(numbers, names, strict=True))
        return numbers

    def number(self, name: str) -> str:
        return next(number for number, it in self.names.items() if it == name)

    def start(self) -> None:
        self.daemon = Daemon(self)
        self._tasks.start_soon(self.daemon.run)

    async def kill(self) -> None:
        assert self.daemon
        await self.daemon.kill()

    async def stop(self) -> None:
        """Drains the daemon; it does not wait for retries."""
        assert self.daemon
        with anyio.fail_after(30):
            await self.daemon.stop()

    async def finished(self, *, within: float = 3600.0) -> None:
        """Returns when all that was put is stored as done."""
        await self.until(lambda: not self.left, within=within)

    async def until(self, condition: Callable[[], bool], *, within: float = 3600.0, every: float = 0.05) -> None:
        """Looks at the owned clock's pace until ``condition`` is true."""
        with anyio.fail_after(within):
            while not condition():
                await anyio.sleep(every)

    # What it sees.

    @property
    def trail(self) -> list[str]:
        """The invocations that have ended."""
        return [str(one) for one in self.handled]

    @property
    def given(self) -> list[str]:
        """The names of all records that the handler had, one after the other."""
        return [name for one in self.handled for name in one.names]

    def stored(self, name: str = NAME) -> dict[str, Position]:
        found = self.disk._positions.items()
        return {key[2]: position for key, position in found if key[0] == f"uuid-of-{name}"}

    def committed(self, shard: str = "") -> str:
        """The last name of which the shard (the first one) says that it and all before it is done."""
        position = self.stored().get(shard or next(iter(self.stream.shards)))
        where = Where.parse(position.position) if position else Where("TRIM_HORIZON")
        return self.names.get(where.sequence, "") if where.kind == "AFTER_SEQUENCE_NUMBER" else ""

    @property
    def left(self) -> list[str]:
        """Names that are not stored as done."""
        stored = self.stored()
        return [
            self.names[self.stream.text(record.number)]
            for shard in self.stream.shards.values()
            for record in shard.records
            if not _covers(stored.get(shard.id), record.number)
        ]

    @property
    def view(self) -> MappingView:
        assert self.daemon
        return self.daemon.supervisor.find(NAME).view()

    def counted(self, name: str, **labels: str) -> float:
        """The value of one series of ``bridge_esm_...``."""
        base = {"mapping": NAME, "source": self.mappings[0].source, "function": "worker"}
        return self.metrics.registry.get_sample_value(f"bridge_esm_{name}", {**base, **labels}) or 0.0


def mapping(arn: str, name: str = NAME, **options: Any) -> Mapping:
    """``options`` of the mapping or of its stream."""
    own = {key: options.pop(key) for key in StreamOptions.__struct_fields__ if key in options}
    return Mapping(
        name=name,
        uuid=f"uuid-of-{name}",
        function="worker",
        source_arn=SourceArn.parse(arn),
        stream=StreamOptions(**own),
        **{"batch_size": 100, **options},
    )


def _covers(position: Position | None, number: int) -> bool:
    if position is None:
        return False
    where = Where.parse(position.position)
    return position.ended or (where.kind == "AFTER_SEQUENCE_NUMBER" and int(where.sequence) >= number)


@asynccontextmanager
async def streaming(handler: Handler, **options: Any) -> AsyncIterator[StreamWorld]:
    """Leaving it stops the daemon in peace: a drain never hangs, whatever fails."""
    random.seed(4)  # of the daemon's jitter
    async with anyio.create_task_group() as tasks:
        it = StreamWorld(handler, tasks, **options)
        yield it
        if it.daemon and not it.daemon.over.is_set():
            await it.stop()
