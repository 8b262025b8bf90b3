"""Runs a function by POST to an HTTP endpoint: Lambda's runtime interface emulator, whatever speaks the Invoke API, or
a plain web server."""

from __future__ import annotations

import base64
import io
import os
import ssl
import time
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import anyio

from bridge import __version__
from bridge.errors import UsageError
from bridge.executors import Environments, Surroundings
from bridge.executors.calls import CallEnded, Calls
from bridge.executors.failures import Failures
from bridge.executors.http1 import BODY_LIMIT
from bridge.executors.http_answers import Reply, dialect_of, judge, retry_after
from bridge.function import Endpoint, Function, HeaderFile
from bridge.invocation import Invocation, Outcome, Succeeded
from bridge.lineage import caller

if TYPE_CHECKING:
    import aiohttp

CONNECT_LIMIT = 10.0
"""Seconds for address, connection and TLS handshake."""
IDLE_LIMIT = 1.5
"""Seconds that an unused connection is kept: less than common servers do (2 s and more). A request on a connection that
its server is just closing is lost, and nobody can say whether it was read."""
PIECE = 256 * 1024
"""Bytes of an event that are sent at once."""
HEADER_FILE_LIMIT = 64 * 1024


class HttpExecutor:
    """As many POSTs at once as its caller makes. Connections are kept for the next one; redirects are not followed.

    Entering it raises UsageError when a file of certificates or of a header's value cannot be read.
    """

    def __init__(self, function: Function, surroundings: Surroundings) -> None:  # noqa: ARG002 - nothing is started here
        if function.endpoint is None:
            raise ValueError(f"{function!r} has no endpoint")
        self.function = function
        self._endpoint = function.endpoint
        self._dialect = dialect_of(urlsplit(self._endpoint.url).path)
        self._failures = Failures(function)
        self._calls = Calls()
        self._not_before = 0.0
        self._session: aiohttp.ClientSession

    def __repr__(self) -> str:
        return f"<HttpExecutor {self.function.name}: {self._endpoint.shown}, {self.environments().busy} busy>"

    async def __aenter__(self) -> Self:
        import aiohttp

        trust = self._trust()
        for name, value in self._endpoint.headers.items():
            try:
                _header(value)
            except OSError as error:
                raise self._mistake(f"headers.{name}.file", value, error) from None
        sent = aiohttp.TraceConfig()
        sent.on_request_headers_sent.append(_on_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=trust, keepalive_timeout=IDLE_LIMIT),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT),
            trace_configs=[sent],
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()
        with anyio.CancelScope(shield=True):
            await self._session.close()

    def environments(self) -> Environments:
        return self._calls.environments

    def provision(self, count: int) -> None:
        self._calls.provision(count)

    async def invoke(self, invocation: Invocation) -> Outcome:
        if self._calls.closed:
            return self._unreached(invocation, f"the function {self.function.name} is being closed")
        if (wait := self._not_before - anyio.current_time()) > 0:
            return self._throttled(invocation, f"it asked to be left alone for {wait:.1f} more seconds")
        call = _Call(self, invocation)
        began = time.perf_counter()
        try:
            in_time = await self._calls.run(call.make, self.function.timeout)
        except CallEnded as ended:
            return self._broken(invocation, call, time.perf_counter() - began, str(ended))
        except OSError as error:  # of a header's file; those of the connection are in call.trouble
            return self._unreached(invocation, f"a header's file cannot be read: {error.strerror}: {error.filename}")
        duration = time.perf_counter() - began
        if not in_time and call.sent:
            return self._failures.timed_out(invocation, duration, b"")
        if not in_time:
            return self._unreached(invocation, f"no connection within {self.function.timeout:g} seconds")
        if call.too_large:
            return self._failures.too_large(invocation, duration, b"")
        if call.reply is None:
            return self._broken(invocation, call, duration, call.trouble)
        return self._outcome(invocation, call.reply, duration)

    def _outcome(self, invocation: Invocation, reply: Reply, duration: float) -> Outcome:
        finding = judge(reply, self._dialect)
        match finding.kind:
            case "answer":
                return Succeeded(finding.body, invocation.request_id, reply.version, duration)
            case "error":
                return self._failures.reported(invocation, finding.body, duration, version=reply.version)
            case "timeout":
                message = f"RequestId: {invocation.request_id} Error: {finding.text}"
                return self._failures.told("timeout", "Sandbox.Timedout", message, invocation, duration)
            case "busy":
                self._not_before = anyio.current_time() + retry_after(reply, time.time())
                return self._throttled(invocation, f"it answered {finding.text}")
            case "status":
                message = f"{self._endpoint.shown} answered {finding.text}"
                return self._failures.told("function", "Function.HttpError", message, invocation, duration)

    def _broken(self, invocation: Invocation, call: _Call, duration: float, why: str) -> Outcome:
        """No whole answer. What has been sent may have been handled."""
        if not call.sent:
            return self._unreached(invocation, why)
        message = f"{self._endpoint.shown} gave no whole answer: {why}; the handler may have run"
        return self._failures.told("function", "Function.ConnectionLost", message, invocation, duration)

    def _unreached(self, invocation: Invocation, why: str) -> Outcome:
        message = f"{self._endpoint.shown} was not called: {why}"
        return self._failures.told("unreachable", "Function.Unreachable", message, invocation, 0.0)

    def _throttled(self, invocation: Invocation, why: str) -> Outcome:
        message = f"{self._endpoint.shown} is throttled: {why}"
        return self._failures.told("throttled", "TooManyRequestsException", message, invocation, 0.0)

    def _trust(self) -> ssl.SSLContext | bool:
        if not self._endpoint.verify:
            return False
        if self._endpoint.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self._endpoint.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise self._mistake("ca_file", self._endpoint.ca_file, error) from None

    def _mistake(self, option: str, value: object, error: OSError) -> UsageError:
        path = value.file if isinstance(value, HeaderFile) else value
        where = f"{self.function.where}: " if self.function.where else ""
        why = error.strerror or "no PEM certificates in it"
        return UsageError(f"{where}functions.{self.function.name}.{option}: {path} cannot be used: {why}")

    # What a call uses.

    def post(self, invocation: Invocation, sent: _Call) -> aiohttp.client._RequestContextManager:
        """The request, not yet made. Raises OSError when a header's file cannot be read."""
        return self._session.post(
            self._endpoint.url,
            data=_body(invocation.payload),
            headers=headers(self.function, self._endpoint, invocation, time.time() + self.function.timeout),
            allow_redirects=False,
            trace_request_ctx=sent,
        )


