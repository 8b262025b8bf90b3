"""Positions over a store: what is acknowledged is kept, however the process ends, and the loop never waits."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping as Dict, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bridge.checkpoints import Checkpoints, Stored
from bridge.errors import HoldLost, StateError
from bridge.mapping import Mapping, SourceArn
from bridge.position import Move, Position
from bridge.stores import open_store, sqlite
from bridge.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"


def mapping(name: str = "clicks", arn: str = ARN) -> Mapping:
    return Mapping(name=name, uuid=f"uuid-of-{name}", function="worker", source_arn=SourceArn.parse(arn))


def at(position: object, **options: Any) -> Position:
    return Position(position=str(position), **options)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


class Slow(MemoryStore):
    """Writes when it is told to, and notes what shared a write."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # it never looks
        self.writes: list[list[tuple[str, str]]] = []
        self.begun = anyio.Event()
        self.gate = anyio.Event()
        self.failure: StateError | None = None

    async def move_positions(self, moves: Sequence[Move]) -> None:
        self.writes.append([(move.partition, move.position.position if move.position else "-") for move in moves])
        self.begun.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        await super().move_positions(moves)


async def test_what_was_moved_is_there_when_it_opens_again(url: str) -> None:  # KIN-23
    async with open_store(url) as store, Checkpoints(store).running() as checkpoints:
        positions = checkpoints.of(mapping())
        assert await positions.load() == {}
        await positions.move({"s-1": at(1), "s-2": at(1, state=b"open")})
        await positions.move({"s-1": at(2, ended=True)})
        await positions.forget(["s-2", "never"])
        assert await positions.load() == {"s-1": at(2, ended=True)}
    async with open_store(url) as store, Checkpoints(store).running() as checkpoints:
        assert await checkpoints.of(mapping()).load() == {"s-1": at(2, ended=True)}
        assert await checkpoints.of(mapping("views")).load() == {}


async def test_a_source_that_is_changed_and_changed_back_goes_on_where_it_was() -> None:
    async with Checkpoints(open_store("memory:")).running() as checkpoints:
        await checkpoints.of(mapping()).move({"shardId-000000000000": at(5)})
        assert await checkpoints.of(mapping(arn=f"{ARN}-2")).load() == {}
        await checkpoints.of(mapping(arn=f"{ARN}-2")).move({"shardId-000000000000": at(1)})
        assert await checkpoints.of(mapping()).load() == {"shardId-000000000000": at(5)}


async def test_fan_out_reads_on_where_polling_was() -> None:
    async with Checkpoints(open_store("memory:")).running() as checkpoints:
        await checkpoints.of(mapping()).move({"s": at(5)})
        assert await checkpoints.of(mapping(arn=f"{ARN}/consumer/me:1700000000")).load() == {"s": at(5)}


async def test_what_is_moved_during_a_write_shares_the_next_one() -> None:
    store = Slow()
    async with Checkpoints(store).running() as checkpoints, anyio.create_task_group() as tasks:
        one, other = checkpoints.of(mapping()), checkpoints.of(mapping("views"))
        tasks.start_soon(one.move, {"s-1": at(1)})
        await store.begun.wait()
        for positions in (one, other):
            for number in range(50):
                tasks.start_soon(positions.move, {f"s-{number}": at(2)})
        await anyio.wait_all_tasks_blocked()
        assert store.writes == [[("s-1", "1")]]
        store.gate.set()
    assert [len(write) for write in store.writes] == [1, 100]
    assert await store.positioned() == {"uuid-of-clicks": 50, "uuid-of-views": 50}
    assert (await store.positions("uuid-of-clicks", ARN))["s-1"] == at(2)


async def test_a_write_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.checkpoints.WRITE_MOVES", 10)
    monkeypatch.setattr("bridge.checkpoints.WRITE_BYTES", 100)
    store = Slow()
    async with Checkpoints(store).running() as checkpoints, anyio.create_task_group() as tasks:
        positions = checkpoints.of(mapping())
        tasks.start_soon(positions.move, {"first": at(1)})
        await store.begun.wait()
        for number in range(12):
            tasks.start_soon(positions.move, {f"s-{number:02}": at(1)})
            await anyio.wait_all_tasks_blocked()
        for number in range(2):
            tasks.start_soon(positions.move, {f"w-{number}": at(1, state=b"x" * 70)})
            await anyio.wait_all_tasks_blocked()
        tasks.start_soon(positions.move, {f"many-{number}": at(1) for number in range(20)})
        await anyio.wait_all_tasks_blocked()
        store.gate.set()
    assert [len(write) for write in store.writes] == [1, 10, 3, 1, 20]


