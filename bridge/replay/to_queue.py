"""Dead letters to an SQS queue: whole, in batches, judged one by one."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import md5
from typing import Any

import anyio

from bridge.errors import Rejected, RemoteError, ServiceFault, Unreachable, UsageError
from bridge.faults import PASSING, Backoff, persist
from bridge.replay.entries import CALL_TIMEOUT, ENTRIES, EntryFault, ask
from bridge.replay.letter import Attribute, Letter, Message
from bridge.replay.queues import Queue
from bridge.replay.target import Outcome, Parcel, Refused, Sent

BATCH_BYTES = 1_048_576
"""Of all messages in one request (SQS-80)."""
OLDER_BATCH_BYTES = 262_144
"""The same at endpoints that have not heard of it."""
PATIENCE = 30.0
"""Seconds for which faults of the service are waited out."""
NOT_CONNECTED = frozenset({"ConnectTimeoutError", "EndpointConnectionError", "SSLError"})
"""Codes of requests that never left."""


class QueueTarget:
    """One queue, standard or FIFO. ``of``: the queue where the letters lie; none: they come from elsewhere."""

    most = ENTRIES

    def __init__(self, queue: Queue, of: Queue | None) -> None:
        self.queue, self._of = queue, of
        self.name = f"queue {queue}"
        self._batch_bytes = BATCH_BYTES

    def __repr__(self) -> str:
        return f"<QueueTarget {self.queue.arn}>"

    def arn(self, letter: Letter) -> str:  # noqa: ARG002 - all go to the same place
        return self.queue.arn

    async def check(self, *, dry: bool) -> None:
        of, queue = self._of, self.queue
        if of is not None and of.arn == queue.arn:
            raise UsageError(f"{queue.name} is the dead-letter queue itself; give another queue with --to")
        if of is not None and of.fifo != queue.fifo:
            kinds = {False: "a standard queue", True: "a FIFO queue"}
            raise UsageError(
                f"{of.name} is {kinds[of.fifo]} and {queue.name} is {kinds[queue.fifo]}; give one of the same kind"
                " with --to"
            )
        if not dry:
            await persist(self._ask_for_nothing, trouble=lambda _: None, until=anyio.current_time() + PATIENCE)

    async def _ask_for_nothing(self) -> None:
        """Whether it takes messages from us, by a request that holds none. Raises RemoteError."""
        empty: dict[str, Any] = {"QueueUrl": self.queue.url, "Entries": []}
        try:
            await self.queue.api.call("SendMessageBatch", empty, timeout=CALL_TIMEOUT)
        except Rejected:
            return  # an empty batch is refused to whoever may send; whoever may not is told that

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        tries = [_Try(parcel, self.queue.fifo) for parcel in parcels]
        for batch in _fitting(tries, self._batch_bytes):
            await self._send(batch)
        return [it.outcome(self.queue.arn) for it in tries]

    async def _send(self, batch: Sequence[_Try]) -> None:
        """Until each has been judged, or for as long as it is worth waiting."""
        backoff, deadline = Backoff(), anyio.current_time() + PATIENCE
        while batch:
            await self._ask(batch)
            batch = [it for it in batch if it.again]
            delay = backoff.next()
            if anyio.current_time() + delay >= deadline:
                return
            if batch:
                await anyio.sleep(delay)

    async def _ask(self, batch: Sequence[_Try]) -> None:
        size = sum(it.size for it in batch)
        if len(batch) > 1 and size > self._batch_bytes:  # it has shrunk meanwhile
            for part in _fitting(batch, self._batch_bytes):
                await self._ask(part)
            return
        try:
            verdicts = await ask(self.queue.api, "SendMessageBatch", self.queue.url, [it.entry for it in batch])
        except PASSING as error:
            for it in batch:
                it.failed(error, lost=_may_have_arrived(error))
        except RemoteError as error:
            await self._refused(batch, size, error)
        else:
            for it, verdict in zip(batch, verdicts, strict=True):
                it.judged(verdict)

    async def _refused(self, batch: Sequence[_Try], size: int, error: RemoteError) -> None:
        """The request as a whole. One of its messages may be why: the others must not suffer for it."""
        if len(batch) == 1:
            batch[0].failed(error, lost=False, passing=False)
            return
        if size > OLDER_BATCH_BYTES and error.code.endswith("BatchRequestTooLong"):
            self._batch_bytes = OLDER_BATCH_BYTES
            await self._ask(batch)
            return
        middle = len(batch) // 2
        await self._ask(batch[:middle])
        await self._ask(batch[middle:])


class _Try:
    """A letter on its way."""

    def __init__(self, parcel: Parcel, fifo: bool) -> None:
        message = parcel.letter.message
        self.entry = entry(message, parcel.token, fifo=fifo)
        self.size = size(message)
        self.again = True
        self._digest = message.body
        self._new_id = ""
        self._reason = "not tried"
        self._sender_fault = False
        self._lost = False
        self._fifo = fifo

    def failed(self, error: RemoteError, *, lost: bool, passing: bool = True) -> None:
        """The request failed as a whole. ``lost``: it may have been carried out nevertheless."""
        self._reason, self._sender_fault, self.again = str(error), not passing, passing
        self._lost = self._lost or lost

    def judged(self, verdict: Any) -> None:
        """The answer's word about it."""
        if isinstance(verdict, EntryFault):
            self._reason, self._sender_fault, self.again = verdict.line(), not verdict.passing, verdict.passing
            self._lost = self._lost or not verdict.named
            return
        self.again = False
        digest = md5(self._digest.encode(), usedforsecurity=False).hexdigest()
        if verdict.get("MD5OfMessageBody", digest) != digest:
            self._reason, self._lost = "the target has another body than was sent (MD5)", True
        else:
            self._new_id = str(verdict.get("MessageId") or "unnamed")

    def outcome(self, arn: str) -> Outcome:
        if self._new_id:
            return Sent(self._new_id, arn, maybe_twice=self._lost and not self._fifo)
        return Refused(self._reason, self._sender_fault, arn, maybe_sent=self._lost)


