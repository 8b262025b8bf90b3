"""Functions on AWS Lambda: the contract first, then what is peculiar to Invoke, at a scripted server and a real one."""

from __future__ import annotations

import base64
import io
import json
import socket
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import unquote

import anyio
import msgspec
import pytest
import structlog
from aiohttp import web

from bridge.aws import Aws, Credentials
from bridge.executors import Environments, Executor, Surroundings
from bridge.executors.aws_lambda import LambdaExecutor
from bridge.function import AwsSettings, Function
from bridge.invocation import Failed, Outcome, Succeeded
from bridge.leash import Leash
from tests.contracts.executor import PATIENCE, ExecutorContract, answer, error, invocation
from tests.executors.endpoint import Far, far
from tests.executors.surroundings import ARN, Lines
from tests.servers import REGION, Server, unique

pytestmark = pytest.mark.anyio

REAL = "arn:aws:lambda:eu-west-1:123456789012:function:"


def on_lambda(name: str, *, url: str = "", timeout: float = PATIENCE) -> Function:
    settings = AwsSettings(region=REGION, endpoint_url=url or None)
    return Function(name="worker", arn=ARN, kind="lambda", timeout=timeout, lambda_arn=REAL + name, aws=settings)


@asynccontextmanager
async def invoking(function: Function, lines: Lines | None = None) -> AsyncIterator[LambdaExecutor]:
    async with Aws(credentials=lambda _: Credentials("123456789012", "secret")) as aws:
        surroundings = Surroundings(Leash(), output=Lines() if lines is None else lines, aws=aws)
        async with LambdaExecutor(function, surroundings) as executor:
            yield executor


class TestContract(ExecutorContract):
    features = frozenset()

    def function(self, behaviour: str, **settings: Any) -> Function:
        return msgspec.structs.replace(on_lambda(behaviour), **settings)

    def executor(self, function: Function) -> AbstractAsyncContextManager[Executor]:
        return self.running(function)

    @asynccontextmanager
    async def running(self, function: Function) -> AsyncIterator[Executor]:
        async with far() as server:
            settings = AwsSettings(region=REGION, endpoint_url=server.url)
            async with invoking(msgspec.structs.replace(function, aws=settings)) as executor:
                yield executor


Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


