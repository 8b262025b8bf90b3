"""Several queues of an SQS of our own, which can be made to err: dead letters lie in one and are sent to others."""

from __future__ import annotations

import time
from collections.abc import Mapping as Dict, Sequence
from hashlib import md5
from typing import Any

import anyio
import anyio.lowlevel

from bridge.aws import Aws
from bridge.errors import RemoteError
from bridge.function import AwsSettings
from bridge.replay.queue import SqsShelf
from bridge.replay.queues import Queue, find
from tests.sources.faulty_sqs import ACCOUNT, OPERATIONS, REGION, CutOff, FaultySqs, LocalApi, Refused
from tests.wire import Answer, Request, Wire, cut, error

DEDUPLICATION = 300.0
CALLER_XML = f"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::{ACCOUNT}:user/somebody</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>"""


class Box(FaultySqs):
    """One queue that can be sent to. Times are the loop's."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.attributes.setdefault("MessageRetentionPeriod", "345600")
        self.batch_bytes = 1_048_576
        self.impatient = False
        """Long polls end at once."""
        self.accepted: list[dict[str, Any]] = []
        """Entries as they came in, of those that were taken, in order; doubles that were suppressed are not there."""
        self.wrong_digest = False
        self.returns_to: Box | None = None
        """Where ``returned`` bodies are dead letters again at once, with the id that they had here, as on AWS."""
        self.returned: set[str] = set()
        self._deduplicated: dict[str, tuple[float, str]] = {}

    @property
    def operations(self) -> Dict[str, Any]:
        return {**OPERATIONS, "SendMessageBatch": Box._send_batch, "ReceiveMessage": Box._receive}

    async def _receive(self, params: Dict[str, Any]) -> dict[str, Any]:
        return await super()._receive({**params, "WaitTimeSeconds": 0} if self.impatient else params)

    def lapse(self) -> None:
        """The time is over for which messages are hidden."""
        for message in self._messages.values():
            message.hidden_until = 0.0

    @property
    def bodies(self) -> list[str]:
        """Of what was accepted."""
        return [entry["MessageBody"] for entry in self.accepted]

    async def _send_batch(self, params: Dict[str, Any]) -> dict[str, Any]:
        entries = params["Entries"]
        if not entries:
            raise Refused("AWS.SimpleQueueService.EmptyBatchRequest")
        assert len(entries) <= 10
        assert len({entry["Id"] for entry in entries}) == len(entries)
        if sum(len(entry["MessageBody"].encode()) for entry in entries) > self.batch_bytes:
            raise Refused("AWS.SimpleQueueService.BatchRequestTooLong")
        if any("\ufffe" in entry["MessageBody"] for entry in entries):
            raise Refused("InvalidMessageContents")  # the request as a whole, for one of its messages
        successful, failed = [], []
        for entry in entries:
            fault = self._fault_of("SendMessageBatch", entry["MessageBody"])
            if fault and fault.code:
                failed.append({"Id": entry["Id"], "Code": fault.code, "SenderFault": fault.sender})
            elif not fault:
                digest = "0" * 32 if self.wrong_digest else md5(entry["MessageBody"].encode()).hexdigest()
                new_id = self._accept(entry)
                successful.append({"Id": entry["Id"], "MessageId": new_id, "MD5OfMessageBody": digest})
        return {"Successful": successful, "Failed": failed}

    def _accept(self, entry: Dict[str, Any]) -> str:
        key = entry.get("MessageDeduplicationId", "")
        if self.fifo:
            assert key
            assert entry["MessageGroupId"]
            at, before = self._deduplicated.get(key, (-DEDUPLICATION, ""))
            if anyio.current_time() - at < DEDUPLICATION:
                return before
        self.accepted.append(dict(entry))
        new_id = self.send(entry["MessageBody"], entry.get("MessageGroupId"))
        if self.returns_to and entry["MessageBody"] in self.returned:
            self.returns_to._messages[new_id] = self._messages.pop(new_id)
        if self.fifo:
            self._deduplicated[key] = (anyio.current_time(), new_id)
        return new_id

    def send(self, body: str, group: str | None = None, **members: Any) -> str:
        message_id = f"{self.name}-{super().send(body, group, **members)}"
        last = next(reversed(self._messages))
        message = self._messages.pop(last)
        message.id = message_id
        self._messages[message_id] = message
        return message_id

    def put(
        self, body: str, group: str | None = None, *, source: str = "", attributes: Any = None, **system: str
    ) -> str:
        """A dead letter, with the attributes that a receive gives besides the usual ones."""
        message_id = self.send(body, group)
        it = self._messages[message_id]
        now = str(int(time.time() * 1000))
        fifo = {"MessageGroupId": group, "SequenceNumber": str(it.sequence)} if group else {}
        came = {"DeadLetterQueueSourceArn": source} if source else {}
        usual = {"SentTimestamp": now, "ApproximateReceiveCount": "4", "ApproximateFirstReceiveTimestamp": now}
        it.members = {"Attributes": {**usual, **fifo, **came, **system}}
        if attributes:
            it.members["MessageAttributes"] = attributes
        return message_id


class Post:
    """The service with its queues. ``api`` and ``Aws`` in the same loop, or over HTTP (``serve``)."""

    def __init__(self, *boxes: Box, sources: Sequence[str] | None = None) -> None:
        self.boxes = {box.name: box for box in boxes}
        self.sources = sources
        """Names that ListDeadLetterSourceQueues gives; none: by the redrive policies."""
        self.calls: list[str] = []
        self.refused: dict[str, str] = {}
        """Operation -> code of what it is refused with, for ever."""
        self.tasks: list[dict[str, Any]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1/{ACCOUNT}/{name}"

    async def handle(self, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        """Raises Refused or CutOff instead of answering."""
        self.calls.append(operation)
        await anyio.lowlevel.checkpoint()
        if operation in self.refused:
            raise Refused(self.refused[operation])
        match operation:
            case "ListDeadLetterSourceQueues":
                return {"queueUrls": [self.url(name) for name in self._sources(params["QueueUrl"])]}
            case "ListQueues":
                return {"QueueUrls": [self.url(name) for name in self.boxes]}
            case "StartMessageMoveTask":
                self.tasks.append(dict(params))
                return {"TaskHandle": "task-1"}
            case "ListMessageMoveTasks":
                return {"Results": [{"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 7}]}
        name = params.get("QueueName") or params["QueueUrl"].rpartition("/")[2]
        if name not in self.boxes:
            raise Refused("AWS.SimpleQueueService.NonExistentQueue")
        return await self.boxes[name].handle(operation, params)

    def _sources(self, url: str) -> Sequence[str]:
        if self.sources is not None:
            return self.sources
        arn = self.boxes[url.rpartition("/")[2]].arn
        return [name for name, box in self.boxes.items() if arn in box.attributes.get("RedrivePolicy", "")]

    async def api(self, service: str, settings: AwsSettings, region: str | None = None) -> LocalApi:
        return LocalApi(self)

    def describe(self) -> tuple[Any, ...]:
        return ()

    def serve(self, wire: Wire) -> None:
        """Answers all operations of a wire from now on."""

        async def answer(request: Request) -> Answer | dict[str, Any]:
            try:
                return await self.handle(request.operation, request.params)
            except Refused as refused:
                return error(refused.code, query_code=refused.code)
            except CutOff as lost:
                return cut(lost.answer)

        wire.on("GetCallerIdentity", Answer(CALLER_XML))
        more = ("ListDeadLetterSourceQueues", "ListQueues", "SendMessageBatch", "StartMessageMoveTask")
        for operation in (*OPERATIONS, *more, "ListMessageMoveTasks"):
            wire.on(operation, answer)

    async def queue(self, name: str) -> Queue:
        """As replay finds it."""
        aws: Any = self
        return await find(aws, AwsSettings(region=REGION), name)

    async def shelf(self, name: str, **options: Any) -> SqsShelf:
        return SqsShelf(await self.queue(name), **{"poll": 0, **options})


def redrives(to: Box, max_receives: int = 3) -> dict[str, str]:
    """The attributes of a queue whose dead letters go there."""
    return {"RedrivePolicy": f'{{"deadLetterTargetArn": "{to.arn}", "maxReceiveCount": {max_receives}}}'}


__all__ = ["Aws", "Box", "Post", "RemoteError", "redrives"]
