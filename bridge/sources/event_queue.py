"""Accepted asynchronous events: on disk before anybody is told so, in memory only what must be known of those waiting.

What is handed out is marked in memory alone: whatever was not finished when the process ends, by any means, waits again
when the next one starts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

import anyio
import msgspec
import structlog

from bridge.errors import StateError, Throttled
from bridge.event import Event, Waiting
from bridge.function import LATEST, EventInvoke, Function
from bridge.lineage import new_trace
from bridge.station import held

if TYPE_CHECKING:
    from bridge.telemetry.metrics import FunctionMeter

log = structlog.get_logger()

MOST_EVENTS = 1_000_000
MOST_BYTES = 4 << 30
"""Of all payloads that wait, on disk."""
MOST_UNWRITTEN = 64 << 20
"""Bytes of payloads that may wait for the disk."""
WRITE_ROWS, WRITE_BYTES = 1000, 16 << 20
"""In one write at the most."""


class EventStore(Protocol):
    """The part of the state store that is needed here."""

    async def change_events(
        self, added: Sequence[Event] = (), moved: Sequence[Waiting] = (), done: Sequence[str] = ()
    ) -> None: ...

    async def waiting_events(self) -> list[Waiting]: ...

    async def event(self, request_id: str) -> Event | None: ...


class EventQueue:
    """The asynchronous events of all functions. Work with it inside ``running``."""

    def __init__(
        self,
        store: EventStore,
        meter: Callable[[str], FunctionMeter | None] = lambda _: None,
        *,
        most_events: int = MOST_EVENTS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._store = store
        self._meter = meter
        self._most_events, self._most_bytes = most_events, most_bytes
        self._known: dict[str, int] = {}
        """Request id -> bytes, of all events that are accepted or about to be."""
        self._bytes = 0
        self._accepting: dict[str, _Change] = {}
        self._lines: dict[str, Line] = {}
        self._settings: dict[tuple[str, str], EventInvoke] = {}
        self._writer = _Writer(store)
        self._active = anyio.Event()

    def __repr__(self) -> str:
        return f"<EventQueue {len(self._known)} events, {self._bytes} bytes, {len(self._lines)} functions>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Takes up what an earlier process left; leaving writes what is still to be written. Raises StateError."""
        for waiting in await self._store.waiting_events():
            self._known[waiting.request_id] = waiting.size
            self._bytes += waiting.size
            self.line(waiting.function).put(waiting)
        if self._known:
            log.info("async_events_found", events=len(self._known), functions=sorted(self._lines))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._writer.run, name="event writer")
            try:
                yield
            finally:
                self._writer.stop()

    async def accept(self, function: str, qualifier: str, payload: bytes, request_id: str, *, trace: str = "") -> None:
        """Returns when the event is on disk (ASY-1): from then on it is invoked at least once (ASY-3), or given up as
        the function's settings say. ``payload`` is JSON text; an id that is known already is not accepted twice.

        Raises Throttled when too much waits already, StateError when it cannot be written.
        """
        if request_id in self._known:
            if same := self._accepting.get(request_id):
                await self._writer.written(same)
            return
        if (
            len(self._known) >= self._most_events
            or self._bytes + len(payload) > self._most_bytes
            or self._writer.unwritten > MOST_UNWRITTEN
        ):
            raise Throttled("Rate Exceeded.", code="TooManyRequestsException")
        now = time.time()
        event = Event(request_id, function, payload, now, now, qualifier, trace=trace or new_trace(now))
        change = _Change(added=event, then=lambda: self._accepted(event), failed=lambda: self._refused(event))
        self._know(event.waiting)
        self._accepting[request_id] = change
        await self._writer.write(change)

    def configure(self, function: str, qualifier: str, settings: EventInvoke | None) -> None:
        """From now on events of this function and qualifier go by ``settings``; none: by the configuration."""
        key = (function, qualifier or LATEST)
        self._settings.pop(key, None)
        if settings is not None:
            self._settings[key] = settings

    def settings(self, function: Function, qualifier: str) -> EventInvoke:
        """What is in force. The configuration's are those of the unqualified function (ASY-20)."""
        key = qualifier or LATEST
        configured = function.event_invoke if key == LATEST else EventInvoke()
        return self._settings.get((function.name, key), configured)

    def line(self, function: str) -> Line:
        """The events of one function."""
        if function not in self._lines:
            self._lines[function] = Line(self, function)
            self._active.set()
            self._active = anyio.Event()
        return self._lines[function]

    def waiting(self, function: str) -> int:
        """Accepted events of a function that are not finished."""
        line = self._lines.get(function)
        return len(line) if line else 0

    @property
    def total(self) -> int:
        """Events of all functions that are accepted, or about to be, and not finished."""
        return len(self._known)

    async def functions(self) -> AsyncIterator[str]:
        """The name of each function when it has its first event; never ends."""
        told: set[str] = set()
        while True:
            active = self._active
            for name in [name for name in self._lines if name not in told]:
                told.add(name)
                yield name
            if told.issuperset(self._lines):
                await active.wait()

    # What lines use.

    async def read(self, waiting: Waiting) -> Event | None:
        """The whole event. Raises StateError."""
        with held("store", f"reads the event {waiting.request_id}"):
            return await self._store.event(waiting.request_id)

    async def finish(self, waiting: Waiting) -> None:
        """It is over: returns when that is on disk. Raises StateError."""
        await self._writer.write(_Change(done=waiting.request_id, then=lambda: self.forget(waiting)))

    async def postpone(self, waiting: Waiting) -> None:
        """It is due later; returns when that is on disk. Raises StateError."""
        await self._writer.write(_Change(moved=waiting))

    def meter(self, function: str) -> FunctionMeter | None:
        """Where its events are counted; none while nobody serves the function."""
        return self._meter(function)

    def _refused(self, event: Event) -> None:
        self._accepting.pop(event.request_id, None)
        self.forget(event.waiting)

    def _accepted(self, event: Event) -> None:
        self._accepting.pop(event.request_id, None)
        self.line(event.function).put(event.waiting)
        if meter := self._meter(event.function):
            meter.event_received()

    def _know(self, waiting: Waiting) -> None:
        self._known[waiting.request_id] = waiting.size
        self._bytes += waiting.size

    def forget(self, waiting: Waiting) -> None:
        """It does not count any more."""
        if self._known.pop(waiting.request_id, None) is not None:
            self._bytes -= waiting.size


