"""The leash: what is held goes when the daemon goes, by whatever means; what was released stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from bridge.errors import BridgeError
from bridge.leash import Leash
from tests.executors.surroundings import alive, gone

pytestmark = pytest.mark.anyio

HOLDER = """
import subprocess, sys
import anyio
from bridge.leash import Leash

async def main():
    async with Leash() as leash:
        command = ["/bin/sh", "-c", "sleep 600 & echo $!; wait"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        leash.hold_group(child.pid)
        leash.hold_folder(sys.argv[1])
        print(child.pid, child.stdout.readline().decode().strip(), leash._guard.pid, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@contextmanager
def group() -> Iterator[subprocess.Popen[bytes]]:
    """A process group with a child and a grandchild."""
    child = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    with child:
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def grandchild(child: subprocess.Popen[bytes]) -> int:
    assert child.stdout is not None
    return int(child.stdout.readline())


async def test_leaving_kills_groups_and_removes_folders(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    with group() as child:
        below = grandchild(child)
        async with Leash() as leash:
            leash.hold_group(child.pid)
            leash.hold_folder(folder)
            assert repr(leash).endswith("2 held>")
            assert alive(child.pid)
        assert not folder.exists()
        await gone(below)
        assert child.wait(20) == -signal.SIGKILL


async def test_what_is_released_stays(tmp_path: Path) -> None:
    with group() as child:
        async with Leash() as leash:
            for _ in range(2):
                leash.hold_group(child.pid)
                leash.hold_folder(tmp_path)
            leash.release_group(child.pid)
            leash.release_folder(tmp_path)
        assert alive(child.pid)
        assert tmp_path.exists()


async def test_folders_of_any_name_are_removed(tmp_path: Path) -> None:
    folders = [
        tmp_path / "with\nnewline",
        tmp_path / "with space",
        tmp_path / os.fsdecode(b"not-utf8-\xff"),
        tmp_path / "gone",
    ]
    for folder in folders[:-1]:
        folder.mkdir()
    async with Leash() as leash:
        for folder in folders:
            leash.hold_folder(folder)
    assert list(tmp_path.iterdir()) == []


async def test_a_relative_folder_is_the_one_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    async with Leash() as leash:
        leash.hold_folder("held")
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert not (tmp_path / "held").exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_killed_daemon_leaves_nothing(tmp_path: Path, end: signal.Signals) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        pids = [int(pid) for pid in holder.stdout.readline().split()]
        assert all(alive(pid) for pid in pids)
        holder.send_signal(end)
        holder.wait(20)
    for pid in pids:
        await gone(pid)
    assert not folder.exists()


async def test_signals_for_the_daemon_do_not_end_the_guard(tmp_path: Path) -> None:
    with group() as child:
        async with Leash() as leash:
            leash.hold_group(child.pid)
            guard = await settled(leash)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(guard, number)
            assert os.getsid(guard) == guard  # no Ctrl-C at the terminal reaches it either
            assert alive(child.pid)
            assert alive(guard)
        assert child.wait(20) == -signal.SIGKILL


async def settled(leash: Leash) -> int:
    """The pid of the guard, once it has taken its signals in hand."""
    assert leash._guard is not None
    status = Path(f"/proc/{leash._guard.pid}/status")
    with anyio.fail_after(20):
        while True:
            ignored = next(line for line in status.read_text().splitlines() if line.startswith("SigIgn"))
            mask = int(ignored.split()[1], 16)  # some of them may have been ignored before it began (nohup)
            if all(mask >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
                return leash._guard.pid
            await anyio.sleep(0.01)


async def test_a_guard_that_was_killed_is_replaced_and_told_everything(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    with group() as child:
        async with Leash() as leash:
            leash.hold_group(child.pid)
            assert leash._guard is not None
            first = leash._guard.pid
            os.kill(first, signal.SIGKILL)
            await gone(first)
            leash.hold_folder(folder)  # notices
            assert leash._guard.pid != first
        assert child.wait(20) == -signal.SIGKILL
    assert not folder.exists()


async def test_a_guard_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(BridgeError, match="cannot start the guard"):
        async with Leash():
            pass


async def test_a_guard_that_cannot_be_replaced_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with Leash() as leash:
        leash.hold_folder(first)
        assert leash._guard is not None
        pid = leash._guard.pid
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/nowhere/python")
            os.kill(pid, signal.SIGKILL)
            await gone(pid)
            with pytest.raises(BridgeError, match="cannot start the guard"):
                leash.hold_folder(second)
            leash.release_folder(second)
        leash.hold_folder(second)
    assert list(tmp_path.iterdir()) == []


async def test_a_release_without_a_guard_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Leash() as leash:
        leash.hold_folder(tmp_path)
        assert leash._guard is not None
        pid = leash._guard.pid
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/nowhere/python")
            os.kill(pid, signal.SIGKILL)
            await gone(pid)
            leash.release_folder(tmp_path)
        leash.release_folder(tmp_path)
    assert tmp_path.exists()


async def test_outside_its_time_it_holds_nothing() -> None:
    leash = Leash()
    with pytest.raises(RuntimeError):
        leash.hold_group(1)
    leash.release_group(1)
    async with leash:
        pass
    with pytest.raises(RuntimeError):
        leash.hold_group(1)
    leash.release_group(1)
