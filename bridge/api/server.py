"""The HTTP server of the API: reads, authenticates, checks, routes and answers; bounded in bytes, time and clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping as Dict, Sequence
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self
from uuid import uuid4

import anyio
import anyio.to_thread
import structlog
from aiohttp import web

from bridge.admin.access import hostname, is_loopback
from bridge.api import ApiError, Call, Host
from bridge.api.invoke import MOST_EVENT, MOST_REQUEST, too_large
from bridge.api.routes import ROUTES, Handler
from bridge.api.shapes import Model, Operation, Received, Wire
from bridge.api.sigv4 import Signatures
from bridge.aws import service_model
from bridge.errors import BridgeError, StateError
from bridge.listening import HttpListener
from bridge.telemetry.logs import Once

log = structlog.get_logger()

Served = tuple[Operation, Handler]
VERSION = "2015-03-31"
"""Of the service's model."""
MOST_CONNECTIONS = 2000
MOST_BODY = 1 << 18
"""Bytes of a request that invokes nothing."""
MOST_BUFFERED = 64 << 20
"""Bytes of request bodies that are being read or whose invocation runs, all callers together."""
BODY_TIMEOUT = 60.0
"""Seconds for a whole body."""
DROP_AFTER = 5.0
"""Seconds that a refused client may take to read why."""


class ApiServer:
    """Serves the Lambda-compatible API. An async context manager; raises UsageError when it cannot listen.

    ``keys``: access key id -> secret; none: nobody is asked.
    """

    def __init__(self, host: Host, address: str, port: int, keys: Dict[str, str] | None) -> None:
        self._host = host
        self._address, self._port = address, port
        self._signatures = Signatures(keys) if keys is not None else None
        self._denied = Once(log)
        self._listener: HttpListener | None = None
        self._model: Model
        self._buffered = 0
        self._running = 0
        self._draining = False
        self._idle = anyio.Event()

    def __repr__(self) -> str:
        return f"<ApiServer {self._listener!r}, {self._running} requests>"

    @property
    def address(self) -> str:
        """HOST:PORT where it listens."""
        return f"{self._listener.host}:{self._listener.port}" if self._listener else f"{self._address}:{self._port}"

    async def __aenter__(self) -> Self:
        self._model = Model(await anyio.to_thread.run_sync(service_model, "lambda", VERSION))
        refuse = partial(_TooMany, self._model.error(too_many()))
        listener = HttpListener(
            self._app(), "api.listen", self._address, self._port, connections=MOST_CONNECTIONS, refuse=refuse
        )
        await listener.start()
        self._listener = listener
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener:
            with anyio.CancelScope(shield=True):
                await self._listener.stop()

    async def drain(self) -> None:
        """No new requests; returns when those that run have been answered."""
        self._draining = True
        if self._listener:
            self._listener.close()
        while self._running:
            self._idle = anyio.Event()
            await self._idle.wait()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MOST_REQUEST + 1)
        places: dict[tuple[str, str], list[Served]] = {}
        for name, handler in ROUTES.items():
            operation = self._model.operation(name)
            places.setdefault((operation.method, operation.path), []).append((operation, handler))
        for (method, path), served in places.items():
            served.sort(key=lambda it: -len(it[0].query))
            for each in (path, f"{path}/"):
                app.router.add_route(method, each, partial(self._answer, served))
        app.router.add_route("*", "/{rest:.*}", self._refuse)
        return app

    # One request.

    async def _answer(self, served: Sequence[Served], request: web.Request) -> web.StreamResponse:
        operation, handler = next(it for it in served if all(pair in request.query.items() for pair in it[0].query))
        request_id = str(uuid4())
        self._running += 1
        reserved = 0
        try:
            if self._draining:
                raise ApiError("ServiceException", "This bridge is stopping.")
            if self._signatures is None and (reason := foreign(request.headers, self._address)):
                raise ApiError("AccessDeniedException", reason, status=403)
            claim = self._signatures.claim(request.headers, datetime.now(UTC)) if self._signatures else None
            most = _most(operation, request)
            reserved = self._reserve(request, most)
            body = await _body(request, most)
            if self._signatures and claim:
                self._signatures.check(claim, request.method, request.raw_path, request.headers, body)
            given = self._model.parse(operation, _received(request, body))
            call = Call(given, request_id, request.headers.get("X-Amzn-Trace-Id", "")[:500])
            wire = self._model.answer(operation, await handler(self._host, call))
        except ApiError as error:
            wire = self._failed(operation, request, error)
        except Exception as error:  # noqa: BLE001 - the caller gets an answer whatever happens
            wire = self._fell(operation, error)
        finally:
            self._buffered -= reserved
            self._running -= 1
            if not self._running:
                self._idle.set()
        return _response(wire, request_id)

    def _reserve(self, request: web.Request, most: int) -> int:
        """Counts the bytes that this request may hold. Raises ApiError when they would be too many."""
        length = request.content_length
        if length is not None and length > most:
            raise too_large(most)
        wanted = most if length is None else length
        if self._buffered + wanted > MOST_BUFFERED:
            raise too_many()
        self._buffered += wanted
        return wanted

    def _failed(self, operation: Operation, request: web.Request, error: ApiError) -> Wire:
        if error.name in DENIALS:
            self._denied.log(
                (request.remote, error.name), "api_denied", peer=request.remote, error=error.name, call=operation.name
            )
        return self._model.error(error)

    def _fell(self, operation: Operation, error: Exception) -> Wire:
        known = isinstance(error, BridgeError)
        log.error("api_failed", call=operation.name, error=str(error)[:300], exc_info=None if known else error)
        text = str(error) if isinstance(error, StateError) else "An error occurred in the bridge; its log tells more."
        return self._model.error(ApiError("ServiceException", text))

    async def _refuse(self, request: web.Request) -> web.StreamResponse:
        """What is no operation here."""
        text = f"{request.method} {request.path[:200]} is no operation of this API; served are: {', '.join(ROUTES)}"
        error = ApiError("UnknownOperationException", text, status=404)
        return _response(self._model.error(error), str(uuid4()))


