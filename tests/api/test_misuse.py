"""Clients that mean harm, or are broken: documented errors, bounded memory, and everybody else is served."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import anyio
import anyio.abc
import pytest

from bridge import listening
from bridge.api import server as server_module
from tests.api.conftest import api_url
from tests.e2e.harness import Bridge, Site

if TYPE_CHECKING:
    from bridge.api import Host

MAPPINGS = "/2015-03-31/event-source-mappings/"
INVOKE = "/2015-03-31/functions/worker/invocations"


@pytest.fixture
def address(stage: tuple[Site, Bridge]) -> tuple[str, int]:
    parts = urlsplit(api_url(stage[1]))
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@contextlib.contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=30) as connection:
        yield connection


def asked(address: tuple[str, int], method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, str, Any]:
    """Status, error type and body of one request as it is, byte for byte."""
    named = [] if any(header.startswith("Host:") for header in headers) else ["Host: localhost"]
    head = [f"{method} {path} HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close", *named, *headers]
    with connected(address) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    head, _, text = answer.partition(b"\r\n\r\n")  # type: ignore[assignment]
    lines = head.decode().split("\r\n")  # type: ignore[attr-defined]
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return (
        int(lines[0].split()[1]),
        fields.get("x-amzn-errortype", ""),
        json.loads(text) if text.startswith(b"{") else text,
    )


UNREADABLE = (
    b"{", b"[]", b"nope", b'{"BatchSize": "ten"}', b'{"FunctionName": 7}', b"[" * 100_000, b'{"BatchSize": 1e999}',
    b'{"Enabled": "yes"}', b'{"FilterCriteria": []}', b"\xff",
)  # fmt: skip


@pytest.mark.parametrize("body", UNREADABLE)
def test_a_body_that_cannot_be_read(address: tuple[str, int], body: bytes) -> None:
    status, error, answer = asked(address, "POST", MAPPINGS, body)
    assert (status, error) == (400, "SerializationException")
    assert answer["message"]


def test_any_content_type_is_read_as_json(address: tuple[str, int]) -> None:
    """As Lambda: clients that send none, or the wrong one, are understood."""
    for kind in ("text/plain", "application/x-amz-json-1.1", "x"):
        assert asked(address, "POST", INVOKE, b"[1]", f"Content-Type: {kind}")[::2] == (200, b"[1]")


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/", 404, "UnknownOperationException"),
        ("DELETE", "/2015-03-31/functions/worker", 404, "UnknownOperationException"),
        ("PATCH", MAPPINGS, 404, "UnknownOperationException"),
        ("GET", "/2015-03-31/functions/%2e%2e%2fetc", 400, "ValidationException"),
        ("GET", f"/2015-03-31/functions/{'x' * 300}", 400, "ValidationException"),
        ("GET", "/2015-03-31/functions/a%00b", 400, "ValidationException"),
        ("GET", "/2015-03-31/functions?MaxItems=many", 400, "SerializationException"),
        ("GET", "/2017-03-31/tags/arn%3Aaws%3Aelsewhere", 400, "ValidationException"),
    ],
)
def test_paths(address: tuple[str, int], method: str, path: str, status: int, error: str) -> None:
    assert asked(address, method, path)[:2] == (status, error)


def test_a_body_that_is_too_large(address: tuple[str, int]) -> None:
    status, error, _ = asked(address, "POST", MAPPINGS, b"x" * 300_000)
    assert (status, error) == (413, "RequestTooLargeException")
    with connected(address) as connection:  # promised, and never sent
        connection.sendall(f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")
    with connected(address) as connection:  # of no announced length
        head = f"POST {MAPPINGS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                connection.sendall(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_garbage(address: tuple[str, int], api: Any) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST / HTTP/9\r\n\r\n", b"\x00" * 5000):
        with connected(address) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(1 << 16)
            assert answer == b"" or answer.startswith(b"HTTP/1.")
    assert api.invoke(FunctionName="worker")["StatusCode"] == 200


def test_a_client_that_leaves(address: tuple[str, int], api: Any, stage: tuple[Site, Bridge]) -> None:
    with connected(address) as connection:
        connection.sendall(f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
    with connected(address) as connection:
        connection.sendall(f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert api.invoke(FunctionName="worker")["StatusCode"] == 200
    stage[1].until(lambda: not any(it.busy for it in stage[1].state().functions))


def resident(bridge: Bridge) -> int:
    """Bytes of memory of the daemon."""
    pages = int(Path(f"/proc/{bridge.pid}/statm").read_text().split()[1])
    return pages * 4096


async def trickle(stream: anyio.abc.SocketStream) -> None:
    """Headers, one by one, and never the last."""
    while True:
        with anyio.move_on_after(0.05):
            await stream.receive()
        await stream.send(b"X-Slow: y\r\n")


class Nobody:
    """No daemon at all: what is asked here never comes so far."""


@pytest.mark.anyio
async def test_slow_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "IDLE_TIMEOUT", 0.2)
    monkeypatch.setattr(server_module, "BODY_TIMEOUT", 0.2)
    async with server_module.ApiServer(cast("Host", Nobody()), "127.0.0.1", 0, None) as server:
        host, port = server.address.split(":")
        with anyio.fail_after(30):
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(b"GET /2015-03-31/functions HTTP/1.1\r\nHost: localhost\r\n")
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await trickle(stream)
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode())
                answer = await stream.receive()
                assert answer.startswith(b"HTTP/1.1 408 ")
                assert b"RequestTimeoutException" in answer


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (["Origin: http://evil.example"], "A page in a browser may not call this API"),
        (["Sec-Fetch-Site: cross-site"], "A page in a browser may not call this API"),
        (["Origin: null"], "A page in a browser may not call this API"),
        (["Host: evil.example"], "The Host header names neither loopback nor api.listen."),
        (["Host: 127.0.0.1.evil.example:3001"], "The Host header names neither loopback nor api.listen."),
    ],
)
def test_a_page_in_a_browser_invokes_nothing(address: tuple[str, int], headers: list[str], reason: str) -> None:
    status, error, answer = asked(address, "POST", INVOKE, b"[1]", *headers)
    assert (status, error) == (403, "AccessDeniedException")
    assert answer["message"].startswith(reason)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:3001", "127.0.0.1:3001", "127.9.9.9", "[::1]:3001"])
def test_by_any_name_of_this_machine(address: tuple[str, int], host: str) -> None:
    assert asked(address, "POST", INVOKE, b"[1]", f"Host: {host}")[0] == 200
