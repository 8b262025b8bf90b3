"""The failure ledger: what is written when, and what happens when it cannot be."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from bridge.attempt import BOUNDS, Attempt, Bounds, FailedBatch
from bridge.errors import StateError
from bridge.ledger import MOST_RECORDS, Ledger, attempts
from bridge.mapping import Mapping, SourceArn
from bridge.sources.memory import MemoryQueue
from bridge.stores import open_store
from bridge.stores.memory import MemoryStore
from tests.admin.control import FAILED, ORDERS, ScriptedControl, served
from tests.clock import SKIPPING, owned_wall
from tests.configured import mapped, write
from tests.world import Event, NotRun, mapping, world

pytestmark = pytest.mark.anyio
__all__ = ["owned_wall"]

ORDERS_MAPPING = Mapping(
    name="orders",
    uuid="uuid-of-orders",
    function="worker",
    source_arn=SourceArn.parse("arn:aws:sqs:eu-west-1:1:orders"),
)


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


class Disk(MemoryStore):
    """Notes what shared a write, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # it never looks
        self.writes: list[tuple[float, int]] = []
        self.trims = 0
        self.failure: Exception | None = None

    async def add_attempts(self, batches: Sequence[FailedBatch], bounds: Bounds) -> None:
        if self.failure:
            raise self.failure
        self.writes.append((anyio.current_time(), len(batches)))
        await super().add_attempts(batches, bounds)

    async def trim_attempts(self, bounds: Bounds, now: float) -> None:
        if self.failure:
            raise self.failure
        self.trims += 1
        await super().trim_attempts(bounds, now)