def says(status: int, body: bytes = b"{}", **headers: str) -> Script:
    async def respond(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return respond


def refuses(code: str, status: int) -> Script:
    return says(status, json.dumps({"Message": f"as scripted: {code}"}).encode(), x_amzn_ErrorType=code)


async def asked(script: Script, **settings: Any) -> Any:
    """The outcome of such an answer."""
    async with far() as server, invoking(on_lambda("echo", url=server.url, **settings)) as executor:
        server.answers.append(script)
        return await executor.invoke(invocation())


# What is asked.


async def request_for(name: str) -> tuple[str, Far]:
    paths: list[str] = []
    async with far() as server, invoking(on_lambda(name, url=server.url)) as executor:

        async def respond(request: web.Request) -> web.StreamResponse:
            paths.append(request.raw_path)
            return web.Response(body=b"[1]")

        server.answers.append(respond)
        assert answer(await executor.invoke(invocation({"a": 1}))) == [1]
    return unquote(paths[0]), server


async def test_the_request() -> None:  # INV-1, INV-2
    path, server = await request_for("real")
    (seen,) = server.seen
    assert path == f"/2015-03-31/functions/{REAL}real/invocations"
    assert seen.body == b'{"a": 1}'
    assert seen.headers["X-Amz-Invocation-Type"] == "RequestResponse"
    assert seen.headers["X-Amz-Log-Type"] == "Tail"
    assert f"/{REGION}/lambda/aws4_request" in seen.headers["Authorization"]


@pytest.mark.parametrize("qualifier", ["7", "live", "$LATEST"])
async def test_the_qualifier(qualifier: str) -> None:  # INV-1
    path, server = await request_for(f"real:{qualifier}")
    assert path.startswith(f"/2015-03-31/functions/{REAL}real/invocations?")
    assert server.seen[0].query == {"Qualifier": qualifier}


async def test_an_event_that_is_too_large_is_not_sent() -> None:  # INV-8
    async with far() as server, invoking(on_lambda("echo", url=server.url)) as executor:
        assert isinstance(await executor.invoke(invocation(payload=b'"%s"' % (b"1" * 6_291_454))), Succeeded)
        outcome = await executor.invoke(invocation(payload=b"1" * 6_291_457))
        assert len(server.seen) == 1
    assert isinstance(outcome, Failed)
    assert outcome.kind == "function", "no later try is any better"
    assert error(outcome) == {
        "errorType": "RequestTooLargeException",
        "errorMessage": "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
    }


# What the answers mean.


async def test_the_version_that_ran() -> None:  # INV-3
    assert (await asked(says(200, b"{}", X_Amz_Executed_Version="7"))).version == "7"
    failed = await asked(says(200, b"{}", X_Amz_Executed_Version="7", X_Amz_Function_Error="Unhandled"))
    assert failed.version == "7"


@pytest.mark.parametrize("word", ["Unhandled", "Handled", "Whatever"])
async def test_any_function_error_is_one(word: str) -> None:  # INV-20
    body = b'{"errorMessage":"no","errorType":"ValueError"}'
    outcome = await asked(says(200, body, X_Amz_Function_Error=word))
    assert (outcome.kind, outcome.ran, outcome.error) == ("function", True, body)


@pytest.mark.parametrize(
    ("error_type", "kind"), [("Sandbox.Timedout", "timeout"), ("Runtime.ExitError", "exit"), ("Runtime.X", "function")]
)
async def test_how_it_ended_is_in_the_type(error_type: str, kind: str) -> None:  # INV-23, INV-24
    body = json.dumps({"errorType": error_type, "errorMessage": "x"}).encode()
    outcome = await asked(says(200, body, X_Amz_Function_Error="Unhandled"))
    assert (outcome.kind, outcome.error) == (kind, body)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("TooManyRequestsException", 429, "throttled"),  # INV-11
        ("ServiceException", 500, "unreachable"),  # SQS-35
        ("ServiceUnavailableException", 503, "unreachable"),
        ("ENILimitReachedException", 502, "unreachable"),
        ("ResourceNotFoundException", 404, "unreachable"),  # INV-10
        ("AccessDeniedException", 403, "unreachable"),
        ("ResourceConflictException", 409, "unreachable"),
        ("SnapStartTimeoutException", 408, "unreachable"),
        ("InvalidParameterValueException", 400, "unreachable"),
        ("RecursiveInvocationException", 400, "function"),  # SQS-36
        ("InvalidRequestContentException", 400, "function"),  # INV-7
        ("RequestTooLargeException", 413, "function"),  # INV-8
    ],
)
async def test_what_the_service_refuses(code: str, status: int, kind: str) -> None:
    outcome = await asked(refuses(code, status))
    assert outcome.kind == kind
    assert outcome.ran == (kind == "function")
    assert f"as scripted: {code}" in error(outcome)["errorMessage"]
    assert "\n" not in error(outcome)["errorMessage"]


async def test_a_function_that_is_not_there_is_told_once() -> None:
    with structlog.testing.capture_logs() as logs:
        async with far() as server, invoking(on_lambda("echo", url=server.url)) as executor:
            for _ in range(3):
                server.answers.append(refuses("ResourceNotFoundException", 404))
                await executor.invoke(invocation())
    (line,) = [line for line in logs if line["log_level"] != "debug"]
    assert (line["event"], line["kind"]) == ("invocation_failed", "unreachable")
    assert line["message"].startswith(f"{REAL}echo: lambda Invoke: as scripted: ResourceNotFoundException")


# The connection.


async def test_refused() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with invoking(on_lambda("echo", url=f"http://127.0.0.1:{bound.getsockname()[1]}")) as executor:
            outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.ran) == ("unreachable", False)


