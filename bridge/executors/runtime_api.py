"""The Lambda Runtime API for one execution environment: a listener of its own on loopback, by which its caller is known
(RT-1..10)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import socket
from collections import deque
from typing import Literal, NamedTuple, Protocol, cast

from bridge.executors.http1 import BODY_LIMIT, Continue, Parser, Part, Request
from bridge.invocation import Invocation

PACE = 10.0
"""Seconds in which a request must be there as a whole, once begun. The answer to an invocation has the invocation's."""
PIECE = 128 * 1024
"""Bytes of an event that are written at once."""
CONNECTIONS = 32
BACKLOG = 4
"""Requests that may wait behind a ``next`` of their own connection."""

_RUNTIME = b"/2018-06-01/runtime/"
_INVOCATION = _RUNTIME + b"invocation/"
_NEXT = _INVOCATION + b"next"
_INIT_ERROR = _RUNTIME + b"init/error"
_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}


class Answer(NamedTuple):
    """What the runtime posted about its invocation. ``too_large``: more than RT-4 allows, and thrown away."""

    kind: Literal["response", "error", "too_large"]
    body: bytes


class Runtime(Protocol):
    """Hears what the process at the other end does. Called in the event loop; must not call back at once."""

    def parked(self) -> None:
        """It asked for the next event and waits (RT-1: the first time ends its init)."""

    def answered(self, answer: Answer) -> None:
        """It posted the result of its invocation."""

    def init_failed(self, error: bytes) -> None:
        """It posted that it could not start."""

    def hung_up(self) -> None:
        """It has no connection left."""


