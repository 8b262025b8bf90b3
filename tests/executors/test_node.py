"""Node.js handlers: the contract first, then what they see and how they may answer and fail."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import pytest
import structlog

from bridge.errors import UsageError
from bridge.executors import EXECUTORS, Executor
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.invocation import Failed, Outcome, Succeeded
from tests.conftest import missing
from tests.contracts.executor import ExecutorContract, answer, error, invocation
from tests.executors.surroundings import ARN, Lines, function, running

pytestmark = pytest.mark.anyio

Write = Callable[..., Function]


@pytest.fixture(autouse=True)
def node() -> None:
    if shutil.which("node") is None:
        missing("node")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function of the code given, as ``app.mjs`` or another file."""

    def write(code: str, file: str = "app.mjs", handler: str = "app.handler", **settings: Any) -> Function:
        tmp_path.joinpath(file).parent.mkdir(parents=True, exist_ok=True)
        tmp_path.joinpath(file).write_text(dedent(code))
        return function(handler, code=tmp_path, kind="nodejs", **settings)

    return write


async def invoked(function: Function, *events: Any, output: Lines | None = None) -> list[Outcome]:
    async with running(function, output=Lines() if output is None else output) as executor:
        return [await executor.invoke(invocation(event)) for event in events or (None,)]


class TestContract(ExecutorContract):
    features: ClassVar[frozenset[str]] = frozenset({"processes", "warm"})

    def function(self, behaviour: str, **settings: Any) -> Function:
        return function(f"behaviours.{behaviour}", kind="nodejs", **settings)

    def executor(self, function: Function) -> AbstractAsyncContextManager[Executor]:
        return running(function)


def test_it_is_the_executor_of_nodejs_functions() -> None:
    module, _, name = EXECUTORS["nodejs"].partition(":")
    assert getattr(sys.modules[module], name) is ProcessExecutor


async def test_a_missing_interpreter_is_told_on_entering() -> None:
    worker = function("app.handler", kind="nodejs", node="/nowhere/node")
    with pytest.raises(UsageError, match=r"^functions\.worker\.node: /nowhere/node is no executable file; .+$"):
        async with running(worker):
            pass


async def test_a_runtime_of_another_version_is_a_warning_once(write: Write) -> None:
    worker = write("export const handler = async () => {};", runtime="nodejs99.x")
    with structlog.testing.capture_logs() as logs:
        await invoked(worker)
    (told,) = [line for line in logs if line["event"] == "runtime_version_differs"]
    assert told["runtime"] == "nodejs99.x"
    assert told["version"].isdecimal()


# Where handlers are found.


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("app.mjs", "export const handler = async () => 'here';"),
        ("app.cjs", "exports.handler = async () => 'here';"),
        ("app.js", "exports.handler = async () => 'here';"),
        ("app.js", "module.exports = { handler: (event, context, callback) => callback(null, 'here') };"),
        ("app", "exports.handler = async () => 'here';"),
    ],
)
async def test_modules_of_both_kinds(write: Write, file: str, code: str) -> None:
    assert [answer(outcome) for outcome in await invoked(write(code, file))] == ["here"]