async def test_who_moves_goes_on_only_when_it_is_written() -> None:
    store = Slow()
    moved: list[str] = []

    async def move(partition: str) -> None:
        await checkpoints.of(mapping()).move({partition: at(1)})
        moved.append(partition)

    async with Checkpoints(store).running() as checkpoints, anyio.create_task_group() as tasks:
        tasks.start_soon(move, "s")
        await store.begun.wait()
        await anyio.wait_all_tasks_blocked()
        assert moved == []
        store.gate.set()
    assert moved == ["s"]


async def test_a_write_that_fails_is_said_to_all_who_shared_it_and_moves_nothing() -> None:
    store = Slow()
    store.failure = StateError("state file /x: its disk is full; free some space")
    store.gate.set()
    failed: list[str] = []

    async def move(name: str) -> None:
        with pytest.raises(StateError, match="its disk is full"):
            await checkpoints.of(mapping(name)).move({"s": at(1)})
        failed.append(name)

    async with Checkpoints(store).running() as checkpoints:
        async with anyio.create_task_group() as tasks:
            for name in ("clicks", "views"):
                tasks.start_soon(move, name)
        assert sorted(failed) == ["clicks", "views"]
        assert await store.positioned() == {}
        store.failure = None
        await checkpoints.of(mapping()).move({"s": at(2)})
        assert await checkpoints.of(mapping()).load() == {"s": at(2)}


async def test_a_partition_that_somebody_else_took_over_is_lost_for_its_runner_alone() -> None:  # SCO-32, SCO-33
    store = Slow()
    lost: list[str] = []

    async def move(positions: Dict[str, Position]) -> None:
        try:
            await checkpoints.of(mapping()).move(positions)
        except HoldLost:
            lost.extend(positions)

    async with Checkpoints(store).running() as checkpoints, anyio.create_task_group() as tasks:
        tasks.start_soon(move, {"taken": at(9, epoch=2)})
        await store.begun.wait()
        for positions in ({"s-1": at(1)}, {"taken": at(1), "s-2": at(1)}, {"s-3": at(1)}):
            tasks.start_soon(move, positions)
        await anyio.wait_all_tasks_blocked()
        store.gate.set()
    assert lost == ["taken", "s-2"]
    assert await store.positions("uuid-of-clicks", ARN) == {"taken": at(9, epoch=2), "s-1": at(1), "s-3": at(1)}


async def test_what_was_asked_for_is_written_when_it_closes_and_nothing_later() -> None:
    store = Slow()
    async with Checkpoints(store).running() as checkpoints:
        positions = checkpoints.of(mapping())
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(positions.move, {f"s-{number}": at(1)})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()  # who asked is gone
        store.gate.set()
    assert set(await store.positions("uuid-of-clicks", ARN)) == {"s-0", "s-1", "s-2"}
    with pytest.raises(StateError, match="stopping"):
        await positions.move({"s-0": at(2)})


async def test_whoever_opens_sees_what_the_one_before_had_moved() -> None:
    """A runner that was cancelled during its write, and the source that is opened next."""
    store = Slow()
    async with Checkpoints(store).running() as checkpoints:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(checkpoints.of(mapping()).move, {"s": at(1)})
            await store.begun.wait()
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:

            async def load() -> None:
                assert await checkpoints.of(mapping()).load() == {"s": at(1)}

            tasks.start_soon(load)
            await anyio.wait_all_tasks_blocked()
            store.gate.set()


async def test_whose_positions_are_stored_is_known_by_name(url: str) -> None:
    async with open_store(url) as store, Checkpoints(store).running() as checkpoints:
        for name in ("views", "clicks"):
            await checkpoints.of(mapping(name)).load()
        await checkpoints.of(mapping()).move({"s-1": at(1), "s-2": at(1)})
        known = [Stored("uuid-of-clicks", "clicks", 2), Stored("uuid-of-views", "views", 0)]
        assert await checkpoints.stored() == known
        await checkpoints.forget("uuid-of-clicks")
        await checkpoints.forget("uuid-of-clicks")
        assert await checkpoints.stored() == known[1:]
        assert await checkpoints.of(mapping()).load() == {}


# A real disk, and what goes wrong with it.


