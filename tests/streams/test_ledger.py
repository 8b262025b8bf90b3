"""What the failure ledger knows of records of streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from bridge.ledger import Ledger
from tests.streams.world import Call, Handler, StreamWorld, failures, numbers_of, streaming
from tests.world import NotRun

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def kept(handler: Handler, **options: Any) -> AsyncIterator[StreamWorld]:
    """A world with a ledger, that has been started."""
    async with streaming(handler, **options) as it, Ledger(it.disk, lambda _: None).running() as it.kept:
        yield it
        await it.stop()


async def attempts(it: StreamWorld, *names: str) -> dict[str, list[tuple[int, str]]]:
    """By name: number and outcome of each attempt."""
    assert it.kept
    found = await it.kept.attempts([it.number(name) for name in names])
    return {it.names[record]: [(one.number, one.outcome) for one in known] for record, known in found.items()}


async def test_each_attempt_of_a_batch_is_one_of_its_records_until_it_is_given_up() -> None:  # KIN-62, KIN-63
    def handler(call: Call) -> None:
        if "2" in call.names:
            raise ValueError("poison")

    async with kept(handler, batch_size=4, retries=2, bisect=True) as it:
        it.put("1", "2", "3", "4")
        it.start()
        await it.finished()
        found = await attempts(it, "1", "2", "3", "4")
        assert found["2"][-1] == (3, "function")
        assert [number for number, _ in found["2"]] == sorted(number for number, _ in found["2"])
        assert found["4"] == [(1, "function")]  # its half had no poison
        assert it.kept
        ((last, *_),) = [await it.kept.last_failed("uuid-of-orders", 1)]
        assert (last.partition, last.message, last.records) == (it.stream.open[0], "poison", ((it.number("2"), 3),))


async def test_of_an_answer_the_records_that_it_names() -> None:  # KIN-71
    calls: list[int] = []

    def handler(call: Call) -> Any:
        calls.append(1)
        if len(calls) == 1:
            return failures(numbers_of(call.event)[2])
        return b"nonsense" if len(calls) == 2 else None

    async with kept(handler, batch_size=4, partial=True) as it:
        it.put("1", "2", "3", "4")
        it.start()
        await it.finished()
        assert await attempts(it, "1", "2", "3", "4") == {
            "3": [(1, "partial"), (1, "response")],  # what is left after progress is tried anew
            "4": [(1, "response")],
        }


async def test_what_was_not_run_is_no_attempt() -> None:  # KIN-65
    calls: list[int] = []

    def handler(call: Call) -> None:
        calls.append(1)
        if len(calls) < 10:
            raise NotRun

    async with kept(handler) as it:
        it.put("1")
        it.start()
        await it.finished()
        assert len(calls) == 10
        assert await attempts(it, "1") == {}


async def test_the_last_invocation_of_a_window_stands_for_what_it_gathered() -> None:  # TW-41
    def handler(call: Call) -> Any:
        if not call.names:
            raise ValueError("final")
        return {"state": {}}

    async with kept(handler, tumbling_window=60, retries=1) as it:
        it.start()
        it.put("1", "2", "3")
        await it.until(lambda: len(it.trail) == 3)
        await anyio.sleep(1)
        assert await attempts(it, "1", "2", "3") == {"1": [(1, "function"), (2, "function")]} | {
            "3": [(1, "function"), (2, "function")]
        }
