"""What a function's log looks like: the platform's lines, text and JSON, and their levels."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import structlog

from bridge.function import Function, Logging
from bridge.invocation import Outcome
from tests.conftest import missing
from tests.contracts.executor import invocation
from tests.executors.surroundings import Lines, Write, function, running

pytestmark = pytest.mark.anyio

PYTHON = """
    import logging
    def handler(event, context):
        logger = logging.getLogger("orders")
        logger.debug("debugging")
        logger.info("shown %s", "ü", extra={"order": 7})
        logging.warning({"structured": True})
        try:
            raise KeyError("inner")
        except KeyError:
            logger.exception("caught")
        raise ValueError("no")
"""
NODE = """
    console.log('at load');
    export const handler = async () => {
        console.debug('debugging');
        console.log('shown %s', 'ü');
        console.warn({ structured: true });
        console.error('caught', new RangeError('inner'));
        const round = {};
        round.round = round;
        console.log(round);
        throw new TypeError('no');
    };
"""


async def logged(function: Function) -> tuple[Outcome, list[dict[str, Any]]]:
    lines = Lines()
    async with running(function, output=lines) as executor:
        outcome = await executor.invoke(invocation())
    return outcome, [json.loads(line) for line in lines.texts]


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., Function]:
    def write(code: str, **settings: Any) -> Function:
        if shutil.which("node") is None:
            missing("node")
        (tmp_path / "app.mjs").write_text(dedent(code))
        return function("app.handler", code=tmp_path, kind="nodejs", **settings)

    return write


async def test_the_platforms_lines_are_log_events(write: Write) -> None:  # RT-50
    with structlog.testing.capture_logs() as logs:
        async with running(write("def handler(event, context): pass"), output=Lines()) as executor:
            outcome = await executor.invoke(invocation(mapping="orders"))
    told = [line for line in logs if line["event"] == "platform"]
    assert [line["line"].split()[0] for line in told] == ["START", "END", "REPORT"]
    assert {(line["mapping"], line["function"], line["request_id"], line["log_level"]) for line in told} == {
        ("orders", "worker", outcome.request_id, "debug")
    }


async def test_python_logs_as_json(write: Write) -> None:  # RT-54
    outcome, lines = await logged(write(PYTHON, logging=Logging(json=True, application="INFO")))
    shown, structured, caught, error = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown.pop("timestamp"))
    assert shown == {
        "level": "INFO",
        "message": "shown ü",
        "logger": "orders",
        "requestId": outcome.request_id,
        "order": 7,
    }
    assert structured["message"] == {"structured": True}
    assert (caught["level"], caught["errorType"], caught["errorMessage"]) == ("ERROR", "KeyError", "'inner'")
    assert caught["location"].endswith(":handler:11")
    assert (error["level"], error["errorType"], error["errorMessage"]) == ("ERROR", "ValueError", "no")


async def test_python_logs_as_json_as_awslambdaric_does(write: Write) -> None:
    if find_spec("awslambdaric") is None:
        missing("awslambdaric")
    logging = Logging(json=True, application="DEBUG")
    theirs = {"kind": "provided", "command": (sys.executable, "-m", "awslambdaric", "app.handler")}
    told = []
    for settings in ({}, theirs):
        _, lines = await logged(write(PYTHON, logging=logging, **settings))
        told.append([{key: line[key] for key in line if key not in ("timestamp", "requestId")} for line in lines])
    assert told[0] == told[1]


@pytest.mark.parametrize(("level", "count"), [("TRACE", 5), ("DEBUG", 5), ("INFO", 4), ("WARN", 3), ("ERROR", 2)])
async def test_levels_of_python(write: Write, level: str, count: int) -> None:  # RT-55
    _, lines = await logged(write(PYTHON, logging=Logging(json=True, application=level)))
    assert len(lines) == count


async def test_node_logs_as_json(node: Callable[..., Function]) -> None:  # RT-54
    outcome, lines = await logged(node(NODE, logging=Logging(json=True, application="INFO")))
    load, shown, structured, caught, circular, error = lines
    assert (load["message"], "requestId" in load) == ("at load", False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown.pop("timestamp"))
    assert shown == {"level": "INFO", "requestId": outcome.request_id, "message": "shown ü"}
    assert structured["message"] == {"structured": True}
    assert (caught["errorType"], caught["errorMessage"]) == ("RangeError", "inner")
    assert caught["stackTrace"][0] == "RangeError: inner"
    assert "Circular" in circular["message"]
    assert (error["level"], error["errorType"], error["errorMessage"]) == ("ERROR", "TypeError", "no")


@pytest.mark.parametrize(("level", "count"), [("DEBUG", 7), ("WARN", 3), ("ERROR", 2), ("FATAL", 0)])
async def test_levels_of_node(node: Callable[..., Function], level: str, count: int) -> None:  # RT-55
    _, lines = await logged(node(NODE, logging=Logging(json=True, application=level)))
    assert len(lines) == count


async def test_what_handlers_are_told(write: Write) -> None:  # RT-21
    names = ("AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL", "AWS_LAMBDA_LOG_GROUP_NAME")
    code = f"import os, json\ndef handler(event, context):\n    print(json.dumps([os.environ.get(n) for n in {names}]))"
    for logging, expected in (
        (Logging(), [None, None, "/aws/lambda/worker"]),
        (Logging(json=True, application="WARN", group="/my/group"), ["JSON", "WARN", "/my/group"]),
    ):
        lines = Lines()
        async with running(write(code, logging=logging), output=lines) as executor:
            await executor.invoke(invocation())
        assert json.loads(lines.texts[0]) == expected