async def test_the_loop_never_waits_for_the_disk(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's lock stands for the disk that hangs."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    async with open_store(url) as store, Checkpoints(store).running() as checkpoints:
        positions = checkpoints.of(mapping())
        await positions.move({"s": at(1)})
        monkeypatch.setattr(sqlite, "PATIENCE", 0.3)
        other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            with pytest.raises(StateError, match="no answer within"):
                await positions.move({"s": at(2)})
            tasks.cancel_scope.cancel()
        assert ticks >= 5
        other.execute("ROLLBACK")
        other.close()
        monkeypatch.undo()
        assert await positions.load() == {"s": at(1)}
        await positions.move({"s": at(3)})
        assert await positions.load() == {"s": at(3)}


async def test_on_a_full_disk_nothing_is_half_written_and_nobody_may_begin(url: str) -> None:
    done = await anyio.run_process([sys.executable, "-c", FULL, url], stderr=None)
    kept, moved, opened = done.stdout.decode().splitlines()
    assert int(kept) > 3
    assert "free some space" in moved
    assert "free some space" in opened


FULL = f"""
import anyio, resource, sys
from bridge.checkpoints import Checkpoints
from bridge.errors import StateError
from bridge.mapping import Mapping, SourceArn
from bridge.position import Position
from bridge.stores import open_store
async def main():
    async with open_store(sys.argv[1]) as store, Checkpoints(store).running() as checkpoints:
        mapping = Mapping(name="m", uuid="u", function="f", source_arn=SourceArn.parse({ARN!r}))
        positions = checkpoints.of(mapping)
        await positions.load()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))   # no file may grow further
        kept, state = 0, b"x" * 2000
        try:
            while True:
                await positions.move({{name: Position(position=str(kept), state=state) for name in ("a", "b")}})
                kept += 1
        except StateError as error:
            print(kept, error, sep="\\n")
        assert {{it.position for it in (await store.positions("u", {ARN!r})).values()}} == {{str(kept - 1)}}
        try:
            await positions.load()   # what polls again begins with this
        except StateError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await positions.load()
        await positions.move({{"a": Position(position="free")}})
        assert (await positions.load())["a"] == Position(position="free")
anyio.run(main)
"""


async def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(url: str) -> None:
    """The child moves pairs of positions as fast as it can and says which are written; a pair is never torn."""
    for rounds in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, bufsize=0) as child:
            assert child.stdout is not None
            said = await anyio.to_thread.run_sync(_some_of, child, 200 + 150 * rounds)
        acknowledged = dict(line.split() for line in said.decode().splitlines() if line.count(" ") == 1)
        assert len(acknowledged) == SHARDS
        async with open_store(url) as store, Checkpoints(store).running() as checkpoints:
            known = await checkpoints.of(mapping()).load()
        for shard in range(SHARDS):
            left, right = known[f"{shard}-left"], known[f"{shard}-right"]
            assert left == right, "half of a move was written"
            assert int(left.position) >= int(acknowledged[str(shard)]), "an acknowledged move is lost"
            assert left.state == left.position.encode() * 50


SHARDS = 20
WRITER = f"""
import anyio, sys
from bridge.checkpoints import Checkpoints
from bridge.mapping import Mapping, SourceArn
from bridge.position import Position
from bridge.stores import open_store
async def main():
    async with open_store(sys.argv[1]) as store, Checkpoints(store).running() as checkpoints:
        mapping = Mapping(name="clicks", uuid="uuid-of-clicks", function="f", source_arn=SourceArn.parse({ARN!r}))
        positions = checkpoints.of(mapping)
        known = await positions.load()
        async def shard(number):
            at = int(known[f"{{number}}-left"].position) if known else 0
            while True:
                at += 1
                position = Position(position=str(at), state=str(at).encode() * 50)
                await positions.move({{f"{{number}}-left": position, f"{{number}}-right": position}})
                sys.stdout.write(f"{{number}} {{at}}\\n")
                sys.stdout.flush()
        async with anyio.create_task_group() as tasks:
            for number in range({SHARDS}):
                tasks.start_soon(shard, number)
anyio.run(main)
"""


def _some_of(child: subprocess.Popen[bytes], lines: int) -> bytes:
    """What the child says until it is killed in the middle of its work; only whole lines."""
    assert child.stdout is not None
    said = b""
    while said.count(b"\n") < lines:
        piece = child.stdout.read(65536)
        assert piece, "the child ended by itself"
        said += piece
    child.send_signal(signal.SIGKILL)
    while piece := child.stdout.read(65536):
        said += piece
    child.wait()
    return said[: said.rfind(b"\n") + 1]
