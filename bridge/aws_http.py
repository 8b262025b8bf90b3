"""The HTTP/1.1 client of the hot operations: POSTs to one URL over connections that stay open. A protocol of our own,
since a general client costs three times as much per request (tests/bench/client.py). No proxies, no redirects."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping as Dict
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

CONNECT_TIMEOUT = 5.0
"""Seconds, TLS handshake included."""
KEEPALIVE = 75.0
"""Seconds after which an unused connection is not used again."""
SECOND_ADDRESS = 0.25
"""Seconds until the next address of a host is tried beside the first one (RFC 8305)."""
HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer; GetRecords gives 10 MiB at most (KIN-11)."""

_DIGITS = re.compile(rb"[0-9]{1,15}").fullmatch
_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}").fullmatch
_NO_BODY = (204, 304)


class Broken(Exception):
    """No answer. ``code`` is the SDK's name for what befell the connection."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Response(NamedTuple):
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Dict[str, str]
    body: bytes


class HttpClient:
    """Posts to ``url``. As many connections as there are requests at once; none before the first.

    ``headers`` go with each request. ``tls`` is what an https URL is verified by.
    """

    def __init__(self, url: str, headers: Dict[str, str], tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "", tls
        self._port = parts.port or (443 if tls else 80)
        self._start = f"POST {parts.path or '/'} HTTP/1.1\r\n{_lines(headers)}"
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._closed: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<HttpClient {self._host}:{self._port}, {len(self._open)} connections, {len(self._idle)} idle>"

    async def post(self, headers: Dict[str, str], body: bytes) -> Response:
        """One request. Raises Broken. Cancelled, it drops the connection."""
        request = f"{self._start}{_lines(headers)}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
        connection = self._unused() or await self._connect()
        try:
            response = await connection.exchange(request)
        except BaseException:
            connection.drop()
            raise
        if connection.lasts:
            self._idle.append(connection)
        else:
            connection.drop()
        return response

    async def close(self) -> None:
        """Drops all connections; who waits for an answer gets Broken."""
        for connection in tuple(self._open):
            connection.drop()
        if self._open:
            self._closed = asyncio.Event()
            await self._closed.wait()

    def _unused(self) -> _Connection | None:
        """The connection that was used last, so that those above the present need grow old."""
        while self._idle:
            connection = self._idle.pop()
            if connection.fresh():
                return connection
            connection.drop()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        where = f"{self._host}:{self._port}"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                opened = await start_connection(addresses, happy_eyeballs_delay=SECOND_ADDRESS, interleave=1)
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._lost),
                    sock=opened,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError as error:
            raise Broken("ConnectTimeoutError", f"no connection to {where} in {CONNECT_TIMEOUT:g} s") from error
        except ssl.SSLError as error:
            raise Broken("SSLError", f"no TLS with {where}: {error}") from error
        except OSError as error:
            number = error.errno or 0  # asyncio's own text says less
            why = os.strerror(number) if number > 0 else str(error)
            raise Broken("EndpointConnectionError", f"no connection to {where}: {why}") from error
        self._open.add(connection)
        return connection

    def _lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._closed and not self._open:
            self._closed.set()


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, lost: Callable[[_Connection], None]) -> None:
        self._on_lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._reader = _Reader()
        self._used_at = 0.0

    def __repr__(self) -> str:
        return f"<_Connection {'busy' if self._answer else 'idle'}>"

    @property
    def lasts(self) -> bool:
        """It can carry another request."""
        return self._transport is not None and self._reader.lasts

    def fresh(self) -> bool:
        """It is open, and young enough that the other side has not forgotten it."""
        return self._transport is not None and self._loop.time() - self._used_at < KEEPALIVE

    async def exchange(self, request: bytes) -> Response:
        """Sends a request and waits for its answer. Raises Broken."""
        if self._transport is None:
            raise Broken("ConnectionClosedError", "the connection was closed before the request")
        self._reader = _Reader()
        self._answer = self._loop.create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None
            self._used_at = self._loop.time()

    def drop(self) -> None:
        """Closes it at once."""
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        # A silent connection lives longer than some gateways remember it.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.drop()  # nobody asked
            return
        try:
            response = self._reader.feed(data)
        except ValueError as error:
            self._fail("HTTPClientError", f"the answer is no HTTP: {error}")
            self.drop()
        else:
            if response:
                self._answer.set_result(response)

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._on_lost(self)
        if self._answer is None or self._answer.done():
            return
        if (response := None if error else self._reader.ended()) is not None:
            self._answer.set_result(response)
        else:
            why = f": {error}" if error else ""
            self._fail("ConnectionClosedError", f"the connection was closed before the whole answer came{why}")

    def _fail(self, code: str, text: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Broken(code, text))


class _Reader:
    """Reads one answer out of the bytes that come. Raises ValueError about what is no HTTP."""

    def __init__(self) -> None:
        self.lasts = False
        """After the whole answer the connection can go on."""
        self._head: tuple[int, dict[str, str]] | None = None
        self._data: bytes | bytearray = b""
        """What is not understood yet: of the head, or of chunks; else the body so far."""
        self._length: int | None = None
        """Of the body; none: in chunks, or up to the end of the connection."""
        self._chunks: bytearray | None = None

    def feed(self, data: bytes) -> Response | None:
        """The answer, once it is whole."""
        if not self._data:
            self._data = data
        elif isinstance(self._data, bytearray):
            self._data += data
        else:
            self._data = bytearray(self._data + data)
        if self._head is None and not self._read_head():
            return None
        if self._chunks is not None:
            return self._read_chunks(self._chunks)
        if self._length is None:
            return self._limited(len(self._data))
        if len(self._data) < self._length:
            return None
        self.lasts = self.lasts and len(self._data) == self._length
        return self._response(self._data[: self._length])

    def ended(self) -> Response | None:
        """The answer whose end is that of the connection."""
        if self._head is None or self._length is not None or self._chunks is not None:
            return None
        self.lasts = False
        return self._response(self._data)

    def _read_head(self) -> bool:
        while (end := self._data.find(b"\r\n\r\n", 0, HEAD_LIMIT)) >= 0:
            status, version, headers = _parsed_head(bytes(self._data[:end]))
            self._data = self._data[end + 4 :]
            if status >= 200:  # others only say that it goes on
                self._head = status, headers
                self._find_body(status, version, headers)
                return True
        if len(self._data) >= HEAD_LIMIT:
            raise ValueError(f"its head is longer than {HEAD_LIMIT} bytes")
        return False

    def _find_body(self, status: int, version: str, headers: Dict[str, str]) -> None:
        said = headers.get("connection", "").lower()
        self.lasts = "close" not in said and (version == "HTTP/1.1" or "keep-alive" in said)
        coding = headers.get("transfer-encoding", "").lower()
        if status in _NO_BODY:
            self._length = 0
        elif coding == "chunked":
            self._chunks = bytearray()
        elif coding:
            raise ValueError(f"its transfer coding is {coding[:40]!r}")
        elif (length := headers.get("content-length")) is not None:
            if not _DIGITS(length.encode("latin-1")):
                raise ValueError(f"its length is {length[:40]!r}")
            self._length = int(length)
            self._limited(self._length)

    def _read_chunks(self, body: bytearray) -> Response | None:
        data, at = self._data, 0
        while (end := data.find(b"\r\n", at)) >= 0:
            size = bytes(data[at:end]).partition(b";")[0].strip()
            if not _HEX(size):
                raise ValueError(f"a chunk's size is {size[:40]!r}")
            length = int(size, 16)
            if not length:
                return self._read_trailers(body, at, end)
            self._limited(len(body) + length)
            if len(data) < end + 2 + length + 2:
                break
            body += data[end + 2 : end + 2 + length]
            at = end + 2 + length + 2
            if data[at - 2 : at] != b"\r\n":
                raise ValueError("a chunk is longer than its size")
        self._data = bytearray(data[at:])
        return None

    def _read_trailers(self, body: bytearray, at: int, end: int) -> Response | None:
        """The last chunk, at ``at``, and the lines after it."""
        data = self._data
        stop = end + 2 if data[end + 2 : end + 4] == b"\r\n" else data.find(b"\r\n\r\n", end) + 2
        if stop < end + 2:
            if len(data) - end > HEAD_LIMIT:
                raise ValueError(f"its trailers are longer than {HEAD_LIMIT} bytes")
            self._data = bytearray(data[at:])
            return None
        self.lasts = self.lasts and len(data) == stop + 2
        return self._response(body)

    @staticmethod
    def _limited(length: int) -> None:
        if length > BODY_LIMIT:
            raise ValueError(f"it is longer than {BODY_LIMIT} bytes")

    def _response(self, body: bytes | bytearray) -> Response:
        assert self._head is not None  # noqa: S101
        return Response(*self._head, bytes(body))


def _parsed_head(head: bytes) -> tuple[int, str, dict[str, str]]:
    """Status, version and headers."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (rest[:3].isdecimal() and rest[3:4] in ("", " ")):
        raise ValueError(f"it begins with {first[:40]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ValueError(f"a header is {line[:40]!r}")
        headers[name.lower()] = value.strip()
    return int(rest[:3]), version, headers


def _lines(headers: Dict[str, str]) -> str:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        raise ValueError("a header has a line break")
    return text
