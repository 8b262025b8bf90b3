"""The Runtime API and clients that misbehave: whatever they send, the listener serves the next one."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
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


STREAMED = post(f"invocation/{ID}/response", headers="Lambda-Runtime-Function-Response-Mode: streaming\r\n").replace(
    b"Content-Length: 2", b"Transfer-Encoding: chunked"
)[:-2]
"""The head of an answer that is streamed (RT-10)."""


async def test_a_stream_that_breaks_off_is_no_answer() -> None:  # RT-7, RT-10
    async with invoked() as (_, heard, client):
        async with Client(client_api(client)) as broken:
            await broken.send(STREAMED + b"4\r\n[1,2\r\n9\r\n,3")
            broken.writer.write_eof()
            reply = await broken.reply()
            assert (reply.status, reply.error) == (400, "TruncatedHTTPRequest")
        async with Client(client_api(client)) as broken:
            await broken.send(STREAMED + b"4\r\n[1,2")
            broken.writer.transport.abort()
        assert heard.answers == []
        assert (await client.ask(STREAMED + b"3\r\n[1]\r\n0\r\n\r\n")).status == 202
    assert heard.answers == [Answer("response", b"[1]")]


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"1\r\nab\r\n",
        b"1\r\na0\r\n\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\nA: b\nC: d\r\n\r\n",
        b"f" * 2000,
    ],
)
async def test_a_stream_of_garbage_is_no_answer(body: bytes) -> None:  # RT-10
    async with invoked() as (_, heard, client):
        async with Client(client_api(client)) as broken:
            assert (await broken.ask(STREAMED + body)).status == 400
            assert await broken.ended()
        assert heard.answers == []
        assert (await client.ask(post(f"invocation/{ID}/response", b"[1]"))).status == 202


async def test_a_stream_without_an_end_is_cut_at_the_limit() -> None:  # RT-4, RT-10
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with invoked() as (api, heard, client):
        reply = await client.ask(STREAMED + 97 * chunk + b"0\r\n\r\n")
        assert (reply.status, reply.error) == (413, "RequestEntityTooLarge")
        assert heard.answers == [Answer("too_large", b"")]
        await client.send(NEXT)  # the connection lives
        await heard.until(lambda: api.waiting)


async def test_a_stream_that_never_ends_is_hung_up_on() -> None:
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    async with invoked() as (_, heard, client):
        with suppress(ConnectionError), anyio.fail_after(20):
            await client.send(STREAMED)
            while not client.reader.at_eof():
                await client.send(chunk)
        assert heard.answers == [Answer("too_large", b"")]


async def test_a_stream_for_another_invocation_or_after_the_answer_is_refused() -> None:  # RT-7
    end = b"1\r\n1\r\n0\r\n\r\n"
    async with invoked() as (_, heard, client):
        reply = await client.ask(STREAMED.replace(ID.encode(), b"5d5c1fb4-3e2e-4f4e-8f3b-5a5f7f0f9a11") + end)
        assert (reply.status, reply.error) == (400, "InvalidRequestID")
        assert heard.answers == []
        assert (await client.ask(STREAMED + end)).status == 202
        reply = await client.ask(STREAMED + end)
        assert (reply.status, reply.error) == (400, "InvalidRequestID")
    assert heard.answers == [Answer("response", b"1")]


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


async def test_clients_that_drip_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many slow clients as there are places, each sending a byte now and then, for which nobody gets more time."""
    monkeypatch.setattr(runtime_api, "PACE", 0.4)
    async with invoked() as (api, heard, runtime), anyio.create_task_group() as group:
        ended = 0

        async def drip() -> None:
            nonlocal ended
            async with Client(api) as slow:
                with suppress(ConnectionError):
                    for byte in b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 1000\r\n\r\n":
                        await slow.send(bytes([byte]))
                        await anyio.sleep(0.02)
                        if slow.reader.at_eof():
                            break
                    await slow.reader.read()
            ended += 1

        for _ in range(runtime_api.CONNECTIONS - len(api.connections)):
            group.start_soon(drip)
        with anyio.fail_after(20):
            while len(api.connections) < runtime_api.CONNECTIONS:
                await anyio.sleep(0.01)
        assert (await runtime.ask(post(f"invocation/{ID}/response", b"[1]"))).status == 202
        with anyio.fail_after(20):
            while len(api.connections) > 1:
                await anyio.sleep(0.01)
        async with Client(api) as client:
            assert (await client.ask(b"GET /ping HTTP/1.1\r\n\r\n")).body == b"pong"
    assert ended == runtime_api.CONNECTIONS - 1
    assert heard.answers == [Answer("response", b"[1]")]


ACCEPTED_AT_ONCE = 100
"""Connections that asyncio accepts in one turn; those without a place are gone in the next."""
FLOOD = """
import asyncio, resource, sys
host, port, path, count = *sys.argv[1].split(":"), sys.argv[2], int(sys.argv[3])
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
body = b"x" * 10_000
request = b"POST %s HTTP/1.1\\r\\nContent-Length: %d\\r\\n\\r\\n" % (path.encode(), len(body)) + body
heard = {}

async def ask():
    try:
        async with asyncio.timeout(3):  # the system itself keeps those waiting for whom there is no room
            reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        answer = (await reader.readline())[9:12].decode()
        writer.transport.abort()
    except OSError:
        answer = "dropped"
    heard[answer or "dropped"] = heard.get(answer or "dropped", 0) + 1

async def main():
    await asyncio.gather(*(ask() for _ in range(count)))

asyncio.run(main())
print(heard.pop("400", 0), heard.pop("dropped", 0), heard)
"""


def resident() -> int:
    """Bytes of memory that this process has, where the system tells."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


async def test_ten_thousand_requests_at_once_are_bounded() -> None:
    """Whoever has a place gets its answer, the others are dropped; nothing is kept, and the invocation goes on."""
    async with invoked() as (api, heard, runtime):
        most, before = 0, resident()
        peak = before
        where = (api.address, "/2018-06-01/runtime/invocation/other/response", "10000")
        flood = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOOD, *where, stdout=subprocess.PIPE)
        ending = asyncio.ensure_future(flood.communicate())
        while not ending.done():
            most, peak = max(most, len(api.connections)), max(peak, resident())
            await asyncio.sleep(0.001)
        told, _ = await ending
        served, dropped, others = told.split(None, 2)
        assert int(served) + int(dropped) == 10_000
        assert int(served) > 0
        assert others.strip() == b"{}"
        assert most <= runtime_api.CONNECTIONS + ACCEPTED_AT_ONCE
        assert peak - before < 16 << 20
        assert (await runtime.ask(post(f"invocation/{ID}/response", b"[1]"))).status == 202
    assert heard.answers == [Answer("response", b"[1]")]
