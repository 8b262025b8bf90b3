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
os.kill(os.getpid(), signal.{last})
print("went on", flush=True)
"""


@pytest.mark.parametrize(("last", "status", "said"), [("SIGTERM", 143, "1\n15\n"), ("SIGHUP", 0, "1\n15\nwent on\n")])
def test_a_signal_after_the_event_loop(last: str, status: int, said: str) -> None:
    """143, as the one before it would have given; never death by the signal itself."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{last}", last)], capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, said, "")
