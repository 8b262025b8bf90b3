"""Control groups: what is written where, on a tree of ordinary files; and for real where the machine delegates one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.executors import Surroundings
from bridge.executors.cgroups import OWN, delegated, divided
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.invocation import Failed
from bridge.leash import Leash
from tests.contracts.executor import answer, error, invocation
from tests.executors.surroundings import PATIENCE, Lines, Write, gone

pytestmark = pytest.mark.anyio

KILLED = """
    import os, pathlib, signal
    def handler(event, context):
        if event.get("group"):
            pathlib.Path(event["group"], "memory.events").write_text(event["events"])
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()
"""


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """The daemon's, as the kernel shows it."""
    group = tmp_path / "cgroup" / "system.slice" / "bridge.service"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("cpu memory pids\n")
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    (group / "cgroup.subtree_control").write_text("")
    return group


@asynccontextmanager
async def running(function: Function, group: Path) -> AsyncIterator[ProcessExecutor]:
    async with Leash() as leash:
        surroundings = Surroundings(leash, output=Lines(), cgroups=group)
        async with ProcessExecutor(function, surroundings) as executor:
            yield executor


def environments(group: Path) -> list[Path]:
    return list(group.glob("environment-*"))


def test_the_daemon_moves_out_of_its_group_to_divide_it(group: Path) -> None:
    assert divided(group) == group
    assert (group / OWN / "cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory"


def test_a_group_without_memory_is_left_alone(group: Path) -> None:
    (group / "cgroup.controllers").write_text("cpu pids\n")
    assert divided(group) is None
    assert not (group / OWN).exists()


def test_a_group_that_cannot_be_divided_is_not_used(group: Path) -> None:
    (group / "cgroup.subtree_control").unlink()
    (group / "cgroup.subtree_control").mkdir()
    assert divided(group) is None


@pytest.mark.parametrize(
    ("note", "ours", "used"),
    [
        (b"1", "0::/system.slice/bridge.service\n", True),
        (b"1", "4:memory:/elsewhere\n0::/system.slice/bridge.service\n", True),
        (b"0", "0::/system.slice/bridge.service\n", False),
        (b"", "0::/system.slice/bridge.service\n", False),
        (b"1", "0::/system.slice/another.service\n", False),
        (b"1", "4:memory:/system.slice/bridge.service\n", False),
    ],
)
def test_only_a_group_that_was_delegated_is_taken(
    group: Path, tmp_path: Path, note: bytes, ours: str, used: bool
) -> None:
    if note:
        try:
            os.setxattr(group, "user.delegate", note)
        except OSError:
            pytest.skip("this file system keeps no attributes")
    (tmp_path / "ours").write_text(ours)
    assert (delegated(tmp_path / "ours", tmp_path / "cgroup") == group) is used


async def test_each_environment_has_a_group_of_its_own(group: Path, write: Write) -> None:
    async with running(write(KILLED, memory=300), group) as executor:
        pid = answer(await executor.invoke(invocation({})))
        (folder,) = environments(group)
        assert (folder / "cgroup.procs").read_text() == str(pid)
        assert (folder / "memory.max").read_text() == str(300 << 20)
        assert (folder / "memory.swap.max").read_text() == "0"
        assert (folder / "memory.oom.group").read_text() == "1"
        assert executor._memory._timer is None  # nobody needs to look
    assert environments(group) == []


@pytest.mark.parametrize(("events", "kind"), [("low 0\noom 1\noom_kill 2\n", "oom"), ("oom 1\noom_kill 0\n", "exit")])
async def test_what_the_kernel_kills_is_out_of_memory(group: Path, write: Write, events: str, kind: str) -> None:
    async with running(write(KILLED, memory=300, timeout=PATIENCE), group) as executor:
        await executor.invoke(invocation({}))
        (folder,) = environments(group)
        outcome = await executor.invoke(invocation({"group": str(folder), "events": events}))
        assert isinstance(outcome, Failed)
        assert outcome.kind == kind
        assert error(outcome) == {  # INV-24
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {outcome.request_id} Error: Runtime exited with error: signal: killed",
        }
        assert ("Max Memory Used: 300 MB" in outcome.log_tail.decode()) == (kind == "oom")
        assert (folder / "cgroup.kill").read_text() == "1"
        assert isinstance(answer(await executor.invoke(invocation({}))), int)


async def test_a_group_that_cannot_be_made_uses_up_no_attempt(group: Path, write: Write) -> None:
    async with running(write(KILLED), group / "gone") as executor:
        outcome = await executor.invoke(invocation({}))
    assert isinstance(outcome, Failed)
    assert not outcome.ran
    assert "cannot make a control group" in error(outcome)["errorMessage"]


EATER = """
    import os, subprocess, sys
    def handler(event, context):
        if event["below"]:
            sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
            print(sleeper.pid, file=open("pid", "w"))
            return subprocess.run([sys.executable, "-c", f"b'x' * ({event['mib']} << 20)"]).returncode
        return len(b"x" * (event["mib"] << 20))
"""


@pytest.fixture(scope="module")
def real() -> Path:
    """That of these tests, which run in a group below it from here on."""
    group = delegated()
    if group is None:
        pytest.skip("no control group with memory was delegated to these tests (systemd-run -p Delegate=memory)")
    return group


@pytest.mark.parametrize("below", [False, True])
async def test_the_kernel_holds_an_environment_to_its_memory(real: Path, write: Write, below: bool) -> None:
    worker = write(EATER, memory=128, timeout=PATIENCE)
    async with running(worker, real) as executor:
        assert isinstance(answer(await executor.invoke(invocation({"mib": 20, "below": False}))), int)
        event: Any = {"mib": 300, "below": below}
        outcome = await executor.invoke(invocation(event))
        assert isinstance(outcome, Failed)
        assert outcome.kind == "oom"
        if below:
            await gone(int((worker.code / "pid").read_text()))  # although it had left the process group
    assert environments(real) == []