class Kept:
    """A ledger that is open, and what it says is lost."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.disk = Disk()
        self.lost: list[int] = []
        self.ledger = Ledger(self.disk, self.lost.append, bounds)

    def note(self, *records: str, outcome: str = "function", **options: Any) -> None:
        self.ledger.note(ORDERS_MAPPING, "orders", [(record, 1) for record in records], outcome=outcome, **options)


@asynccontextmanager
async def keeping(bounds: Bounds = BOUNDS) -> AsyncIterator[Kept]:
    kept = Kept(bounds)
    async with kept.ledger.running():
        yield kept


async def test_what_fails_within_a_second_is_written_together() -> None:
    async with keeping() as kept:
        kept.note("m-0")
        await anyio.sleep(0.1)
        began = anyio.current_time()
        for number in range(500):
            kept.note(f"m-{number % 50}")
            await anyio.sleep(0.02)
        took = anyio.current_time() - began
    assert len(kept.disk.writes) <= took + 3
    assert sum(count for _, count in kept.disk.writes) == 501
    assert sum(kept.lost) == 0


@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.5, 3.0])
async def test_it_stops_at_any_moment(after: float, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    plain = kept.disk.trim_attempts

    async def slow(bounds: Bounds, now: float) -> None:
        await anyio.sleep(1)
        await plain(bounds, now)

    monkeypatch.setattr(kept.disk, "trim_attempts", slow)
    began = anyio.current_time()
    async with kept.ledger.running():
        await anyio.sleep(after)
    assert anyio.current_time() - began < after + 1.1


async def test_nothing_is_written_while_nothing_fails() -> None:
    async with keeping() as kept:
        await anyio.sleep(10_000)
        assert kept.disk.writes == []
        assert kept.disk.trims == 3  # what an earlier process left may have become old


async def test_what_is_not_written_yet_is_known_too() -> None:
    async with keeping() as kept:
        kept.note("m-1", error=("ValueError", "first"))
        assert [it.message for it in (await kept.ledger.attempts(["m-1"]))["m-1"]] == ["first"]
        await anyio.sleep(5)
        kept.note("m-1", "m-2", error=("ValueError", "second"))
        found = await kept.ledger.attempts(["m-1", "m-2", "m-3"])
        assert {record: [it.message for it in attempts] for record, attempts in found.items()} == {
            "m-1": ["first", "second"],
            "m-2": ["second"],
        }
        assert [it.message for it in await kept.ledger.last_failed("uuid-of-orders", 10)] == ["second", "first"]
        assert [it.message for it in await kept.ledger.last_failed("uuid-of-orders", 1)] == ["second"]
        assert await kept.ledger.last_failed("another", 10) == ()


async def test_a_ledger_that_cannot_be_written_says_so_once_and_goes_on() -> None:
    with capture_logs() as lines:
        async with keeping(Bounds(per_mapping=10)) as kept:
            kept.disk.failure = StateError("state file /x: its disk is full; free some space")
            for number in range(25):
                kept.note(f"m-{number}")
            await anyio.sleep(50)
            for number in range(25, 30):
                kept.note(f"m-{number}")
            await anyio.sleep(50)
            assert sum(kept.lost) == 5  # of those that would have been forgotten at once nothing is missed
            kept.disk.failure = None
            await anyio.sleep(60)
            assert set(await kept.disk.attempts([f"m-{number}" for number in range(30)])) == {
                f"m-{number}" for number in range(20, 30)
            }
    told = [line for line in lines if line["event"] == "ledger_not_written"]
    assert [line.get("repeated", 0) > 0 for line in told] in ([False], [False, True], [False, True, True])
    assert all("its disk is full" in line["error"] for line in told)


async def test_whatever_the_store_raises_stops_nothing() -> None:
    async with keeping() as kept:
        kept.disk.failure = ValueError("a bug of ours")
        kept.note("m-1")
        await anyio.sleep(5)
        kept.disk.failure = None
        await anyio.sleep(20)
        assert set(await kept.disk.attempts(["m-1"])) == {"m-1"}


async def test_what_could_not_be_written_to_the_end_is_counted() -> None:
    async with keeping() as kept:
        kept.disk.failure = StateError("no disk")
        kept.note("m-1", "m-2")
    assert sum(kept.lost) == 2


@pytest.mark.usefixtures("owned_wall")
async def test_bounds_hold_over_time() -> None:
    async with keeping(Bounds(per_mapping=100, total=100)) as kept:
        for number in range(3000):
            kept.note(f"m-{number}")
            await anyio.sleep(0.1)
        await anyio.sleep(4000)
        assert set(await kept.disk.attempts([f"m-{number}" for number in range(3000)])) == {
            f"m-{number}" for number in range(2900, 3000)
        }
        await anyio.sleep(15 * 86400)
        assert await kept.disk.last_failed("uuid-of-orders", 10) == []
    assert sum(kept.lost) == 0


async def test_texts_are_bounded_and_always_text() -> None:
    async with keeping() as kept:
        kept.note("m-1", error=("E" * 1000, "\ud800" + "m" * 5000), log_tail=b"\xff" * 9000)
        await anyio.sleep(2)
        ((attempt,),) = (await kept.disk.attempts(["m-1"])).values()
        assert (len(attempt.error_type), len(attempt.message), len(attempt.log_tail)) == (80, 1024, 4096)
        assert attempt.message.startswith("?m")


async def test_of_a_huge_batch_the_first_records_and_the_last_are_kept() -> None:
    async with keeping() as kept:
        kept.note(*(f"m-{number}" for number in range(5000)))
        (batch,) = await kept.ledger.last_failed("uuid-of-orders", 1)
        names = [name for name, _ in batch.records]
        assert len(names) == MOST_RECORDS
        assert (names[0], names[-2], names[-1]) == ("m-0", f"m-{MOST_RECORDS - 2}", "m-4999")


# What is noted.


@asynccontextmanager
async def noting() -> AsyncIterator[tuple[Any, Ledger]]:
    kept = Kept()
    async with kept.ledger.running(), world(ledger=kept.ledger) as w:
        yield w, kept.ledger


async def test_each_receive_of_a_message_that_fails_is_an_attempt() -> None:  # SQS-32, SQS-37
    queue = MemoryQueue("q", visibility=5, max_receives=3)

    def handler(event: Event) -> None:
        raise ValueError("no such order")

    async with noting() as (w, ledger):
        w.serve(handler)
        name = queue.put("a")
        await w.add(mapping(queue))
        await w.until(lambda: queue.dead == [name])
        found = (await ledger.attempts([name]))[name]
        assert [it.number for it in found] == [1, 2, 3]
        assert {(it.mapping, it.partition, it.outcome, it.error_type, it.message) for it in found} == {
            ("q", "q", "function", "ValueError", "no such order")
        }
        assert found[0].at < found[1].at < found[2].at
        assert len({it.request_id for it in found}) == 3


async def test_what_is_done_leaves_nothing() -> None:
    queue = MemoryQueue("q")
    async with noting() as (w, ledger):
        w.serve(lambda _: None)
        names = [queue.put(f"m{number}") for number in range(30)]
        await w.add(mapping(queue))
        await queue.settled_all()
        assert await ledger.attempts(names) == {}


async def test_of_a_partial_answer_those_that_it_names() -> None:  # SQS-40
    queue = MemoryQueue("q", visibility=1000)
    names = [queue.put(f"m{number}") for number in range(4)]
    async with noting() as (w, ledger):
        w.serve(lambda _: {"batchItemFailures": [{"itemIdentifier": names[2]}]})
        await w.add(mapping(queue, partial=True))
        await w.until(lambda: len(queue.deleted) == 3)
        found = await ledger.attempts(names)
        assert {name: it[0].outcome for name, it in found.items()} == {names[2]: "partial"}


async def test_of_a_malformed_answer_all() -> None:  # SQS-42
    queue = MemoryQueue("q", visibility=1000)
    names = [queue.put(f"m{number}") for number in range(4)]
    async with noting() as (w, ledger):
        executor = w.serve(lambda _: {"batchItemFailures": [{"itemIdentifier": "nobody"}]})
        await w.add(mapping(queue, partial=True))
        await w.until(lambda: bool(executor.events))
        await anyio.sleep(1)
        found = await ledger.attempts(names)
        assert {name: it[0].outcome for name, it in found.items()} == dict.fromkeys(names, "response")


async def test_what_does_not_run_is_an_attempt_once_it_costs_a_receive() -> None:  # SQS-35
    queue = MemoryQueue("q", visibility=30)

    def handler(event: Event) -> None:
        raise NotRun

    async with noting() as (w, ledger):
        w.serve(handler)
        name = queue.put("a")
        await w.add(mapping(queue))
        await anyio.sleep(10)
        assert await ledger.attempts([name]) == {}
        await w.until(lambda: queue.deliveries.count(name) == 2)
        (attempt,) = (await ledger.attempts([name]))[name]
        assert (attempt.outcome, attempt.number, attempt.error_type) == ("throttled", 1, "Throttled")


async def test_a_message_whose_handler_was_not_waited_for() -> None:
    queue = MemoryQueue("q")
    name = queue.put("a")
    async with noting() as (w, ledger):
        w.serve(lambda _: anyio.sleep_forever())
        await w.add(mapping(queue))
        await w.until(lambda: w.view("q").gate.name == "invoking")
        w.supervisor.find("q")._attempt.cancel()
        await w.until(lambda: queue.deliveries == [name])
        await anyio.sleep(0.1)
        assert [it.outcome for it in (await ledger.attempts([name]))[name]] == ["cancelled"]


async def test_a_message_that_was_lost_before_its_invocation() -> None:  # SQS-82
    queue = MemoryQueue("q", visibility=30)
    name = queue.put("a")
    async with noting() as (w, ledger):
        w.serve(lambda _: None)
        await w.add(mapping(queue, window=10.0))
        await w.until(lambda: w.view("q").gate.name == "window")
        queue.steal(name)
        await queue.settled_all()
        (attempt,) = (await ledger.attempts([name]))[name]
        assert (attempt.outcome, attempt.number) == ("lost", 1)


async def test_while_a_write_is_under_way_nothing_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(Bounds(per_mapping=100)) as kept:
        plain = kept.disk.add_attempts

        async def slow(batches: Sequence[FailedBatch], bounds: Bounds) -> None:
            await anyio.sleep(3)
            await plain(batches, bounds)

        monkeypatch.setattr(kept.disk, "add_attempts", slow)
        for number in range(1000):
            kept.note(f"m-{number}")
            await anyio.sleep(0.01)
        await anyio.sleep(10)
        assert set(await kept.disk.attempts([f"m-{number}" for number in range(900, 1000)])) == {
            f"m-{number}" for number in range(900, 1000)
        }
    assert sum(kept.lost) == 0


async def test_huge_batches_wait_in_bounded_memory_and_are_written_in_pieces() -> None:
    async with keeping() as kept:
        kept.disk.failure = StateError("no disk")
        for number in range(50):
            kept.note(*(f"{number}-{record}" for record in range(500)))
            await anyio.sleep(0.5)
        assert "2000 attempts wait" in repr(kept.ledger)
        assert sum(kept.lost) > 40 * 500
        kept.disk.failure = None
        await anyio.sleep(20)
        assert [count for _, count in kept.disk.writes] == [2, 2]
        assert set(await kept.disk.attempts(["49-0", "46-499", "45-499"])) == {"49-0", "46-499"}


# Whoever asks from outside.


async def stored(url: str) -> Attempt:
    """An attempt at m-7 in the store behind a URL."""
    async with open_store(url) as store:
        await store.add_attempts([FAILED], BOUNDS)
    return next(FAILED.attempts())


class TestFromOutside:
    """Real sockets and threads."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
            monkeypatch.delenv(name)

    async def test_a_daemon_is_asked(self) -> None:
        control = ScriptedControl(ORDERS)
        with served(control, "s3cret") as url:
            found = await attempts(["m-7", "m-9", "m-7"], admin=url)
            many = await attempts((f"n-{number}" for number in range(450)), admin=url)
        assert found == {"m-7": (next(FAILED.attempts()),)}
        assert many == {}
        assert [len(asked) - 1 for asked in control.asked] == [2, 200, 200, 50]

    async def test_without_one_the_state_file_is_read(self, tmp_path: Path) -> None:
        state = tmp_path / "state.db"
        attempt = await stored(f"sqlite:///{state}")
        before = sorted(path.name for path in tmp_path.iterdir())
        file = write(tmp_path, f"state: sqlite:///{state}\nadmin: {{listen: 127.0.0.1:1}}\n{mapped()}")
        assert await attempts(["m-7", "m-9"], config=str(file)) == {"m-7": (attempt,)}
        assert await attempts(["m-7"], environ={**os.environ, "BRIDGE_CONFIG": str(file)}) == {"m-7": (attempt,)}
        after = {path.name for path in tmp_path.iterdir()} - {"app.py", "bridge.yaml"}
        assert sorted(after) == before

    async def test_nor_does_a_running_daemon_without_admin_hide_it(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/state.db?namespace=me"
        file = write(tmp_path, f"state: {url}\nadmin: off\n{mapped()}")
        async with open_store(url) as store:
            await store.add_attempts([FAILED], BOUNDS)
            assert set(await attempts(["m-7"], config=str(file))) == {"m-7"}

    @pytest.mark.parametrize(
        "text", ["state: sqlite:////nowhere/state.db", "state: 'memory:'", "state: sqlite:///app.py", "mapings: {}"]
    )
    async def test_where_there_is_nothing_nothing_is_known(self, tmp_path: Path, text: str) -> None:
        file = write(tmp_path, f"{text}\nadmin: {{listen: 127.0.0.1:1}}\n{mapped()}")
        assert await attempts(["m-7"], config=str(file)) == {}
        assert await attempts(["m-7"], environ={}, admin="http://127.0.0.1:1") == {}
        assert await attempts([], admin="http://127.0.0.1:1") == {}

    async def test_a_file_of_an_older_version_has_none(self, tmp_path: Path) -> None:
        import sqlite3

        with sqlite3.connect(tmp_path / "state.db") as connection:
            connection.execute("CREATE TABLE pauses (namespace TEXT)")
        connection.close()
        file = write(tmp_path, f"state: sqlite:///state.db\nadmin: {{listen: 127.0.0.1:1}}\n{mapped()}")
        assert await attempts(["m-7"], config=str(file)) == {}

    async def test_a_daemon_that_does_not_let_us_leaves_the_file(self, tmp_path: Path) -> None:
        attempt = await stored(f"sqlite:///{tmp_path}/state.db")
        file = write(tmp_path, f"state: sqlite:///state.db\n{mapped()}")
        with served(ScriptedControl(ORDERS), "s3cret") as url:
            assert await attempts(["m-7"], admin=url, token="wrong", config=str(file)) == {"m-7": (attempt,)}

    def test_attempts_are_json(self) -> None:
        import msgspec

        encoded = json.loads(msgspec.json.encode(next(FAILED.attempts())))
        assert encoded["record"] == "m-7"
        assert set(encoded) == set(Attempt.__struct_fields__)
