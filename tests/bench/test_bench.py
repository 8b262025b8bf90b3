"""The bench measures what it says: CPU of whole families, clean runs alone, ratios of medians."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import stream_events
from tests.bench.candidates import BRIDGE, NAIVE, Candidate
from tests.bench.cpu import cpu_of
from tests.bench.dispatch import CASES, Case, Goal, judged, table as dispatch_table
from tests.bench.dispatchers import CLIENTS, DISPATCHERS, Figures as Dispatched, records, run
from tests.bench.report import Figures, Idle, Latency, Throughput, table
from tests.bench.server import BenchError, Server, drained, reject_unclean
from tests.bench.sqs import Cores, measure_throughput
from tests.bench.turns import TurnsLoop
from tests.conftest import missing

PARKED = 17
"""The most polls that may be parked: a runner for each of 16 environments, and one."""

BURN = """
import sys, time
while time.process_time() < 0.3:
    pass
print("burnt", flush=True)
sys.stdin.read()
"""
PARENT = f"""
import subprocess, sys
for stdin in (subprocess.DEVNULL, None):
    subprocess.run([sys.executable, "-c", {BURN!r}], stdin=stdin)
"""


@pytest.fixture
def server() -> Iterator[Server]:
    if shutil.which("cc") is None:
        missing("a C compiler (cc)")
    with Server() as running:
        yield running


def test_cpu_of_a_family_counts_ended_and_living_descendants() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["burnt\n"] * 2  # one child has ended, one lives
        used = cpu_of(parent.pid)
    assert used.family >= 0.55
    assert used.alone < used.family - 0.5


def test_cpu_of_nobody() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with pytest.raises(ProcessLookupError):
        cpu_of(gone.pid)


def receive(server: Server, most: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = json.dumps({"QueueUrl": f"{server.url}/000000000000/q0", "MaxNumberOfMessages": most})
    connection.request("POST", "/", body, {"X-Amz-Target": "AmazonSQS.ReceiveMessage"})
    messages = json.loads(connection.getresponse().read())["Messages"]
    connection.close()
    return len(messages)


def test_only_a_clean_run_counts(server: Server) -> None:
    reject_unclean(server.stats())
    server.fill(5)
    assert not drained(server.stats())
    assert receive(server, 3) == 3
    with pytest.raises(BenchError, match=r"'remaining': 5, 'in_flight': 3"):
        reject_unclean(server.stats())


def test_waiting_ends_with_what_the_server_counts(server: Server) -> None:
    server.fill(1)
    with pytest.raises(BenchError, match=r"waited 0 s for an empty queue; .*'enqueued': 1"):
        server.wait_for("an empty queue", drained, within=0)


@pytest.mark.parametrize("candidate", [BRIDGE, NAIVE], ids=lambda candidate: str(candidate.name))
@pytest.mark.usefixtures("server")
def test_a_backlog_is_measured(candidate: Candidate, tmp_path: Path) -> None:
    found = measure_throughput(candidate, Cores(None, None), 500, tmp_path / "run")
    # 10 messages a receive and a delete, and perhaps empty receives; polls parked at the start were counted before it.
    assert 200 - PARKED * 1000 / 500 <= found.requests_per_1000 < 1000
    assert found.per_cpu_second_family <= found.per_cpu_second * (1 + 1e-9)  # the same CPU seconds, rounded twice
    assert found.per_second > 0


def test_table_shows_medians_their_spread_and_ratios() -> None:
    ours = Figures("bridge", [Throughput(cpu, cpu, 900, 200) for cpu in (900, 1000, 1200)], Latency(2, 5, 1100, 0.05))
    peer = Figures("peer", [Throughput(400, 400, 400, 200)], idle=Idle(8, 65, 40, 0.001))
    lines = [line.split() for line in table([ours, peer]).splitlines()]
    assert lines[0] == ["bridge", "peer", "bridge/peer"]
    assert lines[1][-4:] == ["1,000", "±15%", "400", "2.50x"]
    assert lines[7][-3:] == ["5.00", "-", "-"]
    assert lines[9][-3:] == ["-", "720", "-"]


@pytest.mark.parametrize("name", DISPATCHERS)
def test_a_dispatch_is_measured(name: str, tmp_path: Path) -> None:
    found = run(name, CLIENTS["python"].function(tmp_path), records(2, 10), 0.1, turns=True)
    assert found.rate > 0
    assert 0 < found.p50 <= found.p99
    assert found.cpu > 0
    assert found.turn > 0


def test_cases_name_what_there_is() -> None:
    for case in CASES.values():
        assert case.client in CLIENTS
        assert set(case.candidates) <= set(DISPATCHERS)
        assert case.candidates[0] == "ours"


def test_goals_are_judged_by_medians_and_fail_far_from_them() -> None:
    goals = (
        Goal("rate", lambda f: f["ours"].rate / f["naive"].rate, 1.5, "x", at_least=True),
        Goal("cpu", lambda f: f["ours"].cpu * 1e3, 1, " ms"),
    )
    case = Case("", "python", 1, ("ours", "naive"), goals)

    def figures(rate: float, cpu: float) -> dict[str, list[Dispatched]]:
        ours = [Dispatched(each, 1, 1, cpu, 0) for each in (rate, rate, 9000.0)]
        return {"ours": ours, "naive": [Dispatched(100, 1, 1, 1, 0)]}

    def words(rate: float, cpu: float) -> tuple[list[str], bool]:
        lines, good = judged(case, figures(rate, cpu))
        return [line.rpartition(": ")[2] for line in lines], good

    assert words(160, 0.001) == (["reached", "reached"], True)
    assert words(80, 0.002) == (["missed", "missed"], True)
    assert words(70, 0.001) == (["missed", "reached"], False)
    assert words(160, 0.0021) == (["reached", "missed"], False)
    assert "160 inv/s" in dispatch_table(figures(160, 0.001))[0]


@pytest.mark.parametrize("service", [*stream_events.services()], ids=lambda service: service.title)
def test_events_of_streams_are_equal_and_measured(service: stream_events.Service) -> None:
    stream_events.check(service)
    rates = stream_events.measure(service, pages=1, rounds=1)
    assert set(rates) >= {"bridge", *(goal.than for goal in service.goals)}
    assert min(rates.values()) > 0


def test_the_longest_turn_is_counted_in_cpu() -> None:
    async def turns() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnsLoop)
        await asyncio.sleep(0)
        loop.forget()
        time.sleep(0.05)
        await asyncio.sleep(0)
        idle = loop.longest
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass
        await asyncio.sleep(0)
        return idle, loop.longest

    with asyncio.Runner(loop_factory=TurnsLoop) as runner:
        idle, busy = runner.run(turns())
    assert idle < 0.03 <= busy