class Line:
    """The events of one function, by due time: a heap, and no task for any of them."""

    def __init__(self, queue: EventQueue, function: str) -> None:
        self._queue = queue
        self.function = function
        self._due: list[tuple[float, int, Waiting]] = []
        self._count = 0
        self._claimed: dict[str, Waiting] = {}
        self._changed = anyio.Event()

    def __repr__(self) -> str:
        return f"<Line {self.function}: {len(self._due)} wait, {len(self._claimed)} handed out>"

    def __len__(self) -> int:
        return len(self._due) + len(self._claimed)

    @property
    def ready(self) -> bool:
        """Whether an event is due."""
        return bool(self._due) and self._due[0][0] <= time.time()

    @property
    def later(self) -> tuple[Waiting, int] | None:
        """The next event that is not due yet, and how many wait, when none is due; none: no event waits so."""
        if not self._due or self.ready:
            return None
        return self._due[0][2], len(self._due)

    def put(self, waiting: Waiting) -> None:
        """It waits until it is due."""
        self._count += 1
        heappush(self._due, (waiting.due_at, self._count, waiting))
        event, self._changed = self._changed, anyio.Event()
        event.set()

    def claim(self) -> Waiting | None:
        """Hands out the event that has been due for longest, if one is."""
        if not self.ready:
            return None
        _, _, waiting = heappop(self._due)
        self._claimed[waiting.request_id] = waiting
        return waiting

    def release(self, request_id: str) -> None:
        """What was handed out waits again, as it was."""
        if waiting := self._claimed.pop(request_id, None):
            self.put(waiting)

    def release_all(self) -> None:
        """Nobody works on what was handed out any more."""
        for request_id in tuple(self._claimed):
            self.release(request_id)

    def drop(self, request_id: str) -> None:
        """The store does not know it any more: it had been finished when nobody could be told so."""
        if waiting := self._claimed.pop(request_id, None):
            self._queue.forget(waiting)

    def holds(self, request_id: str) -> bool:
        """Whether it is handed out."""
        return request_id in self._claimed

    async def finish(self, request_id: str) -> None:
        """What was handed out is over. Raises StateError."""
        if waiting := self._claimed.get(request_id):
            await self._queue.finish(waiting)
            self._claimed.pop(request_id, None)

    async def postpone(self, request_id: str, due_at: float, attempts: int) -> None:
        """What was handed out waits until ``due_at``, with the attempts that it has used up. Raises StateError."""
        was = self._claimed.get(request_id)
        if was is None:
            return
        now = msgspec.structs.replace(was, due_at=due_at, attempts=attempts, deliveries=was.deliveries + 1)
        await self._queue.postpone(now)
        if self._claimed.pop(request_id, None):
            self.put(now)

    async def change(self, wait: float) -> None:
        """Returns when another event may be due, ``wait`` seconds from now at the latest."""
        if self._due:
            wait = min(wait, max(0.0, self._due[0][0] - time.time()))
        with anyio.move_on_after(wait):
            await self._changed.wait()


