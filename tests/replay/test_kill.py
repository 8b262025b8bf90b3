"""kill -9 at every step of a message's life, then the same again: nothing is lost, and what was perhaps sent twice was
named. REPLAY-DO-1"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.replay.killed import HOLD
from tests.servers import Queue, Server

MESSAGES = {False: 12, True: 4}
"""Of a standard queue two batches, of a FIFO queue two rounds of two groups."""
DEADLINE = 30.0


class Ended(NamedTuple):
    """One life: what was killed where, and what the next run found."""

    step: str
    fifo: bool
    status: int
    journal: list[str]
    """Lines as the kill left them."""
    resumed: dict[str, Any]
    ids: dict[str, str]
    """Body -> id of its dead letter."""
    bodies: list[str]
    """In the source at the end."""
    left: tuple[int, int]


class Killer:
    """The program of killed.py."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.replay.killed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, dead: Queue, source: Queue, kill: tuple[int, str] | None = None) -> tuple[int, Any]:
        """Exit status (negative: a signal) and what it left behind."""
        result = self._folder / f"{dead.name}.json"
        result.unlink(missing_ok=True)
        request = {
            "url": self._server.url, "dlq": dead.name, "source": source.name, "journal": str(self.journal(dead)),
            "result": str(result), "kill": kill,
        }  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        status = json.loads(self._process.stdout.readline())
        return status, json.loads(result.read_text()) if result.exists() else None

    def journal(self, dead: Queue) -> Path:
        return self._folder / f"{dead.name}.jsonl"

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def pair(server: Server, fifo: bool) -> tuple[Queue, Queue, dict[str, str]]:
    """A dead-letter queue with messages, the queue that they go back to, and the ids by body."""
    dead, source = server.queue(fifo=fifo), server.queue(fifo=fifo)
    bodies = [f"{number}" for number in range(MESSAGES[fifo])]
    if not fifo:
        return dead, source, dict(zip(bodies, dead.send(*bodies), strict=True))
    ids = {body: dead.send(body, group=f"group {int(body) % 2}")[0] for body in bodies}
    return dead, source, ids


def drain(queue: Queue) -> list[str]:
    """The bodies, in order; they are deleted."""
    found: list[str] = []
    empty = 0
    while empty < 2:
        messages = queue.api.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10).get("Messages", [])
        empty = 0 if messages else empty + 1
        for message in messages:
            found.append(message["Body"])
            queue.api.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
    return found


@pytest.fixture(scope="module")
def killer(roto_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    import os

    keys = {"AWS_ACCESS_KEY_ID": "123456789012", "AWS_SECRET_ACCESS_KEY": "secret"}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in keys.items():
            patch.setenv(name, value)
        it = Killer(roto_server, tmp_path_factory.mktemp("killed"))
        yield it
        it.close()


@pytest.fixture(scope="module", params=[False, True], ids=["standard", "fifo"])
def lives(request: pytest.FixtureRequest, roto_server: Server, killer: Killer) -> list[Ended]:
    """One for each step of a run that nobody disturbs, before it and after it."""
    fifo: bool = request.param
    dead, source, _ = pair(roto_server, fifo)
    status, clean = killer.run(dead, source)
    assert status == 0
    assert clean["sent"] == clean["deleted"] == MESSAGES[fifo]
    killed = []
    times = Counter[str]()
    for number, step in enumerate(clean["steps"], 1):
        times[step] += 1
        if times[step] > (1 if fifo else 2):  # the same again
            continue
        for when in ("before", "after"):
            dead, source, ids = pair(roto_server, fifo)
            status, _ = killer.run(dead, source, kill=(number, when))
            file = killer.journal(dead)
            lines = file.read_text().splitlines() if file.exists() else []
            killed.append((f"{when} {number} {step}", status, lines, dead, source, ids))
    wait_for_the_hidden([dead for *_, dead, _, _ in killed])
    ended = []
    for step, status, lines, dead, source, ids in killed:
        _, resumed = killer.run(dead, source)
        ended.append(Ended(step, fifo, status, lines, resumed, ids, drain(source), dead.counts()))
    return ended


def wait_for_the_hidden(queues: list[Queue]) -> None:
    """What a killed run held comes back by itself."""
    deadline = time.monotonic() + HOLD + DEADLINE
    while any(queue.counts()[1] for queue in queues):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_every_step_was_one(lives: list[Ended]) -> None:
    assert all(life.status == -signal.SIGKILL for life in lives)
    steps = {life.step.split(" ", 2)[2] for life in lives}
    assert {"ReceiveMessage", "SendMessageBatch", "DeleteMessageBatch"} <= steps
    assert {"write header", "write begun", "write sending", "write sent"} <= {
        step.replace("done ", "") for step in steps
    }


def test_nothing_is_lost(lives: list[Ended]) -> None:
    for life in lives:
        assert set(life.bodies) == set(life.ids), life.step
        assert life.left == (0, 0), life.step
        assert life.resumed["complete"], life.step


def test_what_is_there_twice_was_named(lives: list[Ended]) -> None:
    for life in lives:
        twice = {life.ids[body] for body, times in Counter(life.bodies).items() if times > 1}
        assert twice <= set(life.resumed["duplicates"]), life.step


def test_only_what_was_on_its_way_is_named(lives: list[Ended]) -> None:
    for life in lives:
        states: dict[str, str] = {}
        for line in map(json.loads, life.journal):
            if "id" in line:
                states[line["id"]] = line["state"]
        on_their_way = {message_id for message_id, state in states.items() if state == "sending"}
        assert set(life.resumed["duplicates"]) == on_their_way, life.step


def test_what_was_sent_is_not_sent_again(lives: list[Ended]) -> None:
    """Killed between the journal's *sent* and the delete: only the delete is left to do."""
    found = 0
    for life in lives:
        sent = [line["id"] for line in map(json.loads, life.journal) if line.get("state") == "sent"]
        times = Counter(life.bodies)
        bodies = {message_id: body for body, message_id in life.ids.items()}
        assert all(times[bodies[message_id]] == 1 for message_id in sent), life.step
        found += life.resumed["resumed"]
    assert found


def test_groups_keep_their_order(lives: list[Ended]) -> None:
    """REPLAY-DO-4. The queue suppresses what is sent a second time with the token of the first."""
    for life in lives:
        if life.fifo:
            assert sorted(map(int, life.bodies)) == list(range(MESSAGES[True])), life.step
            for group in range(2):
                of_group = [int(body) for body in life.bodies if int(body) % 2 == group]
                assert of_group == sorted(of_group), life.step