class RuntimeApi:
    """Speaks HTTP/1.1 with whatever runtime client the environment runs. One invocation at a time (RT-8)."""

    def __init__(self, runtime: Runtime, arn: str) -> None:
        self.agent = ""
        """The ``User-Agent`` of the first ``next``."""
        self.connections: set[_Connection] = set()
        self._runtime = runtime
        self._head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Invoked-Function-Arn: {arn}"
        self._server: asyncio.Server | None = None
        self._port = 0
        self._waiting: _Connection | None = None
        self._initialised = False
        self._request_id = b""
        self._busy = False

    def __repr__(self) -> str:
        state = "busy" if self._busy else "waiting" if self._waiting else "ready" if self._initialised else "init"
        return f"<RuntimeApi {self.address}: {state}, {len(self.connections)} connections>"

    async def open(self) -> None:
        """Listens on a free port of loopback."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        self._port = listening.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), sock=listening, start_serving=False
        )
        await self._server.start_serving()

    def close(self) -> None:
        """Lets go of the port and of every connection."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.abort()

    @property
    def address(self) -> str:
        """``AWS_LAMBDA_RUNTIME_API``: host and port, without a scheme."""
        return f"127.0.0.1:{self._port}"

    @property
    def waiting(self) -> bool:
        """Whether the runtime waits for an event right now."""
        return self._waiting is not None

    def hand_out(self, invocation: Invocation, deadline: float) -> None:
        """Answers the waiting ``next`` (RT-3). ``deadline`` in epoch seconds (RT-38). Only while ``waiting``."""
        connection, self._waiting = self._waiting, None
        if connection is None:
            raise RuntimeError("the runtime does not wait for an event")
        payload = invocation.payload or b"{}"  # INV-6
        self._request_id = invocation.request_id.encode()
        self._busy = True
        trace = invocation.trace_id
        if trace and not (trace.isascii() and trace.isprintable()):  # it came from outside: no header is smuggled in
            trace = ""
        qualifier, context = invocation.qualifier, invocation.client_context
        head = (
            f"{self._head}{f':{qualifier}' if qualifier else ''}\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {invocation.request_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {int(deadline * 1000)}\r\n"
            f"{f'Lambda-Runtime-Trace-Id: {trace}' + chr(13) + chr(10) if trace else ''}"
            f"{f'Lambda-Runtime-Client-Context: {context}' + chr(13) + chr(10) if context else ''}"
            f"Content-Length: {len(payload)}\r\n\r\n"
        )
        connection.hand_over(head.encode(), payload)

    def awaits(self, target: bytes | None) -> bool:
        """Whether ``target`` is where the answer to the running invocation is posted."""
        return self._busy and target is not None and target.startswith(_INVOCATION + self._request_id)

    def handle(self, connection: _Connection, request: Request) -> bytes | None:
        """The reply, empty if it has been given already; None while it has to wait for an event."""
        target = request.target
        if b"sec-fetch-site" in request.headers or b"origin" in request.headers:
            return _FROM_A_PAGE
        if target.startswith(_INVOCATION):
            if target == _NEXT:
                return self._next(connection, request) if request.method == b"GET" else _not_allowed("GET")
            request_id, _, what = target[len(_INVOCATION) :].partition(b"/")
            if what == b"response" or what == b"error":
                if request.method != b"POST":
                    return _not_allowed("POST")
                return self._answer(connection, request_id, what, request)
        elif target == _INIT_ERROR:
            return self._init_error(request) if request.method == b"POST" else _not_allowed("POST")
        elif target == b"/ping":
            return _PONG if request.method == b"GET" else _not_allowed("GET")
        return _error(404, "NotFound", "The Runtime API has no such path.")

    def lost(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        if self._waiting is connection:
            self._waiting = None
        if not self.connections:
            self._runtime.hung_up()

    def _next(self, connection: _Connection, request: Request) -> bytes | None:
        if self._busy:
            return _out_of_order("the invocation handed out before is not answered")
        if self._waiting is not None:
            return _out_of_order("another request for the next invocation is waiting")
        if not self._initialised:
            self._initialised = True
            self.agent = request.headers.get(b"user-agent", b"").decode("latin-1")
        self._waiting = connection
        self._runtime.parked()
        return None

    def _answer(self, connection: _Connection, request_id: bytes, what: bytes, request: Request) -> bytes:
        if not self._request_id:
            return _out_of_order("no invocation was handed out")
        if request_id != self._request_id or not self._busy:
            return _error(400, "InvalidRequestID", "Invalid request ID")
        mode = request.headers.get(b"lambda-runtime-function-response-mode")
        if what == b"response" and mode is not None and mode.lower() != b"streaming":  # RT-10
            return _error(400, "InvalidFunctionResponseMode", "The only response mode that can be named is streaming.")
        self._busy = False
        if request.oversized:  # RT-4
            answer = Answer("too_large", b"")
        else:
            answer = _error_in_trailers(request) or Answer("error" if what == b"error" else "response", request.body)
        connection.say(_TOO_LARGE if request.oversized else _ACCEPTED)  # first, so that both go on at the same time
        self._runtime.answered(answer)
        return b""

    def _init_error(self, request: Request) -> bytes:
        if self._initialised:
            return _out_of_order("the init phase is over")
        if request.oversized:
            return _TOO_LARGE
        self._runtime.init_failed(request.body)
        return _ACCEPTED


class _Connection(asyncio.Protocol):
    """One connection: replies leave in the order in which their requests came."""

    _transport: asyncio.Transport

    def __init__(self, api: RuntimeApi) -> None:
        self._api = api
        self._parser = Parser()
        self._out: list[bytes] = []
        self._sent = 0  # bytes of the first of them, if it is a long one
        self._full = False
        self._closing = False
        self._parked: Request | None = None
        self._behind: deque[Part] = deque()
        self._pace: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self._api.connections) >= CONNECTIONS:
            self.abort()
        self._api.connections.add(self)
        # asyncio does it only for sockets that were made with an explicit protocol number.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        for part in self._parser.feed(data):
            if self._parked is None:
                self._reply(part)
            else:
                self._behind.append(part)
        self._flush()
        if len(self._behind) > BACKLOG:
            self.abort()
        if self._parser.partial or self._pace is not None:
            self._watch_pace()

    def eof_received(self) -> bool:
        if self._parser.partial and self._parked is None:
            self._refuse(400, "TruncatedHTTPRequest", "The request ended before its body did.")
            self._flush()
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        if self._pace is not None:
            self._pace.cancel()
        self._api.lost(self)

    def pause_writing(self) -> None:
        self._full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        self._transport.resume_reading()
        self._flush()

    def abort(self) -> None:
        self._transport.abort()

    def say(self, reply: bytes) -> None:
        """Replies at once, behind what was to be said before."""
        self._out.append(reply)
        self._flush()

    def hand_over(self, head: bytes, payload: bytes) -> None:
        """Replies to the parked request, then to those that came behind it."""
        parked, self._parked = self._parked, None
        self._out += (head, payload)
        if parked is not None and parked.last:
            self._close()
        while self._behind and self._parked is None:
            self._reply(self._behind.popleft())
        self._flush()

    def _reply(self, part: Part) -> None:
        if isinstance(part, Request):
            reply = self._api.handle(self, part)
            if reply is None:
                self._parked = part
                return
            self._out.append(reply)
            if part.last:
                self._close()
        elif isinstance(part, Continue):
            self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            self._refuse(part.status, "MalformedHTTPRequest", part.why)

    def _refuse(self, status: int, kind: str, message: str) -> None:
        self._out.append(_error(status, kind, message, more="Connection: close\r\n"))
        self._close()

    def _flush(self) -> None:
        """Long events leave in pieces, as they are read: neither copied as a whole, nor in one turn of the loop."""
        out = self._out
        while out and not self._full and not self._transport.is_closing():
            if len(out[0]) > PIECE:
                self._transport.write(memoryview(out[0])[self._sent : self._sent + PIECE])
                self._sent += PIECE
                if self._sent >= len(out[0]):
                    self._sent = 0
                    del out[0]
            else:
                short = next((n for n, text in enumerate(out) if len(text) > PIECE), len(out))
                self._transport.write(b"".join(out[:short]))
                del out[:short]
        if self._closing and not out:  # not at once: a transport does not expect it while it asks for more
            asyncio.get_running_loop().call_soon(self._transport.close)

    def _close(self) -> None:
        """After what is to be said; the parser has become deaf by then."""
        self._closing = True
        self._flush()

    def _watch_pace(self) -> None:
        slow = self._parser.partial and not self._api.awaits(self._parser.body_of)
        if slow and self._pace is None:
            self._pace = asyncio.get_running_loop().call_later(PACE, self._too_slow)
        elif not slow and self._pace is not None:
            self._pace.cancel()
            self._pace = None

    def _too_slow(self) -> None:
        self._pace = None
        if self._parked is not None:  # replies keep their order: nothing can be said before the event
            self.abort()
            return
        self._refuse(408, "TruncatedHTTPRequest", f"The request was not there within {PACE:.0f} seconds.")


