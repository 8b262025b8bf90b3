"""The Python runtime client under every interpreter here: what a handler sees, and what becomes of its answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from bridge.executors.launch import RUNTIMES
from bridge.function import Function
from bridge.invocation import Failed, Outcome, Succeeded
from tests.conftest import missing
from tests.contracts.executor import answer, error, invocation
from tests.executors.interpreters import interpreters
from tests.executors.surroundings import ARN, Lines, function, running

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[list[Outcome]]]


@pytest.fixture
def written(tmp_path: Path, python: str) -> Callable[..., Function]:
    """A function of the code given, as ``app.py``, under that interpreter."""

    def write(code: str, handler: str = "app.handler", **settings: Any) -> Function:
        tmp_path.joinpath("app.py").write_text(dedent(code))
        return function(handler, code=tmp_path, python=python, **settings)

    return write


async def invoked(function: Function, *events: Any, output: Lines | None = None) -> list[Outcome]:
    async with running(function, output=Lines() if output is None else output) as executor:
        return [await executor.invoke(invocation(event)) for event in events or (None,)]


def test_there_are_at_least_three_interpreters() -> None:
    if len(interpreters()) < 3:
        missing("a third Python interpreter")
    assert len(interpreters()) >= 3


# What a handler sees.


async def test_the_context_object(written: Callable[..., Function]) -> None:  # RT-3, RT-38
    code = """
        import os, time
        def handler(event, context):
            return {
                "shown": {name: getattr(context, name) for name in (
                    "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb", "aws_request_id",
                    "log_group_name", "log_stream_name", "client_context", "tenant_id")},
                "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
                "remaining": context.get_remaining_time_in_millis(),
                "repr": repr(context),
                "stream": os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
            }
    """
    (outcome,) = await invoked(written(code, memory=512, timeout=7.0))
    told = answer(outcome)
    assert told["shown"] == {
        "function_name": "worker",
        "function_version": "$LATEST",
        "invoked_function_arn": ARN,
        "memory_limit_in_mb": "512",
        "aws_request_id": outcome.request_id,
        "log_group_name": "/aws/lambda/worker",
        "log_stream_name": told["stream"],
        "client_context": None,
        "tenant_id": None,
    }
    assert told["identity"] == [None, None]
    assert 6000 < told["remaining"] <= 7000
    assert told["repr"].startswith(f"LambdaContext([aws_request_id={outcome.request_id},")
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", told["stream"])  # RT-22


async def test_modules_come_from_the_code_first(written: Callable[..., Function], tmp_path: Path) -> None:
    (tmp_path / "pkg" / "deep").mkdir(parents=True)
    (tmp_path / "pkg" / "deep" / "mod.py").write_text(
        "import os, sys\ndef func(event, context):\n    return [os.getcwd(), sys.path]\n"
    )
    (tmp_path / "extra").mkdir()
    for handler in ("pkg/deep/mod.func", "pkg.deep.mod.func"):
        variables = {"PYTHONPATH": str(tmp_path / "extra")}
        (outcome,) = await invoked(written("", handler=handler, environment=variables))
        cwd, path = answer(outcome)
        assert cwd == str(tmp_path)
        assert path[:2] == [str(tmp_path), str(tmp_path / "extra")]
        assert str(RUNTIMES) not in path


async def test_a_safe_path_stays_one(written: Callable[..., Function], tmp_path: Path) -> None:
    code = "import sys\ndef handler(event, context):\n    return sys.path\n"
    (outcome,) = await invoked(written(code, environment={"PYTHONSAFEPATH": "1"}))
    path = answer(outcome)
    assert path[0] == str(tmp_path)
    assert any(entry.endswith(".zip") for entry in path)
    assert str(RUNTIMES) not in path


async def test_the_trace_is_in_the_environment(written: Callable[..., Function]) -> None:  # RT-9
    code = "import os\ndef handler(event, context):\n    return os.environ.get('_X_AMZN_TRACE_ID')\n"
    traced = invocation()
    traced = type(traced)(
        traced.payload, traced.request_id, trace_id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=1"
    )
    async with running(written(code)) as executor:
        assert answer(await executor.invoke(traced)) == "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=1"
        assert answer(await executor.invoke(invocation())) is None


async def test_logs_look_as_on_lambda(written: Callable[..., Function]) -> None:  # RT-53
    code = """
        import logging
        logging.warning("at import")
        def handler(event, context):
            logging.info("not shown")
            logging.getLogger("some.name").warning("watch %s", "out")
            logging.getLogger().setLevel(logging.INFO)
            logging.info("shown")
            print("plain", "text")
            context.log("by the context\\n")
    """
    lines = Lines()
    outcome, _ = await invoked(written(code), None, None, output=lines)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    expected = [
        rf"\[WARNING\]\t{time}\t\tat import",
        rf"\[WARNING\]\t{time}\t{outcome.request_id}\twatch out",
        rf"\[INFO\]\t{time}\t{outcome.request_id}\tshown",
        "plain text",
        "by the context",
    ]
    assert len(lines) == 10  # the second time "not shown" is shown
    for pattern, text in zip(expected, lines.texts[:5], strict=True):
        assert re.fullmatch(pattern, text), (pattern, text)


# Answers.


@pytest.mark.parametrize(
    ("expression", "payload"),
    [
        ("None", b"null"),
        ("{'a': (1, 2.5, True)}", b'{"a": [1, 2.5, true]}'),
        ("{1: 2, None: 3}", b'{"1": 2, "null": 3}'),
        ("b'raw'", b"raw"),
        ("{'text': b'abc'}", b'{"text": "abc"}'),
        ("decimal.Decimal('1.10')", b"1.10"),
        ("[decimal.Decimal('1E+3'), decimal.Decimal('-0.0'), '1.5']", b'[1E+3, -0.0, "1.5"]'),
        ("decimal.Decimal('NaN')", b"NaN"),
        ("float('inf')", b"Infinity"),
    ],
)
async def test_answers_are_written_as_aws_writes_them(tmp_path: Path, expression: str, payload: bytes) -> None:
    tmp_path.joinpath("app.py").write_text(f"import decimal\ndef handler(event, context):\n    return {expression}\n")
    (outcome,) = await invoked(function("app.handler", code=tmp_path))
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.payload == payload


async def test_answers_in_all_scripts(written: Callable[..., Function]) -> None:
    (outcome,) = await invoked(written("def handler(event, context):\n    return event\n"), {"ü€𝄞": "日本"})
    assert answer(outcome) == {"ü€𝄞": "日本"}


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("datetime.datetime(2020, 1, 1)", "Object of type datetime is not JSON serializable"),
        ("{1, 2}", "Object of type set is not JSON serializable"),
        ("object()", "Object of type object is not JSON serializable"),
        ("{(1, 2): 3}", "keys must be str, int, float, bool or None, not tuple"),
        ("{'x': b'\\xff'}", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ("loop", "Circular reference detected"),
    ],
)
async def test_an_answer_that_is_no_json_is_a_function_error(tmp_path: Path, expression: str, why: str) -> None:
    code = f"import datetime\nloop = []\nloop.append(loop)\ndef handler(event, context):\n    return {expression}\n"
    tmp_path.joinpath("app.py").write_text(code)
    (outcome,) = await invoked(function("app.handler", code=tmp_path))
    assert error(outcome) == {  # INV-25
        "errorMessage": f"Unable to marshal response: {why}",
        "errorType": "Runtime.MarshalError",
        "requestId": outcome.request_id,
        "stackTrace": [],
    }


async def test_a_coroutine_is_no_answer(written: Callable[..., Function]) -> None:
    (outcome,) = await invoked(written("async def handler(event, context):\n    return 1\n"))
    assert (
        error(outcome)["errorMessage"]
        == "Unable to marshal response: Object of type coroutine is not JSON serializable"
    )


# Errors.


async def test_an_exception(written: Callable[..., Function], tmp_path: Path) -> None:  # INV-21, RT-53
    code = """
        class Broken(Exception):
            pass
        def inner():
            raise Broken("no: ü \\ud800")
        def handler(event, context):
            inner()
    """
    lines = Lines()
    (outcome,) = await invoked(written(code), output=lines)
    shape = error(outcome)
    assert list(shape) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert shape["errorMessage"] == "no: ü \ud800"
    assert shape["errorType"] == "Broken"
    assert shape["requestId"] == outcome.request_id
    first, second = shape["stackTrace"]
    assert first.startswith(f'  File "{tmp_path}/app.py", line 7, in handler\n    inner()\n')
    assert second.startswith(f'  File "{tmp_path}/app.py", line 5, in inner\n    raise Broken(')
    assert lines.texts[:3] == [
        "[ERROR] Broken: no: ü \\ud800",
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/app.py", line 7, in handler',
    ]
    assert {line.stream for line in lines} == {"stdout"}


async def test_an_exception_that_cannot_say_what_it_is(written: Callable[..., Function]) -> None:
    code = """
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("even this")
        def handler(event, context):
            if event["poison"]:
                raise Mute
    """
    lines = Lines()
    outcome, after = await invoked(written(code), {"poison": True}, {"poison": False}, output=lines)
    assert (error(outcome)["errorType"], error(outcome)["errorMessage"]) == ("Mute", "")
    assert lines.texts[0] == "[ERROR] Mute"
    assert isinstance(after, Succeeded)


async def test_a_handler_that_closed_its_output_still_answers(written: Callable[..., Function]) -> None:
    code = """
        import sys
        def handler(event, context):
            sys.stdout.close()
            raise ValueError("silent")
    """
    (outcome,) = await invoked(written(code))
    assert error(outcome)["errorMessage"] == "silent"


@pytest.mark.parametrize(
    ("code", "handler", "kind", "message"),
    [
        (
            "",
            "nowhere.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'nowhere': No module named 'nowhere'",
        ),
        (
            "import missing",
            "app.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'app': No module named 'missing'",
        ),
        ("", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        (
            "",
            "handler",
            "Runtime.MalformedHandlerName",
            "Bad handler 'handler': not enough values to unpack (expected 2, got 1)",
        ),
        ("", "sys.exit", "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"),
    ],
)
async def test_code_that_cannot_be_loaded(
    written: Callable[..., Function], code: str, handler: str, kind: str, message: str
) -> None:  # INV-25
    lines = Lines()
    (outcome,) = await invoked(written(code, handler=handler), output=lines)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "function"
    assert error(outcome) == {"errorMessage": message, "errorType": kind, "requestId": "", "stackTrace": []}
    assert lines.texts == [f"[ERROR] {kind}: {message}"] * 2  # RT-31: init is repeated once


async def test_code_with_a_syntax_error(written: Callable[..., Function], tmp_path: Path) -> None:  # INV-25
    (outcome,) = await invoked(written("def handler(event, context)\n    pass\n"))
    shape = error(outcome)
    assert shape["errorType"] == "Runtime.UserCodeSyntaxError"
    assert shape["errorMessage"].startswith("Syntax error in module 'app': ")
    assert shape["requestId"] == ""
    assert shape["stackTrace"] == [f'  File "{tmp_path}/app.py" Line 1\n    def handler(event, context)\n']


async def test_code_that_raises_while_it_is_loaded(written: Callable[..., Function], tmp_path: Path) -> None:  # INV-25
    (outcome,) = await invoked(written("raise KeyError('TABLE_NAME')\n"))
    shape = error(outcome)
    assert (shape["errorType"], shape["errorMessage"], shape["requestId"]) == ("KeyError", "'TABLE_NAME'", "")
    assert shape["stackTrace"][-1].startswith(f'  File "{tmp_path}/app.py", line 1, in <module>\n')


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("sys.exit()", "Runtime exited without providing a reason"),
        ("sys.exit(3)", "Runtime exited with error: exit status 3"),
        ("sys.exit('told')", "Runtime exited with error: exit status 1"),
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("os.abort()", "Runtime exited with error: signal: aborted"),
        ("raise KeyboardInterrupt", "Runtime exited with error: signal: interrupt"),
        ("raise asyncio.CancelledError", "Runtime exited with error: exit status 1"),
    ],
)
@pytest.mark.parametrize("while_loading", [False, True])
async def test_a_handler_that_ends_its_process(tmp_path: Path, statement: str, text: str, while_loading: bool) -> None:
    body = statement if while_loading else f"def handler(event, context):\n    {statement}"  # INV-24
    tmp_path.joinpath("app.py").write_text(f"import asyncio, os, sys\n{body}\n")
    (outcome,) = await invoked(function("app.handler", code=tmp_path))
    assert isinstance(outcome, Failed)
    assert outcome.kind == "exit"
    assert error(outcome)["errorType"] == "Runtime.ExitError"
    assert error(outcome)["errorMessage"] == f"RequestId: {outcome.request_id} Error: {text}"
