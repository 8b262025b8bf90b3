"""Three ways to hand an event to a handler in a process of its own, and the figures of each: our executor, an
aiohttp.web server of the same protocol with the same client, and the obvious worker at the other end of a socket pair.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

from bridge.executors import Surroundings
from bridge.executors.launch import command as command_of, variables
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.invocation import Invocation, Succeeded
from bridge.leash import Leash
from bridge.record import Batch, Record
from bridge.sources.payload import records_event
from tests.bench.naive import Worker
from tests.bench.turns import TurnsLoop

Invoke = Callable[[str], Awaitable[Any]]
"""One invocation, by its request id."""
Dispatcher = Callable[[Function, list[dict[str, Any]]], AbstractAsyncContextManager[Invoke]]
"""Stands ready to hand these records to that function, as one event."""

PYTHON = ("app.py", "def handler(event, context):\n    return {'batchItemFailures': []}\n")
NODE = ("app.mjs", "export const handler = async () => ({ batchItemFailures: [] });\n")
WARM_UP = 64
"""Invocations that do not count."""


class Client(NamedTuple):
    """What asks for events and runs the handler."""

    kind: str
    code: tuple[str, str]
    command: tuple[str, ...] = ()
    absent: str = ""

    def function(self, folder: Path) -> Function:
        """One with such a handler, in this empty folder."""
        name, code = self.code
        (folder / name).write_text(code)
        return Function(
            name="bench",
            arn="arn:aws:lambda:eu-west-1:123456789012:function:bench",
            kind=self.kind,
            handler="app.handler",
            code=folder,
            command=self.command,
            timeout=30.0,
            memory=1024,
        )


CLIENTS: Mapping[str, Client] = {
    "python": Client("python", PYTHON),
    "awslambdaric": Client(
        "provided",
        PYTHON,
        (sys.executable, "-m", "awslambdaric", "app.handler"),
        absent="" if find_spec("awslambdaric") else "awslambdaric is not installed",
    ),
    "node": Client("nodejs", NODE, absent="" if which("node") else "node is not installed"),
}


class Figures(NamedTuple):
    """Of one run: invocations per second, seconds of latency, of this process's CPU per invocation, and of the longest
    turn of its loop, where the loop counts them."""

    rate: float
    p50: float
    p99: float
    cpu: float
    turn: float


def records(count: int, size: int) -> list[dict[str, Any]]:
    """Of an SQS event, with bodies of ``size`` bytes."""
    record = {
        "messageId": str(uuid.UUID(int=1)),
        "receiptHandle": "A" * 300,
        "body": "b" * size,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1700000000000",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1700000000001",
        },
        "messageAttributes": {},
        "md5OfBody": "0" * 32,
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:orders",
        "awsRegion": "eu-west-1",
    }
    return [record] * count


def event(found: list[dict[str, Any]]) -> Callable[[], bytes]:
    """Makes the event as the bridge does: of records that have been JSON since they were received."""
    encoded = [json.dumps(record, separators=(",", ":")).encode() for record in found]
    batch = Batch(tuple(Record(str(n), text, 0.0) for n, text in enumerate(encoded)), "", "size")
    return lambda: records_event(batch, {})


async def measure(invoke: Invoke, seconds: float) -> Figures:
    """One caller, one invocation after the other."""
    loop = asyncio.get_running_loop()
    ids = [str(uuid.uuid4()) for _ in range(WARM_UP)]
    began = time.perf_counter()
    for request_id in ids:
        await invoke(request_id)
        if time.perf_counter() - began > seconds:
            break
    if isinstance(loop, TurnsLoop):
        loop.forget()
    taken: list[float] = []
    cpu, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        await invoke(ids[len(taken) % WARM_UP])
        taken.append(time.perf_counter() - start)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
    taken.sort()
    count = len(taken)
    turn = loop.longest if isinstance(loop, TurnsLoop) else 0.0
    return Figures(count / wall, taken[count // 2], taken[count * 99 // 100], cpu / count, turn)


@asynccontextmanager
async def ours(function: Function, found: list[dict[str, Any]]) -> AsyncIterator[Invoke]:
    make = event(found)
    async with Leash() as leash, ProcessExecutor(function, Surroundings(leash)) as executor:

        async def invoke(request_id: str) -> None:
            outcome = await executor.invoke(Invocation(make(), request_id))
            assert isinstance(outcome, Succeeded), outcome

        yield invoke


@asynccontextmanager
async def aiohttp_web(function: Function, found: list[dict[str, Any]]) -> AsyncIterator[Invoke]:
    """The protocol and nothing else: no timeouts, no output, no error handling."""
    from aiohttp import web

    make = event(found)
    events: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def next_event(_request: web.Request) -> web.Response:
        payload, request_id = await events.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + 3) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": function.arn,
        }
        return web.Response(body=payload, content_type="application/json", headers=headers)

    async def response(request: web.Request) -> web.Response:
        answers.put_nowait(await request.read())
        return web.Response(status=202, body=b'{"status":"OK"}', content_type="application/json")

    application = web.Application(client_max_size=7_000_000)
    application.router.add_get("/2018-06-01/runtime/invocation/next", next_event)
    application.router.add_post("/2018-06-01/runtime/invocation/{id}/response", response)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    child = subprocess.Popen(
        command_of(function), cwd=function.code, env=variables(function, function.code, {}, address)
    )

    async def invoke(request_id: str) -> None:
        events.put_nowait((make(), request_id))
        await answers.get()

    try:
        yield invoke
    finally:
        child.kill()
        child.wait()
        await runner.cleanup()


@asynccontextmanager
async def naive(function: Function, found: list[dict[str, Any]]) -> AsyncIterator[Invoke]:
    """Python alone: the whole event through the json module, each time, on both sides."""
    worker = Worker.start(str(function.code / PYTHON[0]))
    await worker.connect()

    async def invoke(_request_id: str) -> None:
        await worker.invoke({"Records": found})

    try:
        yield invoke
    finally:
        worker.end()


DISPATCHERS: Mapping[str, Dispatcher] = {"ours": ours, "aiohttp.web": aiohttp_web, "naive": naive}


def run(name: str, function: Function, found: list[dict[str, Any]], seconds: float, *, turns: bool = False) -> Figures:
    """One measurement, in a loop of its own; ``turns``: which counts them."""

    async def one() -> Figures:
        async with DISPATCHERS[name](function, found) as invoke:
            return await measure(invoke, seconds)

    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=TurnsLoop if turns else None) as runner:
        return runner.run(one())
    raise SystemExit(130)
