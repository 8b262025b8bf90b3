"""The asynchronous side of a daemon in one event loop: events at one end, scripted handlers at the other."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
import anyio.lowlevel
import msgspec

from bridge.asynchronous import AsyncInvocations
from bridge.executors import Environments
from bridge.flow import Buffer
from bridge.function import EventInvoke, Function
from bridge.invocation import Failed, Invocation, Outcome, Succeeded
from bridge.invoker import Invoker
from bridge.stores import StateUrl, Store
from bridge.stores.memory import MemoryStore
from bridge.telemetry.metrics import Metrics
from tests.world import NoAws, NotRun, function

Handler = Callable[[Any], Any]


class Call(NamedTuple):
    """One attempt that the handler got. ``at`` in seconds of the loop's clock."""

    at: float
    invocation: Invocation

    @property
    def event(self) -> Any:
        return json.loads(self.invocation.payload)


class HandlerExecutor:
    """Runs a function of the test as the handler; ``NotRun`` says that it was never started."""

    def __init__(self, settings: Function, handler: Handler) -> None:
        self.function = settings
        self.handler = handler
        self.calls: list[Call] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def environments(self) -> Environments:
        return Environments()

    def provision(self, count: int) -> None:
        raise ValueError("it has no environments")

    async def invoke(self, invocation: Invocation) -> Outcome:
        await anyio.lowlevel.checkpoint()
        call = Call(anyio.current_time(), invocation)
        try:
            answer = self.handler(call.event)
            if hasattr(answer, "__await__"):
                answer = await answer
        except NotRun as refusal:
            return Failed(refusal.kind, b'{"errorType":"Throttled"}', invocation.request_id)
        except Exception as error:
            self.calls.append(call)
            body = {"errorMessage": str(error), "errorType": type(error).__name__}
            return Failed("function", msgspec.json.encode(body), invocation.request_id)
        self.calls.append(call)
        return Succeeded(msgspec.json.encode(answer), invocation.request_id)

    @property
    def times(self) -> list[float]:
        """When the attempts were, from the first one on, in whole seconds."""
        return [round(call.at - self.calls[0].at) for call in self.calls]


class Callers:
    """Functions that can be invoked asynchronously. ``observer`` is a destination that writes down what it gets."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.metrics = Metrics()
        self.invokers: dict[str, Invoker] = {}
        self.executors: dict[str, HandlerExecutor] = {}
        self.invocations = AsyncInvocations(
            store, NoAws(), self.metrics, Buffer(1 << 28), self.invokers.get  # type: ignore[arg-type]
        )  # fmt: skip
        self.observer = self.serve(lambda event: None, "observer")

    def serve(self, handler: Handler, name: str = "worker", **options: Any) -> HandlerExecutor:
        settings = function(name, **options)
        executor = self.executors[name] = HandlerExecutor(settings, handler)
        self.invokers[name] = Invoker(executor, self.metrics.function_meter(name))
        return executor

    async def call(self, payload: Any = None, name: str = "worker", **options: str) -> str:
        """One asynchronous invocation; gives its request id."""
        request_id = str(uuid.uuid4())
        body = msgspec.json.encode({} if payload is None else payload)
        await self.invocations.accept(name, options.pop("qualifier", ""), body, request_id, **options)
        return request_id

    @property
    def reports(self) -> list[Any]:
        """What the observer was told."""
        return [call.event for call in self.observer.calls]

    async def finished(self, within: float = 100_000) -> None:
        """Returns when no event is left."""
        await self.until(lambda: not self.invocations.total, within)

    async def until(self, condition: Callable[[], bool], within: float = 100_000) -> None:
        with anyio.fail_after(within):
            while not condition():
                await anyio.sleep(0.25)

    def counted(self, name: str, function: str = "worker", **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"bridge_{name}", {"function": function, **labels})


OBSERVER = function("observer").arn


def observed(**options: Any) -> dict[str, Any]:
    """Settings of a function whose ends the observer is told."""
    return {"event_invoke": EventInvoke(**{"on_success": OBSERVER, "on_failure": OBSERVER, **options})}


@asynccontextmanager
async def callers(store: Store | None = None) -> AsyncIterator[Callers]:
    """Leaving it cancels what still runs. A store that is given stays open."""
    it = Callers(store or MemoryStore(StateUrl.parse("memory:")))
    async with it.invocations.running():
        yield it
