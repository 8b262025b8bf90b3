"""Signals for the rest of a process's life: at no moment of its end do they fall back to what the system does."""

from __future__ import annotations

import asyncio
import os
import signal
from types import FrameType

CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def catch() -> asyncio.Queue[int]:
    """The numbers of those signals, as they arrive. One that comes when the event loop is closed ends the process, that
    has nothing left to lose; except SIGHUP, which asks for nothing then. Call it in the main thread's event loop."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[int] = asyncio.Queue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(arrived.put_nowait, number)
        elif number != signal.SIGHUP:
            os._exit(128 + number)

    for number in CAUGHT:
        signal.signal(number, on_signal)
    return arrived


def ignore() -> None:
    """From now on. The interpreter's own end gives signals back to the system, unless nobody cares for them."""
    for number in CAUGHT:
        signal.signal(number, signal.SIG_IGN)
