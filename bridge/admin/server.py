"""The HTTP server of the admin interface (interfaces.md section 4): first up, last down, and never in the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog
from aiohttp import web

from bridge import __version__
from bridge.admin import views
from bridge.admin.access import Access
from bridge.admin.backlogs import Backlogs
from bridge.admin.feed import Feed
from bridge.admin.letters import Desk, Letters
from bridge.admin.page import dashboard
from bridge.errors import BridgeError, StateError, UsageError
from bridge.listening import HttpListener
from bridge.nearest import did_you_mean
from bridge.snapshot import Control
from bridge.telemetry.logs import Once
from bridge.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()

MOST_CONNECTIONS = 64
MOST_BODY = 65_536
BODY_TIMEOUT = 5.0

HEADERS = {
    "Server": "bridge",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")
"""Those of an error that say what to do about it."""


class PauseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a pause; it may be left out."""

    wait: bool = True


class ResumeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a resume; it may be left out."""


class ForgetRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a forget; it may be left out."""


class AttemptsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """About which records."""

    records: Annotated[list[str], msgspec.Meta(max_length=1000)]


class FailedRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How many of a mapping's last failed invocations."""

    most: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


Body = TypeVar("Body", PauseRequest, ResumeRequest, ForgetRequest, AttemptsRequest, FailedRequest)


