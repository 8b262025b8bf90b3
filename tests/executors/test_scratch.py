"""The private temporary folder of an environment."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import anyio
import pytest

from tests.conftest import missing
from tests.contracts.executor import answer, invocation
from tests.executors.surroundings import PATIENCE, Lines, Write, function, running

pytestmark = pytest.mark.anyio

CODE = """
    import os, tempfile, time
    def handler(event, context):
        if event and event["how"] == "leave":
            open(os.path.join(tempfile.gettempdir(), "left"), "w").close()
            os._exit(1)
        if event:
            time.sleep(event["seconds"])
        return [tempfile.gettempdir(), sorted(os.listdir(tempfile.gettempdir()))]
"""


async def removed(folder: Path) -> None:
    with anyio.fail_after(PATIENCE):
        while folder.exists():
            await anyio.sleep(0.01)


async def test_each_environment_has_its_own(write: Write) -> None:
    told: list[str] = []
    async with running(write(CODE, timeout=PATIENCE), output=Lines()) as executor:

        async def run() -> None:
            folder, _ = answer(await executor.invoke(invocation({"how": "wait", "seconds": 0.3})))
            told.append(folder)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(run)
        assert len(set(told)) == 3
        for folder in told:
            assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    assert not any(Path(folder).exists() for folder in told)


async def test_it_stays_over_a_reset(write: Write) -> None:  # RT-33
    async with running(write(CODE), output=Lines()) as executor:
        before, found = answer(await executor.invoke(invocation()))
        assert found == []
        await executor.invoke(invocation({"how": "leave"}))
        assert answer(await executor.invoke(invocation())) == [before, ["left"]]


async def test_it_is_removed_when_the_environment_is_retired(write: Write) -> None:  # RT-35
    async with running(write(CODE, idle_timeout=0.1), output=Lines()) as executor:
        before, _ = answer(await executor.invoke(invocation()))
        await removed(Path(before))
        assert answer(await executor.invoke(invocation()))[0] != before


async def test_a_functions_own_variable_is_stronger(write: Write, tmp_path: Path) -> None:
    async with running(write(CODE, environment={"TMPDIR": str(tmp_path)}), output=Lines()) as executor:
        assert answer(await executor.invoke(invocation()))[0] == str(tmp_path)


async def test_node_finds_it_too(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        missing("node")
    (tmp_path / "app.mjs").write_text("import os from 'node:os';\nexport const handler = async () => os.tmpdir();\n")
    async with running(function("app.handler", code=tmp_path, kind="nodejs"), output=Lines()) as executor:
        folder = Path(answer(await executor.invoke(invocation())))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()
