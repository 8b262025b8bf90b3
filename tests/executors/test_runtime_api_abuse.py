"""The Runtime API and clients that misbehave: whatever they send, the listener serves the next one."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from bridge.executors import runtime_api
from bridge.executors.runtime_api import Answer
from tests.executors.wire import DEADLINE, ID, INVOCATION, NEXT, Client, invoked, listening, post

pytestmark = pytest.mark.anyio


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
@settings(max_examples=150, deadline=None)
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
                    with suppress(ConnectionError):
                        await hostile.reader.read()
            await heard.until(lambda: not api.connections)
            async with Client(api) as client:
                assert (await client.ask(b"GET /ping HTTP/1.1\r\n\r\n")).body == b"pong"

    asyncio.run(attack())
    assert troubles == []
