"""The specification of a sharded source: what runners rely on besides fetching, as cases that Kinesis and DynamoDB
Streams pass on every server.

A subclass gives the fixture ``broker``: the far side of a stream of its own. Class attributes say what that far side
cannot show.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest

from bridge.errors import NotFound, PartitionEnded, StateError
from bridge.record import Batch, Page, Record
from bridge.sources import Partition, Source
from tests.positions import RememberedPositions

PATIENCE = 30.0
"""Seconds after which something that was promised will not come any more."""


class Broker(Protocol):
    """The far side: one stream, what can be done to it without the source, and what is remembered of it."""

    positions: RememberedPositions

    async def put(self, *bodies: str, key: str = "") -> Sequence[str]:
        """Sequence numbers, in order. Without a key each body is its own."""
        ...

    def source(self, **options: Any) -> Source:
        """One more source of this stream; ``options`` of its mapping, and of its ``StreamOptions``."""
        ...

    def bodies(self, records: Sequence[Record]) -> list[str]:
        """What was put, out of the records' JSON."""
        ...

    async def split(self) -> None:
        """The first shard ends, and has two children."""
        ...

    async def merge(self) -> None:
        """The two shards end, and have one child."""
        ...

    async def vanish(self) -> None:
        """Removes the stream."""
        ...

    async def moment(self) -> float:
        """Epoch seconds: what was put before is older, what will be put is not."""
        ...


class Reader:
    """Reads what a source's partitions give, each in its turn, as runners do."""

    def __init__(self, source: Source, *, settles: bool = True) -> None:
        self.source, self._settles = source, settles
        self.partitions: dict[str, Any] = {}
        self.records: dict[str, list[Record]] = {}
        """By partition, in order."""
        self.settled = 0
        self.heard: set[str] = set()
        """Partitions that were read: what is put from now on comes after their beginning."""
        self.finished: list[str] = []
        self._changed = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            async for partition in self.source.partitions():
                self.partitions[partition.id] = partition
                self.records[partition.id] = []
                self._tell()
                tasks.start_soon(self._read, partition)

    async def _read(self, partition: Partition) -> None:
        try:
            while True:
                page = await partition.fetch(100, 20 if partition.id in self.heard else 0)
                if page.answered:
                    self.heard.add(partition.id)
                self.records[partition.id] += page.records
                self._tell()
                if self._settles:
                    await partition.settle(done=page.records)
                    self.settled += len(page.records)
                    self._tell()
        except PartitionEnded:
            await partition.finish()
            self.finished.append(partition.id)
            self._tell()

    async def until(self, condition: Any, within: float = PATIENCE) -> None:
        """Returns when ``condition`` is true; it is asked again whenever something has changed."""
        with anyio.fail_after(within):
            while not condition():
                await self._changed.wait()

    @property
    def everything(self) -> list[Record]:
        return [record for records in self.records.values() for record in records]

    def _tell(self) -> None:
        event, self._changed = self._changed, anyio.Event()
        event.set()


