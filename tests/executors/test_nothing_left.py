"""When the daemon is gone, by whatever means, nothing of it is left: no process, no port, no folder."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.executors.surroundings import PATIENCE, alive, gone

pytestmark = pytest.mark.anyio


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


def started(folder: Path) -> subprocess.Popen[str]:
    """A daemon that is about to start its children."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.executors.daemon_like", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


async def next_line(daemon: subprocess.Popen[str]) -> str:
    assert daemon.stdout is not None
    with anyio.fail_after(PATIENCE):
        return await anyio.to_thread.run_sync(daemon.stdout.readline)


def children_of(folder: Path) -> list[int]:
    """All processes that carry it in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"FOLDER={folder}\0".encode() in (process / "environ").read_bytes() and alive(int(process.name)):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGABRT])
async def test_a_killed_daemon_leaves_nothing(end: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    with started(folder) as daemon:
        assert await next_line(daemon) == "up\n"
        told = json.loads(await next_line(daemon))
        first, works, waits = told["told"]
        assert first == works
        assert first != waits
        pids = {*works[:2], *waits[:2], told["guard"]}
        ports = (works[2], waits[2])
        assert len(pids) == 5
        assert all(alive(pid) for pid in pids)
        assert all(listens(port) for port in ports)
        assert sorted(children_of(folder)) == sorted(pids - {told["guard"]})
        daemon.send_signal(end)
        assert daemon.wait(PATIENCE) != 0
    for pid in pids:
        await gone(pid)
    assert not any(listens(port) for port in ports)
    assert not folder.exists()


@pytest.mark.parametrize("instant", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
async def test_killed_while_it_starts_it_leaves_nothing(instant: float, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    with started(folder) as daemon:
        assert await next_line(daemon) == "up\n"
        await anyio.sleep(instant)
        daemon.kill()
        daemon.wait(PATIENCE)
    with anyio.fail_after(PATIENCE):
        while folder.exists() or children_of(folder):
            await anyio.sleep(0.01)
