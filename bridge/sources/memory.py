"""A queue in memory and its source: for tests, and the shortest complete answer to what a source has to do.

The queue behaves like SQS: what was handed out is hidden and comes back when its visibility ends, groups keep their
order, and a message that was received too often is dead.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping as Dict, Sequence
from math import inf
from types import TracebackType
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel
import msgspec

from bridge.errors import BridgeError, NotFound, PartitionEnded
from bridge.filtering import decode_body
from bridge.mapping import Mapping
from bridge.pipeline.batcher import WindowOpens
from bridge.pipeline.scaling import Scaling
from bridge.pipeline.verdict import Policy
from bridge.record import Batch, Page, Record, Span
from bridge.snapshot import WaitView
from bridge.sources import Bound, Limits, Surroundings, unlimited
from bridge.sources.payload import records_event


class Message(msgspec.Struct, eq=False):
    """One message of a queue and where it is: handed out to a ``holder``, hidden until a time, or waiting."""

    id: str
    body: str
    group: str | None
    sent_at: float
    deliveries: int = 0
    holder: MemoryPartition | None = None
    hidden_until: float = 0.0
    """Loop time; counts only without a holder, who keeps what he has hidden as long as he lives."""

    def waits(self, now: float) -> bool:
        return self.holder is None and self.hidden_until <= now


class MemoryQueue:
    """A queue that a test fills and looks into. It is found by its name as long as the test holds on to it."""

    named: ClassVar[WeakValueDictionary[str, MemoryQueue]] = WeakValueDictionary()

    def __init__(
        self, name: str = "memory", *, visibility: float = 30.0, fifo: bool = False, max_receives: float = inf
    ) -> None:
        self.name, self.visibility, self.fifo, self.max_receives = name, visibility, fifo, max_receives
        self.deleted: list[str] = []
        """Ids, in the order of their deletion."""
        self.dead: list[str] = []
        """Ids that were received ``max_receives`` times in vain (SQS-37)."""
        self.deliveries: list[str] = []
        """Ids, one entry for each time that one was handed out."""
        self.fault: BridgeError | None = None
        """What opening and fetching raise while it is set."""
        self.ended = False
        """Set by ``end``: the last page is followed by PartitionEnded."""
        self.finished = False
        """The partition was told that its last record is settled."""
        self._messages: dict[str, Message] = {}
        self._sent = 0
        self._changed = anyio.Event()
        self.named[name] = self

    def __repr__(self) -> str:
        return (
            f"MemoryQueue({self.name!r}, visible={len(self.visible)}, in_flight={len(self.in_flight)}, "
            f"deleted={len(self.deleted)}, dead={len(self.dead)})"
        )

    @property
    def visible(self) -> list[str]:
        now = anyio.current_time()
        self._bury(now)
        return [message.id for message in self._messages.values() if message.waits(now)]

    @property
    def in_flight(self) -> list[str]:
        now = anyio.current_time()
        return [message.id for message in self._messages.values() if not message.waits(now)]

    def put(self, body: str = "{}", group: str | None = None) -> str:
        """Sends one message and gives its id."""
        self._sent += 1
        message = Message(f"message-{self._sent}", body, group, time.time())
        self._messages[message.id] = message
        self._notify()
        return message.id

    def steal(self, message_id: str) -> None:
        """Somebody else received the message while we thought it was ours (SQS-82: our receipt is stale)."""
        message = self._messages[message_id]
        message.holder, message.hidden_until = None, anyio.current_time() + self.visibility
        message.deliveries += 1
        self._notify()

    @property
    def drained(self) -> bool:
        """It has ended, and all that is left of it is held by somebody."""
        return self.ended and all(message.holder for message in self._messages.values())

    def end(self) -> None:
        """Nothing will follow what is there now."""
        self.ended = True
        self._notify()

    def fail(self, fault: BridgeError | None) -> None:
        """From now on fetches raise ``fault``, those that wait already included; none: the queue is well again."""
        self.fault = fault
        self._notify()

    async def settled_all(self) -> None:
        """Returns when each message was deleted or is dead."""
        await self.until(lambda: not self._messages)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when ``condition`` is true; it is asked again whenever something changed here."""
        self._bury(anyio.current_time())
        while not condition():
            await self.change(inf)
            self._bury(anyio.current_time())

    async def change(self, deadline: float) -> None:
        """Waits until something changed, a hidden message comes back, or ``deadline`` (loop time) is there."""
        now = anyio.current_time()
        returns = [m.hidden_until for m in self._messages.values() if m.holder is None and m.hidden_until > now]
        with anyio.CancelScope(deadline=min([deadline, *returns])):
            await self._changed.wait()

    def take(self, limit: int, holder: MemoryPartition) -> list[Message]:
        """Hands out what waits, oldest first; of a FIFO queue no group of which something is handed out (SQS-55)."""
        now = anyio.current_time()
        self._bury(now)
        locked = {m.group for m in self._messages.values() if not m.waits(now)} if self.fifo else set()
        taken: list[Message] = []
        for message in self._messages.values():
            if len(taken) == limit:
                break
            if message.waits(now) and not (self.fifo and message.group in locked):
                message.holder, message.hidden_until = holder, now + self.visibility
                message.deliveries += 1
                taken.append(message)
        self.deliveries += [message.id for message in taken]
        return taken

    def delete(self, message: Message) -> None:
        del self._messages[message.id]
        self.deleted.append(message.id)
        self._notify()

    def release(self, message: Message, at: float) -> None:
        """Nobody holds it any more: it waits again from ``at`` on."""
        message.holder, message.hidden_until = None, at
        self._notify()

    def release_all(self, holder: MemoryPartition) -> None:
        """The holder is gone: what he did not settle comes back when its time is over."""
        for message in self._messages.values():
            if message.holder is holder:
                self.release(message, message.hidden_until)

    def _bury(self, now: float) -> None:
        """Messages that came back once too often are dead (SQS-37)."""
        if self.max_receives is inf:
            return
        over = [m for m in self._messages.values() if m.waits(now) and m.deliveries >= self.max_receives]
        for message in over:
            del self._messages[message.id]
            self.dead.append(message.id)
        if over:
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class MemoryPartition:
    """The one partition of a queue in memory."""

    state = b""

    def __init__(self, queue: MemoryQueue, arn: str, surroundings: Surroundings) -> None:
        self.id = queue.name
        self._queue, self._arn, self._meter = queue, arn, surroundings.meter

    async def fetch(self, limit: int, wait: float, size: Callable[[], float] = unlimited) -> Page:  # noqa: ARG002
        await anyio.lowlevel.checkpoint()
        deadline = anyio.current_time() + wait
        while True:
            if self._queue.fault:
                raise self._queue.fault
            taken = self._queue.take(limit, self)  # no await from here to the return: a cancelled fetch took nothing
            if taken or anyio.current_time() >= deadline:
                return self._page(taken, limit)
            if self._queue.drained:
                raise PartitionEnded
            await self._queue.change(deadline)

    def _page(self, taken: Sequence[Message], limit: int) -> Page:
        records = tuple(self._record(message) for message in taken)
        self._meter.poll("data" if records else "empty")
        if not records:
            return Page()
        lag = max(0.0, time.time() - min(record.arrived_at for record in records))
        self._meter.polled(len(records), sum(len(record.json) for record in records))
        self._meter.message_age(lag)
        full = len(records) == limit
        return Page(records, caught_up=not full, lag=lag, full=full)

    def _record(self, message: Message) -> Record:
        event = {
            "messageId": message.id,
            "body": message.body,
            "attributes": {"ApproximateReceiveCount": str(message.deliveries)},
            "eventSource": "bridge:memory",
            "eventSourceARN": self._arn,
        }
        return Record(
            id=message.id,
            json=msgspec.json.encode(event),
            arrived_at=message.sent_at,
            deliveries=message.deliveries,
            held_until=message.hidden_until,
            receipt=message,
        )

    def _holds(self, record: Record) -> bool:
        message: Message = record.receipt
        return message.holder is self and message.deliveries == record.deliveries

    async def hold(self, batch: Batch) -> tuple[Record, ...]:
        await anyio.lowlevel.checkpoint()
        return tuple(record for record in batch.records if not self._holds(record))

    async def settle(
        self,
        done: Sequence[Record] = (),
        failed: Sequence[Record] = (),
        unstarted: Sequence[Record] = (),
        *,
        state: bytes | None = None,  # noqa: ARG002 - no position, no state
    ) -> None:
        await anyio.lowlevel.checkpoint()  # the only place where it can be cancelled: all of it happens, or nothing
        deleted = [record for record in done if self._holds(record)]
        for record in deleted:
            record.receipt.holder = None
            self._queue.delete(record.receipt)
        for record in filter(self._holds, failed):
            self._queue.release(record.receipt, record.held_until)
        for record in filter(self._holds, unstarted):
            self._queue.release(record.receipt, anyio.current_time())
        if deleted:
            self._meter.deleted(len(deleted))

    async def finish(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._queue.finished = True


class MemorySource:
    """The source of a mapping whose ARN ends in the name of a ``MemoryQueue``."""

    data_key = "body"
    probes = True
    rejects = False
    ordered = False
    window_opens: WindowOpens = "first record"

    def __init__(self, mapping: Mapping, surroundings: Surroundings) -> None:
        self.mapping, self.surroundings = mapping, surroundings
        self._partition: MemoryPartition | None = None

    @classmethod
    def limits(cls, mapping_source: str) -> Limits:
        return Limits(f"a queue in memory ({mapping_source})", Bound(1, 10_000, 10), Bound(0, 300, 0))

    @property
    def queue(self) -> MemoryQueue:
        name = self.mapping.source_arn.resource
        queue = MemoryQueue.named.get(name)
        if queue is None:
            raise NotFound(f"no queue in memory is called {name!r}")
        return queue

    async def __aenter__(self) -> Self:
        await anyio.lowlevel.checkpoint()
        if self.queue.fault:
            raise self.queue.fault
        self._partition = MemoryPartition(self.queue, str(self.mapping.source_arn), self.surroundings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._partition:
            self.queue.release_all(self._partition)
            self._partition = None

    async def partitions(self) -> AsyncIterator[MemoryPartition]:
        if self._partition:
            yield self._partition

    def policy(self, batch: Batch) -> Policy:  # noqa: ARG002 - the same for all
        return Policy(partial=self.mapping.partial)

    def scaling(self) -> Scaling:
        return Scaling(most=self.mapping.maximum_concurrency or 1250, falls=not self.mapping.partial)

    def trace(self, batch: Batch) -> str:
        return batch.records[0].trace

    def event(self, batch: Batch, extra: Dict[str, bytes]) -> bytes:
        return records_event(batch, extra)

    def view(self, record: Record) -> Any:
        event = msgspec.json.decode(record.json)
        event["body"] = decode_body(event["body"])
        return event

    def batch_info(self, partition: str, span: Span) -> dict[str, Any]:  # noqa: ARG002 - a queue has no such documents
        return {}

    def waits(self) -> tuple[WaitView, ...]:
        return ()

    async def backlog(self) -> int | None:
        return len(self.queue.visible)
