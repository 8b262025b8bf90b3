"""Custom runtimes: any program that speaks the Runtime API, and programs that speak it badly."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import anyio
import pytest

from bridge.errors import UsageError
from bridge.executors import EXECUTORS, Environments, Executor
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.invocation import Failed, Outcome
from tests.conftest import missing
from tests.contracts.executor import ExecutorContract, answer, error, invocation
from tests.executors.surroundings import ARN, HANDLERS, PATIENCE, Lines, function, running

pytestmark = pytest.mark.anyio

SHELL = """\
    #!/bin/sh
    set -eu
    api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
    head=$(mktemp)
    trap 'rm -f "$head"' EXIT
    while true; do
      event=$(curl -sS --noproxy '*' -D "$head" "$api/next")
      id=$(sed -n 's/^lambda-runtime-aws-request-id: *\\([^[:space:]]*\\).*$/\\1/Ip' "$head")
      echo "working on $id"
      if [ "$event" = '"fail"' ]; then
        curl -sS --noproxy '*' -o /dev/null -d '{"errorType": "Mine.No", "errorMessage": "no"}' "$api/$id/error"
      else
        curl -sS --noproxy '*' -o /dev/null -d "{\\"got\\": $event}" "$api/$id/response"
      fi
    done
"""

CLIENT = """\
    #!{python}
    import http.client, os, sys
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    def ask(method, path, body=None):
        api.request(method, "/2018-06-01/runtime/" + path, body)
        reply = api.getresponse()
        return reply.status, reply.headers.get("Lambda-Runtime-Aws-Request-Id"), reply.read().decode()
    def next_id():
        return ask("GET", "invocation/next")[1]
"""

Provide = Callable[..., Function]


@pytest.fixture
def provide(tmp_path: Path) -> Provide:
    """A function whose ``bootstrap`` is this program."""

    def provide(program: str, **settings: Any) -> Function:
        file = tmp_path / "bootstrap"
        file.write_text(dedent(program))
        file.chmod(0o700)
        return function("", code=tmp_path, kind="provided", runtime="provided.al2023", **settings)

    return provide


@pytest.fixture
def client(provide: Provide) -> Provide:
    """A function whose ``bootstrap`` is this Python, with ``ask`` and ``next_id`` before it."""

    def client(body: str, **settings: Any) -> Function:
        return provide(dedent(CLIENT).format(python=sys.executable) + dedent(body), **settings)

    return client


async def invoked(function: Function, *events: Any, output: Lines | None = None) -> list[Outcome]:
    async with running(function, output=Lines() if output is None else output) as executor:
        with anyio.fail_after(PATIENCE):
            return [await executor.invoke(invocation(event)) for event in events]


def test_it_is_the_executor_of_custom_runtimes() -> None:
    module, _, name = EXECUTORS["provided"].partition(":")
    assert getattr(sys.modules[module], name) is ProcessExecutor


class TestAwslambdaric(ExecutorContract):
    """AWS's own client for Python, as a command."""

    features: ClassVar[frozenset[str]] = frozenset({"processes", "warm"})

    def function(self, behaviour: str, **settings: Any) -> Function:
        if find_spec("awslambdaric") is None:
            missing("awslambdaric")
        handler = f"behaviours.{behaviour}"
        return function(
            handler, code=HANDLERS, kind="provided", command=(sys.executable, "-m", "awslambdaric", handler), **settings
        )

    def executor(self, function: Function) -> AbstractAsyncContextManager[Executor]:
        return running(function)


def aws_lambda_ric(handler: str) -> tuple[str, ...]:
    """The command of AWS's client for Node.js, which compiles itself where it is installed."""
    node = shutil.which("node")
    package = Path(os.environ.get("BRIDGE_NODE_MODULES", "/nowhere"), "aws-lambda-ric")
    if node is None or not (package / "rapid-client.node").is_file():
        missing("aws-lambda-ric")
    return str(node), str(package / "index.mjs"), handler


class TestAwsLambdaRic(ExecutorContract):
    """AWS's own client for Node.js, as a command."""

    features: ClassVar[frozenset[str]] = frozenset({"processes", "warm"})

    def function(self, behaviour: str, **settings: Any) -> Function:
        handler = f"behaviours.{behaviour}"
        return function(handler, code=HANDLERS, kind="provided", command=aws_lambda_ric(handler), **settings)

    def executor(self, function: Function) -> AbstractAsyncContextManager[Executor]:
        return running(function)


