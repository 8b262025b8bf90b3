"""What a request to SQS costs: the SDK as it comes, the bridge's border by the SDK, and by its fast client.

    python -m tests.bench.client [--rounds 5] [--requests 4000]

Eight tasks receive ten messages and delete them, again and again, each client in a process of its own on one core, the
stub server on another; the clients alternate. Prints medians of the CPU time per request.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.bench.server import BenchError, Server, pinned
from tests.bench.sqs import Cores

TASKS = 8
WARM_UP = 400
RECEIVE = {
    "MaxNumberOfMessages": 10,
    "WaitTimeSeconds": 20,
    "AttributeNames": ["All"],
    "MessageAttributeNames": ["All"],
    "MessageSystemAttributeNames": ["All"],
}
SDK_ALONE = "aiobotocore as it comes"
NAMES = {SDK_ALONE: "none", "bridge, aws.client: sdk": "sdk", "bridge, aws.client: fast": "fast"}
"""The candidates, and what each calls its client."""

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def caller(client: str, url: str) -> AsyncIterator[Call]:
    """How this candidate calls an operation."""
    if client == "none":
        from aiobotocore.session import get_session

        async with get_session().create_client("sqs", endpoint_url=url) as sqs:
            names = {operation: getattr(sqs, name) for name, operation in sqs.meta.method_to_api_mapping.items()}
            yield lambda operation, params: names[operation](**params)
        return
    from bridge.aws import Aws
    from bridge.function import AwsSettings
    from bridge.telemetry.metrics import Metrics

    async with Aws(Metrics().api_meter()) as aws:
        api = await aws.api("sqs", AwsSettings(endpoint_url=url, client="fast" if client == "fast" else "sdk"))
        yield lambda operation, params: api.call(operation, params, timeout=30)


async def work(call: Call, url: str, requests: int) -> None:
    """So many requests, half of them receives."""
    queue = f"{url}/000000000000/q0"
    left = requests // 2

    async def one() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            messages = (await call("ReceiveMessage", {"QueueUrl": queue, **RECEIVE}))["Messages"]
            entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
            await call("DeleteMessageBatch", {"QueueUrl": queue, "Entries": entries})

    async with asyncio.TaskGroup() as tasks:
        for _ in range(TASKS):
            tasks.create_task(one())


async def candidate(client: str, url: str, requests: int) -> float:
    """Milliseconds of CPU per request, in this process."""
    async with caller(client, url) as call:
        await work(call, url, WARM_UP)
        before = time.process_time()
        await work(call, url, requests)
        return (time.process_time() - before) * 1000 / requests


def run(client: str, requests: int, cores: Cores) -> float:
    """The same in a process of its own, with a server of its own."""
    keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    with Server(cores.server, messages=(requests + WARM_UP) * 5) as server:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.client", "--candidate", client, server.url, str(requests)],
            env={**os.environ, **keys},
            stdout=subprocess.PIPE,
            check=True,
            preexec_fn=pinned(cores.candidate),
        )
        counted = server.stats()["messages"]
        if counted["remaining"] or counted["in_flight"]:
            raise BenchError(f"not a clean run: {counted}")
    return float(done.stdout)


def measure(rounds: int, requests: int) -> dict[str, list[float]]:
    """Milliseconds of CPU per request, by candidate, one per round."""
    cores = Cores.apart()
    figures: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        for name, client in NAMES.items():  # alternating: whatever else the machine does meets all of them
            figures[name].append(run(client, requests, cores))
    return figures


def table(figures: dict[str, list[float]]) -> str:
    base = statistics.median(figures[SDK_ALONE])
    lines = [f"{'':<28}{'CPU ms/request':>16}{'min':>8}{'max':>8}{'less':>8}"]
    for name, values in figures.items():
        middle = statistics.median(values)
        lines.append(f"{name:<28}{middle:>16.3f}{min(values):>8.3f}{max(values):>8.3f}{base / middle:>7.2f}x")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.client", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--candidate", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate:
        client, url, requests = options.candidate
        print(asyncio.run(candidate(client, url, int(requests))))
        return 0
    figures = measure(options.rounds, options.requests)
    print(f"receive(10) and delete(10), {TASKS} tasks, {options.rounds} rounds of {options.requests} requests")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