def _may_have_arrived(error: RemoteError) -> bool:
    """Nobody knows whether the request was carried out."""
    return isinstance(error, Unreachable | ServiceFault) and error.code not in NOT_CONNECTED


def _fitting(tries: Sequence[_Try], most: int) -> list[list[_Try]]:
    """In order, in batches of at most so many bytes; one that is larger by itself goes alone."""
    found: list[list[_Try]] = []
    room = 0
    for it in tries:
        if not found or it.size > room:
            found.append([])
            room = most
        found[-1].append(it)
        room -= it.size
    return found


def size(message: Message) -> int:
    """Bytes that count towards the limits: body, and names, types and values of the attributes (SQS-80)."""
    attributes = message.message_attributes
    if message.body.isascii() and not attributes:
        return len(message.body)
    return len(message.body.encode()) + sum(
        len(name.encode()) + len(it.type.encode()) + len(it.value if isinstance(it.value, bytes) else it.value.encode())
        for name, it in attributes.items()
    )


def entry(message: Message, token: str, *, fifo: bool) -> dict[str, Any]:
    """The message as an entry of a batch: nothing of it is changed, nothing is added but a deduplication id."""
    made: dict[str, Any] = {"MessageBody": message.body}
    if message.message_attributes:
        made["MessageAttributes"] = {name: _attribute(it) for name, it in message.message_attributes.items()}
    if trace := message.attributes.get("AWSTraceHeader"):
        made["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
    if message.group:  # of a standard queue it is for fairness
        made["MessageGroupId"] = message.group
    if fifo:
        # The original's would be suppressed within five minutes of it: accepted, and never there.
        made["MessageDeduplicationId"] = token
    return made


def _attribute(attribute: Attribute) -> dict[str, Any]:
    given = "BinaryValue" if isinstance(attribute.value, bytes) else "StringValue"
    return {"DataType": attribute.type, given: attribute.value}
