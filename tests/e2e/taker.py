"""A real daemon that takes asynchronous events by itself: numbers, each of which it writes down once it is accepted.

Run as ``python -m tests.e2e.taker CONFIG LEDGER FUNCTION FIRST COUNT``.
"""

from __future__ import annotations

import os
import sys
import uuid

import anyio

from bridge.daemon import Daemon
from bridge.settings import load
from bridge.telemetry import logs

AT_ONCE = 16


async def main(config: str, ledger: str, function: str, first: int, count: int) -> None:
    daemon = Daemon(load(config), lambda: load(config))
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    turns = anyio.CapacityLimiter(AT_ONCE)

    async def take(number: int) -> None:
        async with turns:
            assert daemon.queue
            await daemon.queue.accept(function, "", str(number).encode(), str(uuid.uuid4()))
            os.write(file, f"{number}\n".encode())

    async with anyio.create_task_group() as tasks:
        await tasks.start(daemon.run)
        for number in range(first, first + count):
            tasks.start_soon(take, number)


if __name__ == "__main__":
    logs.configure("debug", "json", sys.stderr)
    config, ledger, function, first, count = sys.argv[1:]
    anyio.run(main, config, ledger, function, int(first), int(count))