async def test_the_nearest_package_says_what_js_is(write: Write, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    code = "import os from 'node:os'; export const handler = async () => typeof os.cpus;"
    assert answer((await invoked(write(code, "pkg/mod.js", "pkg/mod.handler")))[0]) == "function"
    (tmp_path / "pkg" / "package.json").write_text("{}")
    code = "const os = require('os'); exports.handler = async () => typeof os.cpus;"
    assert answer((await invoked(write(code, "pkg/mod.js", "pkg/mod.handler")))[0]) == "function"


async def test_members_of_members(write: Write) -> None:
    code = "export const handlers = { orders: { created: async () => 'nested' } };"
    assert answer((await invoked(write(code, handler="app.handlers.orders.created")))[0]) == "nested"


@pytest.mark.parametrize(
    ("handler", "code", "kind", "message"),
    [
        ("app.missing", "", "Runtime.HandlerNotFound", "app.missing is undefined or not exported"),
        ("app.handler", "export const handler = 7;", "Runtime.HandlerNotFound", "app.handler is not a function"),
        ("app", "", "Runtime.MalformedHandlerName", "Bad handler"),
        ("../app.handler", "", "Runtime.MalformedHandlerName", "Bad handler"),
        ("nowhere.handler", "", "Runtime.ImportModuleError", "Error: Cannot find module '"),
        (
            "app.handler",
            "import 'no-such-package';",
            "Runtime.ImportModuleError",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot",
        ),
        ("app.handler", "export const handler = (;", "Runtime.UserCodeSyntaxError", "SyntaxError: "),
        ("app.handler", "throw new TypeError('at load');", "TypeError", "at load"),
    ],
)
async def test_what_cannot_be_loaded(write: Write, handler: str, code: str, kind: str, message: str) -> None:  # INV-25
    (outcome,) = await invoked(write(code, handler=handler))
    assert isinstance(outcome, Failed)
    assert outcome.kind == "function"
    told = error(outcome)
    assert told["errorType"] == kind
    assert told["errorMessage"].startswith(message)
    assert list(told) == ["errorType", "errorMessage", "trace"]  # INV-21


# What a handler sees.


async def test_the_context_in_full(write: Write) -> None:  # RT-3, RT-38
    code = """
        export const handler = async (event, context) => ({
            shown: context,
            remaining: context.getRemainingTimeInMillis(),
            can: ['done', 'succeed', 'fail'].map((name) => typeof context[name]),
            stream: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
            runtime: process.env.AWS_EXECUTION_ENV,
        });
    """
    (outcome,) = await invoked(write(code, memory=512, timeout=7.0, runtime="nodejs20.x"))
    told = answer(outcome)
    assert told["shown"] == {
        "callbackWaitsForEmptyEventLoop": True,
        "functionVersion": "$LATEST",
        "functionName": "worker",
        "memoryLimitInMB": "512",
        "logGroupName": "/aws/lambda/worker",
        "logStreamName": told["stream"],
        "invokedFunctionArn": ARN,
        "awsRequestId": outcome.request_id,
    }
    assert 6000 < told["remaining"] <= 7000
    assert told["can"] == ["function"] * 3
    assert told["runtime"] == "AWS_Lambda_nodejs20.x"


async def test_the_trace_is_in_the_environment(write: Write) -> None:  # RT-9
    code = "export const handler = async () => process.env._X_AMZN_TRACE_ID;"
    plain = invocation()
    traced = type(plain)(b"{}", plain.request_id, trace_id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=1")
    async with running(write(code)) as executor:
        assert answer(await executor.invoke(traced)) == traced.trace_id
        assert answer(await executor.invoke(invocation())) is None


# The ways to answer.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("callback(null, 'called')", "called"),
        ("setTimeout(() => callback(null, 'later'), 5)", "later"),
        ("callback(null, 1); callback(null, 2)", 2),  # the loop was not empty: the last word counts
        ("context.callbackWaitsForEmptyEventLoop = false; callback(null, 1); callback(null, 2)", 1),
        (
            "let late = 0; setTimeout(() => { late = 1; }, 20); callback(null, { get late() { return late; } })",
            {"late": 1},
        ),
        ("context.succeed('done'); setInterval(() => {}, 1000)", "done"),
        ("context.done(null, 'done'); setInterval(() => {}, 1000)", "done"),
        ("return 'ignored'", None),
        ("return { then: (resolve) => resolve('thenable') }", "thenable"),
        ("callback(null, undefined)", None),
        ("callback(null, () => 1)", None),
    ],
)
async def test_callbacks_and_the_context_answer(write: Write, body: str, expected: Any) -> None:
    worker = write(f"exports.handler = (event, context, callback) => {{ {body} }};", "app.js")
    assert [answer(outcome) for outcome in await invoked(worker, None, None)] == [expected] * 2


async def test_without_waiting_for_the_event_loop_an_open_timer_does_not_hold_the_answer(write: Write) -> None:
    code = """
        exports.handler = (event, context, callback) => {
            context.callbackWaitsForEmptyEventLoop = event.waits;
            setInterval(() => {}, 1000);
            callback(null, 'called');
        };
    """
    outcomes = await invoked(write(code, "app.js", timeout=0.7), {"waits": False}, {"waits": True})
    assert answer(outcomes[0]) == "called"
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].kind == "timeout"


# Errors (INV-21, INV-22).