class _Call:
    """One request: how far it came, and what came back."""

    def __init__(self, executor: HttpExecutor, invocation: Invocation) -> None:
        self._executor = executor
        self._invocation = invocation
        self.sent = False
        """Whether the server may have seen anything of the request."""
        self.reply: Reply | None = None
        self.too_large = False
        self.trouble = ""
        """Why there is no reply."""

    async def make(self) -> None:
        import aiohttp

        request = self._executor.post(self._invocation, self)
        try:
            async with request as response:
                body = await _read(response)
                if body is None:
                    self.too_large = True
                    response.close()
                else:
                    self.reply = Reply.of(response.status, response.headers, body)
        except (aiohttp.ClientError, ssl.SSLError, ConnectionError) as error:
            self.trouble = _explained(error)


def headers(function: Function, endpoint: Endpoint, invocation: Invocation, deadline: float) -> dict[str, str]:
    """What the request says about its invocation, in the names of the Runtime API (RT-3); configured headers win.

    Raises OSError when a header's file cannot be read.
    """
    given = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"bridge/{__version__}",
        "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
        "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
        "Lambda-Runtime-Invoked-Function-Arn": function.qualified(invocation.qualifier),
    }
    if context := invocation.client_context:  # the emulator reads the second
        encoded = base64.b64encode(context.encode()).decode()
        given |= {"Lambda-Runtime-Client-Context": context, "X-Amz-Client-Context": encoded}
    trace = invocation.trace_id
    if trace and trace.isascii() and trace.isprintable():  # it came from outside: no header is smuggled in
        given |= {"Lambda-Runtime-Trace-Id": trace, "X-Amzn-Trace-Id": trace}  # the emulator reads the second
        if span := caller(trace):  # which others than AWS's own tools understand
            given["traceparent"] = span.traceparent
    taken = {name.lower() for name in endpoint.headers}
    return {name: value for name, value in given.items() if name.lower() not in taken} | {
        name: _header(value) for name, value in endpoint.headers.items()
    }


def _body(payload: bytes) -> bytes | io.BytesIO:
    """A long event goes out in pieces, between which others get their turn."""
    return io.BytesIO(payload) if len(payload) > PIECE else payload or b"{}"  # INV-6


def _header(value: str | HeaderFile) -> str:
    """Read anew for each request: mounted credentials are renewed."""
    if isinstance(value, str):
        return value
    with value.file.open("rb") as file:
        text = file.read(HEADER_FILE_LIMIT).decode("latin-1").strip()
    if not text.isprintable():
        raise OSError(22, "its content is no header's value", str(value.file))
    return value.prefix + text


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; none when it is longer than INV-9 allows, and then no more of it is read than that."""
    if (response.content_length or 0) > BODY_LIMIT:
        return None
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def _explained(error: Exception) -> str:
    """In one line, without the addresses that the library repeats."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}; see ca_file and verify"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {CONNECT_LIMIT:g} seconds"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _cause(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    return f"{type(error).__name__}: {error}"[:200]


def _cause(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if error.errno and error.errno > 0:  # asyncio puts the address in place of the system's words
        return os.strerror(error.errno)
    return error.strerror or str(error)


async def _on_sent(_session: object, context: SimpleNamespace, _parameters: object) -> None:
    context.trace_request_ctx.sent = True
