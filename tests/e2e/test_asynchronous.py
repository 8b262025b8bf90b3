"""Asynchronous events on the real daemon, which is killed at any moment: what was accepted once is handled and told."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.snapshot import Snapshot
from tests.e2e.harness import Bridge, Site
from tests.servers import ACCOUNT, REGION, Server

OBSERVER = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:observer"


@pytest.fixture
def own_site(tmp_path: Path) -> Site:
    """Two functions, no endpoint: ``worker`` and ``observer``, who is told how the worker's events end."""
    site = Site(tmp_path)
    site.config["aws"]["account_id"] = ACCOUNT
    site.function("observer", Handler="teller.handler", max_environments=2)
    return site


def worker(site: Site, setting: str = "", told: str = OBSERVER, retries: int = 2, **options: Any) -> None:
    wants = {"OnSuccess": {"Destination": told}, "OnFailure": {"Destination": told}}
    config = {"DestinationConfig": wants, "MaximumRetryAttempts": retries}
    options = {"max_environments": 3, "EventInvokeConfig": config, **options}
    site.function("worker", Handler="teller.handler", setting=setting, **options)


def taking(site: Site, first: int, count: int) -> Bridge:
    """A daemon that accepts these numbers for the worker."""
    arguments = [str(site.write()), str(ledger(site)), "worker", str(first), str(count)]
    return Bridge(site, [sys.executable, "-m", "tests.e2e.taker", *arguments], site.env, site.folder / f"take-{first}")


def ledger(site: Site) -> Path:
    return site.folder / "ledger"


def accepted(site: Site) -> set[int]:
    return {int(line) for line in ledger(site).read_text().split()} if ledger(site).exists() else set()


def told(site: Site, function: str) -> list[tuple[int, str]]:
    """Number and request id of each invocation."""
    file = Path(f"{site.journal.file}.{function}")
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(number), request_id) for number, request_id in (line.split() for line in lines)]


def waiting(state: Snapshot) -> int:
    return sum(function.events for function in state.functions)


def test_kill_at_any_moment_loses_and_forgets_nothing(own_site: Site) -> None:  # ASY-1, ASY-3
    seed = int(os.environ.get("BRIDGE_SEED") or random.randrange(1 << 32))
    print(f"BRIDGE_SEED={seed}")
    chance = random.Random(seed)
    worker(own_site)
    for turn in range(4):
        bridge = taking(own_site, turn * 300, 300)
        before = len(accepted(own_site))
        bridge.until(lambda: len(accepted(own_site)) > before)  # noqa: B023
        time.sleep(chance.uniform(0, 0.5))  # the moment is to be any
        bridge.kill()
    taken = accepted(own_site)
    assert taken
    with own_site.running() as bridge:
        bridge.until(lambda: not waiting(bridge.state()))
    handled = told(own_site, "worker")
    assert taken <= {number for number, _ in handled}, "an accepted event was never handled"
    assert taken <= {number for number, _ in told(own_site, "observer")}, "the end of an event was never told"
    ids: dict[int, set[str]] = {}
    for number, request_id in handled:
        ids.setdefault(number, set()).add(request_id)
    assert all(len(found) == 1 for found in ids.values()), "an event keeps its request id (ASY-2)"


def test_a_retry_is_remembered_with_its_time(own_site: Site) -> None:  # ASY-4
    worker(own_site, "raise")
    began = time.time()
    bridge = taking(own_site, 7, 1)
    database = own_site.folder / "state.db"

    def row() -> tuple[float, int] | None:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            found = connection.execute("SELECT due_at, attempts FROM events WHERE attempts > 0").fetchall()
        connection.close()
        return (float(found[0][0]), int(found[0][1])) if found else None

    bridge.until(lambda: bool(told(own_site, "worker")) and row() is not None)
    bridge.kill()
    due_at, attempts = row() or (0.0, 0)
    assert attempts == 1
    assert 60 <= due_at - began < 90
    with own_site.running() as bridge:
        assert waiting(bridge.state()) == 1
    assert [number for number, _ in told(own_site, "worker")] == [7], "it waits for its time"


def test_a_drain_lets_running_events_end_and_keeps_the_rest(own_site: Site) -> None:
    worker(own_site, retries=0)
    bridge = taking(own_site, 0, 400)
    bridge.until(lambda: len(accepted(own_site)) == 400)
    took = bridge.stop()
    assert took < 20
    with own_site.running() as bridge:
        bridge.until(lambda: not waiting(bridge.state()))
        assert bridge.metric("bridge_async_events_dropped_total", function="worker") == 0
    assert sorted(number for number, _ in told(own_site, "observer")) == list(range(400)), "each end is told once"


def test_a_reload_of_the_function_loses_nothing(own_site: Site) -> None:  # ASY-11
    worker(own_site)
    with taking(own_site, 0, 400) as bridge:
        bridge.until(lambda: len(told(own_site, "worker")) > 20)
        worker(own_site, "another")
        assert bridge.reload()["functions"] == ["worker"]
        bridge.until(lambda: len({number for number, _ in told(own_site, "observer")}) == 400)
    assert sorted(number for number, _ in told(own_site, "worker")) == list(range(400))


def test_queues_are_told_and_get_what_is_given_up(one_site: Site, roto_server: Server) -> None:  # DST-10, DST-21
    ends, letters = roto_server.queue(), roto_server.queue()
    worker(one_site, "raise", told=ends.arn, retries=0, DeadLetterConfig={"TargetArn": letters.arn})
    with taking(one_site, 5, 1) as bridge:
        bridge.until(lambda: bool(letters.counts()[0] and ends.counts()[0]))
    ((_, request_id),) = told(one_site, "worker")
    (record,) = roto_server.client().receive_message(QueueUrl=ends.url)["Messages"]
    context = json.loads(record["Body"])["requestContext"]
    assert (context["condition"], context["requestId"]) == ("RetriesExhausted", request_id)
    (letter,) = roto_server.client().receive_message(QueueUrl=letters.url, MessageAttributeNames=["All"])["Messages"]
    assert letter["Body"] == "5"
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes == {"RequestID": request_id, "ErrorCode": "200", "ErrorMessage": "5"}
