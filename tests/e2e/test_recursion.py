"""A function that feeds its own queue is stopped (INV-40), and its message ends where the queue's redrive says."""

from __future__ import annotations

import re

from tests.e2e.conftest import NewSite
from tests.e2e.harness import eventually, receive
from tests.servers import Server


def test_a_chain_that_runs_in_a_circle(new_site: NewSite, roto_server: Server) -> None:  # SQS-36, INV-41
    site = new_site(roto_server)
    site.function("looper", Handler="looper.handler", max_environments=1)
    queue = site.queue(visibility=1, dead_after=2)
    site.mapping(queue, "looper", name="circle")
    with site.running() as bridge:
        queue.send("again")
        (first,) = bridge.said("recursion_stopped", 2)[:1]
        assert (first["mapping"], first["function"], first["records"]) == ("circle", "looper", 1)
        letters = site.letters_of(queue)
        (letter,) = eventually(lambda: receive(letters))  # after maxReceiveCount tries that failed
        assert letter["Body"] == "again"
        assert bridge.metric("bridge_recursive_dropped_total", function="looper") == 2
        queue.send("once")  # another chain is not held up
        eventually(lambda: len(site.journal.file.read_text().splitlines()) == 17)
        lines = site.journal.file.read_text().splitlines()
    counts = [int(found[1]) for line in lines if (found := re.search(r";Lineage=[0-9a-f]{8}:(\d+)$", line))]
    assert counts == [*range(1, 17), 1]
    roots = {line.partition(";")[0] for line in lines}
    assert len(roots) == 2
