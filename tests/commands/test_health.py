"""`bridge health` against a real admin server with a scripted daemon behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.commands import main
from bridge.snapshot import Gate
from tests.admin.control import CLICKS, ORDERS, STARTED, ScriptedControl, served, view


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration and no daemon is found by accident."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)


def test_a_daemon_that_lives(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = view("new", ready=False, gate=Gate("opening", STARTED, "the queue does not exist"))
    with served(ScriptedControl(waiting)) as url:
        assert main(["health", "--admin", url]) == 0
        assert capsys.readouterr() == (f"alive: {url}\n", "")


def test_a_daemon_that_is_ready_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    control = ScriptedControl(ORDERS, CLICKS)
    with served(control) as url:
        assert main(["health", "--ready", "--admin", url]) == 0
        assert capsys.readouterr() == (f"ready: {url}\n", "")
        control.mappings["orders"] = view(
            "orders", ready=False, gate=Gate("opening", STARTED, "the queue does not exist")
        )
        assert main(["health", "--ready", "--admin", url]) == 1
        why = "orders: opening: the queue does not exist (since 2023-11-14T22:13:20.000Z)"
        assert capsys.readouterr() == ("", f"bridge: not ready: {why}\n")
        control.draining = True
        assert main(["health", "--ready", "--admin", url]) == 1
        assert capsys.readouterr().err == f"bridge: not ready: {why}; draining\n"


def test_no_daemon_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    with served(ScriptedControl()) as url:
        pass
    for arguments in (["health"], ["health", "--ready"]):
        assert main([*arguments, "--admin", url]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"bridge: no daemon answers at {url}")
        assert err.count("\n") == 1


def test_a_bad_address_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--admin", "ftp://x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_as_a_container_runs_it(tmp_path: Path) -> None:
    """A process of its own, with nothing but the configuration to find the daemon by."""
    with served(ScriptedControl(ORDERS)) as url:
        listen = url.removeprefix("http://")
        (tmp_path / "bridge.yaml").write_text(f"admin: {{listen: {listen}}}\nfunctions: {{broken: {{}}}}\n")
        done = subprocess.run(
            [sys.executable, "-m", "bridge", "health", "--ready"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            check=False,
            env={"PATH": os.environ["PATH"], "HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"},
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ready: {url}\n", "")