async def test_awslambdaric_fills_its_context_from_our_headers(tmp_path: Path) -> None:  # RT-3
    if find_spec("awslambdaric") is None:
        missing("awslambdaric")
    code = "def handler(event, context):\n    return [context.aws_request_id, context.invoked_function_arn]\n"
    (tmp_path / "app.py").write_text(code)
    command = (sys.executable, "-m", "awslambdaric", "app.handler")
    (outcome,) = await invoked(function("app.handler", code=tmp_path, kind="provided", command=command), None)
    assert answer(outcome) == [outcome.request_id, ARN]


async def test_a_shell_script_with_curl(provide: Provide) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    lines = Lines()
    first, failed, last = await invoked(provide(SHELL), {"a": 1}, "fail", [2], output=lines)
    assert [answer(first), answer(last)] == [{"got": {"a": 1}}, {"got": [2]}]
    assert error(failed) == {"errorType": "Mine.No", "errorMessage": "no"}  # RT-5: as it was posted
    assert lines.texts == [f"working on {it.request_id}" for it in (first, failed, last)]
    assert len(SHELL.splitlines()) <= 15 + 1


async def test_what_it_is_told(client: Provide) -> None:  # RT-20, RT-22
    worker = client("""
        import json
        seen = json.dumps(dict(os.environ))
        while True:
            ask("POST", f"invocation/{next_id()}/response", seen)
    """)
    (outcome,) = await invoked(worker, None)
    seen = answer(outcome)
    assert not {"AWS_EXECUTION_ENV", "_X_AMZN_TRACE_ID"} & seen.keys()
    assert seen["LAMBDA_TASK_ROOT"] == str(worker.code)
    assert seen["_HANDLER"] == ""


@pytest.mark.parametrize("program", [None, "#!/bin/sh\n"])
async def test_a_bootstrap_that_may_not_be_executed_is_told_on_entering(tmp_path: Path, program: str | None) -> None:
    if program:
        (tmp_path / "bootstrap").write_text(program)
    expected = rf"^functions\.worker\.CodeUri: {tmp_path}/bootstrap is no executable file; .+$"
    with pytest.raises(UsageError, match=expected):
        async with running(function("", code=tmp_path, kind="provided")):
            pass


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("#!/bin/sh\n", "Runtime exited without providing a reason"),
        ("#!/bin/sh\nexit 3\n", "Runtime exited with error: exit status 3"),
        ("#!/bin/sh\nkill -9 $$\n", "Runtime exited with error: signal: killed"),
    ],
)
async def test_one_that_exits_at_once(provide: Provide, program: str, text: str) -> None:  # INV-24, RT-31, RT-37
    async with running(provide(program), output=Lines()) as executor:
        with anyio.fail_after(PATIENCE):
            outcome = await executor.invoke(invocation())
        assert executor.environments() == Environments()
    assert isinstance(outcome, Failed)
    assert outcome.kind == "exit"
    assert error(outcome) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {outcome.request_id} Error: {text}",
    }


async def test_one_that_is_no_program_uses_up_no_attempt(provide: Provide) -> None:
    (outcome,) = await invoked(provide("#!/nowhere/interpreter\n"), None)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable"
    assert error(outcome)["errorType"] == "Runtime.InvalidEntrypoint"


async def test_one_that_answers_twice(client: Provide) -> None:  # RT-7
    worker = client("""
        second = None
        while True:
            id = next_id()
            ask("POST", f"invocation/{id}/response", '"first"' if second is None else second)
            second = ask("POST", f"invocation/{id}/response", '"second"')[2]
    """)
    first, then = await invoked(worker, None, None)
    assert answer(first) == "first"
    assert answer(then) == {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}


async def test_one_that_answers_another_request(client: Provide) -> None:  # RT-7
    worker = client("""
        other = "5d5c1fb4-3e2e-4f4e-8f3b-5a5f7f0f9a11"
        while True:
            id = next_id()
            refused = ask("POST", f"invocation/{other}/response", '"wrong"')
            ask("POST", f"invocation/{id}/response", refused[2] if refused[0] == 400 else "null")
    """)
    (outcome,) = await invoked(worker, None)
    assert answer(outcome) == {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}


async def test_one_that_never_answers_its_own_request_is_timed_out(client: Provide) -> None:
    worker = client(
        """
        next_id()
        while True:
            if ask("GET", "invocation/next")[0] != 403:  # RT-8
                sys.exit(9)
    """,
        timeout=0.5,
    )
    (outcome,) = await invoked(worker, None)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "timeout"


async def test_one_that_reports_that_it_cannot_start(client: Provide) -> None:  # RT-5, RT-31
    worker = client("""ask("POST", "init/error", '{"errorType": "Mine.Broken", "errorMessage": "no"}'); next_id()""")
    (outcome,) = await invoked(worker, None)
    assert error(outcome) == {"errorType": "Mine.Broken", "errorMessage": "no"}
