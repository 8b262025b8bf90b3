"""Amazon SQS, standard and FIFO queues: limits, the event's shape, policy, scaling, and opening a queue.

What happens with an open queue is in sqs_queue.py, which is imported when one is opened.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping as Dict
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from bridge.errors import RemoteError
from bridge.filtering import decode_body
from bridge.lineage import hops, joined
from bridge.mapping import Mapping
from bridge.pipeline.batcher import WindowOpens
from bridge.pipeline.events import MOST_HOPS
from bridge.pipeline.scaling import Scaling
from bridge.pipeline.verdict import Policy
from bridge.record import Batch, Record, Span
from bridge.snapshot import WaitView
from bridge.sources import Bound, Limits, Surroundings
from bridge.sources.payload import records_event

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from bridge.aws import Api
    from bridge.sources.sqs_queue import SqsPartition

CALL_TIMEOUT = 10.0
CLOSE_TIMEOUT = 5.0
"""Seconds that pending deletes may take while the source closes. What is left comes again by itself."""
SPARE_VISIBILITY = 30
"""What SQS-28 adds to window and function timeout."""
CONCURRENCY_PER_POLLER = 10
"""Concurrent invocations of one poller in provisioned mode (SQS-18)."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """An open queue."""

    api: Api
    url: str
    name: str
    arn: str
    region: str
    fifo: bool
    max_receives: float
    """Of the redrive policy (SQS-37); inf without one."""
    visibility: int
    """Seconds that a message stays hidden after its receive."""
    asks_visibility: bool
    """It is not the queue's own: each receive has to ask for it."""