class AdminServer:
    """Serves metrics, probes and the snapshot to anybody who reaches it, and changes to those who may.

    An async context manager. Raises UsageError, one line, when it cannot listen on ``host`` and ``port`` (0: any free
    one, see ``port``).
    """

    def __init__(
        self,
        control: Control,
        metrics: Metrics,
        host: str,
        port: int,
        token: str | None = None,
        desk: Desk | None = None,
    ) -> None:
        self._control = control
        self._metrics = metrics
        self._access = Access(host, token or "")
        self._backlogs = Backlogs(control)
        self._page = dashboard()
        self._feed = Feed(control)
        self._tasks: TaskGroup | None = None
        self._denied = Once(log)
        self._rendering = anyio.Lock()
        self._desk = desk
        self._letters: Letters | None = None
        self._listener = HttpListener(self._app(), "admin.listen", host, port, connections=MOST_CONNECTIONS)

    def __repr__(self) -> str:
        return f"<AdminServer {self._listener!r}>"

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._listener.host

    @property
    def port(self) -> int:
        """Where it listens; not 0 any more."""
        return self._listener.port

    async def __aenter__(self) -> Self:
        await self.start()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._feed.run, name="dashboard")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with anyio.CancelScope(shield=True):
            await self.stop()
        assert self._tasks is not None  # noqa: S101 - it was entered
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(kind, error, trace)

    async def start(self) -> None:
        """Listens. Raises UsageError."""
        await self._listener.start()

    async def drain(self) -> None:
        """Replays that were started here end early; returns when they have."""
        if self._letters:
            await self._letters.drain()

    async def stop(self) -> None:
        """Closes, in bounded time."""
        self._feed.close()
        await self._listener.stop()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._in_json], client_max_size=MOST_BODY)
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/", self._show_page)
        app.router.add_get("/events", self._feed.serve)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/healthz", self._show_health)
        app.router.add_get("/readyz", self._show_readiness)
        app.router.add_get("/scale", self._show_scale)
        app.router.add_get("/state", self._show_state)
        app.router.add_post("/mappings/{name}/pause", self._pause)
        app.router.add_post("/mappings/{name}/resume", self._resume)
        app.router.add_post("/mappings/{name}/forget", self._forget)
        app.router.add_post("/mappings/{name}/attempts", self._show_failed)
        app.router.add_post("/attempts", self._show_attempts)
        if self._desk:
            self._letters = Letters(self._desk, self._checked)
            self._letters.add_routes(app.router)
        return app

    # What anybody may see.

    async def _show_page(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._page.body, headers=self._page.headers)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        self._metrics.show(self._control.snapshot())
        async with self._rendering:  # a page of many mappings takes a while: in a thread, one at a time
            page, content_type = await anyio.to_thread.run_sync(self._metrics.render, request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def _show_health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok", "version": __version__})  # that this runs is the answer

    async def _show_readiness(self, _request: web.Request) -> web.Response:
        readiness = views.readiness(self._control.snapshot())
        return _json(readiness, status=200 if readiness["ready"] else 503)

    async def _show_scale(self, _request: web.Request) -> web.Response:
        backlogs = await self._backlogs.ask(view.name for view in self._control.snapshot().mappings)
        return _json(views.scale(self._control.snapshot(), backlogs))

    async def _show_state(self, _request: web.Request) -> web.Response:
        return _json(self._control.snapshot())

    # What changes something.

    async def _pause(self, request: web.Request) -> web.Response:
        body = await self._checked(request, PauseRequest)
        return await self._changed(request, lambda name: self._control.pause(name, wait=body.wait))

    async def _resume(self, request: web.Request) -> web.Response:
        await self._checked(request, ResumeRequest)
        return await self._changed(request, self._control.resume)

    async def _forget(self, request: web.Request) -> web.Response:
        await self._checked(request, ForgetRequest)
        return await self._changed(request, self._control.forget)

    # What shows messages and logs of handlers: for those alone who may change something.

    async def _show_attempts(self, request: web.Request) -> web.Response:
        body = await self._checked(request, AttemptsRequest)
        return await self._changed(request, lambda _: self._control.attempts(body.records))

    async def _show_failed(self, request: web.Request) -> web.Response:
        body = await self._checked(request, FailedRequest)
        return await self._changed(request, lambda name: self._control.last_failed(name, body.most))

    async def _checked(self, request: web.Request, kind: type[Body]) -> Body:
        """The body of a request that may change something."""
        if refusal := self._access.refusal(request.remote, request.headers):
            self._denied.log((request.remote, refusal), "admin_denied", peer=request.remote, reason=refusal.reason)
            if refusal.status == 401:
                raise web.HTTPUnauthorized(text=refusal.reason, headers={"WWW-Authenticate": "Bearer"})
            raise web.HTTPForbidden(text=refusal.reason)
        try:
            with anyio.fail_after(BODY_TIMEOUT):
                body = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="the body took too long") from None
        if body and request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="the body must be application/json")
        try:
            return msgspec.json.decode(body or b"{}", type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise web.HTTPBadRequest(text=f"bad body: {error}") from None

    async def _changed(self, request: web.Request, change: Callable[[str], Awaitable[Any]]) -> web.Response:
        name = request.match_info.get("name", "")
        try:
            view = await change(name)
        except KeyError:
            known = sorted(view.name for view in self._control.snapshot().mappings)
            raise web.HTTPNotFound(text=f'no mapping "{name}"{did_you_mean(name, known)}') from None
        except StateError as error:
            raise web.HTTPInsufficientStorage(text=str(error)) from None
        except UsageError as error:
            raise web.HTTPUnprocessableEntity(text=str(error)) from None
        except BridgeError as error:
            raise web.HTTPConflict(text=str(error)) from None
        return _json(view)

    @web.middleware
    async def _in_json(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors are JSON too: ``{"error": …}``; an unknown path lists the known ones."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            answer: dict[str, Any] = {"error": error.text or error.reason}
            if isinstance(request.match_info.http_exception, web.HTTPNotFound):
                answer = {"error": f"nothing is at {request.path[:200]}", "paths": _paths(request.app)}
            headers = {name: error.headers[name] for name in KEPT_HEADERS if name in error.headers}
            return _json(answer, status=error.status, headers=headers)


def _json(answer: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(answer), status=status, headers=headers, content_type="application/json"
    )


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    policy = response.headers.get("Content-Security-Policy")  # a page has one of its own
    response.headers.update(HEADERS)
    if policy:
        response.headers["Content-Security-Policy"] = policy


def _paths(app: web.Application) -> list[str]:
    routes = (route for route in app.router.routes() if route.resource and route.method != "HEAD")
    return [f"{route.method} {route.resource.canonical}" for route in routes if route.resource]
