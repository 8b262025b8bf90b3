"""Opening an SQS queue and receiving from it while either goes wrong. The clock is owned."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog.testing

from bridge.errors import AccessDenied, NotFound, Rejected
from tests.clock import SKIPPING
from tests.contracts.source import bodies, collect, finish, nothing_comes, opened
from tests.sources.faulty_sqs import FaultySqs
from tests.sources.near import LocalBroker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


@pytest.fixture
def broker() -> LocalBroker:
    return LocalBroker(FaultySqs(visibility=30))


# Receiving.


@pytest.mark.parametrize("code", ["ThrottlingException", "OverLimit", "InternalFailure", "ExpiredToken"])
async def test_passing_faults_are_waited_out_and_told(broker: LocalBroker, code: str) -> None:
    async with opened(broker) as partition:
        broker.queue.refuse("ReceiveMessage", *[code] * 12)
        await broker.send("a")
        (record,) = await collect(partition, 1, within=300)
        await partition.settle(done=[record])
    tries = [call.at for call in broker.queue.of("ReceiveMessage")]
    assert len(tries) == 13
    assert tries[-1] - tries[0] > 5  # the delays grow
    assert broker.near.told[-1] is None
    assert all(line and code in line for line in broker.near.told[:-1])
    assert broker.near.counted("polls_total", result="error") == 12
    assert broker.near.counted("poll_errors_total", error=code) == 12


async def test_a_fault_now_and_then_is_no_news(broker: LocalBroker) -> None:
    async with opened(broker) as partition:
        for _ in range(20):
            broker.queue.refuse("ReceiveMessage", "ThrottlingException")
            assert (await partition.fetch(10, 5)).answered
    assert broker.near.told == []


async def test_a_receive_that_hangs_is_news_as_soon_as_it_is_overdue(broker: LocalBroker) -> None:
    async with opened(broker) as partition:
        broker.queue.hang("ReceiveMessage")
        started = anyio.current_time()
        assert not (await partition.fetch(10, 20)).answered
        assert anyio.current_time() - started == pytest.approx(30, abs=0.5)  # a deadline of our own around every call
    assert len(broker.near.told) == 1


async def test_a_fetch_in_trouble_ends_with_its_wait_and_says_that_nobody_answered(broker: LocalBroker) -> None:
    async with opened(broker) as partition:
        broker.queue.refuse("ReceiveMessage", *["ThrottlingException"] * 10_000)
        for wait, least in ((3, 3), (0, 19)):
            started = anyio.current_time()
            page = await partition.fetch(10, wait)
            assert (page.records, page.answered) == ((), False)
            assert least <= anyio.current_time() - started <= (wait or 20) + 0.1


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", AccessDenied), ("InvalidAddress", NotFound)])
async def test_lasting_faults_are_raised_by_fetch(broker: LocalBroker, code: str, kind: type[Exception]) -> None:
    async with opened(broker) as partition:
        broker.queue.refuse("ReceiveMessage", code)
        with pytest.raises(kind):
            await partition.fetch(10, 20)


async def test_an_answer_that_was_cut_off_comes_again(broker: LocalBroker) -> None:
    await broker.send("a")
    broker.queue.cut_off("ReceiveMessage")
    async with opened(broker) as partition:
        (record,) = await collect(partition, 1, within=60)
        assert record.deliveries == 2


async def test_a_damaged_body_is_left_alone(broker: LocalBroker) -> None:
    damaged = broker.queue.send("a", None, MD5OfBody="0" * 32)
    await broker.send("b")
    with structlog.testing.capture_logs() as logs:
        async with opened(broker) as partition:
            assert bodies(await finish(partition, 1)) == ["b"]
            await broker.queue.gone("id-2")
            assert broker.queue.in_flight == [damaged]
            await nothing_comes(partition, 40)
    assert [log["error"] for log in logs if log["event"] == "message_damaged"] == ["MD5Mismatch"]
    assert broker.near.counted("poll_errors_total", error="MD5Mismatch") >= 2
    assert broker.queue.deleted == ["id-2"]


@pytest.mark.parametrize(
    "member", [{"Body": "\ud800"}, {"Attributes": {"SentTimestamp": "soon"}}, {"MessageAttributes": {"a": {}}}]
)
async def test_a_message_that_cannot_be_read_stops_nobody(broker: LocalBroker, member: dict[str, Any]) -> None:
    broker.queue.send("a", None, **member)
    await broker.send("b")
    async with opened(broker) as partition:
        assert bodies(await finish(partition, 1)) == ["b"]
    assert broker.near.counted("poll_errors_total", error="Unreadable") == 1


async def test_more_than_was_asked_for_is_given_back(broker: LocalBroker) -> None:
    await broker.send(*map(str, range(10)))
    broker.queue.generous = True
    async with opened(broker) as partition:
        page = await partition.fetch(4, 5)
        assert len(page.records) == 4
        broker.queue.generous = False
        rest = await collect(partition, 6, within=5)
        assert not {record.id for record in page.records} & {record.id for record in rest}


# Opening.


async def test_opening_asks_for_the_queue_of_the_account_and_all_its_attributes(broker: LocalBroker) -> None:
    async with broker.source():
        asked = [(call.operation, call.params) for call in broker.queue.calls]
    assert asked[0] == ("GetQueueUrl", {"QueueName": "orders", "QueueOwnerAWSAccountId": "123456789012"})
    assert asked[1][0] == "GetQueueAttributes"
    assert len(asked) == 2


async def test_opening_waits_out_passing_faults(broker: LocalBroker) -> None:
    broker.queue.refuse("GetQueueUrl", *["ServiceUnavailable"] * 5)
    broker.queue.refuse("GetQueueAttributes", *["ThrottlingException"] * 5)
    async with broker.source():
        assert [line is None for line in broker.near.told] == [False, True, False, True]


@pytest.mark.parametrize(("code", "kind"), [("AccessDeniedException", AccessDenied), ("InvalidParameter", Rejected)])
async def test_opening_raises_what_does_not_pass(broker: LocalBroker, code: str, kind: type[Exception]) -> None:
    broker.queue.refuse("GetQueueAttributes", code)
    with pytest.raises(kind):
        async with broker.source():
            pytest.fail("it opened")


@pytest.mark.parametrize(
    ("settings", "timeout", "advised"),
    [
        ({"RedrivePolicy": "{}"}, 3, []),
        ({}, 3, ["no redrive policy"]),
        ({"RedrivePolicy": "{}"}, 31, ["visibility timeout 30 s"]),
    ],
)
async def test_opening_advises(settings: dict[str, str], timeout: float, advised: list[str]) -> None:
    broker = LocalBroker(FaultySqs(visibility=30, attributes=settings), timeout=timeout)
    with structlog.testing.capture_logs() as logs:
        async with broker.source():
            pass
    details = [log["detail"] for log in logs if log["event"] == "queue_advice"]
    assert len(details) == len(advised)
    assert all(text in detail for text, detail in zip(advised, details, strict=True))  # SQS-37, SQS-26


async def test_opening_can_be_cancelled_at_any_instant() -> None:
    opened_at_all = 0
    for steps in range(30):
        broker = LocalBroker(FaultySqs())
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_after, scope, steps)
                async with broker.source():
                    opened_at_all += 1
                    await anyio.sleep_forever()
        assert scope.cancelled_caught
    assert 0 < opened_at_all < 30


async def _cancel_after(scope: anyio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await anyio.lowlevel.checkpoint()
    scope.cancel()
