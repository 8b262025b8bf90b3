"""All versions of a function behind one executor: whose code runs, and what the handler is told about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bridge.errors import UsageError
from bridge.executors import Environments, Surroundings
from bridge.executors.versions import Versions
from bridge.function import LATEST, Alias, Function
from bridge.invocation import Invocation, Outcome
from bridge.leash import Leash
from tests.conftest import missing
from tests.contracts.executor import answer, error, invocation
from tests.executors.surroundings import ARN, PATIENCE, Lines, function

pytestmark = pytest.mark.anyio

PYTHON = """
def handler(event, context):
    client = context.client_context
    said = [context.function_version, context.invoked_function_arn, client and client.custom]
    if event.get("fail"):
        raise ValueError("as asked")
    return ["{}", *said]
"""
NODE = """
export async function handler(event, context) {{
  const said = [context.functionVersion, context.invokedFunctionArn, context.clientContext?.custom ?? null];
  return ["{}", ...said];
}}
"""


@asynccontextmanager
async def versioned(folder: Path, code: str = PYTHON, file: str = "app.py", **options: Any) -> AsyncIterator[Versions]:
    """Versions 1 and 2, and `live` for 2."""
    for name in ("now", "one", "two"):
        (folder / name).mkdir()
        (folder / name / file).write_text(code.format(name))
    worker = function(
        "app.handler",
        code=folder / "now",
        versions={"1": folder / "one", "2": folder / "two"},
        aliases={"live": Alias(version="2")},
        **options,
    )
    async with running(worker) as executor:
        yield executor


@asynccontextmanager
async def running(worker: Function) -> AsyncIterator[Versions]:
    async with Leash() as leash, Versions(worker, Surroundings(leash, output=Lines())) as executor:
        yield executor


def by(qualifier: str, event: Any = None, **options: Any) -> Invocation:
    return msgspec.structs.replace(invocation(event), qualifier=qualifier, **options)


async def asked(executor: Versions, qualifier: str, **options: Any) -> tuple[str, Any]:
    """The version of the outcome, and the answer."""
    outcome: Outcome = await executor.invoke(by(qualifier, **options))
    return outcome.version, answer(outcome)


async def test_each_runs_its_own_code(tmp_path: Path) -> None:  # RT-3, RT-20
    async with versioned(tmp_path) as executor:
        assert await asked(executor, "") == (LATEST, ["now", LATEST, ARN, None])
        assert await asked(executor, LATEST) == (LATEST, ["now", LATEST, f"{ARN}:$LATEST", None])
        assert await asked(executor, "1") == ("1", ["one", "1", f"{ARN}:1", None])
        assert await asked(executor, "live") == ("2", ["two", "2", f"{ARN}:live", None])
        assert executor.environments() == Environments(idle=3)
        failed = await executor.invoke(by("1", {"fail": True}))
        assert (failed.version, error(failed)["errorMessage"]) == ("1", "as asked")
        assert b" Version: 1\n" in failed.log_tail


async def test_node_is_told_the_same(tmp_path: Path) -> None:  # RT-3
    if shutil.which("node") is None:
        missing("node")
    context = json.dumps({"custom": {"a": "ü"}})
    async with versioned(tmp_path, NODE, "app.mjs", kind="nodejs") as executor:
        told = await asked(executor, "live", client_context=context)
        assert told == ("2", ["two", "2", f"{ARN}:live", {"a": "ü"}])
        assert (await asked(executor, ""))[1] == ["now", LATEST, ARN, None]


async def test_a_client_context_is_for_one_invocation(tmp_path: Path) -> None:  # RT-3
    async with versioned(tmp_path) as executor:
        assert (await asked(executor, "", client_context='{"custom":{"a":1}}'))[1][3] == {"a": 1}
        assert (await asked(executor, ""))[1][3] is None


async def test_one_that_has_gone_meanwhile_runs_nothing(tmp_path: Path) -> None:
    async with versioned(tmp_path) as executor:
        outcome = await executor.invoke(by("prod"))
        assert error(outcome) == {
            "errorType": "ResourceNotFoundException",
            "errorMessage": f"Function not found: {ARN}:prod",
        }
        assert outcome.kind == "unreachable"  # type: ignore[union-attr]
        assert executor.environments() == Environments()


async def test_environments_are_started_ahead_for_one_version(tmp_path: Path) -> None:  # RT-62
    async with versioned(tmp_path, idle_timeout=0.05) as executor:
        second = executor.version("2")
        second.provision(2)
        with anyio.fail_after(PATIENCE):
            while executor.environments().idle != 2:
                await anyio.sleep(0.01)
        assert second.environments() == Environments(idle=2)
        assert executor.version("1").environments() == Environments()
        second.provision(0)  # they are retired when they have been idle for long enough
        with anyio.fail_after(PATIENCE):
            while executor.environments().idle:
                await anyio.sleep(0.01)


async def test_a_version_without_code_is_told_at_the_start(tmp_path: Path) -> None:
    worker = function("behaviours.echo", versions={"1": tmp_path / "nowhere"})
    with pytest.raises(UsageError, match="nowhere does not exist"):
        async with running(worker):
            pytest.fail("it cannot run")
