"""The literal /tmp of an environment. The code must lie elsewhere: what is below /tmp would be hidden by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from bridge.executors import private_tmp
from bridge.executors.launch import command
from bridge.executors.private_tmp import wrapper
from bridge.function import Function
from tests.conftest import missing
from tests.contracts.executor import answer, invocation
from tests.executors.surroundings import PATIENCE, Lines, function, running

pytestmark = pytest.mark.anyio

CODE = """
    import os, pathlib, subprocess, tempfile, time
    def handler(event, context):
        mine = pathlib.Path("/tmp/mine")
        before = mine.read_text() if mine.exists() else None
        mine.write_text(event["name"])
        subprocess.run(["touch", "/tmp/by-a-child"], check=True)
        if event.get("leave"):
            os._exit(1)
        time.sleep(event.get("seconds", 0))
        return [before, sorted(os.listdir("/tmp")), tempfile.gettempdir(), mine.read_text(), os.getuid()]
"""


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that is not below /tmp."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bridge-test-") as folder:
        yield Path(folder)


@pytest.fixture
def worker(elsewhere: Path) -> Function:
    if not private_tmp._way():
        missing("mount namespaces")
    elsewhere.joinpath("app.py").write_text(textwrap.dedent(CODE))
    made = function("app.handler", code=elsewhere, timeout=PATIENCE)
    if not wrapper(made, command(made), elsewhere):
        pytest.skip("this checkout or its Python lies below /tmp")
    return made


async def test_each_environment_has_its_own(worker: Function) -> None:
    told: list[object] = []
    async with running(worker, output=Lines()) as executor:

        async def run(name: str) -> None:
            told.append(answer(await executor.invoke(invocation({"name": name, "seconds": 0.3}))))

        async with anyio.create_task_group() as group:
            for name in ("a", "b"):
                group.start_soon(run, name)
    own = [None, ["by-a-child", "mine"], "/tmp"]
    assert sorted(told, key=str) == [[*own, "a", os.getuid()], [*own, "b", os.getuid()]]
    assert not Path("/tmp/mine").exists()
    assert not Path("/tmp/by-a-child").exists()


async def test_it_stays_over_a_reset(worker: Function) -> None:  # RT-33
    async with running(worker, output=Lines()) as executor:
        await executor.invoke(invocation({"name": "first", "leave": True}))
        before, *_ = answer(await executor.invoke(invocation({"name": "second"})))
        assert before == "first"


def test_nothing_is_hidden_that_the_function_needs(worker: Function, elsewhere: Path) -> None:
    program, below = "/usr/bin/env", Path("/tmp/somewhere")
    link = elsewhere / "link"
    link.symlink_to(below)
    assert wrapper(worker, [program, "app"], elsewhere)
    for words, folder in (([program], below), (["/tmp/venv/bin/python"], elsewhere), ([program, str(link)], elsewhere)):
        assert wrapper(worker, words, folder) == ()
    own = function("app.handler", code=elsewhere, environment={"TMPDIR": str(elsewhere)})
    assert wrapper(own, [program], elsewhere) == ()


def test_what_its_variables_name_is_not_hidden(worker: Function, elsewhere: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        for value, hidden in (
            (shared, False), (f"{shared}/database", False), (f"{shared}-new", True), (f"{shared}/new/file", True),
            ("/tmp", True), ("/tmp/", True), ("/tmp/cache", True), (str(elsewhere), True), ("x" * 5000, True),
            (f"{shared}/" + "x" * 5000, True),
        ):  # fmt: skip
            named = function("app.handler", code=elsewhere, environment={"NAMED": value})
            assert bool(wrapper(named, ["/usr/bin/env"], elsewhere)) is hidden, value


def test_a_plain_user_keeps_his_name_and_gains_no_power(elsewhere: Path) -> None:
    """The second way: a user namespace."""
    *_, way = private_tmp._ways()
    elsewhere.chmod(0o755)
    mine = elsewhere / "mine"
    mine.mkdir()
    nobody = None
    if os.getuid() == 0:
        nobody = 65534
        shutil.chown(mine, nobody, nobody)
    script = "touch /tmp/x && id -u && grep -c '^Cap[IPE].*0000000000000000' /proc/self/status"
    words = [*way, str(mine), "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, user=nobody, group=nobody)
    if done.returncode and "unshare" in done.stderr:
        missing("user namespaces")
    assert (done.returncode, done.stdout.split()) == (0, [str(nobody or os.getuid()), "3"]), done.stderr
    assert (mine / "x").exists()


def test_other_systems_have_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert list(private_tmp._ways()) == []
