"""Signals for the rest of a process's life: at no moment of its end do they fall back to what the system does."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
from types import FrameType


def catch(*numbers: signal.Signals) -> asyncio.Queue[int]:
    """The signals of these numbers, as they arrive. One that comes when the event loop is closed ends the process, that
    has nothing left to lose; except SIGHUP, which asks for nothing then. At the very end, when the interpreter takes
    its handlers down, they are ignored. Call it in the main thread's event loop."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[int] = asyncio.Queue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(arrived.put_nowait, number)
        elif number != signal.SIGHUP:
            os._exit(128 + number)

    for number in numbers:
        signal.signal(number, on_signal)
        atexit.register(signal.signal, number, signal.SIG_IGN)
    return arrived
