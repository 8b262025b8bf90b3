"""Node.js handlers that stream their answers (RT-10), with our client and with AWS's own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from bridge.function import Function
from bridge.invocation import Failed, Outcome, Succeeded
from tests.conftest import missing
from tests.contracts.executor import answer, error, invocation
from tests.executors.surroundings import Lines, function, running

pytestmark = pytest.mark.anyio

Streams = Callable[..., Function]


@pytest.fixture(params=["ours", "aws-lambda-ric"])
def streams(request: pytest.FixtureRequest, tmp_path: Path) -> Streams:
    """A function whose streaming handler has this body, for each of the two clients."""
    return client(tmp_path, request.param)


@pytest.fixture
def ours(tmp_path: Path) -> Streams:
    return client(tmp_path, "ours")


def client(folder: Path, name: str) -> Streams:
    node = shutil.which("node")
    if node is None:
        missing("node")
    settings: dict[str, Any] = {"kind": "nodejs"}
    if name == "aws-lambda-ric":
        package = Path(os.environ.get("BRIDGE_NODE_MODULES", "/nowhere"), "aws-lambda-ric")
        if not (package / "rapid-client.node").is_file():
            missing("aws-lambda-ric")
        settings = {"kind": "provided", "command": (str(node), str(package / "index.mjs"), "app.handler")}

    def streams(body: str, options: str = "", **more: Any) -> Function:
        head = "import { pipeline } from 'node:stream/promises';\nimport { Readable } from 'node:stream';\n"
        head += "import { setTimeout as sleep } from 'node:timers/promises';\nlet calls = 0;\n"
        code = f"async (event, stream, context) => {{{body}}}{options}"
        code = f"export const handler = awslambda.streamifyResponse({code});"
        (folder / "app.mjs").write_text(head + dedent(code))
        return function("app.handler", code=folder, **settings, **more)

    return streams


async def invoked(function: Function, *events: Any, output: Lines | None = None) -> list[Outcome]:
    async with running(function, output=Lines() if output is None else output) as executor:
        return [await executor.invoke(invocation(event)) for event in events or (None,)]


async def test_what_is_written_is_the_answer(streams: Streams) -> None:
    body = """
        stream.setContentType('application/json');
        stream.write('[');
        await sleep(5);
        stream.write(Buffer.from('1,'));
        stream.write(String(event));
        stream.end(`,"${context.functionName}"]`);
    """
    assert [answer(outcome) for outcome in await invoked(streams(body), 2, 3)] == [[1, 2, "worker"], [1, 3, "worker"]]


async def test_a_pipeline_of_megabytes(streams: Streams) -> None:
    body = """
        const part = 'ü'.repeat(50_000);
        await pipeline(Readable.from(Array(60).fill(part)), stream);
    """
    (outcome,) = await invoked(streams(body, ", {highWaterMark: 1024}"))
    assert isinstance(outcome, Succeeded)
    assert outcome.payload.decode() == "ü" * 3_000_000


async def test_more_than_allowed_is_too_large_and_the_environment_goes_on(streams: Streams) -> None:  # RT-4
    body = """
        calls += 1;
        await pipeline(Readable.from(Array(event).fill('x'.repeat(1_000_000))), async function* (source) {
          for await (const part of source) yield part;
        }, stream);
    """
    large, fine = await invoked(streams(body, timeout=20.0), 8, 1)
    assert error(large)["errorType"] == "Function.ResponseSizeTooLarge"
    assert isinstance(fine, Succeeded)
    assert len(fine.payload) == 1_000_000


async def test_an_error_before_the_first_byte_is_an_ordinary_one(streams: Streams) -> None:
    (outcome,) = await invoked(streams("throw new RangeError('no');"))
    assert (error(outcome)["errorType"], error(outcome)["errorMessage"]) == ("RangeError", "no")


async def test_an_error_half_way_is_the_outcome(streams: Streams) -> None:
    body = (
        "if (!event) { stream.end('fine'); return; } stream.write('half'); await sleep(5); throw new RangeError('no');"
    )
    failed, fine = await invoked(streams(body), 1, 0)
    assert isinstance(failed, Failed)
    assert failed.kind == "function"
    assert (error(failed)["errorType"], error(failed)["errorMessage"]) == ("RangeError", "no")
    assert isinstance(fine, Succeeded)
    assert fine.payload == b"fine"  # by the same environment (RT-34)


async def test_the_prelude_of_an_answer_over_http(streams: Streams) -> None:
    body = """
        const http = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { 'x-a': 'b' } });
        http.write('body');
        http.end();
    """
    (outcome,) = await invoked(streams(body))
    assert isinstance(outcome, Succeeded)
    prelude, _, rest = outcome.payload.partition(b"\0" * 8)
    assert json.loads(prelude) == {"statusCode": 201, "headers": {"x-a": "b"}}
    assert rest == b"body"


async def test_what_it_returns_is_ignored_with_a_warning(streams: Streams) -> None:
    lines = Lines()
    (outcome,) = await invoked(streams("stream.end('written'); return 'returned';"), output=lines)
    assert isinstance(outcome, Succeeded)
    assert outcome.payload == b"written"
    assert any(text.endswith("Streaming handlers ignore return values.") for text in lines.texts)


# Ours alone: AWS's client leaves these to the platform's timeout, or to chance.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("stream.write({ a: [1] }); stream.end(7);", b'{"a":[1]}7'),
        ("stream.end();", b""),
        ("setTimeout(() => stream.end('later'), 5);", b"later"),
        ("stream.end('whole'); await sleep(5);", b"whole"),
        ("stream.write(''); stream.write(new Uint8Array(0)); stream.end('x');", b"x"),
        ("stream.write('a', 'utf8', () => stream.end('b', () => {}));", b"ab"),
        ("stream.cork(); stream.write('61', 'hex'); stream.uncork(); stream.end();", b"a"),
    ],
)
async def test_the_ways_to_write(ours: Streams, body: str, expected: bytes) -> None:
    outcomes = await invoked(ours(body), None, None)
    assert [outcome.payload for outcome in outcomes if isinstance(outcome, Succeeded)] == [expected] * 2


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("stream.write('half');", "Runtime.NodeJsExit", "The event loop is empty, and the response has not ended"),
        ("", "Runtime.NodeJsExit", "The event loop is empty, and the response has not ended"),
        ("stream.write('x'); stream.setContentType('a/b');", "Error", "Cannot set content-type, too late."),
        ("stream.end('x'); throw new RangeError('after');", "RangeError", "after"),
        ("stream.write('x'); setTimeout(() => { throw new RangeError('loose'); }, 1);", "RangeError", "loose"),
        ("stream.write('x'); Promise.reject(new RangeError('lost')); await sleep(9e4);",
         "Runtime.UnhandledPromiseRejection", "RangeError: lost"),
        ("stream.write('x'); const e = new Error('no'); e.name = 'A\\r\\nB: ü'; throw e;", "A\r\nB: ü", "no"),
    ],
)  # fmt: skip
async def test_the_ways_to_fail(ours: Streams, body: str, kind: str, message: str) -> None:
    failed, fine = await invoked(ours(f"if (event.fine) {{ stream.end('fine'); return; }} {body}"), {}, {"fine": 1})
    assert (error(failed)["errorType"], error(failed)["errorMessage"]) == (kind, message)
    assert isinstance(fine, Succeeded)
    assert fine.payload == b"fine"


async def test_an_exit_half_way_is_an_exit(ours: Streams) -> None:  # INV-24
    (outcome,) = await invoked(ours("stream.write('half'); await sleep(20); process.exit(3);"))
    assert error(outcome)["errorMessage"].endswith("Runtime exited with error: exit status 3")


async def test_a_handler_that_is_not_async_cannot_stream(tmp_path: Path, ours: Streams) -> None:
    worker = ours("")
    (tmp_path / "app.mjs").write_text("export const handler = awslambda.streamifyResponse(() => 1);")
    (outcome,) = await invoked(worker)
    assert error(outcome)["errorMessage"] == "Streaming does not support non-async handlers."
