"""The scripted SQS of tests/sources/faulty_sqs.py as a server for a real daemon, in a thread of its own.

It notices when a client gives up a poll, which the real servers here do not: they hand the next message to it. So what
goes back at once can be seen at once, and times can be told exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.servers import unique
from tests.sources.faulty_sqs import OPERATIONS, CutOff, FaultySqs, Refused
from tests.wire import Answer, Request, Wire, cut, error

T = TypeVar("T")

NO_QUEUE = error("com.amazonaws.sqs#QueueDoesNotExist", query_code="AWS.SimpleQueueService.NonExistentQueue")


class FaultyServer:
    """One that does as it is told."""

    name = "faulty"

    def __init__(self, wire: Wire, portal: BlockingPortal) -> None:
        self.wire, self.portal = wire, portal
        self.queues: dict[str, FaultySqs] = {}
        self.stalled: dict[str, anyio.Event] = {}
        for operation in OPERATIONS:
            wire.on(operation, self._answer)

    def __repr__(self) -> str:
        return f"<{self.name} {self.url}>"

    @property
    def url(self) -> str:
        return self.wire.url

    def queue(self, *, visibility: int = 2, fifo: bool = False) -> FaultyQueue:
        """A queue of its own for the calling test."""
        name = unique("queue") + (".fifo" if fifo else "")
        fake = self.portal.call(lambda: FaultySqs(name, visibility=visibility))
        self.queues[name] = fake
        return FaultyQueue(self, fake)

    async def _answer(self, request: Request) -> Answer | dict[str, Any]:
        name = request.params.get("QueueName") or request.params["QueueUrl"].rpartition("/")[2]
        if (queue := self.queues.get(name)) is None:
            return NO_QUEUE
        if request.operation == "ReceiveMessage" and (stalled := self.stalled.get(name)):
            await stalled.wait()
        try:
            return await queue.handle(request.operation, request.params)
        except Refused as refused:
            return error(refused.code)
        except CutOff as lost:
            return cut(lost.answer)


class FaultyQueue:
    """One queue, from another thread than the one it lives in."""

    def __init__(self, server: FaultyServer, fake: FaultySqs) -> None:
        self.server, self.fake = server, fake
        self.name, self.arn = fake.name, fake.arn

    def __repr__(self) -> str:
        return f"<FaultyQueue {self.name}>"

    def ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """Calls a method of the fake in its own thread."""
        return self.server.portal.call(call, *arguments)

    def send(self, *bodies: str, group: str | None = None) -> list[str]:
        return [self.ask(self.fake.send, body, group) for body in bodies]

    def stall(self) -> None:
        """Receives are not answered until ``go_on``."""
        self.server.stalled[self.name] = self.ask(anyio.Event)

    def go_on(self) -> None:
        self.ask(self.server.stalled.pop(self.name).set)

    def counts(self) -> tuple[int, int]:
        """How many messages are visible, and in flight."""
        return self.ask(lambda: (len(self.fake.visible), len(self.fake.in_flight)))


@contextmanager
def faulty() -> Iterator[FaultyServer]:
    """The server, listening."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Wire()) as wire:
        yield FaultyServer(wire, portal)
