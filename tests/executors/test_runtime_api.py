"""The Runtime API over a real socket: routes, states, limits, and clients that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.executors import runtime_api
from bridge.executors.runtime_api import BACKLOG, CONNECTIONS, Answer, RuntimeApi
from bridge.invocation import Invocation

pytestmark = pytest.mark.anyio

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:worker"
ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
INVOCATION = Invocation(b'{"a":1}', ID, trace_id="Root=1-5bef4de7;Parent=9a9197af;Sampled=0")
NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n"
DEADLINE = 1_700_000_000.1239


def post(path: str, body: bytes = b"{}", headers: str = "") -> bytes:
    return f"POST /2018-06-01/runtime/{path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        shape = json.loads(self.body)
        assert set(shape) == {"errorMessage", "errorType"}
        assert isinstance(shape["errorMessage"], str)
        kind: str = shape["errorType"]
        return kind


class Heard:
    """The other side of the listener: notes what happened."""

    def __init__(self) -> None:
        self.parks = 0
        self.answers: list[Answer] = []
        self.init_errors: list[bytes] = []
        self.hang_ups = 0
        self.happened = asyncio.Event()

    def parked(self) -> None:
        self.parks += 1
        self.happened.set()

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)
        self.happened.set()

    def init_failed(self, error: bytes) -> None:
        self.init_errors.append(error)
        self.happened.set()

    def hung_up(self) -> None:
        self.hang_ups += 1
        self.happened.set()

    async def until(self, condition: Any) -> None:
        with anyio.fail_after(20):
            while not condition():
                self.happened.clear()
                await self.happened.wait()


class Client:
    """Speaks raw bytes with the listener."""

    def __init__(self, api: RuntimeApi) -> None:
        self._host, _, port = api.address.partition(":")
        self._port = int(port)

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        with anyio.fail_after(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers.get("Content-Length", "0")))
        return Reply(int(first.split(" ")[1]), headers, body)

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply()

    async def ended(self) -> bool:
        with anyio.fail_after(20):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[RuntimeApi, Heard]]:
    heard = Heard()
    api = RuntimeApi(heard, ARN)
    await api.open()
    try:
        yield api, heard
    finally:
        api.close()


@asynccontextmanager
async def invoked(invocation: Invocation = INVOCATION) -> AsyncIterator[tuple[RuntimeApi, Heard, Client]]:
    """A client that was just handed an event."""
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT)
        await heard.until(lambda: api.waiting)
        api.hand_out(invocation, DEADLINE)
        await client.reply()
        yield api, heard, client


# Routes and headers.


async def test_it_listens_on_loopback_alone() -> None:
    async with listening() as (api, _):
        assert api.address.startswith("127.0.0.1:")


async def test_ping() -> None:
    async with listening() as (api, _), Client(api) as client:
        reply = await client.ask(b"GET /ping HTTP/1.1\r\n\r\n")
    assert (reply.status, reply.body) == (200, b"pong")


async def test_next_waits_for_an_event_and_carries_its_headers() -> None:  # RT-3
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT.replace(b"\r\n\r\n", b"\r\nUser-Agent: some/1.0\r\n\r\n"))
        await heard.until(lambda: api.waiting)
        assert heard.parks == 1
        assert api.agent == "some/1.0"
        api.hand_out(INVOCATION, DEADLINE)
        assert not api.waiting
        reply = await client.reply()
    assert reply == Reply(
        200,
        {
            "Content-Type": "application/json",
            "Content-Length": "7",
            "Lambda-Runtime-Aws-Request-Id": ID,
            "Lambda-Runtime-Deadline-Ms": "1700000000123",
            "Lambda-Runtime-Invoked-Function-Arn": ARN,
            "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7;Parent=9a9197af;Sampled=0",
        },
        b'{"a":1}',
    )


@pytest.mark.parametrize("trace", ["", "Root=1\r\nLambda-Runtime-Aws-Request-Id: x", "Root=\x00", "Rööt"])
async def test_a_trace_that_is_none_is_left_out(trace: str) -> None:  # RT-3: headers with empty values are left out
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT)
        await heard.until(lambda: api.waiting)
        api.hand_out(Invocation(b"{}", ID, trace_id=trace), DEADLINE)
        reply = await client.reply()
    assert "Lambda-Runtime-Trace-Id" not in reply.headers
    assert reply.headers["Lambda-Runtime-Aws-Request-Id"] == ID


async def test_an_empty_payload_is_an_empty_object() -> None:  # INV-6
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT)
        await heard.until(lambda: api.waiting)
        api.hand_out(Invocation(b"", ID), DEADLINE)
        assert (await client.reply()).body == b"{}"


@pytest.mark.parametrize("what", ["response", "error"])
async def test_an_answer_is_taken_as_it_comes(what: str) -> None:  # RT-4, RT-5
    async with invoked() as (_, heard, client):
        reply = await client.ask(post(f"invocation/{ID}/{what}", b"any \xff bytes"))
    assert (reply.status, reply.body) == (202, b'{"status":"OK"}')
    assert heard.answers == [Answer("response" if what == "response" else "error", b"any \xff bytes")]


async def test_an_answer_above_the_limit_ends_the_invocation(monkeypatch: pytest.MonkeyPatch) -> None:  # RT-4
    async with invoked() as (api, heard, client):
        reply = await client.ask(post(f"invocation/{ID}/response", b"x" * 6_291_557))
        assert reply.status == 413
        assert json.loads(reply.body) == {
            "errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).",
            "errorType": "RequestEntityTooLarge",
        }
        assert heard.answers == [Answer("too_large", b"")]
        await client.send(NEXT)  # the connection lives
        await heard.until(lambda: api.waiting)


async def test_an_init_error_is_heard() -> None:  # RT-5, RT-31
    async with listening() as (api, heard), Client(api) as client:
        assert (await client.ask(post("init/error", b"why"))).status == 202
    assert heard.init_errors == [b"why"]


async def test_a_streamed_answer_is_collected() -> None:  # RT-10
    async with invoked() as (_, heard, client):
        head = post(f"invocation/{ID}/response", headers="Lambda-Runtime-Function-Response-Mode: streaming\r\n")
        head = head.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").removesuffix(b"{}")
        reply = await client.ask(head + b"4\r\n[1,2\r\n2\r\n,3\r\n1\r\n]\r\n0\r\n\r\n")
    assert reply.status == 202
    assert heard.answers == [Answer("response", b"[1,2,3]")]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (base64.b64encode(b'{"errorMessage":"late"}'), b'{"errorMessage":"late"}'),
        (b"?", b'{"errorMessage": "", "errorType": "My.Late"}'),
        (b"", b'{"errorMessage": "", "errorType": "My.Late"}'),
    ],
)
async def test_a_streamed_answer_may_fail_behind_its_body(body: bytes, error: bytes) -> None:  # RT-10
    async with invoked() as (_, heard, client):
        head = post(f"invocation/{ID}/response").replace(b"Content-Length: 2", b"Transfer-Encoding: chunked")
        trailers = b"Lambda-Runtime-Function-Error-Type: My.Late\r\nLambda-Runtime-Function-Error-Body: %s\r\n" % body
        await client.ask(head.removesuffix(b"{}") + b"1\r\n[\r\n0\r\n" + trailers + b"\r\n")
    assert heard.answers == [Answer("error", error)]


async def test_another_response_mode_is_refused_and_the_invocation_goes_on() -> None:  # RT-10
    async with invoked() as (_, heard, client):
        mode = "Lambda-Runtime-Function-Response-Mode: batch\r\n"
        reply = await client.ask(post(f"invocation/{ID}/response", headers=mode))
        assert (reply.status, reply.error) == (400, "InvalidFunctionResponseMode")
        assert heard.answers == []
        assert (await client.ask(post(f"invocation/{ID}/response"))).status == 202


@pytest.mark.parametrize("path", ["/", "/2018-06-01/runtime/restore/next", f"/2018-06-01/runtime/invocation/{ID}/x"])
async def test_unknown_paths(path: str) -> None:
    async with listening() as (api, _), Client(api) as client:
        reply = await client.ask(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    assert (reply.status, reply.error) == (404, "NotFound")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/ping", "GET"),
        ("POST", "/2018-06-01/runtime/invocation/next", "GET"),
        ("GET", f"/2018-06-01/runtime/invocation/{ID}/response", "POST"),
        ("PUT", "/2018-06-01/runtime/init/error", "POST"),
    ],
)
async def test_wrong_methods(method: str, path: str, allowed: str) -> None:
    async with listening() as (api, _), Client(api) as client:
        reply = await client.ask(f"{method} {path} HTTP/1.1\r\n\r\n".encode())
    assert (reply.status, reply.error, reply.headers["Allow"]) == (405, "MethodNotAllowed", allowed)


# States (RT-7).


async def test_an_answer_with_a_wrong_id() -> None:
    async with invoked() as (_, heard, client):
        reply = await client.ask(post("invocation/other/response"))
    assert (reply.status, json.loads(reply.body)) == (
        400,
        {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"},
    )
    assert heard.answers == []


@pytest.mark.parametrize("second", ["response", "error"])
async def test_a_second_answer(second: str) -> None:
    async with invoked() as (_, heard, client):
        await client.ask(post(f"invocation/{ID}/response"))
        reply = await client.ask(post(f"invocation/{ID}/{second}"))
        assert (reply.status, reply.error) == (400, "InvalidRequestID")
    assert len(heard.answers) == 1


async def test_an_answer_without_an_invocation() -> None:
    async with listening() as (api, heard), Client(api) as client:
        reply = await client.ask(post(f"invocation/{ID}/response"))
    assert (reply.status, reply.error) == (403, "InvalidStateTransition")
    assert heard.answers == []


async def test_next_before_the_answer() -> None:  # RT-8
    async with invoked() as (api, _, client):
        reply = await client.ask(NEXT)
        assert (reply.status, reply.error) == (403, "InvalidStateTransition")
        assert not api.waiting


async def test_next_while_another_one_waits() -> None:
    async with listening() as (api, heard), Client(api) as client, Client(api) as second:
        await client.send(NEXT)
        await heard.until(lambda: api.waiting)
        reply = await second.ask(NEXT)
        assert (reply.status, reply.error) == (403, "InvalidStateTransition")
        api.hand_out(INVOCATION, DEADLINE)
        assert (await client.reply()).status == 200


async def test_an_init_error_after_init() -> None:
    async with invoked() as (_, heard, client):
        reply = await client.ask(post("init/error"))
        assert (reply.status, reply.error) == (403, "InvalidStateTransition")
    assert heard.init_errors == []


async def test_an_event_needs_somebody_who_waits() -> None:
    async with listening() as (api, _):
        with pytest.raises(RuntimeError):
            api.hand_out(INVOCATION, DEADLINE)


# Connections.


async def test_answer_and_next_may_be_pipelined() -> None:
    async with invoked() as (api, heard, client):
        for number in range(3):
            await client.send(post(f"invocation/{ID}/response", str(number).encode()) + NEXT)
            await heard.until(lambda: api.waiting)
            api.hand_out(INVOCATION, DEADLINE)
            assert [(await client.reply()).status for _ in range(2)] == [202, 200]
    assert [answer.body for answer in heard.answers] == [b"0", b"1", b"2"]


async def test_what_stands_behind_next_waits_with_it() -> None:
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT + b"GET /ping HTTP/1.1\r\n\r\n")
        await heard.until(lambda: api.waiting)
        api.hand_out(INVOCATION, DEADLINE)
        assert (await client.reply()).body == INVOCATION.payload
        assert (await client.reply()).body == b"pong"


async def test_too_much_behind_next_ends_the_connection() -> None:
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT + b"GET /ping HTTP/1.1\r\n\r\n" * (BACKLOG + 1))
        assert await client.ended()
        await heard.until(lambda: heard.hang_ups == 1)
        assert not api.waiting


async def test_an_answer_over_another_connection() -> None:
    async with invoked() as (api, heard, _), Client(api) as second:
        assert (await second.ask(post(f"invocation/{ID}/response"))).status == 202
        await second.send(NEXT)
        await heard.until(lambda: api.waiting)


async def test_a_client_that_lost_its_connection_asks_again() -> None:
    async with listening() as (api, heard), Client(api) as stays:
        async with Client(api) as goes:
            await goes.send(NEXT)
            await heard.until(lambda: api.waiting)
        with anyio.fail_after(20):
            while api.waiting:
                await anyio.sleep(0.01)
        assert heard.hang_ups == 0
        await stays.send(NEXT)
        await heard.until(lambda: api.waiting)


async def test_it_says_when_the_last_connection_is_gone() -> None:
    async with listening() as (api, heard):
        async with Client(api) as client:
            await client.ask(b"GET /ping HTTP/1.1\r\n\r\n")
            assert len(api.connections) == 1
        await heard.until(lambda: heard.hang_ups == 1)
        assert not api.connections


async def test_connection_close_and_old_clients_are_honoured() -> None:
    async with listening() as (api, _):
        for head in (b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET /ping HTTP/1.0\r\n\r\n"):
            async with Client(api) as client:
                assert (await client.ask(head)).body == b"pong"
                assert await client.ended()


async def test_an_old_client_gets_its_event() -> None:
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT.replace(b"HTTP/1.1", b"HTTP/1.0"))
        await heard.until(lambda: api.waiting)
        api.hand_out(INVOCATION, DEADLINE)
        assert (await client.reply()).body == INVOCATION.payload
        assert await client.ended()


async def test_a_client_that_asks_before_it_sends_its_body() -> None:
    async with invoked() as (_, heard, client):
        request = post(f"invocation/{ID}/response", b"[1]", "Expect: 100-continue\r\n")
        assert (await client.ask(request.removesuffix(b"[1]"))).status == 100
        assert (await client.ask(b"[1]")).status == 202
    assert heard.answers == [Answer("response", b"[1]")]


async def test_too_many_connections_are_not_taken() -> None:
    async with listening() as (api, _), Client(api) as first:
        await first.ask(b"GET /ping HTTP/1.1\r\n\r\n")
        others = [Client(api) for _ in range(CONNECTIONS)]
        try:
            for other in others:
                await other.__aenter__()
            assert await others[-1].ended()
            assert (await first.ask(b"GET /ping HTTP/1.1\r\n\r\n")).status == 200
        finally:
            for other in others:
                await other.__aexit__()


# Clients that misbehave.


async def test_a_malformed_request_is_told_why() -> None:  # RT-7
    async with listening() as (api, _), Client(api) as client:
        reply = await client.ask(b"no http at all\r\n\r\n")
        assert (reply.status, reply.error) == (400, "MalformedHTTPRequest")
        assert reply.headers["Connection"] == "close"
        assert await client.ended()


async def test_a_truncated_body_is_told_so() -> None:  # RT-7
    async with invoked() as (_, heard, client):
        await client.send(post(f"invocation/{ID}/response", b"whole").removesuffix(b"le"))
        client.writer.write_eof()
        reply = await client.reply()
        assert (reply.status, reply.error) == (400, "TruncatedHTTPRequest")
        assert await client.ended()
    assert heard.answers == []


async def test_a_request_that_does_not_come_to_its_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_api, "PACE", 0.05)
    async with invoked() as (_, heard, client):
        # The answer of the invocation has all the time of the invocation.
        await client.send(post(f"invocation/{ID}/response", b"[1]").removesuffix(b"]"))
        for start in (b"GET /pi", post("invocation/other/response", b"abc").removesuffix(b"c")):
            async with Client(client_api(client)) as slow:
                reply = await slow.ask(start)
                assert (reply.status, reply.error) == (408, "TruncatedHTTPRequest")
                assert await slow.ended()
        assert (await client.ask(b"]")).status == 202
    assert heard.answers == [Answer("response", b"[1]")]


def client_api(client: Client) -> Any:
    """Stands for the listener of an existing client."""

    class Address:
        address = "{}:{}".format(*client.writer.get_extra_info("peername"))

    return Address()


async def test_a_slow_request_behind_next_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_api, "PACE", 0.05)
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT + b"GET /pi")
        assert await client.ended()
        await heard.until(lambda: heard.hang_ups == 1)


async def test_a_client_that_does_not_read_is_not_buffered_for() -> None:
    async with listening() as (api, _), Client(api) as client, Client(api) as other:
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with anyio.move_on_after(0.5) as flood:
            while True:
                await client.send(b"GET /ping HTTP/1.1\r\n\r\n" * 1000)
        assert flood.cancelled_caught  # it was not read on
        assert (await other.ask(b"GET /ping HTTP/1.1\r\n\r\n")).body == b"pong"
        client.writer.transport.abort()


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                NEXT,
                NEXT[:20],
                post(f"invocation/{ID}/response"),
                post(f"invocation/{ID}/error"),
                post("init/error"),
                b"GET /ping HTTP/1.1\r\n\r\n",
                b"GET /ping HTTP/1.0\r\n\r\n",
                b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
                b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
                b"\r\n\r\n",
            ]
        ),
    ),
    min_size=1,
    max_size=8,
)


@given(PIECES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_client_sends_the_listener_serves_the_next_one(pieces: list[bytes]) -> None:
    troubles: list[dict[str, Any]] = []

    async def attack() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: troubles.append(context))
        async with listening() as (api, heard):
            async with Client(api) as hostile:
                for piece in pieces:
                    try:
                        await hostile.send(piece)
                    except ConnectionError:
                        break
                    if api.waiting:
                        api.hand_out(INVOCATION, DEADLINE)
                if hostile.writer.can_write_eof() and not hostile.writer.is_closing():
                    hostile.writer.write_eof()
                with anyio.fail_after(20):
                    try:
                        await hostile.reader.read()
                    except ConnectionError:
                        pass
            await heard.until(lambda: not api.connections)
            async with Client(api) as client:
                assert (await client.ask(b"GET /ping HTTP/1.1\r\n\r\n")).body == b"pong"

    asyncio.run(attack())
    assert troubles == []