def _reply(status: int, body: bytes, more: str = "", content_type: str = "application/json") -> bytes:
    first = f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
    head = f"{first}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def _error(status: int, kind: str, message: str, more: str = "") -> bytes:
    return _reply(
        status, json.dumps({"errorMessage": message, "errorType": kind}, separators=(",", ":")).encode(), more
    )


def _out_of_order(why: str) -> bytes:
    return _error(403, "InvalidStateTransition", f"Transition is not allowed: {why}.")  # RT-7


def _not_allowed(method: str) -> bytes:
    return _error(405, "MethodNotAllowed", f"This path takes {method}.", more=f"Allow: {method}\r\n")


def _error_in_trailers(request: Request) -> Answer | None:
    """A streamed answer says behind its body that it failed half-way (RT-10)."""
    if b"lambda-runtime-function-error-type" not in request.trailers:
        return None
    try:
        body = base64.b64decode(request.trailers.get(b"lambda-runtime-function-error-body", b""), validate=True)
    except binascii.Error:
        body = b""
    kind = request.trailers[b"lambda-runtime-function-error-type"].decode("latin-1")
    return Answer("error", body or json.dumps({"errorMessage": "", "errorType": kind}).encode())


_ACCEPTED = _reply(202, b'{"status":"OK"}')
_PONG = _reply(200, b"pong", content_type="text/plain")
_FROM_A_PAGE = _error(403, "Forbidden", "A page in a browser may not call the Runtime API.")
_TOO_LARGE = _error(
    413, "RequestEntityTooLarge", f"Exceeded maximum allowed payload size ({BODY_LIMIT} bytes)."
)  # RT-4
