"""The source of a mapping of a sharded stream: finds its shards, opens each when its parents are done, and keeps their
positions. Kinesis and DynamoDB Streams are made from it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Mapping as Dict, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bridge.errors import BridgeError, NotFound, ServiceFault
from bridge.mapping import Mapping, StreamOptions
from bridge.pipeline.batcher import WindowOpens
from bridge.pipeline.scaling import Scaling
from bridge.pipeline.streams import stream_policy
from bridge.pipeline.verdict import Policy
from bridge.record import Batch, Record, Span
from bridge.snapshot import WaitView, iso
from bridge.sources import Limits, Surroundings
from bridge.sources.payload import records_event
from bridge.sources.shards import Lineage, ReadPage, Shard, StreamApi, Where

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from bridge.position import Position, Positions
    from bridge.sources.shard_lanes import ReadAhead, ShardLane
    from bridge.sources.shard_reader import OpenShard, Terms

ORPHAN_LOOK = 0.5
"""Seconds after the end of a shard without known children until its stream is looked at again; then twice as many."""
LISTED_AGAIN = 0.2
"""Seconds after a listing that lacks shards until the one that is to confirm it."""
ANEW = "the stream was made anew under its old name"


class StreamSource:
    """The source of one mapping of a stream. What is the service's own is in ``connect`` and in the records."""

    data_key: str
    info_key: str
    """What reports call the place of the records that were given up."""
    info_timespec: str
    """How exact their times are."""
    probes = False
    rejects = False
    ordered = True
    window_opens: WindowOpens = "after invocation"

    def __init__(self, mapping: Mapping, surroundings: Surroundings) -> None:
        import structlog  # the configuration imports this module for its limits alone

        self.mapping, self.surroundings = mapping, surroundings
        self.options = mapping.stream or StreamOptions()
        self._log = structlog.get_logger().bind(mapping=mapping.name, source_arn=str(mapping.source_arn))
        self._policy = stream_policy(mapping, surroundings.function.arn)
        self._api: StreamApi | None = None
        self._lineage = Lineage({})
        self._open: dict[str, OpenShard] = {}
        self._first: dict[str, Where] = {}
        self._unplaced: set[str] = set()
        """Shards that begin at LATEST, of which it is not known yet where that is."""
        self._ready: deque[ShardLane] = deque()
        self._waiting: dict[str, float] = {}
        """Shards that may not be read yet, and ended ones whose children are to come: since when, epoch seconds."""
        self._troubled: dict[str, str] = {}
        self._failure: BridgeError | None = None
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.mapping.source_arn}: {self._lineage!r}>"

    @classmethod
    def limits(cls, mapping_source: str) -> Limits:
        raise NotImplementedError

    async def connect(self) -> StreamApi:
        """Its API, for as long as the caller likes; waits out what passes. Raises RemoteError: NotFound for a stream
        that does not exist."""
        raise NotImplementedError

    def view(self, record: Record) -> Any:
        """The record with its data decoded."""
        raise NotImplementedError

    def batch_info(self, partition: str, span: Span) -> dict[str, Any]:
        """Where records are that are given up (KIN-80, DDB-62)."""
        return {
            self.info_key: {
                "shardId": partition.partition("#")[0],
                "startSequenceNumber": span.first.id,
                "endSequenceNumber": span.last.id,
                "approximateArrivalOfFirstRecord": iso(span.first.arrived_at, self.info_timespec),
                "approximateArrivalOfLastRecord": iso(span.last.arrived_at, self.info_timespec),
                "batchSize": span.length,
                "streamArn": self.stream_arn,
            }
        }

    @property
    def stream_arn(self) -> str:
        """Of the stream itself."""
        return str(self.mapping.source_arn)

    # Opening and closing.

    async def __aenter__(self) -> Self:
        import anyio

        from bridge.sources.shard_lanes import ReadAhead

        self._look, self._more, self._begun = anyio.Event(), anyio.Event(), anyio.Event()
        self._ahead: ReadAhead = ReadAhead()
        self._api = await self.connect()
        self.surroundings.meter.retention(self._api.retention)
        await self._begin()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            await self._advance({})
            self._first.clear()  # at any later time LATEST is another place
            self._placed(None)
            self._tasks.start_soon(self._discover, name=f"shards of {self.mapping.name}")
        except BaseException as error:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        import anyio

        assert self._tasks is not None  # noqa: S101 - it was entered
        self._tasks.cancel_scope.cancel()
        if error is None or isinstance(error, anyio.get_cancelled_exc_class()):
            return await self._tasks.__aexit__(kind, error, trace)
        await self._tasks.__aexit__(None, None, None)  # the caller's own error passes as it is, in no group
        return None

    @property
    def _positions(self) -> Positions:
        positions = self.surroundings.positions
        assert positions is not None, "streams need somebody who remembers their positions"  # noqa: S101
        return positions

    async def _begin(self) -> None:
        """The first time ever, what the starting position means is stored before anything is read (KIN-24)."""
        import anyio

        from bridge.faults import persist

        assert self._api is not None  # noqa: S101
        api = self._api
        stored = await self._positions.load()
        self._lineage = Lineage(stored)
        kind = self.options.starting_position
        start = None if stored else Where(_KINDS[kind], at=self.options.starting_timestamp)
        filtered = start is not None and api.filters
        while True:
            shards = await persist(lambda: api.shards(start), trouble=self.surroundings.trouble)
            self._lineage.listed(shards, filtered=filtered)
            if not self._lineage.doubtful():
                break
            await anyio.sleep(LISTED_AGAIN)
        if start is None:
            await self._begin_anew()
            return
        if start.kind == "LATEST":
            start = start._replace(at=api.now() or time.time())
        moved = self._lineage.begin(start)
        await self._positions.move(moved)
        self._lineage.stored(moved)
        self._first = {shard: start for shard, position in moved.items() if not position.ended}
        self._log.info("stream_begun", start=str(start), shards=len(self._first))

    async def _begin_anew(self) -> None:
        """If it is another stream than before."""
        strangers = self._lineage.strangers()
        for shard in strangers:
            self._gap(shard, f"{ANEW}; its new shards are read from the start")
        if strangers:
            moved = self._lineage.begin_anew()
            await self._positions.move(moved)
            self._lineage.stored(moved)

    # Which shards are read.

    async def partitions(self) -> AsyncIterator[ShardLane]:
        import anyio

        while True:
            while self._ready:
                yield self._ready.popleft()
            if self._failure is not None:
                raise self._failure
            self._more = anyio.Event()
            await self._more.wait()

    async def _discover(self) -> None:
        """Looks at the shards now and then, and when one has ended (KIN-92)."""
        import anyio

        assert self._api is not None  # noqa: S101
        period = self._api.discovery
        hurry = ORPHAN_LOOK
        while True:
            orphans = bool(self._lineage.orphans() or self._lineage.doubtful())
            with anyio.move_on_after(min(hurry, period) if orphans else period):
                await self._look.wait()
            hurry = min(2 * hurry, period) if orphans else ORPHAN_LOOK
            self._look = anyio.Event()
            try:
                await self._list()
                if self._lineage.strangers():
                    raise NotFound(ANEW)
                await self._advance({})
            except BridgeError as error:
                self._fail(error)
                return

    async def _list(self) -> None:
        from bridge.faults import persist

        assert self._api is not None  # noqa: S101
        api = self._api
        shards = await persist(lambda: api.shards(), trouble=lambda line: self._trouble("", line))
        self._lineage.listed(shards)
        for shard in shards:
            if opened := self._open.get(shard.id):
                opened.shard = shard  # it may have ended meanwhile (KIN-112)

    async def _advance(self, moved: Dict[str, Position]) -> None:
        """Stores ``moved`` and the positions of those shards that may be started now, in one write, and starts them."""
        from bridge.position import Position
        from bridge.sources.shard_reader import OpenShard

        assert self._tasks is not None  # noqa: S101
        self._lineage.stored(moved)
        for name, position in moved.items():
            if position.ended:
                self._lineage.finished(name)
        ready = self._lineage.ready()
        fresh = {
            shard.id: Position(position=str(self._lineage.start_of(shard.id)))
            for shard in ready
            if self._lineage.position(shard.id) is None
        }
        for shard in ready:
            self._lineage.started(shard.id)
        if moved or fresh:
            await self._positions.move({**moved, **fresh})
            self._lineage.stored(fresh)
        for shard in ready:
            where = self._first.pop(shard.id, None) or self._lineage.start_of(shard.id)
            if where.kind == "LATEST":
                self._unplaced.add(shard.id)
            opened = OpenShard(shard, where, self._lineage.position(shard.id), self._terms())
            self._open[shard.id] = opened
            self._tasks.start_soon(opened.read, name=f"reader {self.mapping.name} {shard.id}")
            self._ready.extend(opened.lanes)
            self._log.info("shard_opened", shard=shard.id, start=str(where))
        self._more.set()
        await self._forget_spent()
        waiting = (*self._lineage.held_back(), *self._lineage.orphans())
        self._waiting = {shard: self._waiting.get(shard, time.time()) for shard in waiting}

    async def _forget_spent(self) -> None:
        if spent := self._lineage.spent():
            await self._positions.forget(spent)
            self._lineage.forgot(spent)

    async def _ended(self, opened: OpenShard) -> None:
        """All of a shard is settled: its children may be read (KIN-91, KIN-93)."""
        self._log.info("shard_ended", shard=opened.shard.id)
        del self._open[opened.shard.id]
        self._troubles_end(opened.shard.id)
        await self._advance({opened.shard.id: opened.tombstone})
        self._look.set()

    async def _missing(self, shard: Shard, error: NotFound) -> None:
        assert self._api is not None  # noqa: S101
        shards = await self._api.shards()
        self._lineage.listed(shards)
        if any(listed.id == shard.id for listed in shards):
            raise ServiceFault(f"{self._api.what} lists {shard.id}, and says: {error}", code=error.code) from error

    def _fail(self, error: BridgeError) -> None:
        self._failure = error
        for opened in self._open.values():
            opened.fail(error)
        self._more.set()

    # What its readers are told, and tell.

    def _terms(self) -> Terms:
        from bridge.sources.shard_reader import Terms

        assert self._api is not None  # noqa: S101
        return Terms(
            api=self._api,
            positions=self._positions,
            ahead=self._ahead,
            batch_size=self.mapping.batch_size,
            lanes=self.options.lanes,
            poll=self._polled,
            gap=lambda shard, line: self._gap(shard.id, line),
            trouble=self._trouble,
            missing=self._missing,
            announced=self._announced,
            ended=self._ended,
            placed=self._placed,
            begun=self._begun,
        )

    def _polled(self, page: ReadPage | None, code: str) -> None:
        meter = self.surroundings.meter
        if page is None:
            meter.poll("error")
            meter.poll_error(code)
            return
        meter.poll("data" if page.records else "empty")
        if page.records:
            meter.polled(len(page.records), page.size)

    def _gap(self, shard: str, line: str) -> None:
        self.surroundings.meter.stream.gap()
        self._log.warning("position_trimmed", shard=shard, detail=line)

    def _placed(self, shard: Shard | None) -> None:
        if shard:
            self._unplaced.discard(shard.id)
        if not self._unplaced:
            self._begun.set()

    def _announced(self, shards: Sequence[Shard]) -> None:
        self._lineage.announced(shards)

    def _trouble(self, shard: str, line: str | None) -> None:
        """The first trouble is told until no shard has any."""
        if line is None:
            self._troubles_end(shard)
        elif shard not in self._troubled:
            self._troubled[shard] = line
            if len(self._troubled) == 1:
                self.surroundings.trouble(line)

    def _troubles_end(self, shard: str) -> None:
        if self._troubled.pop(shard, None) is not None and not self._troubled:
            self.surroundings.trouble(None)

    # What is known without asking.

    def policy(self, batch: Batch) -> Policy:  # noqa: ARG002 - the same for all
        return self._policy

    def scaling(self) -> Scaling:
        """One runner for each lane, so that its order holds (KIN-36, KIN-50)."""
        return Scaling(idle=1, first=1, most=1, growth=0, falls=False)

    def trace(self, batch: Batch) -> str:  # noqa: ARG002 - records of streams carry none (INV-40)
        return ""

    def event(self, batch: Batch, extra: Dict[str, bytes]) -> bytes:
        return records_event(batch, extra)

    def waits(self) -> tuple[WaitView, ...]:
        from bridge.sources.shard_waits import waits

        return tuple(waits(self._lineage, self._waiting, self._open))

    async def backlog(self) -> int | None:
        """Streams do not say how many records wait."""
        return None


_KINDS: dict[str, Any] = {kind: kind for kind in ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")}
