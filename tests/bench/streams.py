"""Figures of streams: the bridge against the naive loop, and async-kinesis where it is installed, on the stub server,
alternating in one run.

    python -m tests.bench.streams [--rounds 3] [--records 20000] [--quick]

Exit status 1: a run was not clean (records missing or handed out twice), or the naive loop was better.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.bench.candidates import HANDLERS, Candidate, Running
from tests.bench.naive_streams import ARNS
from tests.bench.server import POLL, BenchError, Server, free_port
from tests.bench.sqs import Cores, Folders, say

SPLIT = "arn:aws:kinesis:us-east-1:000000000000:stream/split"
SHARDS = 4
WARM_UP = 500
"""Records of each shard before anything is counted."""
BATCHES = (100, 1000)
RATE = 2
"""Records a second and shard, of the latency run."""


class Plan(NamedTuple):
    """How long everything takes; seconds, and records of each shard."""

    rounds: int
    records: int
    latency: float
    idle: float
    resharding: float


FULL = Plan(rounds=3, records=20_000, latency=60, idle=30, resharding=20)
QUICK = Plan(rounds=1, records=5_000, latency=8, idle=6, resharding=8)


def seen_file(folder: Path) -> Path:
    return folder / "seen"


def bridge(arn: str, size: int) -> Candidate:
    def command(server: Server, folder: Path) -> list[str]:
        config = {
            "state": f"sqlite:///{folder}/state.db",
            "admin": {"listen": f"127.0.0.1:{free_port()}"},
            "functions": {
                "seen": {
                    "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
                    "Handler": "seen.handler",
                    "CodeUri": str(HANDLERS),
                    "Timeout": 30,
                    "Environment": {"Variables": {"SEEN": str(seen_file(folder))}},
                }
            },
            "mappings": {
                "records": {
                    "FunctionName": "seen",
                    "EventSourceArn": arn,
                    "StartingPosition": "TRIM_HORIZON",
                    "BatchSize": size,
                }
            },
        }
        path = folder / "bridge.yaml"
        path.write_text(yaml.safe_dump(config))
        return [sys.executable, "-m", "bridge", "run", "-c", str(path)]

    return Candidate("bridge", "bridge run, Python handler in its own processes, positions in SQLite", command)


def naive(kind: str, size: int) -> Candidate:
    def command(server: Server, folder: Path) -> list[str]:
        words = [sys.executable, "-m", "tests.bench.naive_streams", kind, str(size), str(HANDLERS / "seen.py")]
        return ["env", f"SEEN={seen_file(folder)}", *words]

    return Candidate("naive", "aiobotocore as it comes, a task per shard, 4 worker processes, no positions", command)


def peer(size: int) -> Candidate:
    def command(server: Server, folder: Path) -> list[str]:
        return ["env", f"SEEN={seen_file(folder)}", sys.executable, "-m", "tests.bench.async_kinesis", str(size)]

    return Candidate("async-kinesis", "its Consumer, records one by one, handler in the process", command)


def candidates(kind: str, size: int) -> list[Candidate]:
    """The bridge is the first."""
    found = [bridge(ARNS[kind], size), naive(kind, size)]
    if kind == "kinesis" and find_spec("kinesis") is not None:
        found.append(peer(size))
    return found


class Seen(NamedTuple):
    """One invocation."""

    records: int
    late: float
    """Seconds after its first record had been put, and after its last one had."""
    least_late: float
    at: float


def seen(folder: Path) -> list[Seen]:
    path = seen_file(folder)
    lines = path.read_text().splitlines() if path.exists() else []
    return [Seen(int(count), *map(float, times)) for count, *times in map(str.split, lines)]


def wait_for(what: str, condition: Callable[[], bool], running: Running, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not condition():
        running.cpu()  # or says how it ended
        if time.monotonic() > deadline:
            raise BenchError(f"waited {within:g} s for {what}")
        time.sleep(POLL)


# Throughput.


class Throughput(NamedTuple):
    """Records per CPU second (alone, and with children), and per second."""

    alone: float
    family: float
    per_second: float


def measure_throughput(candidate: Candidate, cores: Cores, records: int, folder: Path) -> Throughput:
    with (
        Server(cores.server, shards=SHARDS, records=WARM_UP) as server,
        Running(candidate, server, folder, cores.candidate) as running,
    ):

        def came(count: int) -> Callable[[], bool]:
            return lambda: sum(it.records for it in seen(folder)) >= count

        wait_for(f"{candidate.name} to warm up", came(SHARDS * WARM_UP), running)
        before, warm = running.cpu(), len(seen(folder))
        server.control(f"/reset?records={WARM_UP + records}")
        total = SHARDS * (WARM_UP + records)
        wait_for(f"{candidate.name} to read all", came(total), running, within=records / 50)
        used, found = running.cpu().since(before), seen(folder)
        if sum(it.records for it in found) != total:
            raise BenchError(f"not a clean run: {total} records, and {sum(it.records for it in found)} came")
    count = SHARDS * records
    seconds = found[-1].at - found[warm].at  # from the first batch on: when an idle shard is looked at is chance
    return Throughput(count / used.alone, count / used.family, count / seconds)


def throughput(plan: Plan, folders: Folders, kind: str) -> bool:
    """Whether the bridge is better than the naive loop."""
    cores = Cores.apart()
    better = True
    for size in BATCHES:
        compared = candidates(kind, size)
        found: dict[str, list[Throughput]] = {candidate.name: [] for candidate in compared}
        for number in range(plan.rounds):
            for candidate in compared:
                say(f"{TITLES[kind]}, batches of {size}, round {number + 1} of {plan.rounds}: {candidate.name}")
                found[candidate.name].append(measure_throughput(candidate, cores, plan.records, folders.fresh()))
        print(f"{TITLES[kind]}: {SHARDS} shards of {plan.records} records of 256 bytes, batches of {size}:")
        for name in Throughput._fields:
            figures = {who: statistics.median(getattr(it, name) for it in runs) for who, runs in found.items()}
            mine = figures.pop("bridge")
            others = "".join(f"  {who} {it:>9,.0f}  {mine / it:.2f}x" for who, it in figures.items())
            print(f"  records per {_LABELS[name]:34} {mine:>9,.0f}{others}")
            better = better and (name == "per_second" or mine > figures["naive"])
    return better


TITLES = {"kinesis": "Kinesis", "dynamodb": "DynamoDB Streams"}
_LABELS = {"alone": "CPU second, the process alone", "family": "CPU second, with its handlers", "per_second": "second"}


# Idle shards, latency, resharding.


def idle(plan: Plan, folders: Folders, shards: int = 1000) -> None:
    folder = folders.fresh()
    with Server(shards=shards, records=0) as server, Running(bridge(ARNS["kinesis"], 100), server, folder) as running:

        def gets() -> int:
            return int(server.stats()["requests"].get("kinesis.GetRecords", 0))

        wait_for("every shard to be read", lambda: gets() >= 2 * shards, running)
        before, asked, started = running.cpu(), gets(), time.monotonic()
        time.sleep(plan.idle)
        used, seconds = running.cpu().since(before), time.monotonic() - started
        polls = (gets() - asked) / seconds
        memory = running.memory()
    print(
        f"{shards} idle shards: {used.family / seconds:.0%} of a core, {memory >> 20} MiB, {polls:.0f} reads a second"
    )


def latency(plan: Plan, folders: Folders) -> None:
    """The first and the last record of each batch: an idle shard is looked at once a second (KIN-20)."""
    count = int(RATE * (plan.latency + 60))
    for candidate in (bridge(ARNS["kinesis"], 100), naive("kinesis", 100)):
        folder = folders.fresh()
        with (
            Server(shards=SHARDS, records=count, record_rate=RATE) as server,
            Running(candidate, server, folder) as running,
        ):
            wait_for("the first records", lambda: bool(seen(folder)), running)  # noqa: B023 - it is called in here
            early = len(seen(folder))
            time.sleep(plan.latency)
            found = seen(folder)[early:]
        times = [late for it in found for late in ((it.late, it.least_late) if it.records > 1 else (it.late,))]
        late = sorted((it - 1 / RATE) * 1000 for it in times)  # the stub stamps each so long before it gives it
        p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
        what = f"{candidate.name}, put to handler at {RATE} records a second and shard"
        print(f"{what}: p50 {p50:.0f} ms, p99 {p99:.0f} ms ({len(late)} records)")


class Elsewhere(Server):
    """A server that somebody else runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        return self._url


