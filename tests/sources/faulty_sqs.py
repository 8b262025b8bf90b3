"""An SQS of our own that can be made to err in the ways in which no real server does on request.

It keeps SQS's rules (visibility, receipt handles, groups, redrive) until a test tells it not to. It is served over HTTP
by ``tests.wire`` (``serve``), or in the test's own loop, where the clock is owned (``LocalAws``).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping as Dict, Sequence
from contextlib import aclosing
from hashlib import md5
from math import inf
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from bridge.aws_fast import LISTS, read_answer
from bridge.errors import NotFound, RemoteError, Unreachable
from bridge.faults import classify
from bridge.function import AwsSettings
from tests.wire import Answer, Request, Wire, cut, error

REGION, ACCOUNT = "eu-west-1", "123456789012"


class Call(msgspec.Struct, frozen=True):
    """One request that came in; ``at`` is the loop's time."""

    operation: str
    params: Dict[str, Any]
    at: float


class Refused(Exception):
    """The request fails as a whole."""

    def __init__(self, code: str) -> None:
        self.code = code


class CutOff(Exception):
    """The request is carried out, but its answer never arrives."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer


class Sent(msgspec.Struct, eq=False):
    """One message in the queue."""

    id: str
    body: str
    group: str | None
    sequence: int
    sent_at: float
    members: dict[str, Any]
    receives: int = 0
    first_received_at: float = 0.0
    received_at: float = 0.0
    """Loop time."""
    hidden_until: float = 0.0
    handle: str = ""


class EntryFault(msgspec.Struct):
    """Entries of one operation that fail. Without a code the answer does not name them at all."""

    operation: str
    code: str
    sender: bool
    times: float
    ids: frozenset[str] | None


class FaultySqs:
    """One queue. Times are the loop's."""

    def __init__(
        self,
        name: str = "orders",
        *,
        visibility: int = 30,
        max_receives: float = inf,
        attributes: Dict[str, str] | None = None,
    ) -> None:
        self.name, self.visibility, self.max_receives = name, visibility, max_receives
        self.attributes = {**({"FifoQueue": "true"} if name.endswith(".fifo") else {}), **(attributes or {})}
        self.fifo = "FifoQueue" in self.attributes
        if max_receives < inf:
            self.attributes["RedrivePolicy"] = f'{{"deadLetterTargetArn": "...", "maxReceiveCount": {max_receives}}}'
        self.there = True
        """False: no such queue."""
        self.ignores_groups = False
        """Hands out what it must not, as long as it is set (SQS-55)."""
        self.latency = 0.0
        """Seconds that an answer takes after its request was carried out."""
        self.reverse = False
        """Receives give the newest message first."""
        self.stutter = False
        """Receives give each message twice in one answer."""
        self.generous = False
        """Receives give more than they were asked for."""
        self.calls: list[Call] = []
        self.deleted: list[str] = []
        self.dead: list[str] = []
        self._messages: dict[str, Sent] = {}
        self._doubles: list[str] = []
        self._refusals: dict[str, list[str]] = {}
        self._cuts: dict[str, int] = {}
        self._entry_faults: list[EntryFault] = []
        self._hangs: set[str] = set()
        self._numbers = 0
        self._changed = anyio.Event()

    @property
    def arn(self) -> str:
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.name}"

    @property
    def operations(self) -> Dict[str, Any]:
        """What it understands: name -> method."""
        return OPERATIONS

    # What a test does and sees.

    def send(self, body: str, group: str | None = None, **members: Any) -> str:
        """The id. ``members`` replace those of the message as it will be received."""
        self._numbers += 1
        message = Sent(f"id-{self._numbers}", body, group, 10**19 + self._numbers, time.time(), members)
        self._messages[message.id] = message
        self._notify()
        return message.id

    def deliver_again(self, message_id: str) -> None:
        """The next receive hands it out (too), whoever holds it."""
        self._doubles.append(message_id)
        self._notify()

    def refuse(self, operation: str, *codes: str) -> None:
        """The next requests of the operation fail as a whole, one for each code."""
        self._refusals.setdefault(operation, []).extend(codes)
        self._notify()

    def allow(self, operation: str) -> None:
        """Takes back what ``refuse`` and ``hang`` said."""
        self._refusals.pop(operation, None)
        self._hangs.discard(operation)

    def cut_off(self, operation: str, times: int = 1) -> None:
        """The next answers of the operation do not arrive."""
        self._cuts[operation] = times

    def hang(self, operation: str) -> None:
        """No answers from now on."""
        self._hangs.add(operation)

    def fail_entries(
        self, operation: str, code: str, *, sender: bool = False, times: float = 1, ids: Sequence[str] | None = None
    ) -> None:
        """The next ``times`` entries (of these messages only) fail with ``code``, or are not named if it is empty."""
        fault = EntryFault(operation, code, sender, times, None if ids is None else frozenset(ids))
        self._entry_faults.append(fault)

    def steal(self, message_id: str) -> None:
        """Somebody else receives it."""
        self._hand_out(self._messages[message_id])

    @property
    def visible(self) -> list[str]:
        now = anyio.current_time()
        return [message.id for message in self._messages.values() if message.hidden_until <= now]

    @property
    def in_flight(self) -> list[str]:
        now = anyio.current_time()
        return [message.id for message in self._messages.values() if message.hidden_until > now]

    def hidden_for(self, message_id: str) -> float:
        """Seconds until it comes again."""
        return self._messages[message_id].hidden_until - anyio.current_time()

    def of(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    async def gone(self, *ids: str, within: float = 60.0) -> None:
        """Returns when these are deleted or dead (all, without ids)."""
        with anyio.fail_after(within):
            while any(message_id in self._messages for message_id in ids or tuple(self._messages)):
                await self._change(inf)

    async def asked(self, operation: str, count: int = 1, *, within: float = 60.0) -> list[Call]:
        """Returns when ``count`` requests of the operation have come."""
        with anyio.fail_after(within):
            while len(self.of(operation)) < count:
                await self._change(inf)
        return self.of(operation)

    # What a client sees.

    def serve(self, wire: Wire) -> None:
        """Answers all operations of a wire from now on."""

        async def answer(request: Request) -> Answer | dict[str, Any]:
            try:
                return await self.handle(request.operation, request.params)
            except Refused as refused:
                return error(refused.code)
            except CutOff as lost:
                return cut(lost.answer)

        for operation in OPERATIONS:
            wire.on(operation, answer)

    async def handle(self, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        """Raises Refused or CutOff instead of answering."""
        self.calls.append(Call(operation, params, anyio.current_time()))
        self._notify()
        await anyio.lowlevel.checkpoint()
        if operation in self._hangs:
            await anyio.sleep_forever()
        if codes := self._refusals.get(operation):
            raise Refused(codes.pop(0))
        if not self.there:
            raise Refused("AWS.SimpleQueueService.NonExistentQueue")
        answer: dict[str, Any] = await self.operations[operation](self, params)
        self._notify()
        await anyio.sleep(self.latency)
        if self._cuts.get(operation):
            self._cuts[operation] -= 1
            raise CutOff(answer)
        return answer

    async def _url(self, params: Dict[str, Any]) -> dict[str, Any]:
        if params["QueueName"] != self.name:
            raise Refused("AWS.SimpleQueueService.NonExistentQueue")
        return {"QueueUrl": f"http://127.0.0.1/{ACCOUNT}/{self.name}"}

    async def _attributes(self, params: Dict[str, Any]) -> dict[str, Any]:
        known = {
            "QueueArn": self.arn,
            "VisibilityTimeout": str(self.visibility),
            "ApproximateNumberOfMessages": str(len(self.visible)),
            "ApproximateNumberOfMessagesNotVisible": str(len(self.in_flight)),
            "ApproximateNumberOfMessagesDelayed": "0",
            **self.attributes,
        }
        names = params["AttributeNames"]
        return {"Attributes": {name: value for name, value in known.items() if name in names or "All" in names}}

    async def _receive(self, params: Dict[str, Any]) -> dict[str, Any]:
        deadline = anyio.current_time() + params.get("WaitTimeSeconds", 0)
        limit, visibility = params.get("MaxNumberOfMessages", 1), params.get("VisibilityTimeout")
        if self.generous:
            limit = 100
        while True:
            if taken := self._take(limit, visibility):
                return {"Messages": taken[::-1] if self.reverse else taken}
            if anyio.current_time() >= deadline or not self.there:
                return {}
            await self._change(deadline)
            if codes := self._refusals.get("ReceiveMessage"):
                raise Refused(codes.pop(0))

    def _take(self, limit: int, visibility: int | None) -> list[dict[str, Any]]:
        now = anyio.current_time()
        locked = {m.group for m in self._messages.values() if m.hidden_until > now} if self.fifo else set()
        taken: list[dict[str, Any]] = []
        for message in tuple(self._messages.values()):
            doubled = message.id in self._doubles
            open_to_all = message.group not in locked or self.ignores_groups
            if len(taken) < limit and (doubled or (message.hidden_until <= now and open_to_all)):
                if doubled:
                    self._doubles.remove(message.id)
                if message.receives >= self.max_receives:
                    del self._messages[message.id]
                    self.dead.append(message.id)
                else:
                    taken += [self._hand_out(message, visibility) for _ in range(2 if self.stutter else 1)]
        return taken

    def _hand_out(self, message: Sent, visibility: int | None = None) -> dict[str, Any]:
        message.receives += 1
        message.first_received_at = message.first_received_at or time.time()
        message.received_at = anyio.current_time()
        message.hidden_until = message.received_at + (self.visibility if visibility is None else visibility)
        message.handle = f"{message.id}/{message.receives}"
        fifo = {"MessageGroupId": message.group, "SequenceNumber": str(message.sequence)} if message.group else {}
        received = {
            "MessageId": message.id,
            "ReceiptHandle": message.handle,
            "Body": message.body,
            "MD5OfBody": md5(message.body.encode()).hexdigest(),
            "Attributes": {
                "ApproximateReceiveCount": str(message.receives),
                "SentTimestamp": str(int(message.sent_at * 1000)),
                "SenderId": "AIDAEXAMPLE",
                "ApproximateFirstReceiveTimestamp": str(int(message.first_received_at * 1000)),
                **fifo,
            },
        }
        return {**received, **message.members}

    async def _delete(self, params: Dict[str, Any]) -> dict[str, Any]:
        def delete(message: Sent, entry: Dict[str, Any]) -> str:
            del self._messages[message.id]
            self.deleted.append(message.id)
            return ""

        return self._judge("DeleteMessageBatch", params, delete)

    async def _change_visibility(self, params: Dict[str, Any]) -> dict[str, Any]:
        def change(message: Sent, entry: Dict[str, Any]) -> str:
            until = anyio.current_time() + entry["VisibilityTimeout"]
            if until > message.received_at + 43_200:  # SQS-82
                return "InvalidParameterValue"
            if message.hidden_until <= anyio.current_time():
                return "AWS.SimpleQueueService.MessageNotInflight"
            message.hidden_until = until
            return ""

        return self._judge("ChangeMessageVisibilityBatch", params, change)

    def _judge(self, operation: str, params: Dict[str, Any], act: Any) -> dict[str, Any]:
        assert 1 <= len(params["Entries"]) <= 10
        successful: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for entry in params["Entries"]:
            message = self._messages.get(entry["ReceiptHandle"].partition("/")[0])
            fault = self._fault_of(operation, message.id if message else "")
            if fault:
                if fault.code:
                    failed.append({"Id": entry["Id"], "Code": fault.code, "SenderFault": fault.sender})
                continue
            stale = message is None or (message.handle != entry["ReceiptHandle"])
            # Deleting what is deleted succeeds, as on AWS.
            gone = message is None and operation == "DeleteMessageBatch"
            code = "" if gone else "ReceiptHandleIsInvalid" if stale else act(message, entry)
            if code:
                failed.append({"Id": entry["Id"], "Code": code, "SenderFault": True})
            else:
                successful.append({"Id": entry["Id"]})
        return {"Successful": successful, "Failed": failed}

    def _fault_of(self, operation: str, message_id: str) -> EntryFault | None:
        for fault in self._entry_faults:
            if fault.operation == operation and fault.times and (fault.ids is None or message_id in fault.ids):
                fault.times -= 1
                return fault
        return None

    async def _change(self, deadline: float) -> None:
        now = anyio.current_time()
        returns = [m.hidden_until for m in self._messages.values() if m.hidden_until > now]
        with anyio.CancelScope(deadline=min([deadline, *returns])):
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


OPERATIONS = {
    "GetQueueUrl": FaultySqs._url,
    "GetQueueAttributes": FaultySqs._attributes,
    "ReceiveMessage": FaultySqs._receive,
    "DeleteMessageBatch": FaultySqs._delete,
    "ChangeMessageVisibilityBatch": FaultySqs._change_visibility,
}


class LocalApi:
    """A server as ``bridge.aws.Api``, without sockets: it lives in the same loop, whose clock can be owned. It has
    ``handle`` (or ``events``), which raises Refused or CutOff instead of answering."""

    def __init__(self, server: Any) -> None:
        self._server = server

    async def call(self, operation: str, params: Dict[str, Any], *, timeout: float) -> dict[str, Any]:
        try:
            with anyio.fail_after(timeout):
                answer: dict[str, Any] = await self._server.handle(operation, params)
                return read_answer(operation, msgspec.json.encode(answer)) if operation in LISTS else answer
        except (Refused, CutOff, TimeoutError) as error:
            raise _meant(error, operation) from None

    async def events(self, operation: str, params: Dict[str, Any], *, timeout: float) -> AsyncGenerator[dict[str, Any]]:
        async with aclosing(self._server.events(operation, params)) as events:
            while True:
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
                except (Refused, CutOff) as error:
                    raise _meant(error, operation) from None
                yield event

    def now(self) -> float:
        return float(int(time.time()))


def _meant(error: Exception, operation: str) -> RemoteError:
    if isinstance(error, Refused):
        return classify(error.code)(f"{operation}: refused ({error.code})", code=error.code)
    return Unreachable(f"{operation}: no answer")


class LocalAws:
    """``bridge.aws.Aws`` for queues in the same loop."""

    def __init__(self, *queues: FaultySqs) -> None:
        self.fault: RemoteError | None = None
        self._apis = [LocalApi(queue) for queue in queues]

    async def api(self, service: str, settings: AwsSettings, region: str | None = None) -> LocalApi:
        if not self._apis:
            raise NotFound
        return self._apis[0]
