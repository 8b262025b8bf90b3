"""When a replay ends before its queue does: failures in a row, what comes back, limits, interruption; and its rate."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import pytest

from bridge.replay.plan import STOP_AFTER
from bridge.replay.summary import Summary
from tests.replay.running import orders, run

pytestmark = pytest.mark.anyio


class TestStopping:
    """REPLAY-DO-12"""

    async def test_a_target_that_fails_in_a_row(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for number in range(100):
            dead.put(f"{number}")
        source.fail_entries("SendMessageBatch", "InvalidMessageContents", sender=True, times=1000)
        summary = await run(post, tmp_path, concurrency=1)
        assert "the target failed 10 times in a row, last: InvalidMessageContents" in summary.stopped
        assert STOP_AFTER <= summary.failed.total() <= 2 * STOP_AFTER
        assert len(dead.visible) == 100

    async def test_so_many_failures(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for number in range(100):
            dead.put(f"{number}")
        bad = [f"{number}" for number in range(0, 100, 5)]
        source.fail_entries("SendMessageBatch", "InvalidMessageContents", sender=True, ids=bad, times=1000)
        summary = await run(post, tmp_path, most_failures=4, concurrency=1)
        assert summary.failed.total() == 4
        assert "no more than 4 may" in summary.stopped
        assert sorted(dead.visible) == sorted(set(dead.visible))
        assert summary.sent + len(dead.visible) == 100

    @pytest.mark.parametrize("number", [3, 40])
    async def test_what_comes_back_is_told_and_not_sent_again(self, tmp_path: Path, number: int) -> None:
        """REPLAY-DONT-10, REPLAY-DONT-11: the ids of the run tell, and it does not go in a circle."""
        post, source, dead = orders()
        for place in range(40):
            dead.put(f"{place}")
        source.returns_to, source.returned = dead, {f"{place}" for place in range(number)}
        summary = await run(post, tmp_path, concurrency=1)
        assert summary.sent == len(source.accepted) == 40
        assert summary.came_back == min(number, STOP_AFTER)
        assert ("dead letters again" in summary.stopped) == (number > STOP_AFTER)
        assert not summary.complete
        assert len(dead.visible) == number

    async def test_an_interruption_gives_back_what_was_not_sent(self, tmp_path: Path) -> None:
        """REPLAY-DO-6"""
        post, source, dead = orders()
        for number in range(200):
            dead.put(f"{number}")
        stop = anyio.Event()

        def after_some(summary: Summary) -> None:
            if summary.sent >= 20:
                stop.set()

        summary = await run(post, tmp_path, rate=500, stop=stop, on_progress=after_some)
        assert summary.interrupted
        assert not dead.in_flight
        assert summary.sent == summary.deleted == len(source.bodies)
        assert summary.sent + len(dead.visible) == 200
        again = await run(post, tmp_path)
        assert again.complete
        assert sorted(map(int, source.bodies)) == list(range(200))

    async def test_cancelling_gives_back_and_the_next_run_goes_on(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for number in range(100):
            dead.put(f"{number}")
        with anyio.CancelScope() as scope:
            await run(post, tmp_path, on_progress=lambda it: scope.cancel() if it.sent >= 10 else None)
        assert scope.cancelled_caught
        assert not dead.in_flight
        summary = await run(post, tmp_path)
        sent = Counter(source.bodies)
        assert set(sent) == {f"{number}" for number in range(100)}
        assert sent.total() - 100 <= summary.possible_duplicates

    async def test_originals_that_cannot_be_deleted(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for number in range(100):
            dead.put(f"{number}")
        dead.fail_entries("DeleteMessageBatch", "AccessDenied", sender=True, times=1000)
        summary = await run(post, tmp_path, concurrency=1)
        assert "10 originals in a row could not be deleted, last: AccessDenied" in summary.stopped
        assert len(source.bodies) < 30

    async def test_messages_that_cannot_be_kept_hidden_do_not_keep_it_busy_for_ever(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for number in range(20):
            dead.put(f'{{"kind": "{"order" if number == 7 else "other"}"}}')
        reads = Counter[int]()

        def lapses(summary: Summary) -> None:
            reads[summary.read] += 1
            dead.lapse()

        with anyio.fail_after(10):
            summary = await run(
                post, tmp_path, patterns=('{"body": {"kind": ["order"]}}',), concurrency=1, on_progress=lapses
            )
        assert (summary.read, summary.sent) == (20, 1)
        assert len(source.bodies) == 1

    async def test_a_queue_that_goes_away_ends_it(self, tmp_path: Path) -> None:
        post, _, dead = orders()
        for number in range(20):
            dead.put(f"{number}")

        def goes(summary: Summary) -> None:
            dead.there = summary.sent < 5

        summary = await run(post, tmp_path, concurrency=1, on_progress=goes)
        assert summary.broken
        assert "ReceiveMessage" in summary.stopped


async def test_the_rate_is_kept(tmp_path: Path) -> None:
    post, source, dead = orders()
    for number in range(30):
        dead.put(f"{number}")
    began = anyio.current_time()
    await run(post, tmp_path, rate=100, concurrency=4)
    sent = 0
    for call in source.of("SendMessageBatch")[1:]:  # the first one asked whether it may
        assert sent <= (call.at - began) * 100  # what was sent before is paid for
        sent += len(call.params["Entries"])
    assert sent == 30
