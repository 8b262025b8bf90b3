"""The specification of a source: what runners rely on, as cases that every source passes.

A subclass gives the fixtures ``broker`` and, where there are groups, ``grouped``: the far side of a queue of its own.
Class attributes say which of the promises that far side can be made to test.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest

from bridge.errors import NotFound
from bridge.record import Batch, Page, Record
from bridge.sources import Partition, Source

PATIENCE = 20.0
"""Seconds after which something that was promised will not come any more."""
TOLERANCE = 0.15
"""Seconds by which a queue's clock and ours may differ."""


class Broker(Protocol):
    """The far side: one queue, and what can be done to it without the source."""

    visibility: float
    """Seconds that a record stays ours without a heartbeat."""

    async def send(self, *bodies: str, group: str | None = None) -> Sequence[str]:
        """Ids, in order."""
        ...

    def source(self, **options: Any) -> Source:
        """One more source of this queue; ``options`` of its mapping."""
        ...

    async def count(self) -> int:
        """Records that exist: those that wait and those that are held."""
        ...

    async def steal(self, record: Record) -> None:
        """Makes our receipt of it worthless, as if it had been given to somebody else for a long time."""
        ...

    async def vanish(self) -> None:
        """Removes the queue."""
        ...


@asynccontextmanager
async def opened(broker: Broker, **options: Any) -> AsyncIterator[Partition]:
    """A new source's first partition."""
    async with broker.source(**options) as source:
        async for partition in source.partitions():
            yield partition
            break


async def collect(partition: Partition, count: int, within: float = PATIENCE) -> list[Record]:
    """Fetches until ``count`` records have come."""
    records: list[Record] = []
    with anyio.fail_after(within):
        while len(records) < count:
            records += (await partition.fetch(count - len(records), 5)).records
    return records


async def finish(partition: Partition, count: int, within: float = PATIENCE) -> list[Record]:
    """Fetches and settles as done until ``count`` records have come."""
    records: list[Record] = []
    with anyio.fail_after(within):
        while len(records) < count:
            page = await partition.fetch(10, 5)
            records += page.records
            await partition.settle(done=page.records)
    return records


async def nothing_comes(partition: Partition, seconds: float = 5) -> None:
    """Polls for so long, in vain."""
    ends = anyio.current_time() + seconds
    while anyio.current_time() < ends:
        assert not (await partition.fetch(10, 1)).records


async def nothing_left(broker: Broker) -> None:
    with anyio.fail_after(PATIENCE):
        while await broker.count():
            await anyio.sleep(0.05)


def batch_of(records: Sequence[Record]) -> Batch:
    return Batch(tuple(records), "partition", "size")


def bodies(records: Sequence[Record]) -> list[str]:
    return [json.loads(record.json)["body"] for record in records]