class _Change(msgspec.Struct, eq=False):
    """One row to be written, and what follows."""

    added: Event | None = None
    moved: Waiting | None = None
    done: str = ""
    then: Callable[[], None] = lambda: None
    """Called once it is on disk, also when who asked for it has gone."""
    failed: Callable[[], None] = lambda: None
    written: anyio.Event = msgspec.field(default_factory=anyio.Event)
    error: StateError | None = None

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return len(self.added.payload) if self.added else 0


class _Writer:
    """Writes changes in the order in which they come, those that came meanwhile together: one flush for all of them."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._queue: deque[_Change] = deque()
        self._wake = anyio.Event()
        self._stopping = False
        self.unwritten = 0
        """Bytes."""

    async def write(self, change: _Change) -> None:
        """Returns when it is on disk. Raises StateError when it is not."""
        if self._stopping:
            change.failed()
            raise StateError("the daemon is stopping")
        self._queue.append(change)
        self.unwritten += change.size
        self._wake.set()
        await self.written(change)

    async def written(self, change: _Change) -> None:
        """Returns when a change that is under way is on disk. Raises StateError when it is not."""
        if not change.written.is_set():
            with held("store", lambda: f"writes events; {len(self._queue)} more changes wait"):
                await change.written.wait()
        if change.error:
            raise StateError(str(change.error))

    def stop(self) -> None:
        """``run`` returns when everything is written."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Until ``stop``. Shielded: what somebody asked for is written."""
        with anyio.CancelScope(shield=True):
            while self._queue or not self._stopping:
                if not self._queue:
                    self._wake = anyio.Event()
                    await self._wake.wait()
                    continue
                await self._write(self._taken())

    def _taken(self) -> list[_Change]:
        taken: list[_Change] = []
        size = 0
        while self._queue and len(taken) < WRITE_ROWS and (not taken or size + self._queue[0].size <= WRITE_BYTES):
            size += self._queue[0].size
            taken.append(self._queue.popleft())
        return taken

    async def _write(self, changes: list[_Change]) -> None:
        try:
            await self._store.change_events(
                [change.added for change in changes if change.added],
                [change.moved for change in changes if change.moved],
                [change.done for change in changes if change.done],
            )
        except StateError as error:
            log.error("async_events_not_written", events=len(changes), error=str(error))
            for change in changes:
                change.error = error
        for change in changes:
            self.unwritten -= change.size
            (change.failed if change.error else change.then)()
            change.written.set()
