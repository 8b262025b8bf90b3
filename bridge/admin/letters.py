"""The dead-letter part of the admin interface: looking at letters, trying a replay dry, and replaying chosen ones with
progress. All of it shows or changes messages, so all of it is for those alone who may change something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import anyio
import msgspec
from aiohttp import web

from bridge.attempt import Attempt
from bridge.errors import BridgeError, UsageError, first_cause

PROGRESS_EVERY = 0.25
"""Seconds between two lines of progress; the first tells at once whether somebody is still there."""
MOST_PEEKED = 50
MOST_CHOSEN = 1000
MOST_SHOWN = 65_536
"""Characters of a body that are shown."""
HEADER = "X-Bridge"
"""No page of another site can send it unasked."""

Count = Annotated[int, msgspec.Meta(ge=1, le=MOST_PEEKED)]
Chosen = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_CHOSEN)]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where letters of this daemon's mappings and functions lie."""

    arn: str
    """Of a part of a bucket ``s3://BUCKET/PREFIX``; empty: not known."""
    name: str
    of: tuple[str, ...]
    """Names of mappings and functions."""
    waiting: int | None = None
    """Letters, as the place itself says; none: it cannot be asked."""
    trouble: str = ""
    """Why it cannot be asked."""


class LetterView(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. Times in epoch seconds."""

    id: str
    kind: str
    body: str
    """As far as it is shown."""
    size: int
    """Characters of the whole body."""
    receives: int = 0
    group: str = ""
    at: float | None = None
    expires_at: float | None = None
    reason: str = ""
    """One line: why it is dead, as far as anybody told."""
    attempts: tuple[Attempt, ...] = ()
    """What the failure ledger knows, the oldest first."""


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """Letters of one place, given back already."""

    letters: tuple[LetterView, ...]
    target: str
    """Where a replay would send them, for people."""
    warning: str = ""
    """What looking costs there; empty: nothing that matters."""


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one letter."""

    id: str
    what: str
    """A word of bridge.replay.summary."""
    new_id: str = ""
    reason: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay is, or how it ended."""

    chosen: int
    fates: tuple[Fate, ...] = ()
    """Of all letters that have one."""
    failed: dict[str, int] = {}
    """By reason."""
    skipped: dict[str, int] = {}
    possible_duplicates: int = 0
    left: int | None = None
    stopped: str = ""
    """Why it stopped before its end."""
    interrupted: bool = False


class Desk(Protocol):
    """What can be done with dead letters. ``place``: the ARN of one of ``places``; KeyError for any other. All raise
    BridgeError: UsageError where somebody has to change something first."""

    def places(self) -> Awaitable[tuple[Place, ...]]:
        """All of them, also those that cannot be asked."""
        ...

    def known(self, place: str) -> Awaitable[Place]:
        """One of them."""
        ...

    def peek(self, place: str, most: int) -> Awaitable[Looked]:
        """Up to so many letters; the place may count that as a receive of each."""
        ...

    def replay(
        self, place: str, ids: frozenset[str], *, dry_run: bool, stop: anyio.Event, tell: Callable[[Progress], None]
    ) -> Awaitable[Progress]:
        """Sends these letters where they came from, journaled as by ``bridge replay``. After ``stop`` nothing more is
        sent, and what is on its way is finished. Cancelling it loses nothing either."""
        ...


class PlacesRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a question for the places; it may be left out."""


class PeekRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Where to look, at how many letters."""

    place: str
    most: Count = 10


class ReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which letters to replay."""

    place: str
    ids: Chosen
    dry_run: bool = True


class StopRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Whose replay to stop."""

    place: str


class Stopped(msgspec.Struct, frozen=True):
    """Whether one ran."""

    stopped: bool


Answer = TypeVar("Answer")
Request = TypeVar("Request", PlacesRequest, PeekRequest, ReplayRequest, StopRequest)
Check = Callable[[web.Request, Any], Awaitable[Any]]
"""Reads the body of a request as a type, if whoever sent it may change something."""


class Letters:
    """The handlers."""

    def __init__(self, desk: Desk, check: Check) -> None:
        self._desk = desk
        self._check = check
        self._running: dict[str, Running] = {}
        """By place."""

    async def drain(self) -> None:
        """Stops every replay, and returns when they have ended."""
        for running in tuple(self._running.values()):
            running.stop.set()
            await running.ended.wait()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Below `/letters`."""
        router.add_post("/letters", self._places)
        router.add_post("/letters/peek", self._peek)
        router.add_post("/letters/replay", self._replay)
        router.add_post("/letters/stop", self._stop)

    async def _places(self, request: web.Request) -> web.StreamResponse:
        await self._checked(request, PlacesRequest)
        return _json(await self._asked(self._desk.places))

    async def _peek(self, request: web.Request) -> web.StreamResponse:
        body = await self._checked(request, PeekRequest)
        return _json(await self._asked(lambda: self._desk.peek(body.place, body.most)))

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        """JSON lines: ``progress`` again and again, in the end ``summary`` or ``error``. Whoever goes away stops it."""
        body = await self._checked(request, ReplayRequest)
        await self._asked(lambda: self._desk.known(body.place))
        if body.place in self._running:
            raise web.HTTPConflict(text="letters of this place are being replayed already; wait, or stop that")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"})
        with suppress(ConnectionError):
            await response.prepare(request)
            try:
                last = _line("summary", await self._run(body, response))
            except BridgeError as error:
                last = _line("error", str(error))
            await response.write(last)
        return response

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        body = await self._checked(request, StopRequest)
        if running := self._running.get(body.place):
            running.stop.set()
        return _json(Stopped(running is not None))

    async def _run(self, body: ReplayRequest, response: web.StreamResponse) -> Progress:
        running = self._running[body.place] = Running(anyio.Event(), anyio.Event())
        news = News(running.stop)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(news.tell, response, name="progress")
                end = await self._desk.replay(
                    body.place, frozenset(body.ids), dry_run=body.dry_run, stop=running.stop, tell=news.put
                )
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise first_cause(errors) from None
        finally:
            del self._running[body.place]
            running.ended.set()
        return end

    async def _asked(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            return await work()
        except KeyError as error:
            raise web.HTTPNotFound(text=f"no letters of this daemon lie at {error.args[0]}") from None
        except UsageError as error:
            raise web.HTTPUnprocessableEntity(text=str(error)) from None
        except BridgeError as error:
            raise web.HTTPConflict(text=str(error)) from None

    async def _checked(self, request: web.Request, kind: type[Request]) -> Request:
        if HEADER not in request.headers:
            raise web.HTTPForbidden(text=f"this needs the header {HEADER}, which pages of other sites cannot send")
        body: Request = await self._check(request, kind)
        return body


class Running(NamedTuple):
    """A replay: set ``stop``, wait for ``ended``."""

    stop: anyio.Event
    ended: anyio.Event


class News:
    """The latest progress, on its way to whoever watches. What was overtaken is not told; when nobody watches any more,
    ``gone`` is set."""

    def __init__(self, gone: anyio.Event) -> None:
        self._gone = gone
        self._latest: Progress | None = None

    def put(self, progress: Progress) -> None:
        """In place of what was not told yet."""
        self._latest = progress

    async def tell(self, response: web.StreamResponse) -> None:
        """Until it is cancelled, or nobody is there any more."""
        try:
            while True:
                progress, self._latest = self._latest, None
                await response.write(_line("progress", progress))
                await anyio.sleep(PROGRESS_EVERY)
        except ConnectionError:
            self._gone.set()


def _line(name: str, data: Any) -> bytes:
    return msgspec.json.encode({name: data}) + b"\n"


def _json(answer: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
