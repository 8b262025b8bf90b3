"""The Runtime API over a real socket: routes, states and connections."""

from __future__ import annotations

import base64
import json

import anyio
import pytest

from bridge.executors.runtime_api import BACKLOG, CONNECTIONS, PIECE, Answer
from bridge.invocation import Invocation
from tests.executors.surroundings import ARN
from tests.executors.wire import DEADLINE, ID, INVOCATION, NEXT, Client, Reply, invoked, listening, post

pytestmark = pytest.mark.anyio


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


async def test_a_long_event_waits_for_a_slow_reader_and_replies_keep_their_order() -> None:
    payload = json.dumps(list(range(600_000))).encode()
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT + b"GET /ping HTTP/1.1\r\n\r\n")
        await heard.until(lambda: api.waiting)
        api.hand_out(Invocation(payload, ID), DEADLINE)
        (connection,) = api.connections
        assert connection._transport.get_write_buffer_size() < 2 * PIECE
        assert (await client.reply()).body == payload
        assert (await client.reply()).body == b"pong"


async def test_a_long_event_for_a_client_that_closes() -> None:
    payload = b"x" * 5_000_000
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT.replace(b"HTTP/1.1", b"HTTP/1.0"))
        await heard.until(lambda: api.waiting)
        api.hand_out(Invocation(payload, ID), DEADLINE)
        assert (await client.reply()).body == payload
        assert await client.ended()


async def test_a_client_that_goes_away_from_a_long_event(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT)
        await heard.until(lambda: api.waiting)
        (connection,) = api.connections
        api.hand_out(Invocation(b"x" * 30_000_000, ID), DEADLINE)
        assert connection._out  # it is under way
        client.writer.transport.abort()
        await heard.until(lambda: heard.hang_ups == 1)
        connection.resume_writing()
        connection._flush()
    assert caplog.messages == []


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


async def test_an_answer_above_the_limit_ends_the_invocation() -> None:  # RT-4
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


@pytest.mark.parametrize("header", ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"])
async def test_a_page_in_a_browser_takes_no_event(header: str) -> None:
    async with listening() as (api, _), Client(api) as client:
        reply = await client.ask(f"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n{header}\r\n\r\n".encode())
        assert not api.waiting
    assert (reply.status, reply.error) == (403, "Forbidden")


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
