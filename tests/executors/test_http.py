"""HTTP endpoints: the contract first, for a plain web server and for the runtime interface emulator; then what is
peculiar to them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import structlog
from aiohttp import web

from bridge.errors import UsageError
from bridge.executors import Executor, http
from bridge.function import Endpoint, Function, HeaderFile
from bridge.invocation import Failed, Invocation, Succeeded
from tests.contracts.executor import PATIENCE, ExecutorContract, answer, error, invocation
from tests.executors.endpoint import Far, behind, calling, far
from tests.executors.surroundings import ARN

pytestmark = pytest.mark.anyio


class Contract(ExecutorContract):
    features = frozenset()

    def function(self, behaviour: str, **settings: Any) -> Function:
        return msgspec.structs.replace(behind(behaviour), **settings)

    def executor(self, function: Function) -> AbstractAsyncContextManager[Executor]:
        return self.running(function)

    @asynccontextmanager
    async def running(self, function: Function) -> AsyncIterator[Executor]:
        assert function.endpoint is not None
        async with far() as server:
            url = self.url(server, function.endpoint.url)
            async with calling(msgspec.structs.replace(function, endpoint=Endpoint(url=url))) as executor:
                yield executor

    def url(self, server: Far, behaviour: str) -> str:
        raise NotImplementedError


class TestContractOfAWebServer(Contract):
    def url(self, server: Far, behaviour: str) -> str:
        return server.plain(behaviour)


class TestContractOfTheEmulator(Contract):
    def url(self, server: Far, behaviour: str) -> str:
        return server.emulator(behaviour)


# What the server is told.


async def test_the_request_says_what_the_runtime_api_says(tmp_path: Path) -> None:  # RT-3
    token = tmp_path / "token"
    token.write_text("first\n")
    headers: dict[str, str | HeaderFile] = {
        "Authorization": HeaderFile(token, "Bearer "),
        "X-Key": "k",
        "content-type": "application/cloudevents+json",
    }
    trace = "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af7a6685aa;Sampled=0"
    asked = Invocation(b'{"a": 1}', "some-id", "orders", trace)
    async with far() as server, calling(behind(server.plain("echo"), timeout=30.0, headers=headers)) as executor:
        before = int(time.time() * 1000) / 1000
        assert answer(await executor.invoke(asked)) == {"a": 1}
        token.write_text("second")
        assert answer(await executor.invoke(invocation())) == {}
        seen, later = server.seen
    assert seen.body == b'{"a": 1}'
    assert seen.headers["Content-Type"] == "application/cloudevents+json"
    assert seen.headers["Lambda-Runtime-Aws-Request-Id"] == "some-id"
    assert seen.headers["Lambda-Runtime-Invoked-Function-Arn"] == ARN
    assert seen.headers["Lambda-Runtime-Trace-Id"] == asked.trace_id == seen.headers["X-Amzn-Trace-Id"]
    assert seen.headers["traceparent"] == "00-5bef4de7ad49b0e87f6ef6c87fc2e700-9a9197af7a6685aa-00"
    assert -0.001 <= int(seen.headers["Lambda-Runtime-Deadline-Ms"]) / 1000 - before - 30 < PATIENCE
    assert (seen.headers["X-Key"], seen.headers["Authorization"]) == ("k", "Bearer first")
    assert later.headers["Authorization"] == "Bearer second", "mounted credentials are renewed"
    assert "Lambda-Runtime-Trace-Id" not in later.headers


async def test_no_header_is_smuggled_in_by_a_trace_id() -> None:
    async with far() as server, calling(behind(server.plain("echo"))) as executor:
        await executor.invoke(Invocation(b"{}", "id", "", "Root=1\r\nX-Evil: 1"))
    assert "X-Evil" not in server.seen[0].headers
    assert "Lambda-Runtime-Trace-Id" not in server.seen[0].headers


async def test_a_connection_is_kept() -> None:
    async with far() as server, calling(behind(server.plain("echo"))) as executor:
        for _ in range(3):
            answer(await executor.invoke(invocation()))
    assert len({id(seen.connection) for seen in server.seen}) == 1


# What the answers mean.

Answered = Callable[..., Awaitable[Any]]


def says(status: int, body: bytes = b"", **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return respond


async def asked(status: int, body: bytes = b"", *, emulator: bool = False, **headers: str) -> Any:
    """The outcome of such an answer."""
    async with far() as server:
        server.answers.append(says(status, body, **headers))
        async with calling(behind(server.emulator("echo") if emulator else server.plain("echo"))) as executor:
            outcome = await executor.invoke(invocation())
    return outcome


OBJECT = b'{"errorType": "ValueError", "errorMessage": "no"}'


@pytest.mark.parametrize(("status", "body"), [(200, b"[1]"), (201, b"x"), (202, b""), (204, b""), (299, b"null")])
async def test_any_2xx_is_an_answer(status: int, body: bytes) -> None:
    outcome = await asked(status, body)
    assert isinstance(outcome, Succeeded)
    assert outcome.payload == (body or b"null")


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 413, 500, 502, 504, 599])
async def test_other_statuses_are_function_errors(status: int) -> None:
    outcome = await asked(status, b"hush", Location="/plain/nothing")
    assert (outcome.kind, outcome.ran) == ("function", True)
    assert error(outcome)["errorType"] == "Function.HttpError"
    assert f"/plain/echo answered {status}" in error(outcome)["errorMessage"]
    assert ("redirects are not followed" in error(outcome)["errorMessage"]) == (status < 400)
    assert "hush" not in error(outcome)["errorMessage"], "a server may repeat the event"


async def test_an_error_object_of_a_web_server_is_passed_on() -> None:  # INV-21
    outcome = await asked(500, OBJECT)
    assert (outcome.kind, outcome.error) == ("function", OBJECT)


async def test_an_answer_of_a_web_server_may_look_like_an_error() -> None:
    assert isinstance(await asked(200, OBJECT), Succeeded)


@pytest.mark.parametrize("status", [429, 503])
async def test_throttles(status: int) -> None:
    outcome = await asked(status, OBJECT)
    assert (outcome.kind, outcome.ran) == ("throttled", False)
    assert error(outcome)["errorType"] == "TooManyRequestsException"
    assert str(status) in error(outcome)["errorMessage"]


async def test_retry_after_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with far() as server, calling(behind(server.plain("echo"))) as executor:
        server.answers.append(says(429, Retry_After="1"))
        first = await executor.invoke(invocation())
        second = await executor.invoke(invocation())
        assert isinstance(first, Failed)
        assert isinstance(second, Failed)
        assert (first.kind, second.kind) == ("throttled", "throttled")
        assert len(server.seen) == 1, "it was left alone"
        with anyio.fail_after(PATIENCE):
            while not isinstance(await executor.invoke(invocation()), Succeeded):
                await anyio.sleep(0.05)
        assert len(server.seen) == 2


class TestTheEmulator:
    """What aws-lambda-runtime-interface-emulator answers: its handlers.go and util.go."""

    async def test_an_error_comes_with_200(self) -> None:
        body = b'{"errorMessage":"no","errorType":"ValueError","requestId":"x","stackTrace":[]}'
        outcome = await asked(200, body, emulator=True)
        assert (outcome.kind, outcome.error) == ("function", body)

    @pytest.mark.parametrize(
        "body",
        [b'{"errorType": "x"}', b'{"errorMessage": "x"}', b'[{"errorType": "", "errorMessage": ""}]', b'"errorType"',
         b'{"errorType": 1, "errorMessage": "x"}', b'{"errorType": "x", "errorMessage": "y"'],
    )  # fmt: skip
    async def test_other_answers_are_answers(self, body: bytes) -> None:
        outcome = await asked(200, body, emulator=True)
        assert isinstance(outcome, Succeeded)
        assert outcome.payload == body

    async def test_a_timeout_comes_as_a_sentence(self) -> None:  # INV-23
        outcome = await asked(200, b"Task timed out after 300.00 seconds", emulator=True)
        assert outcome.kind == "timeout"
        assert error(outcome) == {
            "errorType": "Sandbox.Timedout",
            "errorMessage": f"RequestId: {outcome.request_id} Error: Task timed out after 300.00 seconds",
        }

    async def test_the_end_of_the_process_comes_with_502(self) -> None:  # INV-24
        body = b'{"errorType":"Runtime.ExitError","errorMessage":"RequestId: x Error: Runtime exited"}'
        outcome = await asked(502, body, emulator=True)
        assert (outcome.kind, outcome.error) == ("exit", body)

    async def test_it_is_busy_with_another_invocation(self) -> None:
        assert (await asked(400, emulator=True)).kind == "throttled"
        assert (await asked(400, b"why", emulator=True)).kind == "function"
        assert (await asked(400)).kind == "function"

    async def test_it_does_not_know_what_became_of_it(self) -> None:
        assert (await asked(504, emulator=True)).kind == "function"


class TestTheInvokeApi:
    """Whoever sends the headers of Invoke means them (INV-3)."""

    async def test_an_error(self) -> None:
        outcome = await asked(200, OBJECT, X_Amz_Function_Error="Unhandled", X_Amz_Executed_Version="7")
        assert (outcome.kind, outcome.error, outcome.version) == ("function", OBJECT, "7")

    async def test_an_answer_that_looks_like_an_error(self) -> None:
        outcome = await asked(200, OBJECT, emulator=True, X_Amz_Executed_Version="$LATEST")
        assert isinstance(outcome, Succeeded)
        assert (outcome.payload, outcome.version) == (OBJECT, "$LATEST")


# The limit of answers.


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_larger_answer_is_not_read_to_its_end(chunked: bool) -> None:  # INV-9
    sent = 0
    over = anyio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={} if chunked else {"Content-Length": "1000000000"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
                sent += 65536
        finally:
            over.set()

    async with far() as server, calling(behind(server.plain("echo"))) as executor:
        server.answers.append(endless)
        outcome = await executor.invoke(invocation())
        assert error(outcome)["errorType"] == "Function.ResponseSizeTooLarge"
        with anyio.fail_after(PATIENCE):
            await over.wait()
        assert sent < 100_000_000
        assert answer(await executor.invoke(invocation({"still": "there"}))) == {"still": "there"}


# What happens to the connection.


async def test_refused() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with calling(behind(f"http://127.0.0.1:{bound.getsockname()[1]}/x?key=hush")) as executor:
            outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.ran) == ("unreachable", False)
    assert error(outcome)["errorMessage"].endswith("/x was not called: Connection refused")
    assert "hush" not in error(outcome)["errorMessage"]


async def test_an_unknown_host() -> None:
    async with calling(behind("http://no-such-host.invalid/x")) as executor:
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable"
    assert error(outcome)["errorMessage"].startswith("http://no-such-host.invalid/x was not called: ")


async def test_a_connection_that_is_not_made_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose backlog is full takes no connection: nothing was invoked."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(0)
        port = bound.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(("127.0.0.1", port))
            for limit, timeout in ((0.3, PATIENCE), (PATIENCE, 0.3)):
                monkeypatch.setattr(http, "CONNECT_LIMIT", limit)
                async with calling(behind(f"http://127.0.0.1:{port}/", timeout=timeout)) as executor:
                    outcome = await executor.invoke(invocation())
                assert isinstance(outcome, Failed)
                assert outcome.kind == "unreachable"
                assert "no connection within 0.3 seconds" in error(outcome)["errorMessage"]


@asynccontextmanager
async def raw(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server of bytes, whose connections end with it."""
    async with anyio.create_task_group() as group:
        writers: list[asyncio.StreamWriter] = []

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            group.start_soon(run, reader, writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        group.cancel_scope.cancel()
        for writer in writers:
            writer.transport.abort()


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("sent", [0, 9, len(WHOLE) - 1], ids=["nothing", "half a head", "half a body"])
async def test_a_connection_that_is_lost_after_the_request(sent: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE[:sent])
        writer.close()

    async with raw(serve) as url, calling(behind(url)) as executor:
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.ran) == ("function", True), "the handler may have run"
    assert error(outcome)["errorType"] == "Function.ConnectionLost"


