"""Signals up to the last moment of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal
from bridge.signals import catch, ignore

async def main():
    arrived = catch()
    for number in (signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), number)
        print(await arrived.get(), flush=True)

asyncio.run(main())
if {ignored}:
    ignore()
os.kill(os.getpid(), signal.{last})
print("went on", flush=True)
"""


@pytest.mark.parametrize(
    ("last", "ignored", "status", "said"),
    [("SIGTERM", 0, 143, "1\n15\n"), ("SIGHUP", 0, 0, "1\n15\nwent on\n"), ("SIGTERM", 1, 0, "1\n15\nwent on\n")],
)
def test_a_signal_after_the_event_loop(last: str, ignored: int, status: int, said: str) -> None:
    """143, as the one before it would have given; never death by the signal itself."""
    program = PROGRAM.replace("{last}", last).replace("{ignored}", str(ignored))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, said, "")
