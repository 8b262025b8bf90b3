"""What traces cost: the same daemon with and without them, alternating in one run; and what is called when off.

    python -m tests.bench.traces [--rounds 3] [--messages 20000] [--quick]

Exit status 1: what is called when they are off costs more than GOAL.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import timeit
from pathlib import Path

from bridge.invocation import Succeeded
from bridge.pipeline.verdict import Verdict
from bridge.record import Batch, Page, Record
from bridge.telemetry.spans import NO_SPAN, NO_SPANS
from tests.bench.candidates import BRIDGE, Candidate
from tests.bench.report import Throughput
from tests.bench.server import BenchError, Server
from tests.bench.sqs import Cores, Folders, measure_throughput, say
from tests.otlp import receiver

BATCH = 10
GOAL = 0.01
"""Of a batch's CPU time in the daemon: the most that the calls may cost when traces are off."""


def traced(url: str) -> Candidate:
    def command(server: Server, folder: Path) -> list[str]:
        return ["env", f"OTEL_EXPORTER_OTLP_ENDPOINT={url}", *BRIDGE.command(server, folder)]

    return Candidate("on", "the same with traces, every batch sampled, to a collector on this machine", command)


def calls_when_off() -> float:
    """Nanoseconds of what a batch calls of the spans when there are none."""
    records = tuple(Record(id=str(number), json=b"{}", arrived_at=0.0) for number in range(BATCH))
    batch, page = Batch(records, "q0", "size"), Page(records)
    outcome, verdict = Succeeded(b"", ""), Verdict(done=records)

    def once() -> None:
        with NO_SPANS.receive("q0") as received:
            pass
        received.gave(page)
        with NO_SPANS.process("q0", batch, "", (NO_SPAN for _ in records)) as span:
            span.header("")
            span.ended(outcome, verdict)
        with NO_SPANS.settle("q0", records, span):
            pass
        with NO_SPANS.delete("q0", ((record.id, None) for record in records)) as request:
            request.refused([])

    number = 100_000
    return min(timeit.repeat(once, number=number, repeat=5)) / number * 1e9


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.traces", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="two rounds of 5000 messages")
    options = parser.parse_args(arguments)
    rounds, messages = (2, 5_000) if options.quick else (options.rounds, options.messages)
    figures: dict[str, list[Throughput]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as top, receiver() as collector:
        folders, cores = Folders(top), Cores.apart()
        off = Candidate("off", BRIDGE.what, BRIDGE.command)
        try:
            for number in range(rounds):
                for candidate in (off, traced(collector.url)):
                    say(f"backlog, round {number + 1} of {rounds}: traces {candidate.name}")
                    figures[candidate.name].append(measure_throughput(candidate, cores, messages, folders.fresh()))
        except BenchError as error:
            say(f"bench: {error}")
            return 1
        spans = len(collector.spans())
    print(f"traces, {rounds} rounds of {messages} messages, batches of {BATCH}")
    cost = {name: 1e6 / statistics.median(it.per_cpu_second for it in found) for name, found in figures.items()}
    for name, microseconds in cost.items():
        print(f"  {name:>3}: {microseconds:.1f} us of the daemon's CPU a message")
    print(f"  on costs {(cost['on'] - cost['off']) * BATCH:.0f} us a batch; {spans} spans came")
    calls = calls_when_off()
    share = calls / (cost["off"] * BATCH * 1000)
    print(f"  off costs {calls:.0f} ns a batch in calls that do nothing: {share:.2%} (goal: at most {GOAL:.0%})")
    return int(share > GOAL)


if __name__ == "__main__":
    sys.exit(main())
