"""A daemon's inside in one event loop: memory queues at one end, scripted handlers at the other."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
import msgspec

from bridge.checkpoints import Checkpoints
from bridge.executors import Environments
from bridge.flow import Buffer
from bridge.function import AwsSettings, Function
from bridge.invocation import Failed, FailureKind, Invocation, Outcome, Succeeded
from bridge.invoker import Invoker
from bridge.ledger import Ledger
from bridge.mapping import Mapping, SourceArn
from bridge.snapshot import MappingView
from bridge.sources import SOURCES
from bridge.sources.memory import MemoryQueue
from bridge.supervisor import Supervisor
from bridge.telemetry.metrics import Metrics

SOURCES.setdefault("memory", "bridge.sources.memory:MemorySource")

Event = dict[str, Any]
Handler = Callable[[Event], Any | Awaitable[Any]]


class NotRun(Exception):
    """A handler raises it to say that it was never started."""

    def __init__(self, kind: FailureKind = "throttled") -> None:
        self.kind = kind


class ScriptedExecutor:
    """Runs a coroutine in the test's own loop as the handler, and writes down what it was given."""

    def __init__(self, function: Function, handler: Handler) -> None:
        self.function = function
        self.handler = handler
        self.events: list[Event] = []
        """What was handled to its end, well or badly."""
        self.given: set[str] = set()
        """Ids of all records that it was ever asked to run."""
        self.running = 0
        self.most = 0
        """The highest number of invocations at once."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.running == 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        event = json.loads(invocation.payload)
        self.given.update(record["messageId"] for record in event["Records"])
        await anyio.lowlevel.checkpoint()
        started = anyio.current_time()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            answer = self.handler(event)
            if inspect.isawaitable(answer):
                answer = await answer
        except NotRun as refusal:
            return Failed(refusal.kind, b'{"errorType":"Throttled"}', invocation.request_id)
        except Exception as error:
            body = {"errorType": type(error).__name__, "errorMessage": str(error)}
            self.events.append(event)
            return Failed("function", json.dumps(body).encode(), invocation.request_id)
        finally:
            self.running -= 1
        self.events.append(event)
        duration = anyio.current_time() - started
        return Succeeded(json.dumps(answer).encode(), invocation.request_id, duration=duration)

    def environments(self) -> Environments:
        return Environments(busy=self.running)

    def provision(self, count: int) -> None:
        raise ValueError("it has no environments")

    @property
    def bodies(self) -> list[list[str]]:
        """What each finished invocation was given."""
        return [[record["body"] for record in event["Records"]] for event in self.events]


class MemoryPauses:
    """Pauses that nobody remembers."""

    def __init__(self) -> None:
        self.uuids: set[str] = set()

    async def paused(self) -> frozenset[str]:
        return frozenset(self.uuids)

    async def pause(self, uuid: str) -> None:
        self.uuids.add(uuid)

    async def resume(self, uuid: str) -> None:
        self.uuids.discard(uuid)


class NoAws:
    """Memory queues need no AWS; it writes down who asked for fresh clients."""

    def __init__(self) -> None:
        self.renewed: list[str] = []

    async def renew(self, service: str, settings: AwsSettings, region: str | None) -> None:
        self.renewed.append(service)


def function(name: str = "worker", **options: Any) -> Function:
    return Function(name=name, arn=f"arn:aws:lambda:eu-west-1:123456789012:function:{name}", kind="python", **options)


def mapping(queue: MemoryQueue, name: str | None = None, **options: Any) -> Mapping:
    arn = SourceArn.parse(f"arn:aws:memory:eu-west-1:123456789012:{queue.name}")
    name = name or queue.name
    return Mapping(name=name, uuid=f"uuid-of-{name}", source_arn=arn, **{"function": "worker", **options})


class World:
    """A supervisor with everything around it. ``add`` starts a mapping."""

    def __init__(
        self,
        *,
        buffer: int = 1 << 28,
        checkpoints: Checkpoints | None = None,
        ledger: Ledger | None = None,
        aws: Any = None,
    ) -> None:
        self.metrics = Metrics()
        self.buffer = Buffer(buffer)
        self.pauses = MemoryPauses()
        self.aws = NoAws()
        known: Any = aws or self.aws
        self.supervisor = Supervisor(
            known, self.metrics, self.buffer, self.pauses, checkpoints=checkpoints, ledger=ledger
        )
        self.executors: dict[str, ScriptedExecutor] = {}
        self._invokers: dict[str, Invoker] = {}

    def serve(self, handler: Handler, settings: Function | None = None) -> ScriptedExecutor:
        """Declares a function."""
        settings = settings or function()
        executor = self.executors[settings.name] = ScriptedExecutor(settings, handler)
        self._invokers[settings.name] = Invoker(executor, self.metrics.function_meter(settings.name))
        return executor

    async def add(self, settings: Mapping) -> None:
        await self.supervisor.add(settings, self._invokers[settings.function])

    def invoker(self, name: str = "worker") -> Invoker:
        return self._invokers[name]

    def view(self, name: str) -> MappingView:
        return self.supervisor.find(name).view()

    async def until(self, condition: Callable[[], bool], *, within: float = 3600.0, every: float = 0.05) -> None:
        """Looks at the owned clock's pace until ``condition`` is true."""
        with anyio.fail_after(within):
            while not condition():
                await anyio.sleep(every)


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    """Leaving it cancels what still runs; what was held is back at its source then."""
    async with AsyncExitStack() as stack:
        it = World(**options)
        await stack.enter_async_context(it.supervisor.running())
        yield it


def replace(settings: Mapping, **options: Any) -> Mapping:
    return msgspec.structs.replace(settings, **options)
