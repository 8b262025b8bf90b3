"""The lanes of a shard: what was read and waits there for the runners that fetch it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from bridge.errors import PartitionEnded
from bridge.pipeline.batcher import PAYLOAD_LIMIT
from bridge.record import Batch, Page, Record
from bridge.sources import unlimited

if TYPE_CHECKING:
    from bridge.sources.shard_reader import OpenShard

FIRST_ANSWER = 5.0
"""Seconds that a fetch which shall not wait gives the reader to ask at all."""
READ_AHEAD = 64 << 20
"""Bytes of one mapping's records that were read and that no runner has taken yet. Shards of which nothing is held may
read one more batch each."""
LARGE_READS = 6
"""At a time, of one mapping: pages of shards that are behind, which may have 10 MiB each."""


def lane_of(key: str, lanes: int) -> int:
    """The lane of a key: the same in every process and on every machine (KIN-51)."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % lanes


class ReadAhead:
    """Bytes that the readers of one mapping hold, together."""

    def __init__(self, limit: int = READ_AHEAD) -> None:
        self.limit = limit
        self.held = 0
        self.large = anyio.Semaphore(LARGE_READS)

    def __repr__(self) -> str:
        return f"<ReadAhead {self.held} of {self.limit} bytes>"

    @property
    def full(self) -> bool:
        return self.held >= self.limit


class ShardLane:
    """A partition: those records of a shard whose keys belong to it, in their order."""

    def __init__(self, shard: OpenShard, name: str) -> None:
        self.id = name
        self._shard = shard
        self._records: deque[Record] = deque()
        self._news = anyio.Event()
        self._answers = 0

    def __repr__(self) -> str:
        return f"<ShardLane {self.id}: {len(self._records)} ahead>"

    @property
    def hungry(self) -> bool:
        """Less than one further batch waits in it (KIN-22)."""
        return len(self._records) < self._shard.terms.batch_size

    @property
    def ahead(self) -> int:
        """Records that wait in it."""
        return len(self._records)

    @property
    def state(self) -> bytes:
        """What was stored with the position."""
        return self._shard.state

    def put(self, records: Sequence[Record]) -> None:
        """They follow those that are in it."""
        self._records.extend(records)
        self.wake()

    def wake(self) -> None:
        """There is something to look at."""
        self._news.set()

    # The partition's contract.

    async def fetch(self, limit: int, wait: float, size: Callable[[], float] = unlimited) -> Page:
        await anyio.lowlevel.checkpoint()
        if not self._records:
            await self._wait(anyio.current_time() + wait)
        return self._take(limit, min(size(), PAYLOAD_LIMIT))

    async def _wait(self, deadline: float) -> None:
        shard = self._shard
        while not self._records:
            if shard.failure is not None:
                raise shard.failure
            if shard.ended:
                raise PartitionEnded
            now = anyio.current_time()
            heard = shard.answers > self._answers
            until = deadline if heard or now < deadline else deadline + FIRST_ANSWER
            if now >= until:
                return
            self._news = anyio.Event()
            shard.listened = shard.listened or not heard
            with anyio.CancelScope(deadline=until):
                await self._news.wait()

    def _take(self, limit: int, size: float) -> Page:
        """No await: a cancelled fetch has taken nothing."""
        shard, waiting = self._shard, self._records
        answered = bool(waiting) or shard.answers > self._answers
        self._answers = shard.answers
        if len(waiting) <= limit and shard.held <= size:
            records = tuple(waiting)
            waiting.clear()
        else:
            records = tuple(self._first(limit, size))
        shard.took(records)
        return Page(
            records,
            caught_up=shard.caught_up and not waiting,
            lag=shard.lag,
            full=len(records) == limit,
            answered=answered,
        )

    def _first(self, limit: int, size: float) -> Iterator[Record]:
        """At least one, if there is one."""
        waiting = self._records
        for _ in range(min(limit, len(waiting))):
            record = waiting.popleft()
            size -= len(record.json)
            yield record
            if waiting and len(waiting[0].json) > size:
                return

    async def hold(self, batch: Batch) -> tuple[Record, ...]:  # noqa: ARG002 - one owner, who never loses it
        await anyio.lowlevel.checkpoint()
        return ()

    async def settle(
        self,
        done: Sequence[Record] = (),
        failed: Sequence[Record] = (),  # noqa: ARG002 - what is let go is read again when the source opens again
        unstarted: Sequence[Record] = (),  # noqa: ARG002
        *,
        state: bytes | None = None,
    ) -> None:
        await self._shard.settle(done, state)

    async def finish(self) -> None:
        await self._shard.finish(self)
