"""What a stream says about itself: what blocks a shard, and what is counted."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from bridge.admin.views import readiness
from bridge.commands.mappings_shown import as_json, pages
from bridge.snapshot import Snapshot, iso
from tests.streams.world import NAME, QUEUE, Call, StreamWorld, failures, numbers_of, streaming
from tests.world import NotRun

pytestmark = pytest.mark.anyio


def snapshot(it: StreamWorld) -> Snapshot:
    now = anyio.current_time() - 1000 + 1_700_000_000
    seen = Snapshot(
        version="1", pid=1, started_at=1_700_000_000.0, at=now, draining=False, buffered_bytes=0,
        max_buffered_bytes=1, mappings=(it.view,),
    )  # fmt: skip
    it.metrics.show(seen)
    return seen


def failing(call: Call) -> None:
    if "1" in call.names:
        raise ValueError


async def test_what_blocks_a_shard_is_shown_everywhere() -> None:
    """KIN-60: which record, which attempt, when the next one is."""
    async with streaming(failing, batch_size=2, retries=9) as it:
        (number, _) = it.put("1", "2")
        (shard,) = it.stream.open
        it.start()
        await it.until(lambda: len(it.trail) == 4)
        await anyio.sleep(0.1)
        seen = snapshot(it)
        (runner,) = it.view.runners
        assert runner.gate.name == "retrying"
        assert runner.blocked
        next_at = runner.blocked.next_at
        assert next_at
        line = f"record {number} and 1 more: attempt 5 of 10 after function, next at {iso(next_at)}"
        assert runner.gate.detail == line
        assert it.view.gate == runner.gate  # of the mapping as a whole too
        answer = readiness(seen)
        assert answer["ready"]
        assert answer["blocked"] == {
            NAME: [
                {
                    "partition": shard, "record": number, "records": 2, "attempt": 5, "attempts": 10,
                    "since": iso(it.handled[0].at - 1000 + 1_700_000_000), "next_at": iso(next_at), "why": "function",
                }
            ]
        }  # fmt: skip
        page = pages(seen, seen.mappings, why=True)
        assert f"blocked for {seen.at - runner.blocked.since:.1f} s by {line}" in page
        (row,) = json.loads(as_json(seen, seen.mappings, why=True))
        told = dict(answer["blocked"][NAME][0])
        del told["partition"]
        assert row["runners"][0]["blocked"] == told
        assert it.counted("blocked_seconds") == pytest.approx(seen.at - runner.blocked.since)
        assert it.view.last_result == "PROBLEM: Function call failed"  # KIN-5
        await it.until(lambda: len(it.trail) == 5)
        assert next_at == pytest.approx(it.handled[4].at - 1000 + 1_700_000_000)


async def test_it_is_shown_no_longer_when_it_is_over() -> None:
    tries = []

    def handler(call: Call) -> None:
        tries.append(call)
        if len(tries) < 3:
            raise ValueError

    async with streaming(handler) as it:
        it.put("1")
        it.start()
        await it.finished()
        seen = snapshot(it)
        assert [runner.blocked for runner in it.view.runners] == [None]
        assert "blocked" not in readiness(seen)
        assert it.counted("blocked_seconds") == 0
        assert it.view.last_result == "OK"


@pytest.mark.parametrize(
    ("answer", "why", "gate"),
    [
        (lambda call: failures(numbers_of(call.event)[0]), "answer", "retrying"),
        (lambda call: (_ for _ in ()).throw(NotRun("throttled")), "throttled", "throttled"),
        (lambda call: (_ for _ in ()).throw(NotRun("unreachable")), "unreachable", "throttled"),
    ],
)
async def test_why_says_how_the_last_try_ended(answer: Any, why: str, gate: str) -> None:
    async with streaming(answer, partial=True) as it:
        it.put("1")
        it.start()
        await it.until(lambda: len(it.trail) == 3)
        await anyio.sleep(0.01)
        (runner,) = it.view.runners
        assert runner.blocked
        assert (runner.blocked.why, runner.gate.name) == (why, gate)
        assert runner.blocked.attempts is None
        assert ", no limit" in runner.blocked.line()


async def test_halves_name_the_record_that_is_next() -> None:
    async with streaming(failing, batch_size=4, bisect=True) as it:
        it.put("0", "1", "2", "3")
        it.start()
        await it.until(lambda: len(it.trail) > 5)
        await anyio.sleep(0.01)
        (runner,) = it.view.runners
        assert runner.blocked
        assert (runner.blocked.record, runner.blocked.records) == (it.number("1"), 1)


async def test_every_event_is_counted_once_in_the_end() -> None:
    """MET-10, MET-11, MET-13: polled = filtered + finished, finished = succeeded + dropped + told."""

    def handler(call: Call) -> Any:
        if set(call.names) & {"11", "12"}:
            raise ValueError
        bad = [n for name, n in zip(call.names, numbers_of(call.event), strict=True) if name == "25"]
        return failures(*bad)

    async with streaming(
        handler, batch_size=5, retries=1, bisect=True, partial=True, max_age=300, on_failure=QUEUE,
        patterns=('{"partitionKey": [{"anything-but": {"prefix": "3"}}]}',),
    ) as it:  # fmt: skip
        it.put("1", "2")
        await anyio.sleep(400)  # too old
        it.put(*map(str, range(10, 40)))
        it.destination.refusals += ["AccessDenied"]  # the first document is lost
        it.start()
        await it.finished()
        snapshot(it)
        polled, filtered = it.counted("polled_events_total"), it.counted("filtered_events_total")
        told = it.counted("failure_destination_events_total")
        dropped = it.counted("dropped_events_total", reason="delivery")
        assert (polled, filtered, told, dropped) == (32, 10, 3, 2)
        assert polled == filtered + it.view.succeeded + told + dropped
        assert it.counted("failure_destination_errors_total") == 1
        assert it.counted("dropped_events_total", reason="age") == 0  # it was to be told, and was not (MET-10)
        assert it.counted("invoked_events_total") > it.view.succeeded
        assert it.counted("bisects_total") > 0
        assert it.counted("retries_total", reason="function_error") > 0
        assert it.counted("retries_total", reason="partial") > 0
        failed = it.metrics.registry.get_sample_value(
            "bridge_destination_delivery_failures_total", {"function": "worker", "condition": "RecordAgeExceeded"}
        )
        assert failed == 1


@pytest.mark.parametrize(("options", "reason"), [({"retries": 0}, "retries"), ({"max_age": 60}, "age")])
async def test_without_a_destination_what_is_given_up_is_dropped(options: dict[str, Any], reason: str) -> None:
    async with streaming(failing, **options) as it:
        it.put("1", "2")
        it.start()
        await it.finished()
        assert it.counted("dropped_events_total", reason=reason) == 2
        assert it.counted("dropped_events_total", reason="delivery") == 0


async def test_ages() -> None:
    """KIN-110, KIN-111, MET-20."""
    healed = anyio.Event()

    async def handler(call: Call) -> None:
        await healed.wait()

    async with streaming(handler, batch_size=2) as it:
        it.put("1")
        await anyio.sleep(100)
        it.put("2", "3")
        await anyio.sleep(30)
        it.start()
        await anyio.sleep(60)
        snapshot(it)
        assert it.counted("oldest_unprocessed_age_seconds") == pytest.approx(190, abs=1)
        assert it.counted("iterator_age_seconds_count") == 1
        assert it.counted("iterator_age_seconds_sum") == pytest.approx(30, abs=1)  # of the last record (KIN-110)
        await anyio.sleep(60)
        snapshot(it)
        assert it.counted("oldest_unprocessed_age_seconds") == pytest.approx(250, abs=1)  # it grows while stuck
        assert it.counted("iterator_age_seconds_count") == 1
        healed.set()
        await it.finished()
        await anyio.sleep(2)
        snapshot(it)
        assert it.counted("oldest_unprocessed_age_seconds") == 0
        assert it.counted("millis_behind_latest") == 0


async def test_a_mapping_that_is_gone_leaves_no_series() -> None:
    """MET-31."""
    async with streaming(failing, retries=0) as it:
        it.put("1")
        it.start()
        await it.finished()
        snapshot(it)
        assert b'bridge_esm_dropped_events_total{function="worker",mapping="orders"' in it.metrics.render()[0]
        assert it.daemon
        await it.daemon.supervisor.remove(NAME)
        assert b'mapping="orders"' not in it.metrics.render()[0]


async def test_writes_of_positions_are_timed() -> None:
    async with streaming(failing) as it:
        it.disk.delay = 2.0
        it.start()
        it.put("2")
        await it.finished()
        found = it.metrics.registry.get_sample_value
        writes = found("bridge_checkpoint_seconds_count")
        assert writes == len(it.disk.writes) > 1
        assert found("bridge_checkpoint_seconds_sum") == pytest.approx(2.0 * writes)
