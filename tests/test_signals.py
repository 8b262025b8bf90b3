"""Signals up to the last moment of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal
from bridge.signals import catch

async def main():
    arrived = catch(signal.SIGTERM, signal.SIGHUP)
    for number in (signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), number)
        print(await arrived.get(), flush=True)

asyncio.run(main())
{then}
"""


@pytest.mark.parametrize(("last", "status", "said"), [("SIGTERM", 143, "1\n15\n"), ("SIGHUP", 0, "1\n15\nwent on\n")])
def test_a_signal_after_the_event_loop(last: str, status: int, said: str) -> None:
    """143, as the one before it would have given; never death by the signal itself."""
    ended = run(f"os.kill(os.getpid(), signal.{last}); print('went on', flush=True)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, said, "")


def test_a_signal_while_the_interpreter_is_taken_down() -> None:
    """Its own handlers are gone by then."""
    late = """
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, 15)

late = Late()
"""
    ended = run(late)
    assert (ended.returncode, ended.stderr) == (0, "")


def run(then: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.replace("{then}", then)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
