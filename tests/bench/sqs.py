"""SQS figures: the bridge against the naive loop and against npm `sqs-consumer`, alternating in one run.

    python -m tests.bench.sqs [--rounds 3] [--messages 20000] [--quick] [--only NAME …]

Exit status 1: a run was not clean (a message lost, delivered twice or left in flight): its figures do not count.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.bench.candidates import BRIDGE, NAIVE, PEER, Candidate, Running, why_absent
from tests.bench.report import Figures, Idle, Latency, Throughput, table
from tests.bench.server import BenchError, Server, drained, reject_unclean

WARM_UP = 2000
RATE = 20


class Plan(NamedTuple):
    """How long everything takes; seconds."""

    rounds: int
    messages: int
    latency: float
    idle_quiet: float
    idle: float


FULL = Plan(rounds=3, messages=20_000, latency=20, idle_quiet=120, idle=120)
QUICK = Plan(rounds=3, messages=5_000, latency=10, idle_quiet=65, idle=40)


class Cores(NamedTuple):
    """Where the server and the candidate run; none: wherever the kernel puts them."""

    server: int | None
    candidate: int | None

    @classmethod
    def apart(cls) -> Cores:
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[1]) if len(usable) > 1 else cls(None, None)


def measure_throughput(candidate: Candidate, cores: Cores, messages: int, folder: Path) -> Throughput:
    """A backlog of ``messages``, after a warm-up that has every poller, connection and worker running."""
    with Server(cores.server) as server, Running(candidate, server, folder, cores.candidate) as running:
        running.wait_until_polling()
        server.fill(WARM_UP)
        server.wait_for(f"{candidate.name} to warm up", drained, within=60)
        server.clear()
        before, started = running.cpu(), time.monotonic()
        server.fill(messages)
        stats = server.wait_for(f"{candidate.name} to empty the queue", drained, within=messages / 50)
        seconds, used = time.monotonic() - started, running.cpu().since(before)
        reject_unclean(stats)
    requests = sum(stats["requests"].values())
    return Throughput(messages / used.alone, messages / used.family, messages / seconds, requests * 1000 / messages)


def measure_latency(candidate: Candidate, cores: Cores, seconds: float, folder: Path) -> Latency:
    """Single arrivals at ``RATE`` a second: how long from a message's arrival to its deletion, and at which cost."""
    with Server(cores.server) as server, Running(candidate, server, folder, cores.candidate) as running:
        running.wait_until_polling()
        server.fill(WARM_UP)
        server.wait_for(f"{candidate.name} to warm up", drained, within=60)
        server.restart(RATE)
        deleted = RATE * 3
        server.wait_for("the first seconds", lambda stats: stats["messages"]["deleted"] >= deleted, within=60)
        server.clear()
        before = running.cpu()
        wanted = deleted + RATE * seconds
        server.wait_for("the traffic", lambda stats: stats["messages"]["deleted"] >= wanted, within=seconds * 3 + 30)
        used, requests = running.cpu().since(before), sum(server.stats()["requests"].values())
        server.stop_traffic()
        stats = server.wait_for("the last messages", drained, within=60)
        reject_unclean(stats)
    spans = stats["latency_ms"]["enqueue_to_delete"]
    return Latency(spans["p50"], spans["p99"], requests * 1000 / (RATE * seconds), used.family / seconds)


class Idling:
    """A candidate on a queue that stays empty after one burst, while other things are measured."""

    def __init__(self, candidate: Candidate, folder: Path, stack: ExitStack) -> None:
        self.name = candidate.name
        self._server = stack.enter_context(Server())
        self._running = stack.enter_context(Running(candidate, self._server, folder))
        self._running.wait_until_polling()
        self._server.fill(WARM_UP)
        self._server.wait_for(f"{candidate.name} to take the burst", drained, within=120)
        self._quiet_since = time.monotonic()

    def start(self, quiet: float) -> None:
        """Counts from now on, or from when ``quiet`` seconds have passed since the burst."""
        time.sleep(max(0.0, self._quiet_since + quiet - time.monotonic()))
        self._server.clear()
        self._started = time.monotonic()
        self._before = self._running.cpu()

    def stop(self, seconds: float) -> Idle:
        time.sleep(max(0.0, self._started + seconds - time.monotonic()))
        used, stats = self._running.cpu().since(self._before), self._server.stats()
        reject_unclean(stats)
        quiet = self._started - self._quiet_since
        return Idle(sum(stats["requests"].values()), quiet, seconds, used.family / seconds)


class Folders:
    """A fresh folder for every run, below one that goes away at the end."""

    def __init__(self, top: str) -> None:
        self._names: Iterator[Path] = (Path(top, str(number)) for number in range(1_000_000))

    def fresh(self) -> Path:
        return next(self._names)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(candidates: list[Candidate], plan: Plan, folders: Folders) -> list[Figures]:
    figures = {candidate.name: Figures(candidate.name) for candidate in candidates}
    with ExitStack() as stack:
        idling = [Idling(candidate, folders.fresh(), stack) for candidate in candidates]  # costs the others nothing
        measure_work(figures, candidates, plan, folders)
        say(f"idle, all at once, each with a server of its own: {plan.idle:g} s")
        for idle in idling:
            idle.start(plan.idle_quiet)
        for idle in idling:
            figures[idle.name].idle = idle.stop(plan.idle)
    return list(figures.values())


def measure_work(figures: dict[str, Figures], candidates: list[Candidate], plan: Plan, folders: Folders) -> None:
    cores = Cores.apart()
    for number in range(plan.rounds):
        for candidate in candidates:  # alternating: whatever else the machine does meets all of them
            say(f"backlog, round {number + 1} of {plan.rounds}: {candidate.name}")
            found = measure_throughput(candidate, cores, plan.messages, folders.fresh())
            figures[candidate.name].throughput.append(found)
    for candidate in candidates:
        say(f"{RATE} messages a second: {candidate.name}")
        figures[candidate.name].latency = measure_latency(candidate, cores, plan.latency, folders.fresh())


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sqs", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, help="rounds of the backlog measurement")
    parser.add_argument("--messages", type=int, help="messages in each backlog")
    parser.add_argument("--quick", action="store_true", help="short runs, about two minutes")
    parser.add_argument("--only", nargs="+", choices=["bridge", "naive", "sqs-consumer"], help="leave out the others")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    plan = QUICK if options.quick else FULL
    plan = plan._replace(rounds=options.rounds or plan.rounds, messages=options.messages or plan.messages)
    wanted = [c for c in (BRIDGE, NAIVE, PEER) if not options.only or c.name in options.only]
    present = [candidate for candidate in wanted if why_absent(candidate) is None]
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as top:
        try:
            figures = measure(present, plan, Folders(top))
        except BenchError as error:
            say(f"bench: {error}")
            return 1
    apart = Cores.apart().candidate is not None
    pinning = "server and candidate on a core each" if apart else "server and candidate on one core"
    print(f"SQS, {plan.rounds} rounds of {plan.messages} messages of 256 bytes, batches of 10, {pinning}")
    for candidate in wanted:
        print(f"  {candidate.name}: {why_absent(candidate) or candidate.what}")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
