"""What a replayed message costs: `bridge`'s loop against a serial loop of aiobotocore as it comes.

    python -m tests.bench.replay [--rounds 3] [--messages 10000]

Each empties the same queue of the stub server into another one: receive ten, send ten, delete ten; the bridge with its
journal on disk, as with `--rate 0 --concurrency 8`. Each runs in a process of its own on one core, the server on
another; they alternate. Prints medians of the messages per CPU second, and how much memory each took more at its end
than at its beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.server import BenchError, Server, pinned
from tests.bench.sqs import Cores

CONCURRENCY = 8
NAIVE, OURS = "serial aiobotocore loop", "bridge replay"
BODY = 256


class Figure(NamedTuple):
    """Of one run: messages per CPU second, and KiB that its peak was above its beginning."""

    per_cpu_second: float
    grown: int


async def naive(url: str, messages: int) -> None:
    """What everybody writes first."""
    from aiobotocore.session import get_session

    queue, target = f"{url}/000000000000/q0", f"{url}/000000000000/q1"
    async with get_session().create_client("sqs", endpoint_url=url) as client:
        left = messages
        while left:
            answer = await client.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1,
                AttributeNames=["All"], MessageAttributeNames=["All"],
            )  # fmt: skip
            found = answer.get("Messages", [])
            if not found:
                continue
            entries = [
                {"Id": str(n), "MessageBody": it["Body"], "MessageAttributes": it.get("MessageAttributes", {})}
                for n, it in enumerate(found)
            ]
            await client.send_message_batch(QueueUrl=target, Entries=entries)
            handles = [{"Id": str(n), "ReceiptHandle": it["ReceiptHandle"]} for n, it in enumerate(found)]
            await client.delete_message_batch(QueueUrl=queue, Entries=handles)
            left -= len(found)


async def ours(url: str, messages: int) -> None:
    """The product's own loop, as the command calls it, with no limit to its rate."""
    from bridge.aws import Aws
    from bridge.function import AwsSettings
    from bridge.replay.journal import Journal
    from bridge.replay.loop import replay
    from bridge.replay.plan import Plan
    from bridge.replay.queue import SqsShelf
    from bridge.replay.queues import find
    from bridge.replay.to_queue import QueueTarget

    async with Aws() as aws:
        settings = AwsSettings(endpoint_url=url)
        queue, target = await find(aws, settings, "q0"), await find(aws, settings, "q1")
        plan = Plan(rate=0, concurrency=CONCURRENCY, most=messages)
        with tempfile.TemporaryDirectory() as folder:
            async with Journal(Path(folder) / "journal.jsonl", queue.arn, run=plan.run) as journal:
                summary = await replay(plan, SqsShelf(queue), QueueTarget(target, queue), journal)
    if summary.deleted != messages:
        raise BenchError(f"not all is done: {summary}")


def candidate(name: str, url: str, messages: int) -> Figure:
    """Measured in this process."""
    loop = {NAIVE: naive, OURS: ours}[name]
    asyncio.run(loop(url, 500))  # imports and first uses do not count
    began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(loop(url, messages))
    return Figure(messages / (time.process_time() - began), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)


def run(name: str, messages: int, cores: Cores, body: int = BODY) -> Figure:
    """The same in a process of its own, with a server of its own."""
    keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    with Server(cores.server, queues=2, messages=messages + 500, visibility=120, body_size=body) as server:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.replay", "--candidate", name, server.url, str(messages)],
            env={**os.environ, **keys},
            stdout=subprocess.PIPE,
            check=True,
            preexec_fn=pinned(cores.candidate),
        )
        counted = server.stats()["messages"]
        if counted["deleted"] != messages + 500 or counted["in_flight"] or counted["duplicates"]:
            raise BenchError(f"not a clean run: {counted}")
    return Figure(*json.loads(done.stdout))


def measure(rounds: int, messages: int) -> dict[str, list[Figure]]:
    cores = Cores.apart()
    figures: dict[str, list[Figure]] = {NAIVE: [], OURS: []}
    for _ in range(rounds):
        for name, values in figures.items():  # alternating: whatever else the machine does meets both
            values.append(run(name, messages, cores))
    return figures


def table(figures: dict[str, list[Figure]]) -> str:
    """A line for each, with the ratio to the naive one."""
    base = statistics.median(it.per_cpu_second for it in figures[NAIVE])
    lines = [f"{'':<26}{'messages/CPU s':>16}{'min':>8}{'max':>8}{'more':>8}{'KiB grown':>12}"]
    for name, values in figures.items():
        speeds = [it.per_cpu_second for it in values]
        middle, grown = statistics.median(speeds), max(it.grown for it in values)
        ratio = f"{middle / base:.2f}x"
        lines.append(f"{name:<26}{middle:>16,.0f}{min(speeds):>8,.0f}{max(speeds):>8,.0f}{ratio:>8}{grown:>12,}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.replay", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--candidate", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate:
        name, url, messages = options.candidate
        print(json.dumps(candidate(name, url, int(messages))))
        return 0
    figures = measure(options.rounds, options.messages)
    print(f"receive, send and delete, {options.rounds} rounds of {options.messages} messages of {BODY} bytes")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
