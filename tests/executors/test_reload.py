"""Environments follow the code on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from bridge.executors import Environments, code
from bridge.executors.code import changes, state_of
from bridge.executors.process import ProcessExecutor
from tests.contracts.executor import answer, invocation
from tests.executors.surroundings import PATIENCE, Lines, Write, appears, running

pytestmark = pytest.mark.anyio

Logs = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "EVERY", 0.05)
    monkeypatch.setattr(code, "QUIET", 0.1)


@asynccontextmanager
async def reloading(write: Write, text: str, **settings: Any) -> AsyncIterator[tuple[ProcessExecutor, Logs]]:
    worker = write(text, reload=True, timeout=PATIENCE, **settings)
    with structlog.testing.capture_logs() as logs:
        async with running(worker, output=Lines()) as executor:
            await anyio.sleep(0.1)  # the first look
            yield executor, logs


async def told(logs: Logs, event: str, times: int = 1) -> MutableMapping[str, Any]:
    with anyio.fail_after(PATIENCE):
        while len(found := [line for line in logs if line["event"] == event]) < times:
            await anyio.sleep(0.01)
    return found[-1]


def handler(body: str) -> str:
    return f"import pathlib, time\ndef handler(event, context):\n    {body}\n"


async def test_a_change_replaces_the_environments(write: Write, tmp_path: Path) -> None:
    async with reloading(write, handler("return 1")) as (executor, logs):
        for number in (2, 3):
            assert answer(await executor.invoke(invocation())) == number - 1
            (tmp_path / "app.py").write_text(handler(f"return {number}"))
            assert (await told(logs, "code_reloaded", number - 1))["replaced"] == 1
            assert executor.environments() == Environments(idle=1)
        assert answer(await executor.invoke(invocation())) == 3


async def test_a_burst_of_changes_replaces_them_once(write: Write, tmp_path: Path) -> None:
    async with reloading(write, handler("return 0")) as (executor, logs):
        await executor.invoke(invocation())
        for number in range(1, 21):
            (tmp_path / "app.py").write_text(handler(f"return {number}"))
            (tmp_path / f"other{number}.py").touch()
            await anyio.sleep(0.01)
        await told(logs, "code_reloaded")
        assert answer(await executor.invoke(invocation())) == 20
        assert len([line for line in logs if line["event"] == "code_reloaded"]) == 1


async def test_what_runs_ends_on_the_old_code(write: Write, tmp_path: Path) -> None:
    wait = "while not pathlib.Path('.go').exists(): time.sleep(0.01)"
    waiting = handler(f"pathlib.Path('here').write_text('x\\n')\n    {wait}\n    return 'old'")
    answers: list[Any] = []
    async with reloading(write, waiting) as (executor, logs):

        async def run() -> None:
            answers.append(answer(await executor.invoke(invocation())))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await appears(tmp_path / "here")
            (tmp_path / "app.py").write_text(handler("return 'new'"))
            await told(logs, "code_reloaded")
            assert answer(await executor.invoke(invocation())) == "new"
            assert answers == []
            (tmp_path / ".go").touch()
        assert answers == ["old"]
        assert answer(await executor.invoke(invocation())) == "new"
        assert executor.environments() == Environments(idle=1)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("def handler(event, context:\n", "Runtime.UserCodeSyntaxError: Syntax error in module 'app'"),
        ("import no_such_module\n", "Runtime.ImportModuleError: Unable to import module 'app'"),
        ("raise SystemExit(3)\n", "Runtime exited with error: exit status 3"),
    ],
)
async def test_code_that_cannot_be_loaded_is_shown_and_the_old_goes_on(
    write: Write, tmp_path: Path, broken: str, reason: str
) -> None:
    async with reloading(write, handler("return 'old'")) as (executor, logs):
        await executor.invoke(invocation())
        (tmp_path / "app.py").write_text(broken)
        line = await told(logs, "code_not_reloaded")
        assert line["log_level"] == "error"
        assert line["reason"].startswith(reason)
        assert answer(await executor.invoke(invocation())) == "old"
        (tmp_path / "app.py").write_text(handler("return 'new'"))
        await told(logs, "code_reloaded")
        assert answer(await executor.invoke(invocation())) == "new"


async def test_without_environments_there_is_nothing_to_replace(write: Write, tmp_path: Path) -> None:
    async with reloading(write, handler("return 1")) as (executor, logs):
        (tmp_path / "app.py").write_text(handler("return 2"))
        assert answer(await executor.invoke(invocation())) == 2
        assert not [line for line in logs if line["event"] == "code_not_reloaded"]


async def test_provisioned_ones_are_replaced_too(write: Write, tmp_path: Path) -> None:
    async with reloading(write, handler("return 1"), provisioned=2) as (executor, logs):
        with anyio.fail_after(PATIENCE):
            while executor.environments().idle < 2:
                await anyio.sleep(0.01)
        (tmp_path / "app.py").write_text(handler("return 2"))
        await told(logs, "code_reloaded")
        with anyio.fail_after(PATIENCE):
            while executor.environments() != Environments(idle=2):
                await anyio.sleep(0.01)
        assert answer(await executor.invoke(invocation())) == 2


# What counts as a change.


async def test_changes_come_once_per_burst(tmp_path: Path) -> None:
    bursts = 0
    async with anyio.create_task_group() as group:

        async def count() -> None:
            nonlocal bursts
            async for _ in changes(tmp_path):
                bursts += 1

        group.start_soon(count)
        await anyio.sleep(0.2)
        for number in range(2):
            (tmp_path / f"{number}.py").touch()
            with anyio.fail_after(PATIENCE):
                while bursts == number:
                    await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert bursts == 2


def test_what_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("app.py", "pkg/mod.py", ".git/HEAD", "node_modules/x/index.js", "__pycache__/app.pyc", ".app.py.swp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "nowhere").symlink_to("/nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    assert sorted(state_of(tmp_path)) == sorted(str(tmp_path / name) for name in ("app.py", "pkg/mod.py", "round"))
    monkeypatch.setattr(code, "MOST_FILES", 1)
    assert len(state_of(tmp_path)) == 1
    assert state_of(tmp_path / "gone") == {}
