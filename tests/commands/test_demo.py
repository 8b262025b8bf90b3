"""The main job, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import missing

BRIDGE = [sys.executable, "-m", "bridge"]
RULES = {
    "SQS-1", "SQS-5", "SQS-25", "SQS-37", "SQS-40", "SQS-55", "SQS-56", "SQS-65",
    "KIN-36", "KIN-63", "KIN-64", "KIN-68", "KIN-80", "DDB-41", "DDB-46", "DDB-50",
}  # fmt: skip
MAPPINGS = ("orders", "payments", "clicks", "customers")


@pytest.fixture(autouse=True)
def _embedded_endpoint() -> None:
    if find_spec("ministack") is None:
        missing("ministack (the extra local)")


def environment(folder: Path) -> dict[str, str]:
    """Without any configuration, and with a temporary folder of its own to look for leftovers in."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BRIDGE_"))}
    return {**bare, "TMPDIR": str(folder), "HOME": str(folder)}


def processes(marker: str) -> list[str]:
    """Command lines of processes that have ``marker`` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended meanwhile, or is not ours
    return found


def test_it_shows_every_rule_within_a_minute_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*BRIDGE, "demo", "--json"], env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert (summary["messages"], summary["records"], summary["writes"]) == (200, 36, 35)
    assert {rule["rule"] for rule in summary["rules"] if rule["seen"]} == RULES
    for mapping in MAPPINGS:
        assert re.search(rf"\b{mapping}: \d+ received, .* in flight", done.stderr)  # the live view
    assert "Traceback" not in done.stderr
    assert processes(str(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir()] == []


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*BRIDGE, "demo", "--keep"], env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "sending" in line:
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert processes(str(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir()] == []


def test_killed_it_leaves_nothing_either(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*BRIDGE, "demo"], env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "done" in line:
                break
        process.kill()
        process.stderr.read()  # to its end: nobody holds the other side any more
    eventually_empty(tmp_path)


def eventually_empty(folder: Path) -> None:
    """Waits for the guard to have done its work."""
    import time

    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if not processes(str(folder)) and not list(folder.iterdir()):
            return
        time.sleep(0.05)
    assert (processes(str(folder)), list(folder.iterdir())) == ([], [])
