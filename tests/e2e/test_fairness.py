"""Mappings share a function's slots fairly, and idle ones cost nobody anything (layout: slots and fairness)."""

from __future__ import annotations

from itertools import pairwise

from tests.e2e.harness import Site, say


def test_slots_are_shared_fairly(site: Site) -> None:
    first, second, busy = (site.queue(visibility=30) for _ in range(3))
    for name in ("shared", "crowded"):
        site.function(name, ReservedConcurrentExecutions=1, Timeout=10)
    site.mapping(first, "shared", BatchSize=1)
    site.mapping(second, "shared", BatchSize=1)
    for _ in range(10):
        site.mapping(site.queue(), "crowded", BatchSize=1)
    site.mapping(busy, "crowded", BatchSize=1)
    with site.running() as bridge:
        first.send(*[say(sleep=0.05)] * 30)
        second.send(*[say(sleep=0.05)] * 30)
        began = bridge.until(lambda: site.journal.invocations(first.name) and site.journal.invocations(second.name))
        assert began
        sent = busy.send(*[say(sleep=0.05)] * 20)
        bridge.empties(first, second, busy)

    runs = site.journal.invocations()
    shared = [run.records[0]["eventSourceARN"] for run in runs if run.function == "shared"]
    both = shared[shared.index(second.arn if shared[0] == first.arn else first.arn) - 1 :]
    for start in range(0, 30, 10):  # while both have work
        part = both[start : start + 10]
        assert 4 <= part.count(first.arn) <= 6, part
    crowded = [run for run in runs if run.function == "crowded"]
    assert sorted(name for run in crowded for name in run.ids) == sorted(sent)
    waits = [later.at - (run.ended or run.at) for run, later in pairwise(crowded)]
    assert sorted(waits)[len(waits) // 2] < 0.5, "an idle mapping's poll must not hold the slot"