async def test_no_credentials(aws_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    async with far() as server, Aws() as aws:
        function = on_lambda("echo", url=server.url)
        async with LambdaExecutor(function, Surroundings(Leash(), aws=aws)) as executor:
            outcome = await executor.invoke(invocation())
        assert server.seen == []
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable"
    assert "set aws.profile" in error(outcome)["errorMessage"]


@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "in the answer"])
async def test_a_connection_that_is_lost(begun: bool) -> None:
    async def drops(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        if begun:
            await response.prepare(request)
            await response.write(b"{")
        assert request.transport is not None
        request.transport.abort()
        return response

    outcome = await asked(drops)
    assert (outcome.kind, outcome.ran) == ("function", True), "it may have run"
    assert error(outcome)["errorType"] == "Function.ConnectionLost"


async def test_a_trickle_ends_at_the_deadline() -> None:
    async def trickles(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await anyio.sleep(0.02)

    with anyio.fail_after(PATIENCE):
        outcome = await asked(trickles, timeout=0.3)
    assert (outcome.kind, error(outcome)["errorType"]) == ("timeout", "Sandbox.Timedout")


async def test_an_endless_answer_is_not_read_to_its_end() -> None:  # INV-9
    sent = 0
    over = anyio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
                sent += 65536
        finally:
            over.set()

    async with far() as server, invoking(on_lambda("echo", url=server.url)) as executor:
        server.answers.append(endless)
        assert error(await executor.invoke(invocation()))["errorType"] == "Function.ResponseSizeTooLarge"
        with anyio.fail_after(PATIENCE):
            await over.wait()
        assert sent < 100_000_000
        assert isinstance(await executor.invoke(invocation()), Succeeded)


# The log.


async def test_the_log_tail_goes_where_output_goes() -> None:  # INV-30
    log = (
        "START RequestId: x Version: 7\n[INFO] one\n\ntwo ü\nEND RequestId: x\nREPORT RequestId: x\tDuration: 1 ms\t\n"
    )
    encoded = base64.b64encode(log.encode()).decode()
    lines = Lines()
    async with far() as server, invoking(on_lambda("echo", url=server.url), lines) as executor:
        server.answers.append(says(200, X_Amz_Log_Result=encoded))
        asking = invocation(mapping="orders")
        outcome = await executor.invoke(asking)
        server.answers.append(says(200, X_Amz_Log_Result="no base64 é"))
        assert (await executor.invoke(invocation())).log_tail == b""
    assert outcome.log_tail == log.encode()
    assert lines.texts == ["[INFO] one", "two ü"]
    assert {line[1:] for line in lines} == {("log", "worker", "orders", asking.request_id)}


async def test_its_repr_says_how_it_is() -> None:
    async with invoking(on_lambda("real")) as executor:
        assert repr(executor) == f"<LambdaExecutor worker: {REAL}real, 0 busy>"


# A real server with real functions.

CODE = """
def handler(event, context):
    print("working on", event.get("n"))
    if event.get("poison"):
        raise ValueError("no")
    return {"n": event.get("n"), "arn": context.invoked_function_arn}
"""


@pytest.fixture(scope="module")
def deployed(ministack_server: Server) -> str:
    """The name of a function there, with an alias ``live``."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", CODE)
    name = unique("function")
    api = ministack_server.client("lambda")
    api.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role="arn:aws:iam::123456789012:role/x",
        Handler="app.handler",
        Code={"ZipFile": code.getvalue()},
        Timeout=20,
        Publish=True,
    )
    api.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    return name


async def test_a_real_function(ministack_server: Server, deployed: str) -> None:
    lines = Lines()
    async with invoking(on_lambda(deployed, url=ministack_server.url), lines) as executor:
        outcome = await executor.invoke(invocation({"n": 5}))
        assert answer(outcome)["n"] == 5
        failed = await executor.invoke(invocation({"poison": True}))
        assert isinstance(failed, Failed)
        assert (failed.kind, error(failed)["errorMessage"]) == ("function", "no")
        outcomes: list[Outcome] = []

        async def one(n: int) -> None:
            outcomes.append(await executor.invoke(invocation({"n": n})))

        async with anyio.create_task_group() as group:
            for n in range(4):
                group.start_soon(one, n)
        assert sorted(answer(it)["n"] for it in outcomes) == [0, 1, 2, 3]
        assert executor.environments() == Environments()
    assert any("working on 5" in text for text in lines.texts)


async def test_a_real_alias_and_one_that_is_none(ministack_server: Server, deployed: str) -> None:
    async with invoking(on_lambda(f"{deployed}:live", url=ministack_server.url)) as executor:
        outcome = await executor.invoke(invocation({"n": 1}))
        assert answer(outcome)["n"] == 1
        assert outcome.version == "1"
    async with invoking(on_lambda("no-such-function", url=ministack_server.url)) as executor:
        missing = await executor.invoke(invocation())
    assert isinstance(missing, Failed)
    assert (missing.kind, missing.ran) == ("unreachable", False)
