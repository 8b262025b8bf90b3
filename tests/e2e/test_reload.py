"""SIGHUP: the configuration is read again, and only what changed is touched."""

from __future__ import annotations

import threading
from signal import Signals

import pytest

from tests.e2e.harness import Site, eventually, say


def test_only_what_changed_is_touched(site: Site) -> None:
    same, removed, added = (site.queue(visibility=20) for _ in range(3))
    changed = site.queue(visibility=1)  # the server hands its next message to a poll that the reload gave up
    for name in ("steady", "renewed", "dropped"):
        site.function(name, setting="before", Timeout=20)
    site.mapping(same, "steady", name="same")
    site.mapping(changed, "renewed", name="changed")
    site.mapping(removed, "dropped", name="removed")
    with site.running() as bridge:
        (long,) = same.send(say(sleep=4))
        changed.send("first")
        bridge.until(lambda: len(site.journal.invocations()) == 2)
        bridge.empties(changed)

        site.function("renewed", setting="after")
        del site.config["functions"]["dropped"], site.config["mappings"]["removed"]
        site.function("fresh")
        functions = site.config["functions"]
        site.config["functions"] = {"fresh": functions.pop("fresh"), **functions}  # all others stand elsewhere now
        site.mapping(added, "fresh", name="added")
        line = bridge.reload()
        assert line["restarted"] == ["changed"]
        assert line["removed"] == ["removed"]
        assert sorted(line["functions"]) == ["dropped", "renewed"]
        assert not site.journal.invocations(same.name)[0].ended, "the reload waited for what it should not touch"

        removed.send("nobody wants it")
        changed.send("second")
        added.send("third")
        bridge.empties(changed, added)
        assert [run.setting for run in site.journal.invocations(changed.name)] == ["before", "after"]
        assert len({run.pid for run in site.journal.invocations(changed.name)}) == 2
        assert [run.function for run in site.journal.invocations(added.name)] == ["fresh"]
        assert {view.name for view in bridge.state().mappings} == {"same", "changed", "added"}
        assert not [labels for _, labels, _ in bridge.metrics() if labels.get("mapping") == "removed"]  # MET-31

        bridge.empties(same)
        (run,) = site.journal.invocations(same.name)
        assert (run.ids, run.counts, run.well) == ([long], [1], True)
        assert sum(removed.counts()) == 1
        assert site.journal.invocations(removed.name) == []


def test_a_changed_mapping_keeps_its_messages(site: Site) -> None:  # SQS-97
    """Messages come all the time while the mapping goes over to another function, and back."""
    queue = site.queue(visibility=3)
    site.function("old", setting="old")
    site.function("new", setting="new")
    site.mapping(queue, "old", name="orders", BatchSize=3)
    sent: list[str] = []
    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(0.05):
            sent.extend(queue.send(say(sleep=0.02), say()))

    producer = threading.Thread(target=produce)
    with site.running() as bridge:
        producer.start()
        try:
            for function in ("new", "old", "new"):
                bridge.until(lambda: len(site.journal.ids()) >= len(sent) // 2 > 5)
                site.config["mappings"]["orders"]["FunctionName"] = function
                assert bridge.reload()["restarted"] == ["orders"]
                bridge.until(lambda: bridge.view("orders").state == "Enabled")
                later = len(site.journal.invocations())
                bridge.until(lambda: len(site.journal.invocations()) > later)  # noqa: B023
                assert {run.setting for run in site.journal.invocations()[later:]} == {function}
        finally:
            stop.set()
            producer.join()
        bridge.empties(queue)
    well = [name for run in site.journal.invocations() if run.well for name in run.ids]
    assert sorted(well) == sorted(sent)  # none is lost, and none was handled twice


def test_sigterm_while_a_reload_waits(one_site: Site) -> None:
    queue = one_site.queue(visibility=30)
    one_site.function()
    one_site.mapping(queue, name="orders")
    with one_site.running() as bridge:
        queue.send(say(sleep=2))
        bridge.until(one_site.journal.invocations)
        one_site.config["mappings"]["orders"]["BatchSize"] = 5
        one_site.write()
        bridge.signal(Signals.SIGHUP)
        bridge.until(lambda: (gate := bridge.view("orders").gate) and gate.name == "draining")
        bridge.stop()
    (run,) = one_site.journal.invocations()
    assert run.well
    assert queue.counts() == (0, 0)
    assert bridge.events("reloaded") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("functions: [", "broken YAML"),
        ("mappings: {orders: {FunctionName: nobody}}", "nobody"),
        ("colour: blue", "colour"),
    ],
)
def test_a_broken_file_changes_nothing(one_site: Site, text: str, problem: str) -> None:
    queue = one_site.queue()
    one_site.function()
    one_site.mapping(queue, name="orders")
    with one_site.running() as bridge:
        before = bridge.view("orders")
        one_site.file.write_text(text)
        bridge.signal(Signals.SIGHUP)
        (line,) = bridge.said("reload_failed")
        assert line["level"] == "error"
        assert any(problem in one for one in line["problems"])
        queue.send("still served")
        bridge.until(one_site.journal.invocations)
        assert bridge.view("orders").uuid == before.uuid
        assert bridge.readiness()[0] == 200
        bridge.reload()  # and a good one is taken again
        assert len(bridge.events("reload_failed")) == 1


def test_the_last_of_many_reloads_counts(one_site: Site) -> None:
    queue = one_site.queue()
    one_site.function()
    one_site.mapping(queue, name="orders")
    with one_site.running() as bridge:
        for setting in ("one", "two", "three", "four"):
            one_site.function(setting=setting)
            one_site.write()
            bridge.signal(Signals.SIGHUP)
        queue.send(say(sleep=0.1))
        bridge.empties(queue)
        bridge.until(lambda: bridge.readiness()[0] == 200)
        queue.send("last")
        bridge.empties(queue)
    assert one_site.journal.invocations()[-1].setting == "four"


def test_what_needs_a_restart_is_said(one_site: Site) -> None:
    one_site.function()
    one_site.mapping(one_site.queue(), name="orders")
    with one_site.running() as bridge:
        one_site.config["admin"] = {"listen": "127.0.0.1:1"}
        one_site.config["shutdown_grace"] = 5
        assert bridge.reload()["restarted"] == []
        (line,) = bridge.said("reload_needs_restart")
        assert "admin_port" in line["settings"]
        assert bridge.readiness()[0] == 200
        bridge.stop()
    assert bridge.events("draining", grace=5)


def test_disabled_and_enabled_again(one_site: Site) -> None:  # ESM-50
    queue = one_site.queue()
    one_site.function()
    one_site.mapping(queue, name="orders", Enabled=False)
    with one_site.running() as bridge:
        assert bridge.view("orders").state == "Disabled"
        queue.send("later")
        one_site.config["mappings"]["orders"]["Enabled"] = True
        bridge.reload()
        bridge.empties(queue)
        one_site.config["mappings"]["orders"]["Enabled"] = False
        bridge.reload()
        bridge.until(lambda: bridge.view("orders").state == "Disabled")
        queue.send("never")
        assert bridge.readiness() == (200, {"ready": True, "mappings": {}})
    assert len(one_site.journal.ids()) == 1
    eventually(lambda: sum(queue.counts()) == 1)
