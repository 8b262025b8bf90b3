"""The store in an SQLite file: private, locked, and clear about what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from bridge.errors import StateError
from bridge.position import Position
from bridge.stores import open_store, sqlite
from tests.contracts.store import STREAM, A, B, StoreContract, event, move


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "state.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def url(self, path: Path) -> str:
        return f"sqlite:///{path}"


async def refused(url: str) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(StateError) as caught:
        async with open_store(url):
            pytest.fail("it was opened")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("state file ")
    return message


@pytest.mark.anyio
async def test_it_can_be_backed_up_while_it_is_open(url: str, path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with open_store(url) as store:
        await store.pause(A)
        await store.move_positions([move("shard", "1")])
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)  # what `.backup` of the sqlite3 shell does
        await store.pause(B)
    async with open_store(f"sqlite:///{copy}") as restored:
        assert await restored.paused() == {A}
        assert (await restored.positions(A, STREAM)).keys() == {"shard"}


@pytest.mark.anyio
async def test_failures_are_counted(url: str) -> None:
    async with open_store(url) as store:
        await store.pause(A)
        assert store.failures == 0
    with pytest.raises(StateError):
        await store.pause(A)
    async with open_store(url) as first:
        second = open_store(url)
        with pytest.raises(StateError):
            await second.__aenter__()
        assert (first.failures, second.failures) == (0, 1)


@pytest.mark.anyio
async def test_namespaces_do_not_see_each_other_and_may_be_open_together(url: str) -> None:
    async with open_store(url) as one, open_store(f"{url}?namespace=me") as other:
        await one.pause(A)
        await other.pause(B)
        assert await one.paused() == {A}
        assert await other.paused() == {B}
        assert "another daemon" in await refused(f"{url}?namespace=me")


@pytest.mark.anyio
async def test_nobody_else_may_read_it(path: Path, url: str) -> None:
    before = os.umask(0)  # the most generous one
    try:
        async with open_store(url) as store:
            await store.pause(A)
            files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert files == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm", "state.db.lock"), 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.anyio
async def test_a_file_that_others_could_read_becomes_private(path: Path, url: str) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    async with open_store(url):
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_a_second_daemon_is_kept_out_and_told_who_is_in(url: str) -> None:
    async with open_store(url):
        message = await refused(url)
        assert f"another daemon (pid {os.getpid()}) uses it" in message
    async with open_store(url):
        pass


HOLDER = """
import asyncio, sys
from bridge.stores import open_store
async def main():
    async with open_store(sys.argv[1]) as store:
        await store.pause("x")
        print("open", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.anyio
async def test_a_killed_daemon_leaves_the_file_free_and_whole(url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert await anyio.to_thread.run_sync(child.stdout.readline) == b"open\n"
        assert f"pid {child.pid}" in await refused(url)
        child.kill()
        await anyio.to_thread.run_sync(child.wait)
    async with open_store(url) as store:
        assert await store.paused() == {"x"}


@pytest.mark.anyio
async def test_the_file_says_whose_it_is_and_how_old(path: Path, url: str) -> None:
    async with open_store(url):
        pass
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (sqlite.APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(sqlite.MIGRATIONS),)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def prepare(path: Path, *statements: str) -> None:
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.anyio
async def test_a_newer_schema_is_refused_untouched(path: Path, url: str) -> None:
    prepare(path, f"PRAGMA application_id = {sqlite.APPLICATION_ID}", "PRAGMA user_version = 99")
    before = path.read_bytes()
    message = await refused(url)
    assert "newer bridge (schema 99" in message
    assert "upgrade" in message
    assert path.read_bytes() == before


@pytest.mark.anyio
async def test_another_programs_file_is_refused_untouched(path: Path, url: str) -> None:
    prepare(path, "CREATE TABLE photos (name)")
    before = path.read_bytes()
    assert "belongs to another program" in await refused(url)
    assert path.read_bytes() == before


@pytest.mark.anyio
async def test_a_half_made_schema_does_not_stay(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MIGRATIONS", (("CREATE TABLE one (a)", "CREATE nonsense"),))
    assert "nonsense" in await refused(url)
    monkeypatch.undo()
    async with open_store(url) as store:
        assert await store.paused() == frozenset()


@pytest.mark.anyio
@pytest.mark.parametrize("content", [b"this is no database, " * 500, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_a_file_that_is_no_database_is_refused_untouched(path: Path, url: str, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    message = await refused(url)
    assert "damaged" in message
    assert "move it away" in message
    assert path.read_bytes() == content


@pytest.mark.anyio
async def test_a_damaged_file_is_refused(path: Path, url: str) -> None:
    async with open_store(url) as store:
        for number in range(500):
            await store.pause(f"{number:0100}")
    content = bytearray(path.read_bytes())
    content[4096 : len(content) - 4096] = b"\xaa" * (len(content) - 8192)
    path.write_bytes(content)
    assert "damaged" in await refused(url)


@pytest.mark.anyio
async def test_a_folder_is_refused(path: Path, url: str) -> None:
    path.mkdir(parents=True)
    assert "is a folder" in await refused(url)


@pytest.mark.anyio
async def test_a_file_where_the_folder_should_be_is_refused(path: Path, url: str) -> None:
    path.parent.touch()
    assert "folder cannot be made" in await refused(url)
    assert "folder cannot be made" in await refused(f"sqlite:///{path}/deeper/state.db")


@pytest.mark.anyio
async def test_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    assert "no regular file" in await refused(f"sqlite:///{tmp_path}/null")


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Permissions do not bind root: be somebody else meanwhile, who can reach ``folder``."""
    if os.geteuid() != 0:
        yield
        return
    modes = {parent: parent.stat().st_mode & 0o7777 for parent in (folder, *folder.parents)}
    closed = {parent: mode for parent, mode in modes.items() if mode & 0o055 != 0o055}
    for parent, mode in closed.items():
        parent.chmod(mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for parent, mode in closed.items():
            parent.chmod(mode)


@pytest.mark.anyio
async def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path, url: str) -> None:
    async with open_store(url) as store:  # all modules are loaded now
        await store.pause(A)
    folder = tmp_path / "locked"
    folder.mkdir(0o555)
    with as_nobody(tmp_path):
        assert "let this user write to" in await refused(f"sqlite:///{folder}/state.db")
        assert "let this user write to" in await refused(f"sqlite:///{folder}/new/state.db")


@pytest.mark.anyio
async def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with open_store(f"sqlite:///{path}"):
        pass
    path.chmod(0o400)
    path.with_name("state.db.lock").chmod(0o666)
    with as_nobody(tmp_path):
        assert "let this user write to" in await refused(f"sqlite:///{path}")


FULL = """
import asyncio, resource, sys
from bridge.errors import StateError
from bridge.stores import open_store
async def main():
    async with open_store(sys.argv[1]) as store:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, hard))   # no file may grow further
        kept = 0
        while True:
            try:
                await store.pause(str(kept))
            except StateError as error:
                print(error)
                break
            kept += 1
        assert kept > 3
        assert await store.paused() == {str(number) for number in range(kept)}
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.pause("again")
        assert await store.paused() == {"again", *(str(number) for number in range(kept))}
asyncio.run(main())
"""


def test_a_write_that_fails_changes_nothing(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, url], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert "free some space" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.anyio
async def test_a_full_disk_is_noticed_at_the_start(path: Path, url: str) -> None:
    path.parent.mkdir()
    path.with_name("state.db.lock").symlink_to("/dev/full")
    assert "disk is full; free some space" in await refused(url)


@pytest.mark.anyio
async def test_a_file_kept_locked_by_another_program_is_named(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_WAIT", 0.05)
    async with open_store(url) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="another program keeps it locked"):
            await store.pause(A)
        other.execute("ROLLBACK")
        other.close()
        await store.pause(A)
        assert await store.paused() == {A}


@pytest.mark.anyio
async def test_the_loop_goes_on_and_the_call_ends_while_the_disk_hangs(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's lock stands for the disk: SQLite waits for it in the same place, and longer than we do."""
    async with open_store(url) as store:
        monkeypatch.setattr(sqlite, "PATIENCE", 0.2)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.01)
                ticks += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            with pytest.raises(StateError, match="no answer within"):
                await store.pause(A)
            tasks.cancel_scope.cancel()
        assert ticks >= 5
        other.execute("ROLLBACK")
        other.close()
        monkeypatch.undo()
        assert await store.paused() == frozenset()  # waits for its turn: the write had been called off
        await store.pause(A)
        assert await store.paused() == {A}


@pytest.mark.anyio
async def test_what_waited_behind_a_disk_that_hangs_does_not_happen_later(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(url) as store:
        await store.move_positions([move("s", "1")])
        monkeypatch.setattr(sqlite, "PATIENCE", 0.2)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for position in ("2", "3"):
            with pytest.raises(StateError, match="no answer within"):
                await store.move_positions([move("s", position)])
        other.execute("ROLLBACK")
        other.close()
        monkeypatch.undo()
        assert await store.positions(A, STREAM) == {"s": Position(position="1")}
        await store.move_positions([move("s", "4")])
        assert await store.positions(A, STREAM) == {"s": Position(position="4")}


@pytest.mark.anyio
async def test_a_closed_store_says_so(url: str) -> None:
    store = open_store(url)
    with pytest.raises(StateError, match="not open"):
        await store.paused()


@pytest.mark.anyio
async def test_events_of_namespaces_do_not_mix(url: str) -> None:
    async with open_store(url) as one, open_store(f"{url}?namespace=me") as other:
        await one.change_events(added=[event(A)])
        await other.change_events(added=[event(A, payload=b"2")])
        await one.change_events(done=[A])
        assert await one.waiting_events() == []
        assert await other.event(A) == event(A, payload=b"2")


@pytest.mark.anyio
async def test_a_change_happens_whole_or_not_at_all(url: str) -> None:
    async with open_store(url) as store:
        await store.change_events(added=[event(A)])
        broken = event(B, function=None)  # the table takes none
        with pytest.raises(StateError, match="NOT NULL"):
            await store.change_events(added=[broken], done=[A])
        assert [it.request_id for it in await store.waiting_events()] == [A]
        await store.change_events(done=[A])
        assert await store.waiting_events() == []


def flushing(store: object) -> int:
    """SQLite's own word for how the last write was flushed."""
    assert isinstance(store, sqlite.SqliteStore)
    assert store._file
    assert store._file._connection
    (level,) = store._file._connection.execute("PRAGMA synchronous").fetchone()
    return int(level)


@pytest.mark.anyio
async def test_positions_alone_are_written_without_a_flush(url: str) -> None:
    async with open_store(url) as store:
        await store.pause(A)
        assert flushing(store) == 2
        await store.move_positions([move("s", "1")])
        assert flushing(store) == 1  # NORMAL
        await store.change_events(added=[event(A)])
        assert flushing(store) == 2
        await store.move_positions([move("s", "2")])
        await store.forget_positions(A)
        assert flushing(store) == 2


@pytest.mark.anyio
async def test_positions_of_namespaces_do_not_mix(url: str) -> None:
    async with open_store(url) as one, open_store(f"{url}?namespace=me") as other:
        await one.move_positions([move("s", "1")])
        await other.move_positions([move("s", "2"), move("t", "2")])
        await one.move_positions([move("t", None)])
        assert await one.positions(A, STREAM) == {"s": Position(position="1")}
        assert await other.positioned() == {A: 2}
        await other.forget_positions(A)
        assert await one.positioned() == {A: 1}


@pytest.mark.anyio
async def test_accepted_events_are_flushed_to_the_disk(path: Path, url: str) -> None:  # ASY-1: 202 after it
    async with open_store(url) as store:
        await store.change_events(added=[event(A)])
        assert flushing(store) == 2  # FULL


@pytest.mark.anyio
async def test_a_file_of_the_first_version_is_taken_along(path: Path, url: str) -> None:
    (first, *_) = sqlite.MIGRATIONS
    prepare(
        path, *first, "INSERT INTO pauses VALUES ('', 'x', 1)", "PRAGMA user_version = 1",
        f"PRAGMA application_id = {sqlite.APPLICATION_ID}",
    )  # fmt: skip
    async with open_store(url) as store:
        assert await store.paused() == {"x"}
        await store.change_events(added=[event(A)])
        assert await store.event(A) == event(A)
        await store.move_positions([move("s", "1")])
        assert await store.positions(A, STREAM) == {"s": Position(position="1")}


@pytest.mark.anyio
async def test_positions_are_read_beside_whoever_has_the_file_open(url: str, path: Path) -> None:
    assert sqlite.positions_of(url, A, STREAM) == {}
    assert not path.exists()
    assert sqlite.positions_of("memory:", A, STREAM) == {}
    async with open_store(url) as store:
        await store.move_positions([move("shard-1", "here", epoch=3, ended=True)])
        there = sorted(path.parent.iterdir())
        read = sqlite.positions_of(url, A, STREAM)
        assert read == await store.positions(A, STREAM)
        assert read["shard-1"].epoch == 3
        assert sorted(path.parent.iterdir()) == there
        await store.move_positions([move("shard-1", "further", epoch=3)])
        assert sqlite.positions_of(url, A, STREAM)["shard-1"].position == "further"
    there = sorted(path.parent.iterdir())
    assert sqlite.positions_of(url, A, STREAM)["shard-1"].position == "further"
    assert sqlite.positions_of(url, B, STREAM) == {}
    assert sqlite.positions_of(f"{url}?namespace=other", A, STREAM) == {}
    assert sorted(path.parent.iterdir()) == there  # nothing that a daemon of another user could not open


def test_positions_of_a_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    file.write_text("no database at all, whatever it is called")
    with pytest.raises(StateError, match="cannot be read"):
        sqlite.positions_of(f"sqlite:///{file}", A, STREAM)