@pytest.mark.parametrize(
    ("thrown", "expected"),
    [
        ("new RangeError('no')", ("RangeError", "no")),
        ("new (class Mine extends Error { name = 'Mine' })('own')", ("Mine", "own")),
        ("'text'", ("string", "text")),
        ("7", ("number", "7")),
        ("{ toString: () => 'shown' }", ("object", "shown")),
    ],
)
@pytest.mark.parametrize("way", ["throw {}", "callback({})", "context.fail({})", "return Promise.reject({})"])
async def test_what_is_thrown(write: Write, way: str, thrown: str, expected: tuple[str, str]) -> None:
    code = "exports.handler = (event, context, callback) => { " + way.replace("{}", f"({thrown})") + "; };"
    told = error((await invoked(write(code, "app.js")))[0])
    assert (told["errorType"], told["errorMessage"]) == expected
    assert list(told) == ["errorType", "errorMessage", "trace"]
    assert bool(told["trace"]) == ("new" in thrown)


async def test_what_no_json_holds_is_an_error(write: Write) -> None:
    told = error((await invoked(write("export const handler = async () => 7n;")))[0])
    assert (told["errorType"], told["errorMessage"]) == ("Error", "Unable to stringify response body")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("Promise.reject(new TypeError('lost'))", "Runtime.UnhandledPromiseRejection", "TypeError: lost"),
        ("setTimeout(() => { throw new TypeError('lost'); }, 1)", "TypeError", "lost"),
        ("", "Runtime.NodeJsExit", "The event loop is empty, and the handler has not returned"),
    ],
)
async def test_what_nobody_catches(write: Write, body: str, kind: str, message: str) -> None:  # INV-26
    code = f"export const handler = async (event) => event.fine ?? new Promise(() => {{ {body} }});"
    failed, fine = await invoked(write(code), {}, {"fine": 1})
    assert isinstance(failed, Failed)
    assert (error(failed)["errorType"], error(failed)["errorMessage"]) == (kind, message)
    assert answer(fine) == 1


async def test_an_error_after_the_answer_leaves_the_answer_alone(write: Write) -> None:
    code = """
        export const handler = async () => {
            setImmediate(() => { throw new Error('late'); });
            return 'x'.repeat(3_000_000);
        };
    """
    (outcome,) = await invoked(write(code))
    assert len(answer(outcome)) == 3_000_000


# Logs (RT-53).


async def test_logs_look_as_on_lambda(write: Write) -> None:
    code = """
        console.log('at load');
        export const handler = async () => {
            console.log('to %s', 'you', { a: 1 });
            console.warn('careful');
            console.error('bad');
            console.debug('fine');
            process.stdout.write('plain\\n');
            const error = new RangeError('no');
            error.code = 'E_NO';
            throw error;
        };
    """
    lines = Lines()
    (outcome,) = await invoked(write(code), output=lines)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for pattern, text in zip(
        [
            rf"{time}\tundefined\tINFO\tat load",
            rf"{time}\t{outcome.request_id}\tINFO\tto you \{{ a: 1 \}}",
            rf"{time}\t{outcome.request_id}\tWARN\tcareful",
            rf"{time}\t{outcome.request_id}\tERROR\tbad",
            rf"{time}\t{outcome.request_id}\tDEBUG\tfine",
            "plain",
        ],
        lines.texts,
        strict=False,
    ):
        assert re.fullmatch(pattern, text), (pattern, text)
    head, _, body = lines.texts[-1].rpartition("\t")
    assert re.fullmatch(rf"{time}\t{outcome.request_id}\tERROR\tInvoke Error ", head)
    told = json.loads(body)
    assert told["stack"][0] == "RangeError: no"
    assert (told["errorType"], told["errorMessage"], told["code"]) == ("RangeError", "no", "E_NO")
    assert isinstance(outcome, Failed)
    assert b"ERROR\tInvoke Error" in outcome.log_tail


async def test_what_is_logged_before_an_exit_is_not_lost(write: Write) -> None:
    lines = Lines()
    code = "export const handler = async () => { for (let i = 0; i < 20000; i++) console.log(i); process.exit(3); };"
    (outcome,) = await invoked(write(code), output=lines)
    assert error(outcome)["errorMessage"].endswith("Runtime exited with error: exit status 3")
    assert len(lines) == 20000


async def test_requests_are_not_mixed_up_by_keeping_the_connection(write: Write) -> None:
    code = "export const handler = async (event) => event;"
    events = [{"n": n, "text": "ü€𝄞" * (n * 997 % 5000)} for n in range(60)]
    outcomes = await invoked(write(code), *events)
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    assert [answer(outcome) for outcome in outcomes] == events
