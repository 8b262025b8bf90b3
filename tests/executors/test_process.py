"""Child processes: the contract first, then what is peculiar to them."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from bridge.errors import UsageError
from bridge.executors import EXECUTORS, Environments, Executor, process
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.invocation import Failed, Outcome, Succeeded
from tests.contracts.executor import ExecutorContract, answer, error, invocation
from tests.executors.interpreters import interpreters
from tests.executors.surroundings import PATIENCE, Lines, Write, alive, appears, function, running, said

pytestmark = pytest.mark.anyio


class TestContract(ExecutorContract):
    def function(self, behaviour: str, **settings: Any) -> Function:
        return function(f"behaviours.{behaviour}", **settings)

    def executor(self, function: Function) -> AbstractAsyncContextManager[Executor]:
        return running(function)


def test_it_is_the_executor_of_python_functions() -> None:
    module, _, name = EXECUTORS["python"].partition(":")
    assert getattr(sys.modules[module], name) is ProcessExecutor


# What must be there before anything starts.


@pytest.mark.parametrize("python", ["/nowhere/python3", "/etc/passwd", "no-such-python"])
async def test_a_missing_interpreter_is_told_on_entering(python: str) -> None:
    worker = function("behaviours.echo", python=python, where="bridge.yaml:7")
    with pytest.raises(
        UsageError, match=rf"^bridge\.yaml:7: functions\.worker\.python: {python} is no executable file; .+$"
    ):
        async with running(worker):
            pass


async def test_a_missing_code_folder_is_told_on_entering(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^functions\.worker\.CodeUri: {tmp_path}/nowhere does not exist; .+$"):
        async with running(function("app.handler", code=tmp_path / "nowhere")):
            pass


async def test_a_runtime_of_another_version_is_a_warning_once() -> None:
    version = f"3.{sys.version_info[1] + 1}"
    worker = function("behaviours.leaves", runtime=f"python{version}")
    with structlog.testing.capture_logs() as logs:
        async with running(worker, output=Lines()) as executor:
            for event in ({}, {"status": 1}, {}):
                await executor.invoke(invocation(event))
    (told,) = [line for line in logs if line["event"] == "runtime_version_differs"]
    assert told["log_level"] == "warning"
    assert told["runtime"] == f"python{version}"
    assert told["version"] == "{}.{}".format(*sys.version_info)


async def test_the_right_version_is_no_warning() -> None:
    version = "{}.{}".format(*sys.version_info)
    with structlog.testing.capture_logs() as logs:
        async with running(function("behaviours.echo", runtime=f"python{version}")) as executor:
            await executor.invoke(invocation())
    assert said(logs) == []


async def test_an_interpreter_that_vanishes_uses_up_no_attempt(tmp_path: Path, write: Write) -> None:
    python = tmp_path / "python"
    python.symlink_to(next(iter(interpreters().values())))
    async with running(write("def handler(event, context): pass", python=str(python))) as executor:
        python.unlink()
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable"
    assert not outcome.ran
    assert error(outcome) == {
        "errorType": "Runtime.InvalidEntrypoint",
        "errorMessage": f"RequestId: {outcome.request_id} Error: "
        f"cannot start {python} in {tmp_path}: No such file or directory",
    }
    assert executor.environments() == Environments()


# Init (RT-30, RT-31).


async def test_code_is_loaded_once_per_environment(write: Write) -> None:
    lines = Lines()
    async with running(write("print('init')\ndef handler(event, context): pass"), output=lines) as executor:
        for _ in range(3):
            await executor.invoke(invocation())
    assert lines.texts == ["init"]


async def test_an_init_that_fails_is_repeated_inside_the_invocation(write: Write, tmp_path: Path) -> None:
    code = """
        import pathlib
        marker = pathlib.Path("tried")
        if not marker.exists():
            marker.touch()
            raise RuntimeError("not yet")
        def handler(event, context):
            return "now"
    """
    with structlog.testing.capture_logs() as logs:
        async with running(write(code), output=Lines()) as executor:
            assert answer(await executor.invoke(invocation())) == "now"
    (told,) = said(logs)
    assert (told["event"], told["log_level"]) == ("init_failed", "warning")
    assert (told["status"], told["error_type"]) == ("error", "RuntimeError")


async def test_an_init_that_ends_its_process_twice_is_the_outcome(write: Write, tmp_path: Path) -> None:  # INV-24
    code = 'import sys\nwith open("tries", "a") as tries:\n    tries.write("x\\n")\nsys.exit(5)\n'
    async with running(write(code)) as executor:
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "exit"
    assert error(outcome)["errorMessage"].endswith("Runtime exited with error: exit status 5")
    assert (tmp_path / "tries").read_text() == "x\n" * 2


async def test_an_init_that_hangs_is_killed_and_repeated(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "INIT_LIMIT", 0.5)
    code = """
        import pathlib, time
        marker = pathlib.Path("tried")
        if not marker.exists():
            marker.touch()
            time.sleep(600)
        time.sleep(0.2)
        def handler(event, context):
            return context.get_remaining_time_in_millis()
    """
    with structlog.testing.capture_logs() as logs:
        async with running(write(code, timeout=5.0)) as executor:
            # The second init counts as a part of the invocation.
            assert 3000 < answer(await executor.invoke(invocation())) <= 4800
    assert [(line["event"], line["status"]) for line in said(logs)] == [("init_failed", "timeout")]


async def test_an_init_that_hangs_twice_is_a_time_out(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "INIT_LIMIT", 0.2)
    async with running(write("import time\ntime.sleep(600)", timeout=0.3)) as executor:
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "timeout"
    assert error(outcome)["errorMessage"].endswith("Task timed out after 0.30 seconds")


async def test_crashes_do_not_spin(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(write("import os\ndef handler(event, context):\n    os._exit(1)\n")) as executor:
        with anyio.move_on_after(1.5):
            outcomes: list[Outcome] = []
            while True:
                outcomes.append(await executor.invoke(invocation()))
    # Four at once; then after 0.1, 0.2, 0.4 and 0.8 seconds.
    assert 1 <= len(outcomes) <= 8


async def test_an_invocation_that_outlives_its_executor_starts_nothing(write: Write, tmp_path: Path) -> None:
    code = """
        import os, time
        with open("pids", "a") as pids:
            pids.write(f"{os.getpid()}\\n")
        time.sleep(600)
    """
    outcomes: list[Outcome] = []
    async with anyio.create_task_group() as group, running(write(code)) as executor:

        async def run() -> None:
            outcomes.append(await executor.invoke(invocation()))

        group.start_soon(run)
        await appears(tmp_path / "pids")
    (outcome,) = outcomes
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable"
    (pid,) = (tmp_path / "pids").read_text().split()
    assert not alive(int(pid))


# RT-24.


async def test_a_wrapper_starts_the_runtime(write: Write, tmp_path: Path) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\nexport WRAPPED="$1"\nexec "$@"\n')
    wrapper.chmod(0o755)
    code = "import os\ndef handler(event, context):\n    return os.environ['WRAPPED']\n"
    async with running(write(code, environment={"AWS_LAMBDA_EXEC_WRAPPER": str(wrapper)})) as executor:
        assert answer(await executor.invoke(invocation())) == sys.executable


async def test_a_missing_wrapper_is_status_127(write: Write) -> None:
    worker = write("def handler(event, context): pass", environment={"AWS_LAMBDA_EXEC_WRAPPER": "/nowhere/wrapper"})
    async with running(worker) as executor:
        outcome = await executor.invoke(invocation())
    assert error(outcome)["errorType"] == "Runtime.ExitError"
    assert error(outcome)["errorMessage"].endswith("Runtime exited with error: exit status 127")


# What it says.


async def test_failures_are_logged_once_and_then_counted() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running(function("behaviours.raises"), output=Lines()) as executor:
            first = await executor.invoke(invocation(mapping="orders"))
            await executor.invoke(invocation(mapping="orders"))
            await executor.invoke(invocation(mapping="returns"))
    assert [(line["event"], line["log_level"], line["mapping"]) for line in said(logs)] == [
        ("invocation_failed", "warning", "orders"),
        ("invocation_failed", "warning", "returns"),
    ]
    told = said(logs)[0]
    assert told["function"] == "worker"
    assert told["request_id"] == first.request_id
    assert (told["kind"], told["error_type"], told["message"]) == ("function", "ValueError", "no")


async def test_the_log_tail(write: Write) -> None:  # INV-30, RT-50
    code = """
        print("init")
        def handler(event, context):
            print("working", event["n"])
            print("no end", end="")
    """
    async with running(write(code, memory=256), output=Lines()) as executor:
        first = await executor.invoke(invocation({"n": 1}))
        second = await executor.invoke(invocation({"n": 2}))
    start, work, rest, end, report = first.log_tail.decode().splitlines()
    assert start == f"START RequestId: {first.request_id} Version: $LATEST"
    assert (work, rest) == ("working 1", "no end")
    assert end == f"END RequestId: {first.request_id}"
    fields = report.split("\t")
    assert fields[0] == f"REPORT RequestId: {first.request_id}"
    assert [field.split(":")[0] for field in fields[1:-1]] == [
        "Duration",
        "Billed Duration",
        "Memory Size",
        "Max Memory Used",
        "Init Duration",
    ]
    assert "Memory Size: 256 MB" in fields
    assert fields[-1] == ""
    assert b"Init Duration" not in second.log_tail
    assert b"working 1" not in second.log_tail


async def test_the_log_tail_of_failures(write: Write) -> None:  # RT-51
    async with running(function("behaviours.leaves")) as executor:
        assert (
            b"\tStatus: error\tError Type: Runtime.ExitError\t\n"
            in (await executor.invoke(invocation({"status": 1}))).log_tail
        )
    async with running(function("behaviours.sleeps", timeout=0.2)) as executor:
        assert b"\tStatus: timeout\t\n" in (await executor.invoke(invocation({"seconds": 60}))).log_tail


async def test_the_log_tail_is_the_newest_four_kilobytes(write: Write) -> None:
    code = "def handler(event, context):\n    for number in range(20000):\n        print('line', number)\n"
    lines = Lines()
    async with running(write(code, timeout=PATIENCE), output=lines) as executor:
        outcome = await executor.invoke(invocation())
    assert len(outcome.log_tail) == 4096
    assert b"line 19999\nEND RequestId" in outcome.log_tail
    assert lines.texts == [f"line {number}" for number in range(20000)]
    assert {line.request_id for line in lines} == {outcome.request_id}


async def test_its_repr_says_how_it_is() -> None:
    async with running(function("behaviours.echo")) as executor:
        assert repr(executor) == "<ProcessExecutor worker: 0 idle, 0 busy, 0 starting>"
        await executor.invoke(invocation())
        assert repr(executor) == "<ProcessExecutor worker: 1 idle, 0 busy, 0 starting>"


async def test_each_invocation_has_the_whole_timeout() -> None:  # RT-32
    """One timer serves many invocations: it neither cuts a later one short nor lets it go on."""
    async with running(function("behaviours.sleeps", timeout=1.0), output=Lines()) as executor:
        for _ in range(3):
            assert isinstance(await executor.invoke(invocation({"seconds": 0.35})), Succeeded)
        late = await executor.invoke(invocation({"seconds": 60}))
        assert isinstance(late, Failed)
        assert late.kind == "timeout"
        assert 1 <= late.duration < 5
