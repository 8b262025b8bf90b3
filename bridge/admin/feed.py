"""The snapshot as server-sent events: made once a second for everybody who watches, and never more than one ahead."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import msgspec
import structlog
from aiohttp import web

from bridge.admin.history import History
from bridge.admin.judgement import Judgement, judged
from bridge.snapshot import Control, Snapshot
from bridge.telemetry.logs import Once

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two snapshots."""
BYTES_A_SECOND = 256 << 10
"""Snapshots that are bigger come less often."""
MOST_WATCHERS = 16
"""Fewer than connections, so that probes and commands always get through."""
PATIENCE = 30.0
"""Seconds until a reader that takes nothing is cut off."""
RETRY_AFTER = 5


class State(msgspec.Struct, frozen=True):
    """The daemon at one moment, and how each mapping fares."""

    snapshot: Snapshot
    judged: dict[str, Judgement]


class Feed:
    """Tells watchers how the daemon is. A slow one misses snapshots instead of getting old ones: nothing piles up."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._history = History()
        self._frame = b""
        self._next = anyio.Event()
        self._came = anyio.Event()
        self._troubles = Once(log)
        self._pause = EVERY
        self.watchers = 0
        self.closed = False

    def __repr__(self) -> str:
        return f"<Feed {'closed' if self.closed else 'open'}, {self.watchers} of {MOST_WATCHERS} watchers>"

    async def run(self) -> None:
        """Until it is cancelled."""
        due = anyio.current_time()
        while True:
            now = anyio.current_time()
            try:
                if now >= due:
                    due = now + self._history.every
                    self._history.add(self._control.snapshot())
                if self.watchers:
                    self._make_frame()
            except Exception as error:  # noqa: BLE001 - a bug in what is shown must not end what is done
                self._troubles.log(repr(error), "dashboard_failed", level="error", exc_info=error)
            self._wake()
            if self.watchers:
                await anyio.sleep(min(self._pause, due - now))
                continue
            with anyio.move_on_after(due - now):
                await self._came.wait()

    def close(self) -> None:
        """Ends all streams: those who watch are told, and come again by themselves when there is a daemon again."""
        self.closed = True
        self._wake()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """A stream of events: ``samples`` first, and whenever there are new ones, ``state`` each second, ``end``."""
        if self.watchers >= MOST_WATCHERS:
            raise web.HTTPServiceUnavailable(
                text=f"{MOST_WATCHERS} pages are open already; close one", headers={"Retry-After": str(RETRY_AFTER)}
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self.watchers += 1
        self._came.set()
        self._came = anyio.Event()
        try:
            with suppress(ConnectionError):  # whoever watched went away
                await response.prepare(request)
                await self._tell(request, response)
        finally:
            self.watchers -= 1
        return response

    async def _tell(self, request: web.Request, response: web.StreamResponse) -> None:
        self._make_frame()
        told = -1
        while not self.closed:
            upcoming = self._next
            if told != self._history.sequence:
                samples, told = self._history.since(max(told, 0)), self._history.sequence
                await self._write(request, response, _event("samples", samples))
            await self._write(request, response, self._frame)
            await upcoming.wait()
        await self._write(request, response, _event("end", {}))

    async def _write(self, request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        with anyio.move_on_after(PATIENCE) as patience:
            await response.write(data)
        if patience.cancelled_caught and request.transport:
            request.transport.abort()
            raise ConnectionResetError("the reader takes nothing")

    def _make_frame(self) -> None:
        snapshot = self._control.snapshot()
        self._frame = _event("state", State(snapshot, judged(snapshot)))
        self._pause = max(EVERY, len(self._frame) / BYTES_A_SECOND)

    def _wake(self) -> None:
        event, self._next = self._next, anyio.Event()
        event.set()


def _event(name: str, data: Any) -> bytes:
    """JSON has no line ends in it, so one ``data`` line holds it."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
