"""Where records come from: the contract that every source keeps. tests/contracts/source.py is its specification."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping as Dict, Sequence
from importlib import import_module
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import msgspec

from bridge.mapping import Mapping
from bridge.record import Batch, Page, Record, Span
from bridge.snapshot import WaitView
from bridge.telemetry.spans import NO_SPANS, Spans

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.function import Function
    from bridge.pipeline.batcher import WindowOpens
    from bridge.pipeline.scaling import Scaling
    from bridge.pipeline.verdict import Policy
    from bridge.position import Positions
    from bridge.sources.event_queue import EventQueue
    from bridge.telemetry.metrics import MappingMeter

SOURCES = {
    "sqs": "bridge.sources.sqs:SqsSource",
    "kinesis": "bridge.sources.kinesis:KinesisSource",
    "dynamodb": "bridge.sources.dynamodb:DynamoDBSource",
}
"""The service in the ARN -> ``module:Class``."""
ASYNCHRONOUS = {
    "lambda": "bridge.sources.invocations:InvocationSource",
}
"""Likewise, of what no mapping can name: the accepted asynchronous events of a function."""


class Bound(NamedTuple):
    """The range and default of one option where it applies; ``most`` 0 with ``least`` 0: it does not apply."""

    least: float
    most: float
    default: float


class Limits(NamedTuple):
    """What one kind of source allows. ``what`` names it in messages: `an SQS FIFO queue`."""

    what: str
    batch_size: Bound
    window: Bound
    windowless: float = inf
    """The largest batch that needs no batching window (ESM-34)."""


class Surroundings(msgspec.Struct, frozen=True):
    """What a source is given besides its mapping."""

    aws: Aws
    meter: MappingMeter
    timeout: float
    """The function's Timeout, seconds."""
    trouble: Callable[[str | None], None]
    """Told in one line what the source is waiting for while it cannot work (`the queue does not exist`), none when it
    goes on; repeated lines are logged once."""
    function: Function
    """What the records are for."""
    events: EventQueue | None = None
    """The daemon's asynchronous events."""
    positions: Positions | None = None
    """Where the mapping's partitions stand, of sources that need somebody to remember it."""
    spans: Spans = NO_SPANS
    """The mapping's."""


def unlimited() -> float:
    """Bytes: any number."""
    return inf


class Partition(Protocol):
    """A part of a source whose records are taken one after another: a queue, a lane of a shard, a topic partition.

    Several runners may call it at the same time if ``Source.scaling`` asks for several; each record belongs to the
    runner that fetched it until it settles it.
    """

    id: str

    @property
    def state(self) -> bytes:
        """What was last stored with its position, by ``settle``; empty: nothing."""
        ...

    async def fetch(self, limit: int, wait: float, size: Callable[[], float] = unlimited) -> Page:
        """At most ``limit`` records; waits at most ``wait`` seconds for the first one, then gives an empty page.
        ``wait`` is a whole number unless the source is ``ordered``.

        Of an ``ordered`` source no more than fit into one event, nor than ``size`` bytes of JSON, except a single one
        that is larger; it is asked when there is something to give.

        Raises PartitionEnded when nothing will follow, HoldLost when it is not ours any more, RemoteError when the
        source failed for good (passing faults are retried below). A cancelled fetch loses nothing: what the server
        already handed out comes back by itself.
        """
        ...

    async def hold(self, batch: Batch) -> tuple[Record, ...]:
        """Called before every attempt. Gives those records of the batch that are no longer ours: they come again by
        themselves and must be neither invoked nor settled. Raises HoldLost when the whole partition is lost.
        """
        ...

    async def settle(
        self,
        done: Sequence[Record] = (),
        failed: Sequence[Record] = (),
        unstarted: Sequence[Record] = (),
        *,
        state: bytes | None = None,
    ) -> None:
        """The last word about records, each at most once.

        ``done`` never come again (it returns once that is certain to be carried out or retried); ``failed`` come again
        when the time they were received with is over (SQS-25), also when they had been held longer; ``unstarted`` were
        never handed to the handler and come again at once. Safe to call while being cancelled, under a shield.

        Of an ``ordered`` source ``done`` moves the stored position, and ``state``, where it is not none, is stored in
        the same write, also without any record (TW-47); ``failed`` and ``unstarted`` come again when the source is
        opened anew, and with them all that comes after them.
        """
        ...

    async def finish(self) -> None:
        """After PartitionEnded and the last settle: only then what depends on this partition is yielded."""
        ...


class Source(Protocol):
    """One event source of one mapping. An async context manager: entering opens it (SDK imports happen here, NotFound
    and AccessDenied come from here), leaving settles what is pending, bounded in time, and closes it.
    """

    data_key: str
    """The member of a record that filters see decoded (FLT-40)."""
    probes: bool
    """While its function fails every time, it is asked for less: a failure costs a record something."""
    rejects: bool
    """Reserved concurrency 0 ends its records (ASY-9), instead of letting them wait."""
    ordered: bool
    """One runner reads each partition in its order, and ahead of free slots: a read costs a record nothing and takes it
    from nobody. What fails is tried again here, and the rest of its partition waits for it."""
    window_opens: WindowOpens

    def __init__(self, mapping: Mapping, surroundings: Surroundings) -> None: ...

    @classmethod
    def limits(cls, mapping_source: str) -> Limits:
        """Ranges and defaults for the source with this ARN; FIFO queues differ from standard ones."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    def partitions(self) -> AsyncIterator[Partition]:
        """Yields each partition when this instance may start it. Waits and yields, nothing else."""
        ...

    def policy(self, batch: Batch) -> Policy:
        """How outcomes become verdicts here, for the records of this batch."""
        ...

    def scaling(self) -> Scaling:
        """How many runners a partition deserves; a fresh, private object per partition."""
        ...

    def trace(self, batch: Batch) -> str:
        """The X-Ray trace header of the batch's invocation, with one hop more in its lineage (INV-40)."""
        ...

    def event(self, batch: Batch, extra: Dict[str, bytes]) -> bytes:
        """The payload: the records' bytes, joined; ``extra`` are further top-level members (window fields)."""
        ...

    def view(self, record: Record) -> Any:
        """What patterns are matched against: the record as the function gets it, its data key decoded (FLT-44).
        Parsed once for all patterns, and only when there are patterns.
        """
        ...

    def batch_info(self, partition: str, span: Span) -> dict[str, Any]:
        """Where discarded records are, as failure documents say it: ``{"KinesisBatchInfo": {…}}`` with AWS's seven
        members in their order (KIN-80, DDB-62). Of the records it reads ``id`` and ``arrived_at`` alone. Empty where
        there are no such documents.
        """
        ...

    def waits(self) -> tuple[WaitView, ...]:
        """What waits here while runners go on: shards, readers, groups, messages that come again; a bounded number of
        them. Empty: nothing."""
        ...

    async def backlog(self) -> int | None:
        """Records that wait at the source now, as far as it can say; asked only on demand."""
        ...


def source_class(name: str) -> type[Source]:
    """The class that SOURCES or ASYNCHRONOUS name for this kind."""
    module, _, attribute = {**SOURCES, **ASYNCHRONOUS}[name].partition(":")
    kind: type[Source] = getattr(import_module(module), attribute)
    return kind