class SqsSource:
    """The source of one mapping of an SQS queue."""

    data_key = "body"
    probes = True
    rejects = False
    ordered = False
    window_opens: WindowOpens = "first record"

    def __init__(self, mapping: Mapping, surroundings: Surroundings) -> None:
        self.mapping, self.surroundings = mapping, surroundings
        self._scaling = self.scaling()
        self._queue: Queue | None = None
        self._partition: SqsPartition | None = None
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<SqsSource {self.mapping.source_arn}: {self._partition or 'not open'}>"

    @classmethod
    def limits(cls, mapping_source: str) -> Limits:
        if mapping_source.endswith(".fifo"):
            return Limits("an SQS FIFO queue", Bound(1, 10, 10), Bound(0, 0, 0))  # SQS-58
        return Limits("an SQS standard queue", Bound(1, 10_000, 10), Bound(0, 300, 0), windowless=10)  # SQS-10

    # Opening and closing.

    async def __aenter__(self) -> Self:
        import anyio

        from bridge.sources.sqs_queue import SqsPartition

        self._queue = queue = await self._open()
        linger = self.mapping.delete_linger
        partition = SqsPartition(queue, self.surroundings, linger=linger, runners=lambda: self._scaling.runners)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._tasks.start_soon(partition.work, name=f"queue {queue.name}")
            await partition.works.wait()
        except BaseException as error:
            partition.stop()
            await self._tasks.__aexit__(type(error), error, error.__traceback__)
            raise
        self._partition = partition
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        import anyio

        assert self._partition is not None  # noqa: S101 - it was entered
        assert self._tasks is not None  # noqa: S101
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._partition.close()
        finally:
            self._partition.stop()
        if error is None or isinstance(error, anyio.get_cancelled_exc_class()):
            return await self._tasks.__aexit__(kind, error, trace)
        await self._tasks.__aexit__(None, None, None)  # the caller's own error passes as it is, in no group
        return None

    async def _open(self) -> Queue:
        from bridge.faults import persist

        arn, trouble = self.mapping.source_arn, self.surroundings.trouble
        api = await persist(
            lambda: self.surroundings.aws.api("sqs", self.mapping.aws, arn.region or None), trouble=trouble
        )
        address = {"QueueName": arn.resource}
        if arn.account:
            address["QueueOwnerAWSAccountId"] = arn.account
        found = await persist(lambda: api.call("GetQueueUrl", address, timeout=CALL_TIMEOUT), trouble=trouble)
        query = {"QueueUrl": found["QueueUrl"], "AttributeNames": ["All"]}
        answer = await persist(lambda: api.call("GetQueueAttributes", query, timeout=CALL_TIMEOUT), trouble=trouble)
        attributes = answer.get("Attributes", {})
        visibility = int(attributes.get("VisibilityTimeout", 30))
        self._advise(attributes, visibility)
        self.surroundings.meter.retention(float(attributes.get("MessageRetentionPeriod") or 0))
        needed = self._visibility(visibility)
        return Queue(
            api=api,
            url=found["QueueUrl"],
            name=arn.resource,
            arn=str(arn),
            region=arn.region,
            fifo=attributes.get("FifoQueue") == "true" or arn.resource.endswith(".fifo"),  # SQS-62
            max_receives=max_receives(attributes),
            visibility=needed,
            asks_visibility=needed != visibility,
        )

    def _visibility(self, own: int) -> int:
        """The effective visibility timeout (SQS-28). Also for a queue that hides nothing: somebody has to (SQS-29)."""
        needed = self.mapping.window + self.surroundings.timeout
        if own == 0 or (self.mapping.window and needed > own):
            return int(needed) + SPARE_VISIBILITY
        return own

    def _advise(self, attributes: Dict[str, str], visibility: int) -> None:
        import structlog

        log = structlog.get_logger().bind(mapping=self.mapping.name, source_arn=str(self.mapping.source_arn))
        if "RedrivePolicy" not in attributes:  # SQS-37
            log.info(
                "queue_advice", detail="no redrive policy: a message that always fails comes again until it expires"
            )
        if visibility < self.surroundings.timeout:  # SQS-26
            detail = f"visibility timeout {visibility} s is below the function's {self.surroundings.timeout:g} s"
            log.info("queue_advice", detail=f"{detail}: only the heartbeat prevents second deliveries")

    # What is known without asking.

    async def partitions(self) -> AsyncIterator[SqsPartition]:
        if self._partition:
            yield self._partition

    def policy(self, batch: Batch) -> Policy:
        arn = self.surroundings.function.arn
        circling = tuple(it for it in batch.records if it.trace and hops(it.trace, arn) >= MOST_HOPS)  # SQS-36
        return Policy(partial=self.mapping.partial, circling=circling)

    def scaling(self) -> Scaling:
        """Provisioned mode (SQS-18), MaximumConcurrency (SQS-16) or the default (SQS-15). Of a FIFO queue the groups
        set the bound by themselves (SQS-20)."""
        mapping = self.mapping
        falls = not mapping.partial  # SQS-34
        if mapping.minimum_pollers is not None and mapping.maximum_pollers is not None:
            least = mapping.minimum_pollers
            scaling = Scaling(
                idle=least,
                first=least * CONCURRENCY_PER_POLLER,
                most=mapping.maximum_pollers * CONCURRENCY_PER_POLLER,
                growth=1000,
                falls=falls,
                per_poller=CONCURRENCY_PER_POLLER,
            )
        else:
            most = mapping.maximum_concurrency or 1250
            scaling = Scaling(idle=1, first=min(5, most), most=most, growth=300, falls=falls)
        self._scaling = scaling
        return scaling

    def trace(self, batch: Batch) -> str:
        return joined([record.trace for record in batch.records], self.surroundings.function.arn, time.time())

    def event(self, batch: Batch, extra: Dict[str, bytes]) -> bytes:
        return records_event(batch, extra)

    def view(self, record: Record) -> Any:
        event = msgspec.json.decode(record.json)
        event["body"] = decode_body(event["body"])
        return event

    def batch_info(self, partition: str, span: Span) -> dict[str, Any]:  # noqa: ARG002 - a queue has no such documents
        return {}

    def waits(self) -> tuple[WaitView, ...]:
        return self._partition.waits() if self._partition else ()

    async def backlog(self) -> int | None:
        """Messages that wait, delayed ones included; those in flight are counted elsewhere."""
        if self._queue is None:
            return None
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]
        query = {"QueueUrl": self._queue.url, "AttributeNames": names}
        try:
            answer = await self._queue.api.call("GetQueueAttributes", query, timeout=CALL_TIMEOUT)
        except RemoteError:
            return None
        return sum(int(answer.get("Attributes", {}).get(name, 0)) for name in names)


def max_receives(attributes: Dict[str, str]) -> float:
    """How often a message is handed out before it goes to the dead-letter queue; inf without one."""
    try:
        return float(msgspec.json.decode(attributes["RedrivePolicy"])["maxReceiveCount"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return inf


def record_json(message: Dict[str, Any], arn: str, region: str) -> bytes:
    """A received message as one record of the event, keys in the order of SQS-71. Blobs are base64 text already."""
    attributes = message.get("MessageAttributes")
    record = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {name: _attribute(value) for name, value in attributes.items()} if attributes else {},
    }
    if digest := message.get("MD5OfMessageAttributes"):  # SQS-72: absent, not null
        record["md5OfMessageAttributes"] = digest
    record["md5OfBody"] = message["MD5OfBody"]
    record["eventSource"] = "aws:sqs"
    record["eventSourceARN"] = arn
    record["awsRegion"] = region
    return msgspec.json.encode(record)


def _attribute(value: Dict[str, Any]) -> dict[str, Any]:
    """SQS-73: only the value of its type, two lists that are always empty, and the type with its custom label."""
    kind = value["DataType"]
    given = "binaryValue" if kind.startswith("Binary") else "stringValue"
    return {
        given: value[given[0].upper() + given[1:]],
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": kind,
    }
