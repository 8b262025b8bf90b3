"""What it costs to hand an event to a handler: our listener with our client, and an aiohttp.web server that speaks the
same protocol with the same client. The client is ours, or AWS's own awslambdaric, or ours for Node.js. Run it:
``python -m tests.bench.dispatch [--client python|awslambdaric|node] [--rounds N] [--seconds S] [--size BYTES]``.

Each round measures both, one after the other; medians and their ratio are printed. CPU is that of this process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bridge.executors import Surroundings
from bridge.executors.launch import command as command_of, variables
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.invocation import Invocation
from bridge.leash import Leash
from bridge.telemetry.logs import configure

CLIENTS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "python": ("python", "app.py", "def handler(event, context):\n    return {'batchItemFailures': []}\n", ()),
    "awslambdaric": (
        "provided",
        "app.py",
        "def handler(event, context):\n    return {'batchItemFailures': []}\n",
        (sys.executable, "-m", "awslambdaric", "app.handler"),
    ),
    "node": ("nodejs", "app.mjs", "export const handler = async () => ({ batchItemFailures: [] });\n", ()),
}
"""Kind, file, code and command of the function that each of them runs."""


class Figures(NamedTuple):
    """Of one run: invocations per second, seconds of latency, seconds of this process's CPU per invocation."""

    rate: float
    p50: float
    p99: float
    cpu: float


def event(records: int, size: int) -> bytes:
    """An SQS event."""
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
    return json.dumps({"Records": [record] * records}, separators=(",", ":")).encode()


async def measure(invoke: Callable[[bytes, str], Awaitable[Any]], payload: bytes, seconds: float) -> Figures:
    """One caller, one invocation after the other."""
    ids = [str(uuid.uuid4()) for _ in range(64)]
    for request_id in ids:
        await invoke(payload, request_id)
    taken: list[float] = []
    cpu, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for request_id in ids:
            start = time.perf_counter()
            await invoke(payload, request_id)
            taken.append(time.perf_counter() - start)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
    taken.sort()
    count = len(taken)
    return Figures(count / wall, taken[count // 2], taken[count * 99 // 100], cpu / count)


@asynccontextmanager
async def ours(function: Function) -> Any:
    async with Leash() as leash, ProcessExecutor(function, Surroundings(leash)) as executor:

        async def invoke(payload: bytes, request_id: str) -> Any:
            return await executor.invoke(Invocation(payload, request_id))

        yield invoke


@asynccontextmanager
async def aiohttp_web(function: Function) -> Any:
    """The protocol and nothing else: no timeouts, no output, no error handling."""
    from aiohttp import web

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

    async def invoke(payload: bytes, request_id: str) -> Any:
        events.put_nowait((payload, request_id))
        return await answers.get()

    try:
        yield invoke
    finally:
        child.kill()
        child.wait()
        await runner.cleanup()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--client", choices=CLIENTS, default="python")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--records", type=int, default=10)
    options.add_argument("--size", type=int, default=256, help="bytes of a body")
    given = options.parse_args()
    configure("info")
    payload = event(given.records, given.size)
    rounds: dict[str, list[Figures]] = {"ours": [], "aiohttp.web": []}
    kind, file, code, command = CLIENTS[given.client]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, file).write_text(code)
        function = Function(
            name="bench",
            arn="arn:aws:lambda:eu-west-1:123456789012:function:bench",
            kind=kind,
            handler="app.handler",
            code=Path(folder),
            command=command,
        )

        async def one(server: Any) -> Figures:
            async with server(function) as invoke:
                return await measure(invoke, payload, given.seconds)

        for _ in range(given.rounds):
            rounds["ours"].append(asyncio.run(one(ours)))
            rounds["aiohttp.web"].append(asyncio.run(one(aiohttp_web)))
    print(
        f"{given.client}, one environment, {given.records} records, {len(payload)} bytes, {os.cpu_count()} cores; "
        f"medians of {given.rounds}"
    )
    medians = {name: Figures(*map(statistics.median, zip(*figures, strict=True))) for name, figures in rounds.items()}
    for name, figures in medians.items():
        print(
            f"{name:12} {figures.rate:7.0f} inv/s   p50 {figures.p50 * 1e3:.3f} ms   p99 {figures.p99 * 1e3:.3f} ms   "
            f"parent CPU {figures.cpu * 1e3:.3f} ms/inv"
        )
    own, peer = medians["ours"], medians["aiohttp.web"]
    print(f"ours / aiohttp.web: {own.rate / peer.rate:.2f}x invocations/s, {peer.cpu / own.cpu:.2f}x less CPU")


if __name__ == "__main__":
    main()
