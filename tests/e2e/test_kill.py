"""Kill -9 at any moment loses no message and leaves nothing behind."""

from __future__ import annotations

import os
import random
import re
import time

import pytest

from tests.e2e import processes
from tests.e2e.conftest import NewSite
from tests.e2e.faulty import FaultyServer
from tests.e2e.harness import Site, say


@pytest.fixture
def chance() -> random.Random:
    """Random numbers that a failed run can have again, with BRIDGE_SEED."""
    seed = int(os.environ.get("BRIDGE_SEED") or random.randrange(1 << 32))
    print(f"BRIDGE_SEED={seed}")
    return random.Random(seed)


def test_three_kills_lose_nothing(site: Site, chance: random.Random) -> None:  # SQS-1
    queue, fifo = site.queue(visibility=2), site.queue(visibility=2, fifo=True)
    site.function(max_environments=4)
    site.mapping(queue, BatchSize=5)
    site.mapping(fifo, BatchSize=2)
    bodies = [say(sleep=chance.uniform(0.02, 0.12), spawn=n % 10 == 0, n=n) for n in range(120)]
    sent = {
        queue: queue.send(*bodies[:90]),
        fifo: [name for n in range(3) for name in fifo.send(*bodies[90 + n * 10 :][:10], group=f"g{n}")],
    }
    for _ in range(3):
        bridge = site.start()
        begun = len(site.journal.invocations())
        bridge.until(lambda: len(site.journal.invocations()) > begun)  # noqa: B023
        time.sleep(chance.uniform(0, 0.8))  # the moment is to be any
        left = [it.counts() for it in sent]
        bridge.kill()
        assert any(in_flight for _, in_flight in left)
    with site.running() as bridge:
        bridge.empties(*sent)
    for it, ids in sent.items():
        well = [name for run in site.journal.invocations(it.name) if run.well for name in run.ids]
        assert set(well) == set(ids), "a message is gone that no handler has ended well with"
    assert site.journal.entries("spawn"), "handlers had children too"


def test_kill_while_it_starts(faulty_site: Site, faulty_server: FaultyServer, chance: random.Random) -> None:
    queue = faulty_server.queue(visibility=2)
    faulty_site.function()
    faulty_site.mapping(queue)
    sent = queue.send(say(sleep=0.05), say(), say(raises=True))
    for _ in range(3):
        bridge = faulty_site.start()
        time.sleep(chance.uniform(0.1, 1))
        bridge.kill()
    with faulty_site.running() as bridge:
        bridge.empties(queue)
    assert set(faulty_site.journal.ids()) == set(sent)


@pytest.mark.skipif(not processes.PROC.is_dir(), reason="this system has no /proc to look into")
def test_the_embedded_endpoint_dies_too(new_site: NewSite) -> None:
    site = new_site()
    site.function(Timeout=7)
    site.mapping("arn:aws:sqs:eu-west-1:123456789012:local-orders")
    del site.config["state"]
    bridge = site.start("--local").ready()
    (endpoint,) = re.findall(r"AWS_ENDPOINT_URL=http://127.0.0.1:(\d+)", bridge.out)
    names = [processes.command(it.pid) for it in processes.descendants(bridge.pid)]
    assert any("ministack" in name for name in names)
    assert any("guard.py" in name for name in names)
    assert [path.name for path in site.temporary.iterdir()] != []
    bridge.kill()
    assert not processes.is_listening(int(endpoint))