DENIALS = frozenset({
    "AccessDeniedException", "MissingAuthenticationTokenException", "UnrecognizedClientException",
    "InvalidSignatureException", "IncompleteSignatureException",
})  # fmt: skip


def foreign(headers: Dict[str, str], address: str) -> str:
    """Why a request that nobody signed is refused; empty: it is not. No SDK tells where it comes from as browsers do,
    and the name of another host is how a page gets here whose DNS says that it is this machine."""
    if "Origin" in headers or "Sec-Fetch-Site" in headers:
        return "A page in a browser may not call this API without a signature (api.auth: sigv4)."
    host = hostname(headers.get("Host", ""))
    if host in ("localhost", address.lower()) or is_loopback(host):
        return ""
    return "The Host header names neither loopback nor api.listen."


def too_many() -> ApiError:
    """This server has enough to do."""
    return ApiError("TooManyRequestsException", "Rate Exceeded.", more={"Reason": "CallerRateLimitExceeded"})


class _TooMany(asyncio.Protocol):
    """A connection too many: told so at once, without looking at what it wants."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._drop: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        headers = {**self._wire.headers, "Content-Type": "application/json", "Connection": "close"}
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        head = f"HTTP/1.1 {self._wire.status} Too Many Requests\r\nContent-Length: {len(self._wire.body)}\r\n"
        transport.write((head + "".join(lines) + "\r\n").encode() + self._wire.body)
        transport.write_eof()  # what it still sends is thrown away, so that it can read the answer first
        self._drop = asyncio.get_running_loop().call_later(DROP_AFTER, transport.abort)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._drop:
            self._drop.cancel()


def _most(operation: Operation, request: web.Request) -> int:
    if operation.name == "InvokeAsync" or request.headers.get("X-Amz-Invocation-Type") == "Event":
        return MOST_EVENT
    return MOST_REQUEST if operation.name == "Invoke" else MOST_BODY


async def _body(request: web.Request, most: int) -> bytes:
    """All of it. Raises ApiError: too large, or too slow."""
    chunks: list[bytes] = []
    size = 0
    try:
        with anyio.fail_after(BODY_TIMEOUT):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > most:
                    raise too_large(most)
                chunks.append(chunk)
    except TimeoutError:
        raise ApiError("RequestTimeoutException", "The body took too long.", status=408) from None
    except (web.RequestPayloadError, ConnectionError):
        raise ApiError("SerializationException", "The body ended before it was complete.") from None
    return b"".join(chunks)


def _received(request: web.Request, body: bytes) -> Received:
    query: dict[str, list[str]] = {}
    for key, value in request.query.items():
        query.setdefault(key, []).append(value)
    return Received(request.match_info, query, request.headers, body)


def _response(wire: Wire, request_id: str) -> web.Response:
    headers = {**wire.headers, "x-amzn-RequestId": request_id, "Date": _http_date(), "Server": "bridge"}
    if wire.body:
        headers["Content-Type"] = "application/json"
    return web.Response(status=wire.status, headers=headers, body=wire.body or None)


def _http_date() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
