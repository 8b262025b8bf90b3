"""What the README tells a newcomer to type runs, in that order, and its tables are complete."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import bridge
from bridge.telemetry.metrics import Metrics
from tests.conftest import missing

ROOT = Path(bridge.__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
FIRST_BLOCKS = [
    "python3 -m venv .venv\n.venv/bin/pip install '.[local]'\n.venv/bin/bridge demo\n",
    "python3 -m venv .venv\n.venv/bin/pip install -e '.[local,test]'\n.venv/bin/python -m pytest -n2 --dist loadfile\n",
]


def test_the_first_two_blocks_are_those_that_ci_runs() -> None:
    assert BLOCKS[:2] == FIRST_BLOCKS


def test_every_other_block_in_order(tmp_path: Path) -> None:
    if find_spec("ministack") is None:
        missing("ministack (the extra local)")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    lines = ["set -euo pipefail", *(f"{block}\necho '--- end of block {n}'" for n, block in enumerate(BLOCKS[2:]))]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BRIDGE_"))}
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**environ, "XDG_STATE_HOME": str(tmp_path / "state"), "BRIDGE_ADMIN__LISTEN": "127.0.0.1:9464"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    log = tmp_path / "hello" / "bridge.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    parts = done.stdout.split("--- end of block")
    assert len(parts) == len(BLOCKS) - 1
    assert "ok: 1 mappings, 1 functions" in done.stdout
    assert '{"batchItemFailures": []}' in done.stdout
    shown, replayed, paused = parts[-4], parts[-3], parts[-2]
    assert "polling" in shown
    assert "3 x no reason is known" in replayed
    assert replayed.count("would send") == 3
    assert "read 3, matched 3, sent 3, deleted 3, failed 0" in done.stderr
    assert "Disabled" in paused


def test_the_line_for_uv(tmp_path: Path) -> None:
    command = re.search(r"With uv: `([^`]+)`", README)
    assert command
    assert command[1] == "uv run --extra local bridge demo"
    try:
        subprocess.run(["uv", "--version"], check=True, capture_output=True)
    except FileNotFoundError:
        missing("uv")
    checkout = tmp_path / "checkout"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    for name in files:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(command[1].split(), cwd=checkout, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


EVENT_ARGUMENT = {"info": 0, "warning": 0, "error": 0, "note": 0, "log": 1}
"""Method of a logger -> which of its arguments is the event."""


def events_in_code() -> Iterator[str]:
    """Names of log events at info and above; those at debug are for developers."""
    for file in (ROOT / "bridge").rglob("*.py"):
        if "samples" in file.parts or "runtimes" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                place = EVENT_ARGUMENT.get(node.func.attr, 99)
                event = node.args[place] if place < len(node.args) else None
                if isinstance(event, ast.Constant) and re.fullmatch(
                    "[a-z]+_[a-z_]+|[a-z]+ed|[a-z]+ing|ready", str(event.value)
                ):
                    yield str(event.value)


def test_every_log_event_is_listed() -> None:
    section = README.split("## Log events")[1].split("\n## ")[0]
    listed = set(re.findall(r"`([a-z_]+)`", section))
    assert set(events_in_code()) <= listed


def test_every_metric_is_listed_and_nothing_else() -> None:
    section = README.split("## Metrics")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `(bridge_[a-z_]+)`", section, re.MULTILINE))
    metrics = Metrics()
    metrics.mapping_meter("m", "sqs", "f")
    metrics.function_meter("f")
    metrics.api_meter()
    families = (family for family in metrics.registry.collect() if family.name.startswith("bridge_"))
    assert listed == {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_every_link_into_the_project_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", README):
        assert (ROOT / target.split("#")[0]).exists(), target
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    } | set(re.findall(r'<a id="([^"]+)">', README))
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        assert anchor in anchors, anchor
