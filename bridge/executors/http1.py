"""Cuts the bytes of one HTTP/1.1 connection into requests. No I/O; whatever comes in, nothing is raised."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

HEADER_LIMIT = 64 * 1024
"""Bytes of a request's head, and of its trailers."""
BODY_LIMIT = 6_291_556  # RT-4
DISCARD_LIMIT = 64 * 1024 * 1024
"""Bytes of a body above BODY_LIMIT that are read and thrown away, so that the client lives to see the answer."""
LINE_LIMIT = 1024
"""Bytes of a chunk's size line."""
KNOWN_LIMIT = 256
"""Bytes of a header that is remembered: clients send the same ones with each request."""

_STRAY = re.compile(rb"\0|\r(?!\n)|(?<!\r)\n")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}").fullmatch
_FIELD_ONCE = frozenset((b"content-length", b"transfer-encoding"))


class Request(NamedTuple):
    """One request. Names of headers are in lower case. ``target`` is without its query."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    trailers: dict[bytes, bytes]
    body: bytes = b""
    oversized: bool = False
    """The body was above BODY_LIMIT, and thrown away."""
    last: bool = False
    """The connection cannot or must not go on after the answer."""


class Continue(NamedTuple):
    """The client waits for ``100 Continue`` before it sends the body."""


class Malformed(NamedTuple):
    """What came is no HTTP that we speak. Nothing follows."""

    status: int
    why: str


Part = Request | Continue | Malformed


class _Bad(Exception):
    def __init__(self, status: int, why: str) -> None:
        self.malformed = Malformed(status, why)


class Parser:
    """Feed it what arrives. Holds at most one head or one body below its limit, and what was fed last."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._step = self._head
        self._request = Request(b"", b"", {}, {})
        self._known = (b"", self._request)
        self._body = bytearray()
        self._missing = 0
        self._total = 0
        self._parts: list[Part] = []

    @property
    def partial(self) -> bool:
        """In the middle of a request."""
        return bool(self._buffer) or self._step != self._head

    @property
    def body_of(self) -> bytes | None:
        """The target of the request whose body is awaited."""
        return None if self._step == self._head else self._request.target

    def feed(self, data: bytes) -> list[Part]:
        """What is complete now, in order. After a Malformed or a ``last`` request, everything is ignored."""
        self._parts = []
        self._buffer += data
        try:
            while self._step():
                continue
        except _Bad as bad:
            self._parts.append(bad.malformed)
            self._step = self._deaf
        return self._parts

    # Each step takes its part off the buffer and says whether the next one can go on at once.

    def _head(self) -> bool:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # RFC 9112, 2.2: empty lines before a request
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._searched = max(0, len(buffer) - 3)
            if len(buffer) > HEADER_LIMIT:
                raise _Bad(431, f"the head of the request is longer than {HEADER_LIMIT} bytes")
            return False
        if end > HEADER_LIMIT:
            raise _Bad(431, f"the head of the request is longer than {HEADER_LIMIT} bytes")
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        self._searched = 0
        known, request = self._known
        if head == known:
            self._parts.append(request)
            return True
        self._request = _parse_head(head)
        return self._begin_body(head)

    def _begin_body(self, head: bytes) -> bool:
        headers = self._request.headers
        self._total = 0
        if b"transfer-encoding" in headers:
            self._check_chunked(headers)
            self._step = self._chunk_size
        elif b"content-length" in headers:
            self._missing = _length(headers[b"content-length"])
            if not self._missing:
                return self._complete()
            if not self._account(self._missing):
                return False
            self._step = self._sized_body
        else:
            if not self._request.last:  # such as each ``next``, which is the same every time
                self._known = (head, self._request)
            return self._complete()
        if headers.get(b"expect", b"").lower() == b"100-continue" and not self._buffer:
            self._parts.append(Continue())
        return True

    def _check_chunked(self, headers: dict[bytes, bytes]) -> None:
        if b"content-length" in headers:
            raise _Bad(400, "a request has either Content-Length or Transfer-Encoding")
        if headers[b"transfer-encoding"].lower() != b"chunked":
            raise _Bad(501, "the only transfer encoding known is chunked")

    def _account(self, size: int) -> bool:
        """Adds ``size`` bytes to the body to come. False: it is too long to be even thrown away, and we stop here."""
        self._total += size
        if self._total <= DISCARD_LIMIT:
            return True
        self._parts.append(self._request._replace(oversized=True, last=True))
        self._step = self._deaf
        self._buffer.clear()
        return False

    def _take(self) -> bool:
        """Moves what is there of the ``_missing`` bytes to the body. Whether all of them are there."""
        buffer, missing = self._buffer, self._missing
        if len(buffer) <= missing:
            if self._total <= BODY_LIMIT:
                self._body += buffer
            self._missing -= len(buffer)
            buffer.clear()
            return not self._missing
        if self._total <= BODY_LIMIT:
            self._body += memoryview(buffer)[:missing]
        del buffer[:missing]
        self._missing = 0
        return True

    def _sized_body(self) -> bool:
        return self._take() and self._complete()

    def _chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        size, _, _ = line.partition(b";")
        if not _HEX(size := size.strip()):
            raise _Bad(400, "a chunk begins with its size as a hexadecimal number")
        self._missing = int(size, 16)
        if not self._missing:
            self._step = self._trailers
            return True
        if not self._account(self._missing):
            return False
        if self._total > BODY_LIMIT:
            self._body.clear()
        self._step = self._chunk
        return True

    def _chunk(self) -> bool:
        if not self._take():
            return False
        self._step = self._chunk_end
        return True

    def _chunk_end(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if not self._buffer.startswith(b"\r\n"):
            raise _Bad(400, "a chunk ends with an empty line")
        del self._buffer[:2]
        self._step = self._chunk_size
        return True

    def _trailers(self) -> bool:
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            return self._complete()
        end = self._buffer.find(b"\r\n\r\n")
        if max(end, len(self._buffer) if end < 0 else 0) > HEADER_LIMIT:
            raise _Bad(431, f"the trailers are longer than {HEADER_LIMIT} bytes")
        if end < 0:
            return False
        block = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        if _STRAY.search(block):
            raise _Bad(400, "control characters in a trailer")
        self._request = self._request._replace(trailers=_parse_fields(block.split(b"\r\n")))
        return self._complete()

    def _deaf(self) -> bool:
        self._buffer.clear()
        return False

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, LINE_LIMIT)
        if end < 0:
            if len(self._buffer) >= LINE_LIMIT:
                raise _Bad(400, f"the size line of a chunk is longer than {LINE_LIMIT} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _complete(self) -> bool:
        request = self._request
        if self._total:
            oversized = self._total > BODY_LIMIT
            request = request._replace(body=b"" if oversized else bytes(self._body), oversized=oversized)
            self._body = bytearray()
        self._parts.append(request)
        self._step = self._deaf if request.last else self._head
        return True


def _parse_head(head: bytes) -> Request:
    if _STRAY.search(head):
        raise _Bad(400, "control characters in the head of the request")
    first, *fields = head.split(b"\r\n")
    try:
        method, target, version = first.split(b" ")
    except ValueError:
        raise _Bad(400, "a request begins with METHOD TARGET HTTP/1.1") from None
    if version != b"HTTP/1.1" and version != b"HTTP/1.0":
        raise _Bad(505 if version.startswith(b"HTTP/") else 400, "the only version known is HTTP/1.1")
    if not _NAME(method) or not target.startswith(b"/"):
        raise _Bad(400, "a request begins with METHOD TARGET HTTP/1.1")
    headers = _parse_fields(fields)
    connection = headers.get(b"connection", b"").lower()
    last = b"close" in connection or (version == b"HTTP/1.0" and b"keep-alive" not in connection)
    return Request(method, target.partition(b"?")[0], headers, {}, last=last)


def _parse_fields(fields: list[bytes]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for field in fields:
        name, value = _known_field(field) if len(field) <= KNOWN_LIMIT else _parse_field(field)
        if name in headers and name in _FIELD_ONCE:
            raise _Bad(400, f"{name.decode()} stands twice")
        headers[name] = value
    return headers


def _parse_field(field: bytes) -> tuple[bytes, bytes]:
    name, colon, value = field.partition(b":")
    if not colon or not _NAME(name):
        raise _Bad(400, "a header is NAME: VALUE")
    return name.lower(), value.strip(b" \t")


_known_field = lru_cache(maxsize=512)(_parse_field)


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise _Bad(400, "Content-Length is a number")
    return int(value)