@pytest.mark.anyio
class SourceContract:
    loses = True
    """``steal`` works: the source learns that a record is not its own any more."""

    @pytest.fixture
    def broker(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def grouped(self) -> Any:
        pytest.skip("no groups")

    # Opening and closing.

    async def test_it_has_a_partition_with_a_name(self, broker: Broker) -> None:
        async with broker.source() as source:
            partitions = [partition async for partition in source.partitions()]
        assert [bool(partition.id) for partition in partitions] == [True]

    async def test_what_does_not_exist_is_not_found(self, broker: Broker) -> None:
        await broker.vanish()
        with pytest.raises(NotFound):
            async with broker.source():
                pytest.fail("it opened")

    async def test_a_queue_that_vanishes_is_noticed_by_a_fetch(self, broker: Broker) -> None:
        async with opened(broker) as partition:
            await broker.vanish()
            with anyio.fail_after(PATIENCE), pytest.raises(NotFound):
                await collect(partition, 1)

    async def test_errors_of_its_user_pass_as_they_are(self, broker: Broker) -> None:
        with pytest.raises(ZeroDivisionError):
            async with broker.source():
                raise ZeroDivisionError

    async def test_leaving_it_carries_out_what_was_settled(self, broker: Broker) -> None:
        await broker.send(*map(str, range(25)))
        async with opened(broker) as partition:
            await partition.settle(done=await collect(partition, 25))
        await nothing_left(broker)

    async def test_leaving_it_while_being_cancelled_does_so_too(self, broker: Broker) -> None:
        await broker.send("a", "b")
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                async with opened(broker) as partition:
                    records = await collect(partition, 2)
                    tasks.cancel_scope.cancel()
                    with anyio.move_on_after(5, shield=True):
                        await partition.settle(done=records)
                    await anyio.sleep_forever()

            tasks.start_soon(run)
        await nothing_left(broker)

    async def test_what_was_not_settled_comes_again_by_itself(self, broker: Broker) -> None:
        await broker.send("a")
        async with opened(broker) as partition:
            (first,) = await collect(partition, 1)
        async with opened(broker) as partition:
            (second,) = await collect(partition, 1)
            assert (second.id, second.deliveries) == (first.id, first.deliveries + 1)
            assert anyio.current_time() >= first.held_until - TOLERANCE

    # Fetching.

    async def test_a_record_is_what_was_sent(self, broker: Broker) -> None:
        before = time.time()
        (sent,) = await broker.send('{"kind": "café"}')
        async with opened(broker) as partition:
            (record,) = await collect(partition, 1)
            assert record.id == sent
            assert bodies([record]) == ['{"kind": "café"}']
            assert before - 1 <= record.arrived_at <= time.time() + 1
            assert (record.deliveries, record.attempts, record.request_id) == (1, 0, None)
            left = record.held_until - anyio.current_time()
            assert 0.5 * broker.visibility < left <= broker.visibility

    async def test_a_page_has_at_most_what_was_asked_for_and_says_whether_it_is_full(self, broker: Broker) -> None:
        await broker.send("a", "b", "c")
        async with opened(broker) as partition:
            page = await partition.fetch(2, 5)
            records = list(page.records)
            assert 1 <= len(records) <= 2
            assert page.full == (len(records) == 2)
            assert page.answered
            assert page.lag is not None
            assert 0 <= page.lag < 60
            records += await collect(partition, 3 - len(records))
            assert sorted(bodies(records)) == ["a", "b", "c"]

    async def test_nothing_there_is_an_empty_page_when_the_wait_is_over(self, broker: Broker) -> None:
        async with opened(broker) as partition:
            for wait in (0, 1):
                started = anyio.current_time()
                page = await partition.fetch(10, wait)
                assert (page.records, page.full, page.answered) == ((), False, True)
                assert wait - TOLERANCE <= anyio.current_time() - started < wait + 5

    async def test_a_parked_fetch_wakes_when_something_comes(self, broker: Broker) -> None:
        async with opened(broker) as partition, anyio.create_task_group() as tasks:
            pages: list[Page] = []

            async def fetch() -> None:
                pages.append(await partition.fetch(10, 20))

            with anyio.fail_after(10):
                tasks.start_soon(fetch)
                await anyio.sleep(0.1)
                await broker.send("a")
                while not pages:
                    await anyio.sleep(0.01)
            assert bodies(pages[0].records) == ["a"]

    async def test_several_runners_share_a_partition(self, broker: Broker) -> None:
        await broker.send(*map(str, range(30)))
        seen: list[Record] = []
        async with opened(broker) as partition:

            async def run() -> None:
                while len(seen) < 30:
                    page = await partition.fetch(10, 1)
                    seen.extend(page.records)
                    await partition.settle(done=page.records)

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    for _ in range(4):
                        tasks.start_soon(run)
        assert sorted(bodies(seen), key=int) == [str(number) for number in range(30)]
        await nothing_left(broker)

    async def test_a_cancelled_fetch_loses_nothing(self, broker: Broker) -> None:
        async with opened(broker) as partition:
            for steps in range(12):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:

                        async def cancel(scope: anyio.CancelScope = scope, steps: int = steps) -> None:
                            for _ in range(steps):
                                await anyio.lowlevel.checkpoint()
                            scope.cancel()

                        tasks.start_soon(cancel)
                        page = await partition.fetch(10, 1)
                        await partition.settle(unstarted=page.records)
            await broker.send("a")
            (record,) = await collect(partition, 1)
            await partition.settle(done=[record])
        await nothing_left(broker)

    # Holding.

    async def test_what_is_held_does_not_come_again(self, broker: Broker) -> None:
        await broker.send("a", "b")
        async with opened(broker) as partition, opened(broker) as other:
            records = await collect(partition, 2)
            await nothing_comes(other, 1.5 * broker.visibility)
            assert await partition.hold(batch_of(records)) == ()
            await partition.settle(done=records)
        await nothing_left(broker)

    async def test_hold_names_what_is_not_ours_any_more(self, broker: Broker) -> None:
        if not self.loses:
            pytest.skip("the far side forgives it")
        await broker.send("a", "b")
        async with opened(broker) as partition:
            records = await collect(partition, 2)
            lost = records[0]
            await broker.steal(lost)
            with anyio.fail_after(PATIENCE):
                while not (named := await partition.hold(batch_of(records))):
                    await anyio.sleep(0.05)
            assert named == (lost,)
            await partition.settle(done=records)  # the lost one is not ours to delete
        with anyio.fail_after(PATIENCE):
            while await broker.count() != 1:
                await anyio.sleep(0.05)

    # Settling.

    async def test_done_never_comes_again(self, broker: Broker) -> None:
        await broker.send("a", "b")
        async with opened(broker) as partition:
            await partition.settle(done=await collect(partition, 2))
            await nothing_left(broker)

    async def test_failed_comes_again_when_its_time_is_over(self, broker: Broker) -> None:
        await broker.send("a")
        async with opened(broker) as partition:
            (first,) = await collect(partition, 1)
            await partition.settle(failed=[first])
            (second,) = await collect(partition, 1)
            late = anyio.current_time() - first.held_until
            assert -TOLERANCE <= late < 2  # SQS-25
            assert (second.id, second.deliveries) == (first.id, 2)
            assert second is not first
            await partition.settle(done=[second])
        await nothing_left(broker)

    async def test_failed_comes_again_soon_when_it_was_held_for_longer(self, broker: Broker) -> None:
        await broker.send("a")
        async with opened(broker) as partition:
            (first,) = await collect(partition, 1)
            await anyio.sleep(1.5 * broker.visibility)
            asked = anyio.current_time()
            await partition.settle(failed=[first])
            (second,) = await collect(partition, 1)
            assert anyio.current_time() - asked < 1.5  # SQS-25
            assert second.id == first.id

    async def test_unstarted_comes_again_at_once(self, broker: Broker) -> None:
        await broker.send(*map(str, range(12)))
        async with opened(broker) as partition:
            first = await collect(partition, 12)
            asked = anyio.current_time()
            await partition.settle(unstarted=first)
            second = await collect(partition, 12)
            assert anyio.current_time() - asked < 0.75 * broker.visibility
            assert {record.id: record.deliveries for record in second} == {record.id: 2 for record in first}

    async def test_each_record_has_its_own_fate(self, broker: Broker) -> None:
        await broker.send("a", "b", "c")
        async with opened(broker) as partition:
            by_body = {bodies([record])[0]: record for record in await collect(partition, 3)}
            await partition.settle(done=[by_body["a"]], failed=[by_body["b"]], unstarted=[by_body["c"]])
            again = await collect(partition, 2)
            assert bodies(again) == ["c", "b"]

    async def test_the_first_word_about_a_record_counts(self, broker: Broker) -> None:
        await broker.send("a")
        async with opened(broker) as partition:
            records = await collect(partition, 1)
            await partition.settle(done=records)
            await partition.settle(failed=records, unstarted=records)
            assert await partition.hold(batch_of(records)) == tuple(records)
        await nothing_left(broker)

    async def test_a_settle_cancelled_anywhere_settles_each_record_once_or_not_at_all(self, broker: Broker) -> None:
        sent = await broker.send(*map(str, range(20)))
        async with opened(broker) as partition:
            for steps in range(10):
                done, failed = await collect(partition, 2)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_settle, partition, done, failed)
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                with anyio.move_on_after(5, shield=True):
                    await partition.settle(unstarted=[done, failed])  # as a runner does that was cancelled
            left = await broker.count()
            assert 10 <= left <= 20
        async with opened(broker) as partition:
            again = await collect(partition, await broker.count())
        assert {record.id for record in again} <= set(sent)

    # Groups.

    async def test_a_group_keeps_its_order_and_is_locked_until_it_is_settled(self, grouped: Broker) -> None:
        await grouped.send("a1", "a2", group="a")
        await grouped.send("b1", group="b")
        async with opened(grouped) as partition:
            records = await collect(partition, 3)  # SQS-60
            assert [body for body in bodies(records) if body < "b"] == ["a1", "a2"]  # SQS-55
            await grouped.send("a3", group="a")
            await grouped.send("c1", group="c")
            (other,) = await collect(partition, 1)
            assert bodies([other]) == ["c1"]
            assert not (await partition.fetch(10, 1)).records
            await partition.settle(done=[*records, other])
            (last,) = await collect(partition, 1)
            assert bodies([last]) == ["a3"]

    async def test_a_failed_record_comes_before_the_later_ones_of_its_group(self, grouped: Broker) -> None:
        await grouped.send("1", "2", "3", group="a")
        async with opened(grouped) as partition:
            first = await collect(partition, 3)
            await grouped.send("4", group="a")
            await partition.settle(done=first[:1], failed=first[1:])
            assert bodies(await finish(partition, 3)) == ["2", "3", "4"]  # SQS-56

    async def test_unstarted_records_keep_the_order_of_their_group(self, grouped: Broker) -> None:
        await grouped.send("1", "2", "3", group="a")
        async with opened(grouped) as partition:
            await partition.settle(unstarted=await collect(partition, 3))
            assert bodies(await finish(partition, 3)) == ["1", "2", "3"]

    # What it knows without asking.

    async def test_the_event_is_the_records_joined(self, broker: Broker) -> None:
        await broker.send("a", "b")
        async with broker.source() as source:
            async for partition in source.partitions():
                records = await collect(partition, 2)
                event = json.loads(source.event(batch_of(records), {}))
                assert event == {"Records": [json.loads(record.json) for record in records]}
                extended = json.loads(source.event(batch_of(records), {"state": b'{"a": 1}', "isFinal": b"true"}))
                assert extended == {**event, "state": {"a": 1}, "isFinal": True}
                await partition.settle(done=records)

    async def test_the_view_is_the_record_with_its_data_decoded(self, broker: Broker) -> None:
        await broker.send('{"kind": "order"}')
        async with broker.source() as source:
            async for partition in source.partitions():
                (record,) = await collect(partition, 1)
                view, event = source.view(record), json.loads(record.json)
                assert view[source.data_key] == {"kind": "order"}
                assert {**view, source.data_key: event[source.data_key]} == event

    async def test_its_limits_hold_together(self, broker: Broker) -> None:
        limits = broker.source().limits("arn:aws:sqs:eu-west-1:123456789012:orders")
        assert limits.what
        for bound in (limits.batch_size, limits.window):
            assert bound.least <= bound.default <= bound.most

    async def test_policy_and_scaling_follow_the_mapping(self, broker: Broker) -> None:
        source = broker.source(partial=True, maximum_concurrency=3)
        assert source.policy(batch_of(())).partial
        one, two = source.scaling(), source.scaling()
        assert one is not two
        assert one.concurrency == 3

    async def test_the_backlog_counts_what_waits(self, broker: Broker) -> None:
        await broker.send("a", "b")
        async with broker.source() as source:
            assert await source.backlog() == 2


async def _settle(partition: Partition, done: Record, failed: Record) -> None:
    await partition.settle(done=[done], failed=[failed])