async def test_what_is_no_http() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 ready for mail\r\n\r\n")
        writer.close()

    async with raw(serve) as url, calling(behind(url)) as executor:
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "function"
    assert "\n" not in error(outcome)["errorMessage"]


async def test_a_request_is_never_repeated_by_itself() -> None:
    """A server that closes a kept connection just when the next request comes: nobody can know whether it was read."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
        writer.write(WHOLE)
        heard.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
        writer.close()

    async with raw(serve) as url, calling(behind(url)) as executor:
        assert answer(await executor.invoke(invocation())) == {}
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.ran
    assert len(heard) == 2


async def test_a_closed_connection_is_not_used_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE)
        writer.close()

    async with raw(serve) as url, calling(behind(url)) as executor:
        for _ in range(3):
            assert answer(await executor.invoke(invocation())) == {}
            await anyio.sleep(0.05)  # the end of the connection has arrived; else it is the test above


async def test_a_trickle_ends_at_the_deadline() -> None:  # INV-23
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with raw(serve) as url, calling(behind(url, timeout=0.3)) as executor:
        with anyio.fail_after(PATIENCE):
            outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert (outcome.kind, error(outcome)["errorType"]) == ("timeout", "Sandbox.Timedout")


async def test_after_leaving_nothing_is_called() -> None:
    async with far() as server:
        async with calling(behind(server.plain("echo"))) as executor:
            answer(await executor.invoke(invocation()))
        outcome = await executor.invoke(invocation())
        assert isinstance(outcome, Failed)
        assert outcome.kind == "unreachable"
        assert len(server.seen) == 1


# Mistakes, logs.


async def test_files_are_looked_at_on_entering(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "odd").write_bytes(b"a\nb")
    for options, part in (
        ({"ca_file": tmp_path / "nowhere"}, f"ca_file: {tmp_path}/nowhere cannot be used: No such file or directory"),
        ({"ca_file": tmp_path / "empty"}, f"ca_file: {tmp_path}/empty cannot be used: "),
        (
            {"headers": {"X": HeaderFile(tmp_path / "nowhere")}},
            f"headers.X.file: {tmp_path}/nowhere cannot be used: ",
        ),
        (
            {"headers": {"X": HeaderFile(tmp_path / "odd")}},
            f"headers.X.file: {tmp_path}/odd cannot be used: ",
        ),
    ):
        function = msgspec.structs.replace(behind("https://host/x", **options), where="bridge.yaml:7")
        with pytest.raises(UsageError) as raised:
            async with calling(function):
                pytest.fail("entered")
        assert f"bridge.yaml:7: functions.worker.{part}" in str(raised.value)


async def test_a_header_file_that_vanishes_uses_up_no_attempt(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    async with far() as server, calling(behind(server.plain("echo"), headers={"X": HeaderFile(token)})) as executor:
        token.unlink()
        outcome = await executor.invoke(invocation())
        assert isinstance(outcome, Failed)
        assert outcome.kind == "unreachable"
        assert str(token) in error(outcome)["errorMessage"]
        assert server.seen == []


async def test_a_trouble_is_told_once_and_without_secrets(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with far() as server:
            url = f"{server.plain('raises')}?key=hush"
            async with calling(behind(url, headers={"X": "hush"})) as executor:
                for _ in range(3):
                    await executor.invoke(invocation())
    assert [line["event"] for line in logs] == ["invocation_failed"]
    assert (logs[0]["error_type"], logs[0]["message"], logs[0]["function"]) == ("ValueError", "no", "worker")
    assert "hush" not in json.dumps(logs)


async def test_its_repr_says_how_it_is() -> None:
    async with calling(behind("http://host/x?key=hush")) as executor:
        assert repr(executor) == "<HttpExecutor worker: http://host/x, 0 busy>"
