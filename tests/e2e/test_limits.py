"""Bounds: payloads in memory, a function that may not run, and one that fails every time."""

from __future__ import annotations

from tests.e2e.harness import Site, say

KIB = 1024


def test_received_payloads_are_bounded(site: Site) -> None:
    """``max_buffered_bytes`` keeps messages in the queue, and all of them are handled in the end."""
    site.config["max_buffered_bytes"] = "100KiB"
    queue = site.queue(visibility=30)
    site.function(max_environments=8)
    site.mapping(queue, name="orders", BatchSize=1)
    sent = [name for n in range(8) for name in queue.send(say(sleep=0.3, n=n, fill="x" * 60 * KIB))]
    with site.start() as bridge:
        seen = bridge.until(lambda: bridge.state().buffered_bytes > 100 * KIB and bridge.state())
        gates = [runner.gate.name for runner in seen.mappings[0].runners]  # type: ignore[union-attr]
        assert "buffer" in gates
        most = 0.0
        while sum(queue.counts()):
            most = max(most, bridge.metric("bridge_buffered_bytes"))
        assert most < 100 * KIB + 6 * 70 * KIB, "a poll that is parked already may bring what it brings"
        assert bridge.state().buffered_bytes == 0
    assert sorted(site.journal.ids()) == sorted(sent)
    assert {count for run in site.journal.invocations() for count in run.counts} == {1}


def test_no_concurrency_no_receive(one_site: Site) -> None:
    """Reserved 0 stops a function: its messages wait where no receive is counted against them (SQS-35, SQS-37)."""
    stopped, other = one_site.queue(dead_after=1), one_site.queue()
    one_site.function("stopped", ReservedConcurrentExecutions=0)
    one_site.function()
    one_site.mapping(stopped, "stopped", name="stopped")
    one_site.mapping(other, name="other")
    stopped.send("never")
    other.send("now")
    with one_site.start() as bridge:
        bridge.empties(other)
        gate = bridge.until(lambda: (gate := bridge.view("stopped").gate) and gate.name == "throttled" and gate)
        assert "reserved concurrency" in gate.detail  # type: ignore[union-attr]
        assert stopped.counts() == (1, 0)
        bridge.stop()
    assert stopped.counts() == (1, 0)


def test_a_failing_function_is_slowed_down(one_site: Site) -> None:
    """An outage of the function costs few receives (users.md section 3, rule 13); its neighbours notice nothing."""
    failing, fine = one_site.queue(visibility=60), one_site.queue()
    one_site.function("broken", max_environments=4)
    one_site.function()
    one_site.mapping(failing, "broken", name="failing", BatchSize=1)
    one_site.mapping(fine, name="fine", BatchSize=1)
    failing.send(*[say(raises=True)] * 50)
    with one_site.start() as bridge:
        gate = bridge.until(lambda: (gate := bridge.view("failing").gate) and gate.name == "failing" and gate)
        assert "in a row; probes again in" in gate.detail  # type: ignore[union-attr]
        fine.send(*[say()] * 20)
        bridge.empties(fine)
        bridge.until(lambda: "probes again in" in str(bridge.view("failing").gate))
        assert len(one_site.journal.invocations(failing.name)) <= 15
        assert len(one_site.journal.invocations(fine.name)) == 20
        assert bridge.view("failing").in_flight == 0
        assert sum(failing.counts()) == 50