@asynccontextmanager
async def reading(broker: Broker, *, settles: bool = True, **options: Any) -> AsyncIterator[Reader]:
    """A new source, and somebody who reads all of it."""
    async with broker.source(**options) as source, anyio.create_task_group() as tasks:
        reader = Reader(source, settles=settles)
        tasks.start_soon(reader.run)
        yield reader
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
class StreamContract:
    shards = 2
    """That its streams have at first."""
    times = True
    """A mapping of it may begin at a time."""
    coarse = 2.0
    """Seconds by which the time of a record may be wrong."""
    forgets = True
    """What is removed is not there any more."""
    reshards = True
    """Closed shards stay readable to their end."""
    merges = True

    @pytest.fixture
    def broker(self) -> Any:
        raise NotImplementedError

    # Opening.

    async def test_each_open_shard_is_a_partition_with_a_name(self, broker: Broker) -> None:
        async with reading(broker) as reader:
            await reader.until(lambda: len(reader.partitions) == self.shards)
            assert all(reader.partitions)

    async def test_what_does_not_exist_is_not_found(self, broker: Broker) -> None:
        if not self.forgets:
            pytest.skip("what is removed can be read on")
        await broker.vanish()
        with pytest.raises(NotFound):
            async with broker.source():
                pytest.fail("it opened")

    async def test_errors_of_its_user_pass_as_they_are(self, broker: Broker) -> None:
        with pytest.raises(ZeroDivisionError):
            async with broker.source():
                raise ZeroDivisionError

    # Fetching.

    async def test_a_record_is_what_was_put(self, broker: Broker) -> None:
        before = time.time()
        (sent,) = await broker.put('{"kind": "café"}')
        async with reading(broker) as reader:
            await reader.until(lambda: reader.everything)
            (record,) = reader.everything
            assert record.id == sent
            assert broker.bodies([record]) == ['{"kind": "café"}']
            assert before - self.coarse <= record.arrived_at <= time.time() + self.coarse
            assert (record.deliveries, record.attempts, record.request_id) == (1, 0, None)

    async def test_records_of_a_key_come_in_their_order(self, broker: Broker) -> None:  # KIN-36
        sent = [str(number) for number in range(130)]
        await broker.put(*sent, key="one")
        async with reading(broker) as reader:
            await reader.until(lambda: len(reader.everything) >= 130)
            assert broker.bodies(reader.everything) == sent

    async def test_a_page_has_at_most_what_was_asked_for_and_says_whether_it_is_full(self, broker: Broker) -> None:
        await broker.put("a", "b", "c", key="one")
        async with broker.source() as source:
            pages: list[Page] = []
            async with anyio.create_task_group() as tasks:

                async def fetch(partition: Partition) -> None:
                    while True:
                        pages.append(await partition.fetch(2, 20))
                        if sum(len(page.records) for page in pages) == 3:
                            tasks.cancel_scope.cancel()

                async for partition in source.partitions():
                    tasks.start_soon(fetch, partition)
        filled = [page for page in pages if page.records]
        assert [(len(page.records), page.full) for page in filled] == [(2, True), (1, False)]
        assert not filled[0].caught_up
        assert all(page.answered for page in filled)

    async def test_nothing_there_is_an_empty_page_when_the_wait_is_over(self, broker: Broker) -> None:
        async with broker.source() as source:
            partition = await anext(source.partitions())
            for wait in (0, 1):
                started = anyio.current_time()
                page = await partition.fetch(10, wait)
                assert (page.records, page.full, page.answered) == ((), False, True)
                assert wait - 0.15 <= anyio.current_time() - started < wait + 5
            assert page.caught_up

    async def test_a_parked_fetch_wakes_when_something_comes(self, broker: Broker) -> None:  # KIN-20
        async with reading(broker) as reader:
            await reader.until(lambda: len(reader.heard) == self.shards)
            await broker.put("a")
            await reader.until(lambda: reader.everything, within=10)

    async def test_a_cancelled_fetch_loses_nothing(self, broker: Broker) -> None:
        await broker.put(*map(str, range(20)), key="one")
        seen: list[Record] = []
        async with broker.source() as source, anyio.create_task_group() as tasks:

            async def fetch(partition: Partition) -> None:
                while len(seen) < 20:
                    for steps in range(12):
                        with anyio.CancelScope() as scope:
                            async with anyio.create_task_group() as inner:

                                async def cancel(scope: anyio.CancelScope = scope, steps: int = steps) -> None:
                                    for _ in range(steps):
                                        await anyio.lowlevel.checkpoint()
                                    scope.cancel()

                                inner.start_soon(cancel)
                                seen.extend((await partition.fetch(1, 1)).records)
                    await anyio.sleep(0.05)
                tasks.cancel_scope.cancel()

            with anyio.fail_after(PATIENCE):
                async for partition in source.partitions():
                    tasks.start_soon(fetch, partition)
        assert broker.bodies(seen) == [str(number) for number in range(20)]

    async def test_nothing_held_is_lost_while_it_lasts(self, broker: Broker) -> None:
        await broker.put("a")
        async with reading(broker, settles=False) as reader:
            await reader.until(lambda: reader.everything)
            (partition,) = (reader.partitions[name] for name, records in reader.records.items() if records)
            assert await partition.hold(Batch(tuple(reader.everything), partition.id, "size")) == ()

    # Positions.

    async def test_what_was_settled_is_not_read_again(self, broker: Broker) -> None:  # KIN-23
        await broker.put("a", "b", key="one")
        async with reading(broker) as reader:
            await reader.until(lambda: reader.settled == 2)
        await broker.put("c", key="one")
        async with reading(broker) as reader:
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["c"]

    async def test_what_was_not_settled_is_read_again(self, broker: Broker) -> None:  # KIN-27, V15
        await broker.put("a", "b", key="one")
        for _ in range(2):
            async with reading(broker, settles=False) as reader:
                await reader.until(lambda r=reader: len(r.everything) == 2)
                assert broker.bodies(reader.everything) == ["a", "b"]

    async def test_the_position_stays_before_the_first_unfinished_record(self, broker: Broker) -> None:  # KIN-52
        await broker.put("a", "b", "c", key="one")
        async with reading(broker, settles=False) as reader:
            await reader.until(lambda: len(reader.everything) == 3)
            (name,) = (name for name, records in reader.records.items() if records)
            first, second, third = reader.records[name]
            before = len(broker.positions.moves)
            await reader.partitions[name].settle(done=[third])
            assert len(broker.positions.moves) == before
            await reader.partitions[name].settle(done=[first], unstarted=[second])
            assert len(broker.positions.moves) == before + 1
        async with reading(broker) as reader:
            await reader.until(lambda: len(reader.everything) == 2)
            assert broker.bodies(reader.everything) == ["b", "c"]

    async def test_state_is_stored_with_the_position(self, broker: Broker) -> None:  # TW-47
        await broker.put("a", key="one")
        async with reading(broker, settles=False) as reader:
            await reader.until(lambda: reader.everything)
            (name,) = (name for name, records in reader.records.items() if records)
            before = len(broker.positions.moves)
            await reader.partitions[name].settle(done=reader.everything, state=b'{"sum": 1}')
            assert len(broker.positions.moves) == before + 1
        async with reading(broker) as reader:
            await reader.until(lambda: name in reader.partitions)
            assert reader.partitions[name].state == b'{"sum": 1}'
            await reader.partitions[name].settle(state=b"")
        assert broker.positions.stored[name].state == b""
        assert broker.positions.stored[name].position != "TRIM_HORIZON"

    async def test_a_store_that_fails_stops_the_settle(self, broker: Broker) -> None:
        await broker.put("a", key="one")
        async with reading(broker, settles=False) as reader:
            await reader.until(lambda: reader.everything)
            (name,) = (name for name, records in reader.records.items() if records)
            broker.positions.fault = StateError("the disk is full")
            with pytest.raises(StateError):
                await reader.partitions[name].settle(done=reader.everything)
        broker.positions.fault = None
        async with reading(broker) as reader:
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["a"]

    # Where to begin.

    async def test_latest_begins_after_what_is_there(self, broker: Broker) -> None:  # KIN-25
        await broker.put("old", key="one")
        async with reading(broker, starting_position="LATEST") as reader:
            await reader.until(lambda: len(reader.heard) == self.shards)
            await broker.put("new", key="one")
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["new"]

    async def test_latest_is_resolved_once(self, broker: Broker) -> None:  # KIN-24: an idle shard
        async with reading(broker, starting_position="LATEST") as reader:
            await reader.until(lambda: len(reader.heard) == self.shards)
        await broker.put("while nobody reads", key="one")
        async with reading(broker, starting_position="LATEST") as reader:
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["while nobody reads"]

    async def test_a_time_begins_with_what_came_since(self, broker: Broker) -> None:  # KIN-25
        if not self.times:
            pytest.skip("mappings of this service cannot begin at a time")
        await broker.put("old", key="one")
        at = await broker.moment()
        await broker.put("new", key="one")
        async with reading(broker, starting_position="AT_TIMESTAMP", starting_timestamp=at) as reader:
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["new"]

    # Lanes.

    async def test_lanes_keep_the_order_of_keys(self, broker: Broker) -> None:  # KIN-50, KIN-51, KIN-55
        sent = [f"{number % 7}:{number}" for number in range(84)]
        for body in sent[:14]:
            await broker.put(body, key=body.partition(":")[0])
        async with reading(broker, lanes=3) as reader:
            await reader.until(lambda: len(reader.partitions) == 3 * self.shards)
            for body in sent[14:]:
                await broker.put(body, key=body.partition(":")[0])
            await reader.until(lambda: len(reader.everything) == 84)
            for key in map(str, range(7)):
                homes = [
                    name
                    for name, records in reader.records.items()
                    if any(body.startswith(f"{key}:") for body in broker.bodies(records))
                ]
                assert len(homes) == 1
                own = [body for body in broker.bodies(reader.records[homes[0]]) if body.startswith(f"{key}:")]
                assert own == [body for body in sent if body.startswith(f"{key}:")]
            await reader.until(lambda: reader.settled == 84)
        assert all("#" not in name for name in broker.positions.stored), "positions are the shard's, not its lanes'"

    # Resharding.

    async def test_children_follow_when_their_parent_is_settled(self, broker: Broker) -> None:  # KIN-91, KIN-93, V13
        if not self.reshards:
            pytest.skip("the far side forgets closed shards")
        await broker.put(*map(str, range(40)))
        async with reading(broker) as reader:
            await reader.until(lambda: len(reader.everything) == 40)
            parents = set(reader.partitions)
            await broker.split()
            await broker.put(*map(str, range(40, 80)))
            await reader.until(lambda: len(reader.everything) == 80, within=90)  # KIN-92: a listing may have to tell
            assert len(reader.partitions) == 4
            (parent,) = reader.finished
            assert parent in parents
            assert broker.positions.stored[parent].ended
            assert sorted(broker.bodies(reader.everything), key=int) == [str(number) for number in range(80)]

    async def test_a_child_of_two_waits_for_both(self, broker: Broker) -> None:  # KIN-91, V14
        if not (self.reshards and self.merges):
            pytest.skip("the far side does not merge")
        await broker.put(*map(str, range(40)))
        await broker.merge()
        await broker.put(*map(str, range(40, 60)))
        async with reading(broker) as reader:
            await reader.until(lambda: reader.settled == 60)
            assert len(reader.finished) == 2
            assert sorted(broker.bodies(reader.everything), key=int) == [str(number) for number in range(60)]
        async with reading(broker) as reader:
            await broker.put("more")
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["more"]

    async def test_nothing_is_read_twice_after_a_split(self, broker: Broker) -> None:  # KIN-94
        if not self.reshards:
            pytest.skip("the far side forgets closed shards")
        await broker.put(*map(str, range(20)))
        await broker.split()
        await broker.put(*map(str, range(20, 40)))
        async with reading(broker) as reader:
            await reader.until(lambda: reader.settled == 40)
        await broker.put("more")
        async with reading(broker) as reader:
            await reader.until(lambda: reader.everything)
            assert broker.bodies(reader.everything) == ["more"]

    # Trouble.

    async def test_a_stream_that_vanishes_is_noticed(self, broker: Broker) -> None:  # KIN-33
        if not self.forgets:
            pytest.skip("what is removed can be read on")
        async with broker.source() as source:
            partition = await anext(source.partitions())
            await partition.fetch(1, 0)
            await broker.vanish()
            with anyio.fail_after(PATIENCE), pytest.raises(NotFound):
                await _fetch_for_ever(partition)
        assert broker.positions.stored, "positions are kept (KIN-33)"


async def _fetch_for_ever(partition: Partition) -> None:
    while True:
        await partition.fetch(1, 5)
