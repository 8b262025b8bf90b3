"""The HTTP client of the hot operations, against a far side that sends the bytes it is told to."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from bridge import aws_http
from bridge.aws_http import Broken, HttpClient, Response, _Reader

pytestmark = pytest.mark.anyio

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Amzn-RequestId: r\r\n\r\n{}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Head and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    found = re.search(r"Content-Length: (\d+)", head)
    assert found
    return head, await reader.readexactly(int(found[1]))


class Far:
    """The far side. ``answers``: what is sent for each request of a connection; ``closes``: and then it hangs up."""

    def __init__(self, *answers: bytes, closes: bool = False) -> None:
        self.answers, self.closes = answers, closes
        self.requests: list[tuple[str, bytes]] = []
        self.connections = 0
        self.hung_up = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            for answer in self.answers:
                self.requests.append(await read_request(reader))
                writer.write(answer)
            if not self.closes:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            self.hung_up.set()
            writer.close()


@asynccontextmanager
async def client_of(talk: Talk, **headers: str) -> AsyncIterator[HttpClient]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/path", headers, None)
    try:
        with anyio.fail_after(20):
            yield client
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


async def test_a_connection_carries_many_requests() -> None:
    far = Far(OK, OK, OK)
    async with client_of(far.talk, Host="example") as client:
        for number in range(3):
            response = await client.post({"X-Number": str(number)}, b"body %d" % number)
            assert response == Response(200, {"content-length": "2", "x-amzn-requestid": "r"}, b"{}")
    assert far.connections == 1
    assert [body for _, body in far.requests] == [b"body 0", b"body 1", b"body 2"]
    head, _ = far.requests[2]
    assert head == "POST /path HTTP/1.1\r\nHost: example\r\nX-Number: 2\r\nContent-Length: 6\r\n\r\n"


async def test_requests_at_once_have_a_connection_each_and_leave_them_to_the_next() -> None:
    far = Far(OK, OK)
    async with client_of(far.talk) as client:
        for _ in range(2):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(5):
                    tasks.create_task(client.post({}, b"x"))
    assert far.connections == 5
    assert len(far.requests) == 10


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK",
    ],
    ids=["close", "1.0", "more than was asked for"],
)
async def test_a_connection_that_cannot_go_on_is_dropped(answer: bytes) -> None:
    far = Far(answer)
    async with client_of(far.talk) as client:
        for _ in range(2):
            assert (await client.post({}, b"")).body == b"{}"
    assert far.connections == 2


async def test_a_connection_closed_while_it_was_idle_is_not_used() -> None:
    far = Far(OK, closes=True)
    async with client_of(far.talk) as client:
        await client.post({}, b"")
        await far.hung_up.wait()
        while "0 connections" not in repr(client):
            await asyncio.sleep(0.001)
        assert (await client.post({}, b"")).status == 200
    assert far.connections == 2


async def test_an_old_connection_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_http, "KEEPALIVE", 0.0)
    far = Far(OK)
    async with client_of(far.talk) as client:
        for _ in range(3):
            await client.post({}, b"")
    assert far.connections == 3


async def test_what_comes_unasked_ends_the_connection() -> None:
    far, answered = Far(OK), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await answered.wait()
        writer.write(OK)  # nobody asked: it must not be the answer to the next request
        await far.talk(reader, writer)

    async with client_of(talk) as client:
        await client.post({}, b"")
        answered.set()
        await far.hung_up.wait()


async def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    """Else its answer would be that of the next request."""
    far = Far(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", OK)
    async with client_of(far.talk) as client:
        with anyio.move_on_after(0.05):
            await client.post({}, b"first")
        await far.hung_up.wait()
    assert far.connections == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "ConnectionClosedError"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "ConnectionClosedError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "ConnectionClosedError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "ConnectionClosedError"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "HTTPClientError"),
        (b"HTTP/1.1 2xx OK\r\n\r\n", "HTTPClientError"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTPClientError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTPClientError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", "HTTPClientError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTPClientError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTPClientError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n", "HTTPClientError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n", "HTTPClientError"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * aws_http.HEAD_LIMIT, "HTTPClientError"),
    ],
)
async def test_what_is_no_answer_is_a_fault(answer: bytes, code: str) -> None:
    far = Far(answer, closes=True)
    async with client_of(far.talk) as client:
        with pytest.raises(Broken) as raised:
            await client.post({}, b"")
    assert raised.value.code == code
    assert len(str(raised.value)) < 200


async def test_nobody_listens() -> None:
    async with client_of(Far().talk) as client:
        port = client._port
    client = HttpClient(f"http://127.0.0.1:{port}", {}, None)
    with pytest.raises(Broken, match="refused") as raised:
        await client.post({}, b"")
    assert raised.value.code == "EndpointConnectionError"


async def test_closing_ends_what_waits() -> None:
    far = Far(b"")
    async with client_of(far.talk) as client, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_fault(client.post({}, b"")))
        while not far.requests:
            await asyncio.sleep(0.001)
        await client.close()
        assert (await waiting).code == "ConnectionClosedError"


async def _fault(call: Coroutine[Any, Any, Response]) -> Broken:
    with pytest.raises(Broken) as raised:
        await call
    return raised.value


async def test_a_header_cannot_smuggle_another_one() -> None:
    async with client_of(Far(OK).talk) as client:
        for value in ("a\r\nX: b", "a\nX: b", "a\rb"):
            with pytest.raises(ValueError, match="line break"):
                await client.post({"X-Amz-Security-Token": value}, b"")


# The reader, without a network.

SAMPLES = [
    (OK, b"{}", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello", b"hello", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
     b"abc0123456789", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: y\r\n\r\n", b"x", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", b"", True),
    (b"HTTP/1.1 500 \r\nContent-Length: 1\r\n\r\nx", b"x", True),
]  # fmt: skip


@given(st.sampled_from(SAMPLES), st.lists(st.integers(0, 200), max_size=12))
@settings(max_examples=400)
def test_wherever_an_answer_is_cut_it_is_the_same(sample: tuple[bytes, bytes, bool], cuts: list[int]) -> None:
    data, body, lasts = sample
    reader, response = _Reader(), None
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(edges):
        assert response is None
        response = reader.feed(data[start:end])
    assert response is not None
    assert response.body == body
    assert reader.lasts is lasts


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    reader = _Reader()
    assert reader.feed(b"HTTP/1.1 503 Busy\r\n\r\nso") is None
    assert reader.feed(b"rry") is None
    assert reader.ended() == Response(503, {}, b"sorry")
    assert not reader.lasts


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_noise_is_refused_or_awaited(data: bytes) -> None:
    with suppress(ValueError):
        assert _Reader().feed(data) is None
