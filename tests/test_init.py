"""Process 1: run in a process namespace of its own, where it really is that."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.init import as_init
from tests.conftest import missing

ROOT = Path(__file__).parents[1]

ORPHANS = """
import os, subprocess, sys, time
from bridge.init import as_init

def main():
    orphan = int(subprocess.check_output(["sh", "-c", "sleep 0.05 >/dev/null & echo $!"]))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(orphan, 0)
        except ProcessLookupError:
            return 7
        os.sched_yield()
    return 1

sys.exit(as_init(main))
"""

SIGNALS = """
import signal, sys
from bridge.init import as_init

def main():
    numbers = {signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    print("ready", flush=True)
    while (number := signal.sigwait(numbers)) != signal.SIGTERM:
        print(signal.Signals(number).name, flush=True)
    return 0

sys.exit(as_init(main))
"""

KILLED = """
import os, signal, sys
from bridge.init import as_init

sys.exit(as_init(lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


@contextmanager
def process_one(script: str) -> Iterator[subprocess.Popen[str]]:
    """The script as process 1 of a new process namespace."""
    program = shutil.which("unshare")
    namespace = [str(program), "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if program is None or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        missing("the right to make process namespaces (unshare)")
    with subprocess.Popen(
        [*namespace, sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as unshare:
        try:
            yield unshare
        finally:
            unshare.kill()


def first_inside(unshare: subprocess.Popen[str]) -> int:
    """The pid that process 1 has out here."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        if children:
            return int(children[0])
    pytest.fail("unshare started nothing")


def test_orphans_are_collected_and_the_status_is_the_childs() -> None:
    with process_one(ORPHANS) as unshare:
        assert unshare.wait(timeout=30) == 7


def test_each_signal_is_handed_on_once() -> None:
    with process_one(SIGNALS) as unshare:
        assert unshare.stdout is not None
        assert unshare.stdout.readline() == "ready\n"
        inside = first_inside(unshare)
        for _ in range(2):
            subprocess.run(["kill", "-HUP", str(inside)], check=True)
            assert unshare.stdout.readline() == "SIGHUP\n"
        subprocess.run(["kill", "-TERM", str(inside)], check=True)
        assert unshare.stdout.read() == ""
        assert unshare.wait(timeout=30) == 0


def test_a_killed_child_is_told_as_a_shell_would() -> None:
    with process_one(KILLED) as unshare:
        assert unshare.wait(timeout=30) == 128 + signal.SIGKILL


def test_any_other_process_just_goes_on() -> None:
    assert as_init(lambda: 3) == 3
