"""Signals: a drain in order, its grace, and the ends that do not wait (interfaces.md section 1, users.md section 3)."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.conftest import NewSite
from tests.e2e.faulty import FaultyServer
from tests.e2e.harness import Site, eventually, say

IDLE_DRAIN = 1.5
"""Seconds: a parked receive may go on for 1.2 of them."""


def test_sigterm_drains(site: Site) -> None:
    running, waiting = site.queue(visibility=60), site.queue(visibility=60)
    site.function(ReservedConcurrentExecutions=1)
    site.mapping(running, name="running")
    site.mapping(waiting, name="waiting")
    with site.running() as bridge:
        running.send(say(sleep=2, spawn=True))  # nor are its children left
        bridge.until(lambda: site.journal.invocations(running.name))
        waiting.send(say())
        bridge.until(lambda: bridge.view("waiting").in_flight)
        assert bridge.stop() < 10
    (run,) = site.journal.invocations()
    assert run.well
    assert running.counts() == (0, 0), "what ended well is deleted"
    assert waiting.counts() == (1, 0), "what waited for a slot is back at once, and was not started"
    assert bridge.log()[-1]["event"] == "stopped"


def test_what_was_collected_goes_back_at_once(faulty_site: Site, faulty_server: FaultyServer) -> None:
    """On a server that notices aborted polls: others hand it to the dead poll, where it is late, but not lost."""
    queue = faulty_server.queue(visibility=60)
    faulty_site.function()
    faulty_site.mapping(queue, name="orders", BatchSize=100, MaximumBatchingWindowInSeconds=60)
    queue.send(say(), say(), say())
    with faulty_site.running() as bridge:
        bridge.until(lambda: bridge.view("orders").in_flight == 3)
        assert queue.counts() == (0, 3)
        assert bridge.stop() <= 3
    assert queue.counts() == (3, 0)
    assert faulty_site.journal.invocations() == []


def test_an_idle_daemon_drains_at_once(site: Site) -> None:
    site.function()
    for _ in range(3):
        site.mapping(site.queue())
    took: list[float] = []
    while not took or (took[-1] > IDLE_DRAIN and len(took) < 3):  # a busy machine may be late, but not every time
        with site.running() as bridge:
            bridge.until(lambda: all(view.gate and view.gate.name == "polling" for view in bridge.state().mappings))
            took.append(bridge.stop())
    print(f"idle drain: {took[-1]:.2f} s")
    assert took[-1] <= IDLE_DRAIN


def test_sigint_drains_too(one_site: Site) -> None:
    one_site.function()
    queue = one_site.queue(visibility=20)
    one_site.mapping(queue)
    with one_site.running() as bridge:
        queue.send(say(sleep=1))
        bridge.until(one_site.journal.invocations)
        bridge.stop(signal.SIGINT)
    assert queue.counts() == (0, 0)


def test_the_grace_ends(faulty_site: Site, faulty_server: FaultyServer) -> None:
    faulty_site.config["shutdown_grace"] = 1
    faulty_site.function(Timeout=60)
    queue = faulty_server.queue(visibility=4)
    faulty_site.mapping(queue, name="slow")
    with faulty_site.running() as bridge:
        queue.send(say(sleep=30))
        (run,) = bridge.until(faulty_site.journal.invocations)
        took = bridge.stop()  # with 0: what is cancelled comes again
    assert 1 <= took < 10
    (over,) = bridge.events("shutdown_grace_over")
    assert (over["grace"], over["cancelled"]) == (1, {"slow": 1})
    assert bridge.events("invocation_cancelled", mapping="slow", records=1)
    assert queue.counts() == (0, 1)
    eventually(lambda: queue.counts() == (1, 0))
    received = int(run.records[0]["attributes"]["ApproximateFirstReceiveTimestamp"]) / 1000
    assert 4 <= time.time() - received < 6, "when its visibility was over, not earlier and not later (SQS-25)"


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_a_second_signal_ends_at_once(
    faulty_site: Site, faulty_server: FaultyServer, first: signal.Signals, second: signal.Signals, status: int
) -> None:
    faulty_site.function(Timeout=60)
    queue = faulty_server.queue(visibility=1)
    faulty_site.mapping(queue)
    with faulty_site.running() as bridge:
        queue.send(say(sleep=30))
        bridge.until(faulty_site.journal.invocations)
        bridge.signal(first)
        bridge.said("draining")
        assert bridge.stop(second, status=status) < 5
    assert bridge.events("stopped_at_once", signal=second.name)
    assert sum(queue.counts()) == 1
    eventually(lambda: queue.counts() == (1, 0), within=5)


def test_sigterm_while_it_starts(one_site: Site) -> None:
    one_site.function()
    one_site.mapping(one_site.queue())
    with one_site.start() as bridge:
        bridge.said("started")
        bridge.stop()


def test_local_leaves_nothing(new_site: NewSite) -> None:
    site = new_site()
    site.function()
    site.mapping("arn:aws:sqs:eu-west-1:123456789012:local-drain")
    with site.running("--local") as bridge:
        assert any("ministack" in text for text in site.left())
        bridge.stop()
