"""The straight path of a record, under a clock that the tests own."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from bridge.sources.memory import MemoryQueue
from tests.clock import SKIPPING
from tests.world import Event, NotRun, function, mapping, world

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


def put(queue: MemoryQueue, *bodies: str, group: str | None = None) -> list[str]:
    return [queue.put(body, group) for body in bodies]


def fine(event: Event) -> None:
    """A handler with nothing to say."""


async def test_records_are_batched_invoked_and_deleted() -> None:  # SQS-1, SQS-70
    queue = MemoryQueue("q")
    async with world() as w:
        executor = w.serve(fine)
        put(queue, *(f"m{n}" for n in range(25)))
        await w.add(mapping(queue))
        await queue.settled_all()
        assert sorted(body for batch in executor.bodies for body in batch) == sorted(f"m{n}" for n in range(25))
        assert max(map(len, executor.bodies)) <= 10
        assert len(queue.deliveries) == 25


async def test_a_window_collects_what_comes_within_it() -> None:  # SQS-14
    queue = MemoryQueue("q", visibility=60)
    async with world() as w:
        executor = w.serve(fine)
        await w.add(mapping(queue, batch_size=100, window=5.0))
        await anyio.sleep(33)  # a receive is parked
        opened = anyio.current_time()
        put(queue, "a")
        await anyio.sleep(2.5)
        put(queue, "b")
        await anyio.sleep(2.2)
        put(queue, "c")
        await w.until(lambda: bool(executor.events))
        assert anyio.current_time() - opened == pytest.approx(5.0, abs=0.11)
        assert executor.bodies == [["a", "b"]]  # `c` came in the last second, when no poll is started any more
        await queue.settled_all()
        assert executor.bodies[1:] == [["c"]]


async def test_a_full_batch_does_not_wait_for_its_window() -> None:  # SQS-14
    queue = MemoryQueue("q")
    async with world() as w:
        executor = w.serve(fine)
        await w.add(mapping(queue, batch_size=10, window=300.0))
        await anyio.sleep(40)
        before = anyio.current_time()
        put(queue, *(f"m{n}" for n in range(10)))
        await queue.settled_all()
        assert anyio.current_time() - before < 1
        assert len(executor.events) == 1


async def test_batches_above_ten_are_put_together_from_several_receives() -> None:  # SQS-2, SQS-10
    queue = MemoryQueue("q")
    async with world() as w:
        executor = w.serve(fine)
        put(queue, *(f"m{n}" for n in range(1000)))
        await w.add(mapping(queue, batch_size=1000, window=10.0))
        await queue.settled_all()
        assert max(map(len, executor.bodies)) > 10
        assert sum(map(len, executor.bodies)) == 1000


async def test_what_the_filter_removes_is_deleted_and_counted() -> None:  # SQS-65, SQS-66, SQS-96
    queue = MemoryQueue("q")
    async with world() as w:
        executor = w.serve(fine)
        put(queue, '{"kind": "order"}', '{"kind": "other"}', "plain text")
        await w.add(mapping(queue, patterns=('{"body": {"kind": ["order"]}}',)))
        await queue.settled_all()
        assert executor.bodies == [['{"kind": "order"}']]  # FLT-33: byte for byte
        view = w.view("q")
        assert (view.polled, view.filtered, view.succeeded) == (3, 2, 1)
        assert len(view.filtered_ids) == 2


@pytest.mark.parametrize(("pattern", "rate"), [("none", 0), ("all", 100), ("some", None)])
async def test_a_filter_that_removes_all_or_nothing_is_warned_about_once(pattern: str, rate: int | None) -> None:
    patterns = {
        "none": '{"body": {"n": [-1]}}',
        "all": '{"body": {"n": [{"exists": true}]}}',
        "some": '{"body": {"n": [7]}}',
    }
    queue = MemoryQueue("q")
    with capture_logs() as lines:
        async with world() as w:
            w.serve(fine)
            put(queue, *(f'{{"n": {n}}}' for n in range(2500)))
            await w.add(mapping(queue, patterns=(patterns[pattern],)))
            await queue.settled_all()
    warnings = [line for line in lines if line["event"] == "filter_match_rate"]
    assert [line["rate"] for line in warnings] == ([] if rate is None else [rate])
    assert all(1000 <= line["records"] < 1020 and line["mapping"] == "q" for line in warnings)


async def test_a_failed_batch_comes_back_when_its_visibility_is_over() -> None:  # SQS-32, SQS-90
    queue = MemoryQueue("q", visibility=30)
    times: list[float] = []
    counts: list[str] = []

    def handler(event: Event) -> None:
        times.append(anyio.current_time())
        counts.append(event["Records"][0]["attributes"]["ApproximateReceiveCount"])
        if len(times) == 1:
            raise ValueError("not today")

    async with world() as w:
        w.serve(handler)
        put(queue, "a")
        await w.add(mapping(queue))
        await queue.settled_all()
        assert counts == ["1", "2"]
        assert times[1] - times[0] >= 29.99  # the visibility counts from the receive, a moment before
        (failure,) = w.view("q").failures
        assert (failure.what, failure.message) == ("ValueError", "not today")


async def test_a_poison_message_is_left_to_the_redrive_policy() -> None:  # SQS-37, SQS-91
    queue = MemoryQueue("q", visibility=5, max_receives=2)

    def handler(event: Event) -> None:
        raise RuntimeError

    async with world() as w:
        executor = w.serve(handler)
        (name,) = put(queue, "a")
        await w.add(mapping(queue))
        await queue.settled_all()
        assert queue.dead == [name]
        assert len(executor.events) == 2


async def test_partial_failures_delete_the_rest() -> None:  # SQS-40, SQS-92
    queue = MemoryQueue("q", visibility=5, fifo=True, max_receives=2)
    answers = [["2", "3", "4"], ["4"]]

    def handler(event: Event) -> Any:
        failing = answers.pop(0)
        return {
            "batchItemFailures": [
                {"itemIdentifier": record["messageId"]} for record in event["Records"] if record["body"] in failing
            ]
        }

    async with world() as w:
        executor = w.serve(handler)
        names = put(queue, "1", "2", "3", "4", group="g")
        await w.add(mapping(queue, partial=True))
        await queue.settled_all()
        assert executor.bodies == [["1", "2", "3", "4"], ["2", "3", "4"]]
        assert queue.dead == [names[3]]
        assert queue.deleted == names[:3]


async def test_a_throttled_batch_is_retried_until_its_visibility_is_over() -> None:  # SQS-35
    queue = MemoryQueue("q", visibility=30)
    tries: list[float] = []

    def handler(event: Event) -> None:
        tries.append(anyio.current_time())
        if anyio.current_time() - tries[0] < 30:
            raise NotRun("throttled")

    async with world() as w:
        executor = w.serve(handler)
        put(queue, "a")
        await w.add(mapping(queue))
        await queue.settled_all()
        assert len(tries) > 3
        assert len(executor.events) == 1  # what was throttled is no invocation
        assert len(queue.deliveries) == 2  # given up once, came back by itself


async def test_reserved_concurrency_zero_receives_nothing() -> None:  # RT-61
    queue = MemoryQueue("q")
    async with world() as w:
        w.serve(fine, function(reserved_concurrency=0))
        put(queue, "a")
        await w.add(mapping(queue))
        await anyio.sleep(300)
        assert queue.deliveries == []
        gate = w.view("q").gate
        assert gate
        assert gate.name == "throttled"


async def test_records_stay_hidden_while_their_batch_waits_for_a_slot() -> None:  # SQS-29
    queue = MemoryQueue("q", visibility=5)

    async def handler(event: Event) -> None:
        await anyio.sleep(60)

    async with world() as w:
        w.serve(handler, function(max_environments=1, timeout=100.0))
        put(queue, *(f"m{n}" for n in range(30)))
        await w.add(mapping(queue))
        await queue.settled_all()
        assert Counter(queue.deliveries).most_common(1)[0][1] == 1


async def test_at_most_one_received_batch_waits_for_a_slot() -> None:
    queue = MemoryQueue("q")

    async def handler(event: Event) -> None:
        assert len(queue.in_flight) <= 20  # one runs, one waits
        await anyio.sleep(3)

    async with world() as w:
        executor = w.serve(handler, function(max_environments=1, timeout=100.0))
        put(queue, *(f"m{n}" for n in range(200)))
        await w.add(mapping(queue))
        await queue.settled_all()
        assert executor.most == 1


async def test_maximum_concurrency_holds() -> None:  # SQS-16
    queue = MemoryQueue("q")

    async def handler(event: Event) -> None:
        await anyio.sleep(1)

    async with world() as w:
        executor = w.serve(handler, function(max_environments=50))
        put(queue, *(f"m{n}" for n in range(400)))
        await w.add(mapping(queue, maximum_concurrency=3))
        await queue.settled_all()
        assert executor.most == 3


async def test_without_a_maximum_the_concurrency_grows_to_the_functions() -> None:  # SQS-15, SQS-19
    queue = MemoryQueue("q")

    async def handler(event: Event) -> None:
        await anyio.sleep(1)

    async with world() as w:
        executor = w.serve(handler, function(max_environments=12))
        put(queue, *(f"m{n}" for n in range(1000)))
        await w.add(mapping(queue))
        await queue.settled_all()
        assert executor.most == 12


async def test_two_mappings_share_one_slot_fairly() -> None:
    queues = [MemoryQueue("a"), MemoryQueue("b")]
    order: list[str] = []

    async def handler(event: Event) -> None:
        order.append(event["Records"][0]["body"])
        await anyio.sleep(0.5)

    async with world() as w:
        w.serve(handler, function(max_environments=1))
        for queue in queues:
            put(queue, *(queue.name for _ in range(200)))
            await w.add(mapping(queue))
        for queue in queues:
            await queue.settled_all()
        assert Counter(order[:30]) == {"a": 15, "b": 15}


async def test_ten_idle_mappings_do_not_starve_an_eleventh() -> None:
    idle = [MemoryQueue(f"idle{n}") for n in range(10)]
    queue = MemoryQueue("busy")
    async with world() as w:
        executor = w.serve(lambda event: anyio.sleep(0.1), function(max_environments=4))
        for other in idle:
            await w.add(mapping(other))
        await anyio.sleep(60)
        await w.add(mapping(queue))
        put(queue, *(f"m{n}" for n in range(200)))
        with anyio.fail_after(5):
            await queue.settled_all()
        assert executor.most == 4


async def test_a_slow_function_does_not_delay_another_mapping() -> None:
    slow, quick = MemoryQueue("slow"), MemoryQueue("quick")
    async with world() as w:
        w.serve(lambda event: anyio.sleep(800), function("slow", timeout=900.0, max_environments=1))
        w.serve(fine, function("quick"))
        put(slow, *(f"m{n}" for n in range(50)))
        await w.add(mapping(slow, function="slow"))
        await w.add(mapping(quick, function="quick"))
        await anyio.sleep(30)
        for _ in range(20):
            before = anyio.current_time()
            put(quick, "x")
            await quick.settled_all()
            assert anyio.current_time() - before < 0.1


async def test_a_failing_function_is_slowed_down_probed_and_recovers() -> None:  # users.md 3.13
    queue = MemoryQueue("q", visibility=1)
    broken = True

    def handler(event: Event) -> None:
        if broken:
            raise OSError("the database is down")

    async with world() as w:
        executor = w.serve(handler)
        put(queue, *(f"m{n}" for n in range(10)))
        await w.add(mapping(queue))
        await anyio.sleep(600)
        assert len(executor.events) < 40  # without the gate: about 600
        gate = w.view("q").gate
        assert gate
        assert gate.name == "failing"
        broken = False
        with anyio.fail_after(61):
            await queue.settled_all()


async def test_the_buffer_is_a_gate_of_its_own() -> None:
    queue = MemoryQueue("q")
    async with world(buffer=3000) as w:
        w.serve(lambda event: anyio.sleep(10), function(max_environments=100, timeout=20.0))
        put(queue, *("x" * 500 for n in range(100)))
        await w.add(mapping(queue, batch_size=2))
        await w.until(lambda: w.buffer.full)
        # Each runner may have one receive under way when the limit is reached, not more.
        assert w.buffer.held < 3000 + 6 * 2 * 900
        await w.until(lambda: any(runner.gate.name == "buffer" for runner in w.view("q").runners))
        await queue.settled_all()
        assert w.buffer.held == 0


async def test_a_poll_error_restarts_the_mapping_with_back_off_and_says_why() -> None:
    from bridge.errors import NotFound

    queue = MemoryQueue("q")
    async with world() as w:
        w.serve(fine)
        queue.fail(NotFound("the queue q does not exist"))
        await w.add(mapping(queue))
        await anyio.sleep(100)
        view = w.view("q")
        assert view.gate
        assert (view.ready, view.gate.detail.partition(";")[0]) == (False, "the queue q does not exist")
        queue.fail(None)
        put(queue, "a")
        await queue.settled_all()
        assert w.view("q").ready


async def test_a_crash_in_one_mapping_leaves_the_others_alone() -> None:
    good, bad = MemoryQueue("good"), MemoryQueue("bad")

    async with world() as w:
        executor = w.serve(fine)
        await w.add(mapping(good))
        await w.add(mapping(bad))
        await anyio.sleep(1)
        bad.fail(ZeroDivisionError("a bug of ours"))  # type: ignore[arg-type]
        await anyio.sleep(50)
        put(good, "a")
        await good.settled_all()
        assert executor.bodies == [["a"]]
        gate = w.view("bad").gate
        assert gate
        assert "a bug of ours" in gate.detail
        bad.fail(None)
        put(bad, "b")
        await bad.settled_all()


async def test_the_end_of_a_partition_flushes_and_finishes_it() -> None:
    queue = MemoryQueue("q")
    async with world() as w:
        executor = w.serve(fine)
        await w.add(mapping(queue, batch_size=100, window=300.0))
        await anyio.sleep(1)
        put(queue, "a", "b")
        await anyio.sleep(1)
        queue.end()
        await w.until(lambda: queue.finished, within=10)
        assert executor.bodies == [["a", "b"]]
        assert queue.deleted == ["message-1", "message-2"]


async def test_what_was_lost_meanwhile_is_neither_invoked_nor_settled() -> None:  # SQS-82
    queue = MemoryQueue("q", visibility=1000)
    async with world() as w:
        executor = w.serve(fine)
        await w.add(mapping(queue, batch_size=10, window=20.0))
        await anyio.sleep(1)
        names = put(queue, "a", "b")
        await anyio.sleep(10)
        queue.steal(names[0])
        await w.until(lambda: bool(executor.events), within=60)
        assert executor.bodies == [["b"]]
        assert queue.deleted == [names[1]]


async def test_metrics_agree_with_each_other() -> None:  # MET-11, MET-13
    queue = MemoryQueue("q", visibility=2, max_receives=3)

    def handler(event: Event) -> Any:
        bodies = [json.loads(record["body"])["n"] for record in event["Records"]]
        if 13 in bodies:
            raise ValueError
        return {
            "batchItemFailures": [
                {"itemIdentifier": record["messageId"]} for record in event["Records"] if record["body"] == '{"n": 7}'
            ]
        }

    async with world() as w:
        w.serve(handler)
        put(queue, *(f'{{"n": {n}}}' for n in range(60)))
        await w.add(mapping(queue, partial=True, patterns=('{"body": {"n": [{"numeric": ["<", 40]}]}}',)))
        await queue.settled_all()
        await w.until(lambda: w.view("q").in_flight == 0)

        def value(name: str, **labels: str) -> float:
            everything = {"mapping": "q", "source": "memory", "function": "worker", **labels}
            return w.metrics.registry.get_sample_value(name, everything) or 0.0

        view = w.view("q")
        assert value("bridge_esm_polled_events_total") == view.polled == len(queue.deliveries)
        assert value("bridge_esm_filtered_events_total") == view.filtered == 20
        assert view.polled == view.filtered + view.succeeded + view.failed
        assert value("bridge_esm_invoked_events_total") == view.succeeded + view.failed
        assert value("bridge_esm_deleted_events_total") == len(queue.deleted) == view.filtered + view.succeeded
        assert len(queue.deleted) + len(queue.dead) == 60
