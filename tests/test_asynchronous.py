"""Asynchronous invocations from acceptance to their end, under a clock that the tests own."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import anyio
import pytest

from bridge.errors import StateError
from bridge.event import Event, Waiting
from bridge.function import EventInvoke
from bridge.stores import StateUrl
from bridge.stores.memory import MemoryStore
from tests.callers import OBSERVER, callers, observed
from tests.clock import SKIPPING, owned_wall
from tests.world import NotRun, function

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


def fail(event: Any) -> Any:
    raise ValueError("not today")


async def test_an_event_is_invoked_with_the_id_its_caller_was_given() -> None:  # ASY-1, ASY-2
    async with callers() as it:
        worker = it.serve(lambda event: {"got": event})
        request_id = await it.call({"n": 1})
        await it.finished()
        (call,) = worker.calls
        assert call.event == {"n": 1}
        assert call.invocation.request_id == request_id
        assert it.counted("async_events_received_total") == 1
        assert it.counted("async_event_age_seconds_count") == 1


async def test_defaults_three_attempts_then_a_report() -> None:  # ASY-30, ASY-4
    async with callers() as it:
        worker = it.serve(fail, **observed())
        request_id = await it.call({"n": 1})
        await it.finished()
        assert worker.times == [0, 60, 180]
        assert {call.invocation.request_id for call in worker.calls} == {request_id}
        (report,) = it.reports
        context = report["requestContext"]
        assert (context["condition"], context["approximateInvokeCount"]) == ("RetriesExhausted", 3)
        assert context["requestId"] == request_id
        assert context["functionArn"] == f"{worker.function.arn}:$LATEST"
        assert report["requestPayload"] == {"n": 1}
        assert report["responsePayload"] == {"errorMessage": "not today", "errorType": "ValueError"}
        assert it.counted("async_events_dropped_total", reason="RetriesExhausted") == 1
        assert it.counted("async_event_age_seconds_count") == 3


async def test_no_retries_one_attempt() -> None:  # ASY-31
    async with callers() as it:
        worker = it.serve(fail, **observed(retries=0))
        await it.call()
        await it.finished()
        assert worker.times == [0]
        assert it.reports[0]["requestContext"]["condition"] == "RetriesExhausted"  # ASY-8
        assert it.reports[0]["requestContext"]["approximateInvokeCount"] == 1


@pytest.mark.parametrize(("age", "attempts"), [(60, 1), (90, 2)])
async def test_age_is_checked_ahead(age: float, attempts: int) -> None:  # ASY-32, ASY-7
    async with callers() as it:
        worker = it.serve(fail, **observed(max_age=float(age)))
        await it.call()
        await it.finished()
        assert len(worker.calls) == attempts
        context = it.reports[0]["requestContext"]
        assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", attempts)
        assert worker.times[-1] == 60 * (attempts - 1)


async def test_reserved_concurrency_zero_is_accepted_and_never_run() -> None:  # ASY-33, ASY-9, DST-7
    async with callers() as it:
        worker = it.serve(fail, reserved_concurrency=0, **observed())
        await it.call({"n": 1})
        await it.finished()
        assert not worker.calls
        (report,) = it.reports
        assert report["requestContext"]["condition"] == "ZeroReservedConcurrency"
        assert report["requestContext"]["approximateInvokeCount"] == 0
        assert "responseContext" not in report
        assert "responsePayload" not in report
        assert it.counted("throttles_total") == 1


async def test_a_busy_function_gets_its_events_later() -> None:  # ASY-34
    async with callers() as it:
        running = 0
        most = 0

        async def slow(event: Any) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await anyio.sleep(2)
            running -= 1

        worker = it.serve(slow, reserved_concurrency=1, **observed())
        for number in range(5):
            await it.call(number)
        await it.finished()
        assert sorted(call.event for call in worker.calls) == [0, 1, 2, 3, 4]
        assert most == 1
        assert {report["requestContext"]["condition"] for report in it.reports} == {"Success"}
        assert {report["requestContext"]["approximateInvokeCount"] for report in it.reports} == {1}


async def test_success_after_a_retry_is_reported_once() -> None:  # DST-2
    async with callers() as it:
        tries = 0

        def second_time(event: Any) -> Any:
            nonlocal tries
            tries += 1
            return {"fine": True} if tries == 2 else fail(event)

        it.serve(second_time, **observed())
        await it.call({"n": 1})
        await it.finished()
        (report,) = it.reports
        assert report["requestContext"]["approximateInvokeCount"] == 2
        assert list(report) == [
            "version", "timestamp", "requestContext", "requestPayload", "responseContext", "responsePayload",
        ]  # fmt: skip
        assert report["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
        assert report["responsePayload"] == {"fine": True}


async def test_throttles_use_up_no_attempt_and_back_off() -> None:  # ASY-5
    async with callers() as it:
        at: list[float] = []

        def handler(event: Any) -> None:
            at.append(anyio.current_time())
            if len(at) <= 11:
                raise NotRun("throttled" if len(at) % 2 else "unreachable")
            fail(event)

        worker = it.serve(handler, **observed(retries=0))
        await it.call()
        await it.finished()
        delays = [round(later - earlier) for earlier, later in pairwise(at)]
        assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        assert len(worker.calls) == 1
        assert it.reports[0]["requestContext"]["approximateInvokeCount"] == 1


async def test_a_throttled_event_ends_with_its_age() -> None:  # ASY-5, ASY-6
    async with callers() as it:

        def throttled(event: Any) -> None:
            raise NotRun("throttled")

        it.serve(throttled, **observed(max_age=60.0))
        began = anyio.current_time()
        await it.call()
        await it.finished()
        assert anyio.current_time() - began < 60
        context = it.reports[0]["requestContext"]
        assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 0)


async def test_an_event_that_waited_too_long_is_not_run() -> None:  # ASY-6
    async with callers() as it:
        await it.call(name="late")
        await anyio.sleep(100)
        late = it.serve(fail, "late", **observed(max_age=60.0))
        await it.invocations.start()
        await it.finished()
        assert not late.calls
        assert it.reports[0]["requestContext"]["condition"] == "EventAgeExceeded"


async def test_many_failures_slow_nothing_down() -> None:  # ASY-4
    async with callers() as it:
        worker = it.serve(fail, max_environments=50, **observed())
        for number in range(40):
            await it.call(number)
        await it.finished()
        assert worker.times.count(0) == 40
        assert sorted(set(worker.times)) == [0, 60, 180]


async def test_settings_are_those_of_the_qualifier() -> None:  # ASY-20
    async with callers() as it:
        worker = it.serve(fail, **observed(retries=0))
        it.invocations.configure("worker", "prod", EventInvoke(retries=1, on_failure=OBSERVER))
        await it.call(qualifier="prod")
        await it.finished()
        assert worker.times == [0, 60]
        assert worker.calls[0].invocation.qualifier == "prod"
        assert it.reports[0]["requestContext"]["functionArn"].endswith(":prod")
        await it.call(qualifier="3")  # has no settings: AWS's defaults, no destination (ASY-10)
        await it.finished()
        assert len(worker.calls) == 2 + 3
        assert len(it.reports) == 1
        it.invocations.configure("worker", "$LATEST", EventInvoke(retries=1))
        await it.call()
        await it.finished()
        it.invocations.configure("worker", "$LATEST", None)
        await it.call()
        await it.finished()
        assert len(worker.calls) == 5 + 2 + 1


async def test_an_event_is_reported_before_it_is_settled() -> None:
    """A store that stops working: the event is told of again rather than never."""

    class Moody(MemoryStore):
        refuses = 0

        async def change_events(self, added: Any = (), moved: Any = (), done: Any = ()) -> None:
            if done and self.refuses:
                self.refuses -= 1
                raise StateError("its disk is full")
            await super().change_events(added, moved, done)

    store = Moody(StateUrl.parse("memory:"))
    async with callers(store) as it:
        worker = it.serve(lambda event: None, **observed())
        store.refuses = 2
        await it.call()
        await it.finished()
        assert 2 <= len(worker.calls) <= 3
        assert len(it.reports) >= 2


async def test_what_cannot_be_written_is_not_accepted() -> None:  # ASY-1
    class Full(MemoryStore):
        async def change_events(self, added: Any = (), moved: Any = (), done: Any = ()) -> None:
            raise StateError("its disk is full")

    async with callers(Full(StateUrl.parse("memory:"))) as it:
        worker = it.serve(lambda event: None)
        with pytest.raises(StateError, match="disk is full"):
            await it.call()
        assert it.invocations.total == 0
        await anyio.sleep(30)
        assert not worker.calls


async def test_functions_that_call_each_other_are_stopped() -> None:  # INV-40, INV-41
    async with callers() as it:
        loop = EventInvoke(on_success=function("pong").arn, on_failure=OBSERVER)
        ping = it.serve(lambda event: None, "ping", event_invoke=loop)
        pong = it.serve(lambda event: None, "pong", event_invoke=EventInvoke(on_success=function("ping").arn))
        await it.call(name="ping")
        await it.finished()
        assert len(ping.calls) == len(pong.calls) == 16
        assert it.counted("recursive_dropped_total", "ping") == 1
        # The observer is a function: it is not told, lest it goes on from there.
        assert not it.reports
        condition = "RecursiveInvocationTerminated"
        assert it.counted("destination_delivery_failures_total", "ping", condition=condition) == 1
        traces = {call.invocation.trace_id.partition(";")[0] for call in (*ping.calls, *pong.calls)}
        assert len(traces) == 1


async def test_ten_thousand_waiting_events_cost_no_task() -> None:
    async with callers() as it:
        worker = it.serve(fail, max_environments=100, **observed(on_failure="", on_success=""))
        async with anyio.create_task_group() as tasks:
            for number in range(10_000):
                tasks.start_soon(it.call, number)
        await it.until(lambda: len(worker.calls) >= 10_000)
        await anyio.sleep(20)  # the runners that are not needed have gone
        assert it.invocations.total == 10_000
        assert len(asyncio.all_tasks()) < 130


class TestRestart:
    """What a new process finds in the store."""

    async def test_due_times_and_attempts_survive(self) -> None:  # ASY-4
        store = MemoryStore(StateUrl.parse("memory:"))
        async with callers(store) as it:
            first = it.serve(fail, **observed())
            await it.call({"n": 1})
            await it.until(lambda: len(first.calls) == 1)
            await anyio.sleep(10)
        async with callers(store) as it:
            began = anyio.current_time()
            second = it.serve(fail, **observed())
            await it.finished()
            assert round(second.calls[0].at - began) == 50
            assert second.times == [0, 120]
            assert it.reports[0]["requestContext"]["approximateInvokeCount"] == 3

    async def test_what_ran_runs_again(self) -> None:  # ASY-3
        store = MemoryStore(StateUrl.parse("memory:"))

        async def forever(event: Any) -> None:
            started.set()
            await anyio.sleep_forever()

        started = anyio.Event()
        async with callers(store) as it:
            it.serve(forever)
            await it.call({"n": 1})
            await started.wait()
        async with callers(store) as it:
            worker = it.serve(lambda event: None)
            await it.finished()
            assert [call.event for call in worker.calls] == [{"n": 1}]

    async def test_events_of_a_function_that_is_gone_wait_for_it(self) -> None:
        store = MemoryStore(StateUrl.parse("memory:"))
        await store.change_events(added=[Event("id", "worker", b"{}", 0.0, 0.0)])
        async with callers(store) as it:
            await anyio.sleep(60)
            assert await store.waiting_events() == [Waiting("id", "worker", 2, 0.0, 0.0)]
            worker = it.serve(lambda event: None, **observed())
            await it.invocations.start()
            await it.finished()
            assert not worker.calls  # it is older than 6 hours
            assert it.reports[0]["requestContext"]["condition"] == "EventAgeExceeded"


INSTANTS = [0.0, 0.001, *(number * 0.7 for number in range(1, 40)), 59.9, 60.5, 75.0, 179.5, 200.0]


@pytest.mark.parametrize("instant", INSTANTS)
@pytest.mark.parametrize("gently", [True, False])
async def test_stopped_at_any_instant_nothing_is_lost(instant: float, gently: bool) -> None:
    """Drained or cancelled: each event is reported, or still in the store."""
    store = MemoryStore(StateUrl.parse("memory:"))
    calls = 0

    async def moody(event: int) -> Any:
        nonlocal calls
        calls += 1
        call = calls
        if call % 5 == 0:
            raise NotRun
        await anyio.sleep(0.3 * (call % 7))
        if call % 3 == 0:
            raise ValueError
        return event

    ended: set[int] = set()
    async with callers(store) as it:
        it.serve(moody, max_environments=4, **observed())
        it.observer.handler = lambda report: ended.add(report["requestPayload"])
        for number in range(60):
            await it.call(number)
        await anyio.sleep(instant)
        if gently:
            with anyio.fail_after(5):
                await it.invocations.drain()
    left = [await store.event(waiting.request_id) for waiting in await store.waiting_events()]
    for event in left:
        assert event
        ended.add(int(event.payload) if event.function == "worker" else report_of(event))
    assert ended == set(range(60))


def report_of(event: Event) -> int:
    return int(json.loads(event.payload)["requestPayload"])
