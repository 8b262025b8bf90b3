"""The SQS source and a queue that errs: what real servers do not do on request. The clock is owned."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog.testing

from bridge.record import Record
from bridge.sources import Partition
from bridge.sources.receipts import MOST_PARKED
from bridge.sources.sqs_queue import LATE_DELETES
from tests.clock import SKIPPING
from tests.contracts.source import batch_of, bodies, collect, finish, nothing_comes, opened
from tests.sources.faulty_sqs import FaultySqs
from tests.sources.near import LocalBroker

pytestmark = pytest.mark.anyio
DELETE, CHANGE = "DeleteMessageBatch", "ChangeMessageVisibilityBatch"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


@pytest.fixture
def broker() -> LocalBroker:
    return LocalBroker(FaultySqs(visibility=30))


@pytest.fixture
def fifo() -> LocalBroker:
    return LocalBroker(FaultySqs("orders.fifo", visibility=30))


# Groups, whatever the server does.


async def test_a_message_of_a_locked_group_is_kept_back_until_the_group_is_settled(fifo: LocalBroker) -> None:
    queue = fifo.queue
    queue.ignores_groups = True
    await fifo.send("a1", group="a")
    async with opened(fifo) as partition:
        first = await collect(partition, 1)
        await fifo.send("a2", "a3", group="a")
        await fifo.send("b1", group="b")
        (other,) = await collect(partition, 1)
        assert bodies([other]) == ["b1"]  # other groups go on (SQS-55)
        await nothing_comes(partition, 90)  # longer than its visibility: it is kept hidden, not only dropped
        assert queue.in_flight
        await partition.settle(done=[*first, other])
        assert bodies(await finish(partition, 2)) == ["a2", "a3"]  # SQS-59
    assert Counter(queue.deleted) == Counter({"id-1": 1, "id-2": 1, "id-3": 1, "id-4": 1})


async def test_later_messages_wait_for_one_that_failed(fifo: LocalBroker) -> None:
    queue = fifo.queue
    queue.ignores_groups = True
    await fifo.send("1", "2", group="a")
    async with opened(fifo) as partition:
        one, two = await collect(partition, 2)
        await fifo.send("3", group="a")
        await partition.settle(done=[one], failed=[two])
        await nothing_comes(partition, 25)  # SQS-56: 3 is there, but 2 has not come back
        assert bodies(await finish(partition, 2)) == ["2", "3"]


async def test_a_failed_message_may_come_back_early(fifo: LocalBroker) -> None:
    await fifo.send("1", "2", group="a")
    async with opened(fifo) as partition:
        records = await collect(partition, 2)
        await partition.settle(failed=records)
        fifo.queue.deliver_again(records[0].id)
        (early,) = await collect(partition, 1, within=5)
        assert (early.id, early.deliveries) == (records[0].id, 2)
        await nothing_comes(partition, 35)
        await partition.settle(done=[early])
        (late,) = await collect(partition, 1)
        assert late.id == records[1].id


@pytest.mark.parametrize("latency", [0.0, 0.01, 0.4])
async def test_a_failed_message_that_never_comes_back_does_not_block_its_group(
    latency: float,
) -> None:
    """The next one comes as soon as it is among the dead letters: a receive of it must not be spent in vain."""
    fifo = LocalBroker(FaultySqs("orders.fifo", visibility=30, max_receives=1))
    fifo.queue.latency = latency
    await fifo.send("1", group="a")
    async with opened(fifo) as partition:
        await partition.settle(failed=await collect(partition, 1))
        await fifo.send("2", group="a")
        (next_one,) = await finish(partition, 1, within=40)
        assert (bodies([next_one]), next_one.deliveries) == (["2"], 1)  # SQS-61
    assert fifo.queue.dead == ["id-1"]


async def test_a_page_is_put_into_the_order_of_its_groups(fifo: LocalBroker) -> None:
    await fifo.send("a1", group="a")
    await fifo.send("b1", group="b")
    await fifo.send("a2", group="a")
    for number in (3, 1):  # the server gives a2 first
        fifo.queue.deliver_again(f"id-{number}")
    fifo.queue.reverse = True
    async with opened(fifo) as partition:
        records = await collect(partition, 3)
        assert [body for body in bodies(records) if body[0] == "a"] == ["a1", "a2"]
        await partition.settle(done=records)


async def test_a_group_id_does_not_make_a_queue_fifo(broker: LocalBroker) -> None:
    await broker.send("1", "2", group="tenant")
    async with opened(broker) as partition:
        (one,) = (await partition.fetch(1, 5)).records
        (two,) = (await partition.fetch(1, 5)).records  # SQS-62
        await partition.settle(done=[one, two])


async def test_the_attribute_makes_a_queue_fifo_too() -> None:
    fifo = LocalBroker(FaultySqs("strange-name", attributes={"FifoQueue": "true"}))
    fifo.queue.ignores_groups = True
    await fifo.send("1", "2", group="a")
    async with opened(fifo) as partition:
        first = (await partition.fetch(1, 5)).records
        await nothing_comes(partition)
        await partition.settle(done=first)
        assert bodies(await finish(partition, 1)) == ["2"]


async def test_what_is_kept_back_is_bounded(fifo: LocalBroker) -> None:
    fifo.queue.ignores_groups = True
    await fifo.send(*map(str, range(MOST_PARKED + 50)), group="a")
    async with opened(fifo) as partition:
        first = (await partition.fetch(1, 5)).records
        await nothing_comes(partition, 20)
        assert f"{MOST_PARKED} parked" in repr(partition)
        await partition.settle(done=first)
        rest = await finish(partition, MOST_PARKED + 49, within=600)
    assert bodies(rest) == [str(number) for number in range(1, MOST_PARKED + 50)]


# Double deliveries.


@pytest.mark.parametrize("name", ["orders", "orders.fifo"])
async def test_a_second_delivery_never_runs_beside_the_first(name: str) -> None:
    broker = LocalBroker(FaultySqs(name, visibility=30))
    (message,) = await broker.send("a", group="g")
    async with opened(broker) as partition:
        first = await collect(partition, 1)
        broker.queue.deliver_again(message)
        await nothing_comes(partition, 100)
        assert await partition.hold(batch_of(first)) == ()
        assert broker.queue.in_flight == [message]
        await partition.settle(done=first)
        await nothing_comes(partition, 100)
    assert broker.queue.deleted == [message]


@pytest.mark.parametrize("name", ["orders", "orders.fifo"])
async def test_a_second_delivery_in_the_same_page_is_one_record(name: str) -> None:
    broker = LocalBroker(FaultySqs(name, visibility=30))
    (message,) = await broker.send("a", group="g")
    broker.queue.stutter = True
    async with opened(broker) as partition:
        page = await partition.fetch(10, 5)
        assert len(page.records) == 1
        broker.queue.stutter = False
        await partition.settle(done=page.records)
        await nothing_comes(partition, 50)
    assert broker.queue.deleted == [message]


async def test_when_the_first_delivery_failed_the_message_comes_again(broker: LocalBroker) -> None:
    (message,) = await broker.send("a")
    async with opened(broker) as partition:
        first = await collect(partition, 1)
        broker.queue.deliver_again(message)
        await nothing_comes(partition)
        await partition.settle(failed=first)
        (again,) = await collect(partition, 1, within=60)
        assert (again.id, again.deliveries) == (message, 3)


async def test_a_second_delivery_while_the_delete_is_pending_is_deleted_as_well(broker: LocalBroker) -> None:
    (message,) = await broker.send("a")
    broker.queue.refuse(DELETE, *["ThrottlingException"] * 1000)
    async with opened(broker) as partition:
        await partition.settle(done=await collect(partition, 1))
        await broker.queue.asked(DELETE)
        broker.queue.deliver_again(message)
        await nothing_comes(partition)
        broker.queue.allow(DELETE)
        await broker.queue.gone()
        await nothing_comes(partition, 50)
    assert broker.queue.deleted == [message]
    handles = {entry["ReceiptHandle"] for call in broker.queue.of(DELETE) for entry in call.params["Entries"]}
    assert handles == {"id-1/1", "id-1/2"}


# Deletes.


async def test_entries_that_fail_by_the_servers_fault_are_deleted_again_alone(broker: LocalBroker) -> None:
    ids = await broker.send(*map(str, range(10)))
    broker.queue.fail_entries(DELETE, "InternalError", times=3, ids=[ids[4]])
    async with opened(broker) as partition:
        await partition.settle(done=await collect(partition, 10))
        await broker.queue.gone()
    assert [len(call.params["Entries"]) for call in broker.queue.of(DELETE)] == [10, 1, 1, 1]
    assert broker.near.counted("deleted_events_total") == 10


async def test_an_entry_that_is_refused_is_not_retried_and_comes_again(broker: LocalBroker) -> None:
    ids = await broker.send("a", "b")
    broker.queue.fail_entries(DELETE, "ReceiptHandleIsInvalid", sender=True, ids=[ids[0]])
    with structlog.testing.capture_logs() as logs:
        async with opened(broker) as partition:
            await partition.settle(done=await collect(partition, 2))
            (again,) = await collect(partition, 1, within=40)  # SQS-31
            assert again.id == ids[0]
            assert len(broker.queue.of(DELETE)) == 1
            await partition.settle(done=[again])
    assert [log["error"] for log in logs if log["event"] == "delete_failed"] == ["ReceiptHandleIsInvalid"]
    assert broker.near.counted("deleted_events_total") == 2


@pytest.mark.parametrize("how", ["cut off", "not named", "throttled", "hanging"])
async def test_a_delete_without_a_good_answer_is_tried_again(broker: LocalBroker, how: str) -> None:
    ids = await broker.send(*map(str, range(10)))
    if how == "cut off":
        broker.queue.cut_off(DELETE, 2)
    elif how == "not named":
        broker.queue.fail_entries(DELETE, "", times=15)
    elif how == "throttled":
        broker.queue.refuse(DELETE, "ThrottlingException", "InternalFailure", "OverLimit")
    else:
        broker.queue.hang(DELETE)
    async with opened(broker) as partition:
        await partition.settle(done=await collect(partition, 10))
        if how == "hanging":
            await broker.queue.asked(DELETE, 2)
            broker.queue.allow(DELETE)
        await broker.queue.gone()
        await nothing_comes(partition, 60)
    assert sorted(broker.queue.deleted) == sorted(ids)
    assert len(broker.queue.of(DELETE)) >= 2


async def test_a_delete_is_not_tried_for_ever(broker: LocalBroker) -> None:
    await broker.send("a")
    broker.queue.refuse(DELETE, *["InternalFailure"] * 10_000)
    broker.queue.refuse(CHANGE, *["InternalFailure"] * 10_000)
    async with opened(broker) as partition:
        await partition.settle(done=await collect(partition, 1))
        await anyio.sleep(30 + LATE_DELETES + 10)
        tries = len(broker.queue.of(DELETE))
        await anyio.sleep(600)
        assert len(broker.queue.of(DELETE)) == tries
        broker.queue.allow(DELETE)
        broker.queue.allow(CHANGE)
        assert len(await finish(partition, 1)) == 1  # SQS-31


async def test_an_outage_longer_than_the_visibility_makes_nothing_run_twice(broker: LocalBroker) -> None:
    ids = await broker.send(*map(str, range(10)))
    async with opened(broker) as partition:
        records = await collect(partition, 10)
        for operation in (DELETE, CHANGE, "ReceiveMessage"):
            broker.queue.refuse(operation, *["ServiceUnavailable"] * 10_000)
        await partition.settle(done=records)
        await anyio.sleep(90)
        broker.queue.allow("ReceiveMessage")
        assert not (await partition.fetch(10, 20)).records  # they came again, and are kept back
        assert broker.queue.in_flight
        broker.queue.allow(DELETE)
        await broker.queue.gone()
    assert sorted(broker.queue.deleted) == sorted(ids)


async def test_what_the_function_deleted_itself_is_no_failure(broker: LocalBroker) -> None:
    ids = await broker.send("a", "b")
    async with opened(broker) as partition:
        records = await collect(partition, 2)
        handle = json.loads(records[0].json)["receiptHandle"]
        await broker.queue.handle(DELETE, {"Entries": [{"Id": "0", "ReceiptHandle": handle}]})
        await partition.settle(done=records)
        await nothing_comes(partition, 60)  # SQS-33
    assert sorted(broker.queue.deleted) == sorted(ids)


async def test_a_settle_cancelled_at_any_instant_is_carried_out(broker: LocalBroker) -> None:
    """Also while the outbox is full, which is the only time that it waits."""
    for steps in range(40):
        queue = FaultySqs(visibility=30)
        broker = LocalBroker(queue)
        await broker.send(*map(str, range(30)))
        async with opened(broker) as partition:
            partition._deletes._capacity = 5  # type: ignore[attr-defined]
            records = await collect(partition, 30)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_settle, partition, records)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            with anyio.move_on_after(5, shield=True):
                await partition.settle(unstarted=records)
        started = bool(queue.of(DELETE))
        assert started or steps == 0
        assert len(queue.deleted) == (20 if started else 0)
        assert len(queue.visible) == (0 if started else 30)
        assert len(queue.in_flight) == (10 if started else 0)


async def _settle(partition: Partition, records: list[Record]) -> None:
    await partition.settle(done=records[:20], failed=records[20:])


async def test_a_full_outbox_slows_settling_down_and_closing_is_bounded(broker: LocalBroker) -> None:
    await broker.send(*map(str, range(1500)))
    broker.queue.hang(DELETE)
    with structlog.testing.capture_logs() as logs:
        async with opened(broker) as partition:
            records = await collect(partition, 1500)
            await partition.settle(done=records[:1000])
            with anyio.move_on_after(3) as scope:
                await partition.settle(done=records[1000:])
            assert scope.cancelled_caught
            closing = anyio.current_time()
        assert anyio.current_time() - closing < 6
    assert [log["deletes"] for log in logs if log["event"] == "settles_cut_short"] == [1500]


async def test_the_runners_deletes_share_requests(broker: LocalBroker) -> None:
    await broker.send(*map(str, range(40)))
    async with opened(broker) as partition:
        records = await collect(partition, 40)
        async with anyio.create_task_group() as runners:
            for record in records:
                runners.start_soon(partial(partition.settle, done=[record]))
        await broker.queue.gone()
    assert len(broker.queue.of(DELETE)) <= 6  # one for the first, then tens


async def test_a_linger_lets_deletes_wait_for_others() -> None:
    for linger, requests in ((0.0, 8), (0.5, 2)):
        broker = LocalBroker(FaultySqs(visibility=300))
        await broker.send(*map(str, range(8)))
        async with opened(broker, delete_linger=linger) as partition:
            for record in await collect(partition, 8):
                await partition.settle(done=[record])
                await anyio.sleep(0.1)
            await broker.queue.gone()
        assert len(broker.queue.of(DELETE)) == requests


async def test_a_linger_takes_no_more_than_a_tenth_of_what_is_left() -> None:
    broker = LocalBroker(FaultySqs(visibility=3))
    await broker.send("a")
    async with opened(broker, delete_linger=60) as partition:
        records = await collect(partition, 1)
        asked = anyio.current_time()
        await partition.settle(done=records)
        await broker.queue.gone()
        assert 0 < anyio.current_time() - asked <= 0.3
