"""An event loop that skips its own sleeps, so that a five-minute window takes milliseconds.

For loops whose peers live inside them: a peer in another thread or process looks like eternity to it, so those are
refused.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Any

import pytest


class SkippingSelector(selectors.DefaultSelector):
    """Waits for real sockets for a moment, then is at the time of the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        only_the_wakeup_pipe = len(self.get_map()) <= 1
        ready = super().select(0 if only_the_wakeup_pipe else 0.0005)
        if not ready:
            self.skipped += timeout
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """``loop.time()`` runs ahead of the real clock by all the sleeps it skipped."""

    def __init__(self, selector: SkippingSelector | None = None) -> None:
        self._skipping = selector or SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return super().time() + self._skipping.skipped

    @property
    def skipped(self) -> float:
        """Seconds of sleep that did not take place."""
        return self._skipping.skipped

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a child process lives in real time: use the ordinary loop")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise RuntimeError("a thread lives in real time: use the ordinary loop")


class VirtualSelector(SkippingSelector):
    """Is at the time of the next timer without looking at anything real."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if len(self.get_map()) > 1:
            raise RuntimeError("a socket lives in real time: use the skipping loop")
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else, for ever")
        if timeout > 0:
            self._busy = 0
            self.skipped += timeout
        else:
            self._busy += 1
            if self._busy > MOST_BUSY:
                raise RuntimeError(f"{MOST_BUSY} turns of the loop without a moment passing")
        return []


class VirtualLoop(SkippingLoop):
    """``loop.time()`` moves by sleeps alone: what runs in it takes no time, and a run is the same each time. One in
    which nothing can happen any more, or nothing ever waits, ends with RuntimeError."""

    def __init__(self) -> None:
        super().__init__(VirtualSelector())

    def time(self) -> float:
        return 1000.0 + self.skipped

    @property
    def wall(self) -> float:
        """Epoch seconds, from a constant date on."""
        return 1_700_000_000.0 + self.skipped


MOST_BUSY = 100_000
SKIPPING = ("asyncio", {"loop_factory": SkippingLoop})
"""What a module's ``anyio_backend`` fixture returns to own the clock."""


_real_time = time.time


def wall() -> float:
    """What ``time.time`` gives where the clock is owned: it runs ahead by the same sleeps, and in a virtual loop by
    nothing else. Outside of a loop, as in fixtures, nothing was skipped yet."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return _real_time()
    assert isinstance(loop, SkippingLoop)
    if isinstance(loop, VirtualLoop):
        return loop.wall
    return _real_time() + loop.skipped


@pytest.fixture
def owned_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """One clock drives wall and monotonic time."""
    monkeypatch.setattr(time, "time", wall)
