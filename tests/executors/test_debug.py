"""``debug``: an environment waits for a real debugger, its time stands still, and it is the only one."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from bridge.errors import UsageError
from bridge.executors import Environments
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.invocation import Failed, Outcome
from bridge.invoker import Invoker
from bridge.telemetry.metrics import Metrics
from tests.conftest import missing
from tests.contracts.executor import answer, error, invocation
from tests.debuggers import debugpy, free_port, inspector
from tests.executors.surroundings import PATIENCE, Lines, Write, function, gone, running

pytestmark = pytest.mark.anyio

TIMEOUT = 0.3
"""Of the functions here; everything takes longer."""
PYTHON = """\
    import os
    def handler(event, context):
        seen = [event["n"], os.getpid()]
        return seen  # line 4
"""
NODE = """\
    export const handler = async (event, context) => {
      const seen = [event.n, process.pid];
      debugger;
      return [...seen, context.getRemainingTimeInMillis()];
    };
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def python(write: Write, port: int) -> Function:
    if find_spec("debugpy") is None:
        missing("debugpy")
    return write(PYTHON, debug=port, timeout=TIMEOUT, idle_timeout=0.1)


@pytest.fixture
def node(tmp_path: Path, port: int) -> Function:
    if shutil.which("node") is None:
        missing("node")
    (tmp_path / "app.mjs").write_text(dedent(NODE))
    return function("app.handler", code=tmp_path, kind="nodejs", debug=port, timeout=TIMEOUT, idle_timeout=0.1)


class Asked:
    """An invocation under way."""

    outcome: Outcome | None = None

    @property
    def over(self) -> bool:
        return self.outcome is not None


@asynccontextmanager
async def asked(executor: ProcessExecutor, event: Any) -> AsyncIterator[Asked]:
    """Has come to its end when this is left."""
    asked = Asked()

    async def ask() -> None:
        asked.outcome = await executor.invoke(invocation(event))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            yield asked


async def test_a_python_handler_waits_for_debugpy(python: Function, port: int) -> None:
    async with running(python, output=Lines()) as executor:
        with capture_logs() as logs:
            async with asked(executor, {"n": 1}) as first, debugpy(port) as debugger:
                await anyio.sleep(2 * TIMEOUT)
                assert not first.over
                assert executor.environments() == Environments(starting=1)
                await debugger.attach(str(python.code / "app.py"), 4)
                stopped = await debugger.event("stopped")
                frames = (await debugger.ask("stackTrace", threadId=stopped["threadId"]))["stackFrames"]
                assert (frames[0]["name"], frames[0]["line"]) == ("handler", 4)
                shown = await debugger.ask("evaluate", expression="seen[0]", frameId=frames[0]["id"])
                assert shown["result"] == "1"
                await anyio.sleep(2 * TIMEOUT)
                assert not first.over
                await debugger.ask("continue", threadId=stopped["threadId"])
        assert {"event": "debugger_awaited", "function": "worker", "address": f"127.0.0.1:{port}"} in [
            {key: line[key] for key in ("event", "function", "address") if key in line} for line in logs
        ]
        assert first.outcome
        _, pid = answer(first.outcome)
        assert answer(await executor.invoke(invocation({"n": 2}))) == [2, pid]  # nobody debugs it any more
    await gone(pid)
    await until_free(port)


async def test_a_node_handler_waits_for_the_inspector(node: Function, port: int) -> None:
    async with running(node, output=Lines()) as executor:
        async with asked(executor, {"n": 1}) as first, inspector(port) as debugger:
            await anyio.sleep(2 * TIMEOUT)
            assert not first.over
            assert executor.environments() == Environments(starting=1)
            await debugger.attach()
            (frame, *_) = (await debugger.event("Debugger.paused"))["callFrames"]
            shown = await debugger.ask(
                "Debugger.evaluateOnCallFrame", callFrameId=frame["callFrameId"], expression="seen[0]"
            )
            assert shown["result"]["value"] == 1
            await anyio.sleep(2 * TIMEOUT)
            assert not first.over
            await debugger.ask("Debugger.resume")
        assert first.outcome
        _, pid, remaining = answer(first.outcome)
        assert remaining > 3_600_000  # hours, for handlers that stop early by it
        assert answer(await executor.invoke(invocation({"n": 2})))[:2] == [2, pid]
    await until_free(port)


async def until_free(port: int) -> None:
    """Nothing of a debugger is left."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", port)
            except OSError:
                return
            await stream.aclose()


async def test_an_environment_with_a_debugger_is_the_only_one_and_stays(node: Function, port: int) -> None:
    assert node.concurrency == 1
    async with running(node, output=Lines()) as executor:
        invoker = Invoker(executor, Metrics().function_meter("worker"))
        invoker.reserve(10)
        assert invoker.limit == 1
        invoker.reserve(0)
        assert invoker.limit == 0
        async with asked(executor, {"n": 1}), inspector(port) as debugger:
            await debugger.attach()
            await debugger.event("Debugger.paused")
            await debugger.ask("Debugger.resume")
            await anyio.sleep(0.3)  # longer than its idle_timeout
            assert executor.environments() == Environments(idle=1)


async def test_after_its_end_the_next_one_waits_for_a_debugger_again(node: Function, port: int) -> None:
    (node.code / "app.mjs").write_text("export const handler = async (event) => process.exit(event);")
    async with running(node, output=Lines()) as executor:
        for status in (3, 4):
            async with asked(executor, status) as call, inspector(port) as debugger:
                await debugger.attach()
            assert call.outcome
            assert error(call.outcome)["errorMessage"].endswith(f"exit status {status}")


async def test_a_port_that_is_taken_is_told_and_uses_up_no_attempt(
    node: Function, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.executors.debugger.PORT_LIMIT", 0.1)
    with socket.create_server(("127.0.0.1", port)):
        async with running(node, output=Lines()) as executor:
            outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert not outcome.ran
    assert f"port {port} of 127.0.0.1 is taken" in error(outcome)["errorMessage"]


async def test_an_interpreter_without_debugpy_is_told_on_entering(write: Write, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    worker = write(PYTHON, debug=5678, python=str(bare), where="bridge.yaml:7")
    with pytest.raises(UsageError) as told:
        async with running(worker):
            pytest.fail("it was entered")
    advice = f"install it ({bare} -m pip install debugpy), or remove this"
    assert str(told.value) == f"bridge.yaml:7: functions.worker.debug: {bare} has no debugpy; {advice}"


async def test_changed_code_waits_for_a_debugger_in_its_turn(node: Function, port: int) -> None:
    async with running(msgspec.structs.replace(node, reload=True), output=Lines()) as executor:
        async with asked(executor, {"n": 1}) as old, inspector(port) as debugger:
            await debugger.attach()
            await debugger.event("Debugger.paused")
            await debugger.ask("Debugger.resume")
        assert old.outcome
        (node.code / "app.mjs").write_text("export const handler = async () => 'new';")
        with anyio.fail_after(PATIENCE):
            while executor.environments() != Environments():
                await anyio.sleep(0.01)
        async with asked(executor, None) as new, inspector(port) as debugger:
            await debugger.attach()
        assert new.outcome
        assert answer(new.outcome) == "new"
