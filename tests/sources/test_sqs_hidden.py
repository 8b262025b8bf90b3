"""What SQS messages are held by: the visibility that receives ask for, and the heartbeat. The clock is owned."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import structlog.testing

from bridge.sources.outbox import LONGEST_DELAY
from tests.clock import SKIPPING
from tests.contracts.source import batch_of, collect, opened
from tests.sources.faulty_sqs import FaultySqs
from tests.sources.near import LocalBroker

pytestmark = pytest.mark.anyio
CHANGE = "ChangeMessageVisibilityBatch"
HOUR = 3600


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


def changes(queue: FaultySqs) -> list[int]:
    """The visibility timeouts that were asked for, entry by entry."""
    return [entry["VisibilityTimeout"] for call in queue.of(CHANGE) for entry in call.params["Entries"]]


# What receives ask for.


@pytest.mark.parametrize(
    ("visibility", "window", "timeout", "asked"),
    [
        (30, 0, 3, None),
        (30, 0, 900, None),  # no window: as the queue says
        (30, 20, 10, None),  # it just suffices
        (30, 20, 11, 61),
        (30, 300, 900, 1230),
        (0, 0, 3, 33),  # a queue that hides nothing
    ],
)
async def test_a_receive_asks_for_more_visibility_only_if_the_window_needs_it(
    visibility: int, window: int, timeout: float, asked: int | None
) -> None:
    broker = LocalBroker(FaultySqs(visibility=visibility), timeout=timeout)
    broker.queue.send("a")
    async with opened(broker, window=window) as partition:
        (record,) = await collect(partition, 1)
        left = record.held_until - anyio.current_time()
        await partition.settle(done=[record])
    (call,) = broker.queue.of("ReceiveMessage")
    assert call.params.get("VisibilityTimeout") == asked  # SQS-28
    assert left == pytest.approx(asked or visibility, abs=0.6)


async def test_receives_ask_for_everything_and_wait_as_long_as_they_may() -> None:
    broker = LocalBroker(FaultySqs())
    async with opened(broker) as partition:
        for limit, wait in ((1, 0), (10, 7), (10_000, 20), (5, 300)):
            await partition.fetch(limit, wait)
    receives = [call.params for call in broker.queue.of("ReceiveMessage")]
    waits = [(call["MaxNumberOfMessages"], call["WaitTimeSeconds"]) for call in receives]
    assert waits == [(1, 0), (10, 7), (10, 20), (5, 20)]  # SQS-2, SQS-4
    assert all(call["MessageAttributeNames"] == call["MessageSystemAttributeNames"] == ["All"] for call in receives)


# The heartbeat.


async def test_what_is_held_stays_hidden_for_hours_with_few_requests() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    for number in range(25):
        broker.queue.send(str(number))
    async with opened(broker) as partition:
        records = await collect(partition, 25)
        await anyio.sleep(HOUR)
        assert len(broker.queue.in_flight) == 25
        assert await partition.hold(batch_of(records)) == ()
        calls = broker.queue.of(CHANGE)
        assert {len(call.params["Entries"]) for call in calls} <= {10, 5}
        assert set(changes(broker.queue)) == {30}
        assert len(calls) <= 3 * (HOUR / 15)
        await partition.settle(done=records)
    assert len(broker.queue.deleted) == 25


async def test_a_visibility_of_a_second_is_enough() -> None:
    broker = LocalBroker(FaultySqs(visibility=1))
    broker.queue.send("a")
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        for _ in range(200):
            await anyio.sleep(0.3)
            assert broker.queue.in_flight
        await partition.settle(done=records)


async def test_nothing_held_means_no_request_and_no_timer() -> None:
    broker = LocalBroker(FaultySqs())
    async with opened(broker):
        before = len(broker.queue.calls)
        await anyio.sleep(24 * HOUR)
        assert len(broker.queue.calls) == before


async def test_what_is_settled_is_not_extended_any_more() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    ids = [broker.queue.send(str(number)) for number in range(3)]
    async with opened(broker) as partition:
        done, failed, kept = await collect(partition, 3)
        await anyio.sleep(25)
        await partition.settle(done=[done], failed=[failed])
        await anyio.sleep(20)
        assert broker.queue.visible == [ids[1]]
        assert broker.queue.in_flight == [ids[2]]
        await partition.settle(done=[kept])


async def test_failed_messages_come_again_when_they_would_have_without_a_heartbeat() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    message = broker.queue.send("a")
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        await anyio.sleep(25)
        assert broker.queue.hidden_for(message) > 15
        await partition.settle(failed=records)
        await broker.queue.asked(CHANGE, 2)
        await anyio.sleep(0.1)
        assert 4 < broker.queue.hidden_for(message) <= 6  # SQS-25, SQS-90
    assert changes(broker.queue) == [30, 6] or changes(broker.queue) == [30, 5]


async def test_a_failure_that_was_never_extended_needs_no_request() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    broker.queue.send("a")
    async with opened(broker) as partition:
        await partition.settle(failed=await collect(partition, 1))
        await anyio.sleep(29)
        assert broker.queue.in_flight
    assert not broker.queue.of(CHANGE)


async def test_a_failure_during_an_extension_still_comes_back_in_time() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    message = broker.queue.send("a")
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        broker.queue.cut_off(CHANGE)
        await broker.queue.asked(CHANGE)  # the extension is on its way
        await partition.settle(failed=records)
        await broker.queue.asked(CHANGE, 2)
        await anyio.sleep(0.1)
        assert broker.queue.hidden_for(message) < 16


async def test_it_is_never_hidden_for_longer_than_twelve_hours() -> None:
    broker = LocalBroker(FaultySqs(visibility=HOUR))
    broker.queue.send("a")
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        started = anyio.current_time()
        await anyio.sleep(11.9 * HOUR)
        assert broker.queue.in_flight
        assert await partition.hold(batch_of(records)) == ()
        await anyio.sleep(0.2 * HOUR)
        assert broker.queue.visible
        assert await partition.hold(batch_of(records)) == tuple(records)  # SQS-82
        ends = [call.at - started + call.params["Entries"][0]["VisibilityTimeout"] for call in broker.queue.of(CHANGE)]
        assert max(ends) <= 12 * HOUR
        assert max(ends) > 11.99 * HOUR
        assert len(ends) < 30


async def test_the_longest_visibility_is_never_extended() -> None:
    broker = LocalBroker(FaultySqs(visibility=43_200))
    broker.queue.send("a")
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        await anyio.sleep(11.9 * HOUR)
        assert await partition.hold(batch_of(records)) == ()
    assert not broker.queue.of(CHANGE)


async def test_an_entry_that_fails_is_extended_again_alone() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    ids = [broker.queue.send(str(number)) for number in range(3)]
    broker.queue.fail_entries(CHANGE, "InternalError", times=4, ids=[ids[1]])
    async with opened(broker) as partition:
        records = await collect(partition, 3)
        await anyio.sleep(31)
        assert len(broker.queue.in_flight) == 3
        assert await partition.hold(batch_of(records)) == ()
    sizes = [len(call.params["Entries"]) for call in broker.queue.of(CHANGE)]
    assert sizes[:5] == [3, 1, 1, 1, 1]


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalError", ""])
async def test_an_extension_is_tried_until_the_hidden_time_has_passed(code: str) -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    broker.queue.send("a")
    broker.queue.fail_entries(CHANGE, code, times=10_000)
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        started = anyio.current_time()
        await anyio.sleep(29)
        assert await partition.hold(batch_of(records)) == ()
        await anyio.sleep(1.1)
        assert await partition.hold(batch_of(records)) == tuple(records)
        await anyio.sleep(60)
        ended = broker.queue.of(CHANGE)[-1].at - started
        assert 30 - LONGEST_DELAY - 1 < ended <= 30  # the next one, 5 s later at the most, would have been too late


async def test_an_endpoint_that_hangs_is_asked_again_in_time() -> None:
    broker = LocalBroker(FaultySqs(visibility=60))
    broker.queue.send("a")
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        broker.queue.hang(CHANGE)
        await broker.queue.asked(CHANGE)
        await anyio.sleep(5)
        broker.queue.allow(CHANGE)
        await anyio.sleep(60)
        assert await partition.hold(batch_of(records)) == ()


async def test_a_stale_receipt_is_lost_and_its_settling_ignored() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    broker.queue.send("a")
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        broker.queue.steal(records[0].id)
        await anyio.sleep(25)
        assert await partition.hold(batch_of(records)) == tuple(records)
        await partition.settle(done=records)
    assert not broker.queue.of("DeleteMessageBatch")


async def test_a_stolen_message_that_comes_back_while_it_runs_is_ours_again() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    broker.queue.send("a")
    async with opened(broker) as partition:
        records = await collect(partition, 1)
        broker.queue.steal(records[0].id)
        await anyio.sleep(40)  # who stole it let it go; ours is stale, but our handler still runs
        assert not (await partition.fetch(10, 1)).records
        await partition.settle(done=records)
    assert broker.queue.deleted == [records[0].id]


async def test_without_the_permission_it_says_so_once_and_goes_on() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    ids = [broker.queue.send(str(number)) for number in range(3)]
    broker.queue.refuse(CHANGE, *["AccessDeniedException"] * 1000)
    with structlog.testing.capture_logs() as logs:
        async with opened(broker) as partition:
            records = await collect(partition, 3)
            await anyio.sleep(29)
            assert await partition.hold(batch_of(records)) == ()
            await partition.settle(done=records[:2])
            await broker.queue.gone(*ids[:2])
            await anyio.sleep(10)
            assert await partition.hold(batch_of(records[2:])) == (records[2],)
    assert [log["error"] for log in logs if log["event"] == "visibility_change_failed"] == ["AccessDeniedException"]
    assert len(broker.queue.of(CHANGE)) == 1


async def test_a_delete_that_is_not_confirmed_keeps_its_message_hidden() -> None:
    broker = LocalBroker(FaultySqs(visibility=30))
    message = broker.queue.send("a")
    async with opened(broker) as partition:
        broker.queue.refuse("DeleteMessageBatch", *["ThrottlingException"] * 10_000)
        await partition.settle(done=await collect(partition, 1))
        await anyio.sleep(300)
        assert broker.queue.in_flight == [message]
        broker.queue.allow("DeleteMessageBatch")
        await broker.queue.gone()
    assert broker.queue.deleted == [message]


async def test_messages_given_back_are_asked_for_in_tens_and_entry_by_entry() -> None:
    broker = LocalBroker(FaultySqs(visibility=600))
    ids = [broker.queue.send(str(number)) for number in range(25)]
    broker.queue.fail_entries(CHANGE, "InternalError", times=2, ids=[ids[3]])
    async with opened(broker) as partition:
        await partition.settle(unstarted=await collect(partition, 25))
        with anyio.fail_after(5):
            while len(broker.queue.visible) < 25:
                await anyio.sleep(0.05)
    sizes = [len(call.params["Entries"]) for call in broker.queue.of(CHANGE)]
    assert sorted(sizes) == [1, 1, 5, 10, 10]
    assert set(changes(broker.queue)) == {0}