def resharding(plan: Plan, folders: Folders) -> None:
    """A record of one key every 50 ms; in the middle its shard is split."""
    from tests.servers import kinesis_local, node_modules

    if not (node_modules() / "kinesis-local").exists():
        print("a split: not measured, kinesis-local is not installed")
        return
    folder = folders.fresh()
    with kinesis_local() as server:
        api = server.client("kinesis", region="us-east-1", account="000000000000")
        api.create_stream(StreamName="split", ShardCount=1)
        wait_for_active(api)
        with Running(bridge(SPLIT, 100), Elsewhere(server.url), folder) as running:
            api.put_record(StreamName="split", PartitionKey="one", Data=b"first")
            wait_for("the first record", lambda: bool(seen(folder)), running)
            put, split_at = 1, 0.0
            began = time.monotonic()
            while time.monotonic() - began < plan.resharding:
                if not split_at and time.monotonic() - began > plan.resharding / 2:
                    split_at = time.time()
                    split(api)
                api.put_record(StreamName="split", PartitionKey="one", Data=b"more")
                put += 1
                time.sleep(0.05)
            wait_for("all records", lambda: sum(it.records for it in seen(folder)) >= put, running)
            found = seen(folder)
    before = [it.late for it in found[1:] if it.at < split_at]
    after = [it.late for it in found if it.at >= split_at]
    usual = statistics.median(before)
    print(
        f"a split: a batch came after {max(after):.2f} s at most; before it {usual:.2f} s, {max(before):.2f} s at most"
    )


def wait_for_active(api: Any) -> None:
    deadline = time.monotonic() + 10
    while api.describe_stream_summary(StreamName="split")["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
        if time.monotonic() > deadline:
            raise BenchError("the stream does not become active")
        time.sleep(POLL)


def split(api: Any) -> None:
    (shard,) = api.list_shards(StreamName="split")["Shards"]
    api.split_shard(StreamName="split", ShardToSplit=shard["ShardId"], NewStartingHashKey=str(1 << 127))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.streams", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--rounds", type=int, help="rounds of the throughput measurement")
    parser.add_argument("--records", type=int, help="records in each of the shards")
    parser.add_argument("--quick", action="store_true", help="short runs, less than a minute")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    plan = plan._replace(rounds=options.rounds or plan.rounds, records=options.records or plan.records)
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as top:
        folders = Folders(top)
        try:
            better = [throughput(plan, folders, kind) for kind in ("kinesis", "dynamodb")]
            idle(plan, folders)
            latency(plan, folders)
            resharding(plan, folders)
        except BenchError as error:
            say(f"bench: {error}")
            return 1
    if not all(better):
        say("bench: the naive loop is better")
    return 0 if all(better) else 1


if __name__ == "__main__":
    sys.exit(main())
