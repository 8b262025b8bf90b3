"""Provisioned concurrency: environments that are started ahead and kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import anyio
import pytest
import structlog

from bridge.executors import Environments
from bridge.executors.process import ProcessExecutor
from tests.contracts.executor import answer, invocation
from tests.executors.surroundings import PATIENCE, Lines, Write, gone, running

pytestmark = pytest.mark.anyio

CODE = """
    import os
    def handler(event, context):
        if event:
            os._exit(1)
        return [os.getpid(), os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]]
"""


async def until(executor: ProcessExecutor, expected: Callable[[Environments], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not expected(executor.environments()):
            await anyio.sleep(0.01)


async def test_they_are_started_ahead_and_used_first(write: Write) -> None:  # RT-22, RT-62
    async with running(write(CODE, provisioned=2), output=Lines()) as executor:
        await until(executor, lambda now: now == Environments(idle=2))
        pid, kind = answer(await executor.invoke(invocation()))
        assert kind == "provisioned-concurrency"
        assert executor.environments() == Environments(idle=2)
    await gone(pid)


async def test_they_are_not_retired(write: Write) -> None:
    worker = write(CODE, provisioned=1, idle_timeout=0.05)
    async with running(worker, output=Lines()) as executor:
        await until(executor, lambda now: now == Environments(idle=1))
        pids = set()
        for _ in range(3):
            await anyio.sleep(0.1)
            pids.add(answer(await executor.invoke(invocation()))[0])
        assert len(pids) == 1


async def test_those_that_end_are_replaced(write: Write) -> None:
    async with running(write(CODE, provisioned=1), output=Lines()) as executor:
        await until(executor, lambda now: now.idle == 1)
        before, _ = answer(await executor.invoke(invocation()))
        os.kill(before, signal.SIGKILL)
        await gone(before)
        await until(executor, lambda now: now.idle == 1 and all(it.pid != before for it in executor._all))
        assert answer(await executor.invoke(invocation()))[0] != before


async def test_above_them_environments_start_on_demand(write: Write) -> None:  # RT-62
    code = """
        import os, time
        def handler(event, context):
            time.sleep(0.3)
            return os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
    """
    kinds: list[str] = []
    async with running(write(code, provisioned=1, timeout=PATIENCE), output=Lines()) as executor:
        await until(executor, lambda now: now.idle == 1)

        async def run() -> None:
            kinds.append(answer(await executor.invoke(invocation())))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            group.start_soon(run)
    assert sorted(kinds) == ["on-demand", "provisioned-concurrency"]


async def test_code_that_cannot_be_loaded_is_told_and_tried_again(write: Write) -> None:
    code = """
        import pathlib
        if not pathlib.Path("fine").exists():
            raise ValueError("not yet")
        def handler(event, context): return 1
    """
    worker = write(code, provisioned=1)
    with structlog.testing.capture_logs() as logs:
        async with running(worker, output=Lines()) as executor:
            with anyio.fail_after(PATIENCE):
                while not logs:
                    await anyio.sleep(0.01)
            (worker.code / "fine").touch()
            await until(executor, lambda now: now.idle == 1)
    assert (logs[0]["event"], logs[0]["reason"]) == ("provisioning_failed", "ValueError: not yet")


async def test_leaving_while_they_start_leaves_nothing(write: Write) -> None:
    worker = write("import time\ntime.sleep(60)\ndef handler(event, context): pass", provisioned=3)
    async with running(worker, output=Lines()) as executor:
        await until(executor, lambda now: now.starting > 0)
    assert executor.environments() == Environments()
    assert not executor._all
