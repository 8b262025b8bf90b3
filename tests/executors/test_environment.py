"""Environments as processes: their groups, their ends, what is kept warm, and what becomes of those that misbehave."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest
import structlog

from bridge.executors import Environments, environment
from bridge.invocation import Failed, Succeeded
from tests.contracts.executor import answer, invocation
from tests.executors.surroundings import PATIENCE, Lines, Write, alive, appears, function, gone, running, said

pytestmark = pytest.mark.anyio

FAMILY = """
    import os, subprocess, time
    def handler(event, context):
        below = subprocess.Popen(["sleep", "600"])
        with open("pids", "w") as pids:
            pids.write(f"{os.getpid()} {below.pid}\\n")
        how = event["how"]
        if how == "hang":
            time.sleep(600)
        if how == "exit":
            os._exit(1)
        return [os.getpid(), below.pid]
"""


async def test_a_time_out_kills_the_whole_group(write: Write, tmp_path: Path) -> None:  # RT-33
    async with running(write(FAMILY, timeout=0.5)) as executor:
        outcome = await executor.invoke(invocation({"how": "hang"}))
        assert isinstance(outcome, Failed)
        for pid in (tmp_path / "pids").read_text().split():
            await gone(int(pid))
        assert executor.environments() == Environments()


async def test_a_crash_kills_what_it_leaves_behind(write: Write, tmp_path: Path) -> None:
    async with running(write(FAMILY)) as executor:
        outcome = await executor.invoke(invocation({"how": "exit"}))
        assert isinstance(outcome, Failed)
        assert outcome.kind == "exit"
        for pid in (tmp_path / "pids").read_text().split():
            await gone(int(pid))


async def test_a_cancelled_invocation_kills_the_whole_group(write: Write, tmp_path: Path) -> None:
    async with running(write(FAMILY, timeout=60.0)) as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(executor.invoke, invocation({"how": "hang"}))
            pids = await appears(tmp_path / "pids")
            group.cancel_scope.cancel()
        for pid in pids.split():
            await gone(int(pid))


async def test_leaving_kills_what_waits(write: Write) -> None:
    async with running(write(FAMILY)) as executor:
        pids = answer(await executor.invoke(invocation({"how": "answer"})))
        assert all(alive(pid) for pid in pids)
    for pid in pids:
        await gone(pid)


async def test_an_environment_is_a_session_of_its_own(write: Write) -> None:
    code = (
        "import os\ndef handler(event, context):\n    return [os.getpid(), os.getsid(0), os.getpgrp(), os.getcwd()]\n"
    )
    async with running(write(code)) as executor:
        pid, session, group, folder = answer(await executor.invoke(invocation()))
    assert pid == session == group
    assert folder == str(executor.function.code)


async def test_an_unused_environment_is_retired(write: Write) -> None:  # RT-35, RT-36
    code = "import os\ndef handler(event, context):\n    return os.getpid()\n"
    async with running(write(code, idle_timeout=0.1)) as executor:
        pid = answer(await executor.invoke(invocation()))
        await gone(pid)
        assert executor.environments() == Environments()
        assert answer(await executor.invoke(invocation())) != pid


async def test_the_environment_used_last_is_used_next(write: Write, tmp_path: Path) -> None:
    code = """
        import os, pathlib, time
        def handler(event, context):
            if event:
                pathlib.Path(f"here-{event}").touch()
                while not pathlib.Path("go").exists():
                    time.sleep(0.01)
            return os.getpid()
    """
    async with running(write(code, timeout=PATIENCE)) as executor:
        pids: list[int] = []

        async def run(name: str) -> None:
            pids.append(answer(await executor.invoke(invocation(name))))

        async with anyio.create_task_group() as group:
            for name in ("a", "b"):
                group.start_soon(run, name)
            with anyio.fail_after(PATIENCE):
                while len(list(tmp_path.glob("here-*"))) < 2:
                    await anyio.sleep(0.01)
            (tmp_path / "go").touch()
        assert executor.environments() == Environments(idle=2)
        assert [answer(await executor.invoke(invocation())) for _ in range(3)] == [pids[-1]] * 3
        assert executor.environments() == Environments(idle=2)


async def test_a_process_that_dies_while_it_waits_is_forgotten(write: Write) -> None:
    code = "import os\ndef handler(event, context):\n    return os.getpid()\n"
    with structlog.testing.capture_logs() as logs:
        async with running(write(code)) as executor:
            pid = answer(await executor.invoke(invocation()))
            os.kill(pid, signal.SIGKILL)
            with anyio.fail_after(PATIENCE):
                while executor.environments().idle:
                    await anyio.sleep(0.01)
            assert answer(await executor.invoke(invocation())) != pid
    assert [(line["event"], line["reason"]) for line in said(logs)] == [
        ("environment_lost", "Runtime exited with error: signal: killed")
    ]


async def test_a_process_that_dies_just_before_its_event_comes_costs_nothing(write: Write) -> None:
    """However close together they are, the event goes to a process that is there, or its end is told."""
    code = "import os\ndef handler(event, context):\n    return os.getpid()\n"
    async with running(write(code), output=Lines()) as executor:
        for _ in range(10):
            pid = answer(await executor.invoke(invocation()))
            os.kill(pid, signal.SIGKILL)
            outcome = await executor.invoke(invocation())
            assert isinstance(outcome, Succeeded) or outcome.kind == "exit"


async def test_a_runtime_that_does_not_ask_again_is_replaced(write: Write) -> None:
    """What it does after its answer is limited by the same timeout; the next invocation waits, or starts anew."""
    code = """
        import os, sys, time
        client = sys.modules["__main__"]
        def handler(event, context):
            connection = client.Connection(os.environ["AWS_LAMBDA_RUNTIME_API"])
            connection.send(connection.post(f"invocation/{context.aws_request_id}/response", b'"early"'))
            time.sleep(600)
    """
    with structlog.testing.capture_logs() as logs:
        async with running(write(code, timeout=0.5)) as executor:
            assert answer(await executor.invoke(invocation())) == "early"
            assert executor.environments() == Environments(idle=1)
            assert answer(await executor.invoke(invocation())) == "early"
            with anyio.fail_after(PATIENCE):
                while executor.environments().idle:
                    await anyio.sleep(0.01)
    assert [line["event"] for line in said(logs)] == ["environment_lost"]


async def test_an_answer_counts_though_its_process_ends_at_once(write: Write) -> None:
    code = """
        import os, sys
        client = sys.modules["__main__"]
        def handler(event, context):
            connection = client.Connection(os.environ["AWS_LAMBDA_RUNTIME_API"])
            connection.send(connection.post(f"invocation/{context.aws_request_id}/response", b'"last"'))
            os._exit(0)
    """
    async with running(write(code)) as executor:
        for _ in range(10):
            assert answer(await executor.invoke(invocation())) == "last"


async def test_a_process_outside_the_group_cannot_hold_up_the_end(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "HANG_UP", 0.1)
    code = """
        import os, subprocess, sys
        client = sys.modules["__main__"]
        def handler(event, context):
            connection = client.Connection(os.environ["AWS_LAMBDA_RUNTIME_API"])
            kept = [connection._socket.fileno()]
            below = subprocess.Popen(["sleep", "600"], start_new_session=True, pass_fds=kept)
            with open("pid", "w") as pid:
                pid.write(f"{below.pid}\\n")
            os._exit(4)
    """
    try:
        async with running(write(code)) as executor:
            with anyio.fail_after(PATIENCE):
                outcome = await executor.invoke(invocation())
        assert isinstance(outcome, Failed)
        assert outcome.kind == "exit"
        assert alive(int((tmp_path / "pid").read_text()))
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("instant", [number * 0.004 for number in range(20)])
async def test_it_may_be_cancelled_at_any_instant(instant: float) -> None:
    async with running(function("behaviours.echo"), output=Lines()) as executor:
        with anyio.move_on_after(instant):
            while True:
                await executor.invoke(invocation())
        assert executor.environments() == Environments()
        assert answer(await executor.invoke(invocation([1]))) == [1]


async def test_without_pidfd_a_thread_watches(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refused)
    async with running(write(FAMILY)) as executor:
        outcome = await executor.invoke(invocation({"how": "exit"}))
        assert isinstance(outcome, Failed)
        assert outcome.kind == "exit"
        pids = answer(await executor.invoke(invocation({"how": "answer"})))
    for pid in pids:
        await gone(pid)
