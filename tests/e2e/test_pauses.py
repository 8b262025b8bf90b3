"""Pauses, and the commands that ask a running daemon (interfaces.md section 1), through the real command line."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.harness import Bridge, Site, say


def asked(site: Site, bridge: Bridge, *arguments: str) -> list[dict[str, Any]]:
    """``bridge mappings … --json``."""
    done = site.cli("mappings", *arguments, "--json", "--admin", bridge.url)
    assert (done.status, done.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_a_pause_survives_restarts(site: Site) -> None:
    paused, other = site.queue(visibility=1), site.queue(visibility=1)
    site.function()
    site.mapping(paused, name="orders")
    site.mapping(other, name="bills")
    with site.running() as bridge:
        (row,) = asked(site, bridge, "pause", "orders")
        assert (row["state"], row["in_flight"], row["gate"]["name"]) == ("Disabled", 0, "paused")
        assert site.cli("health", "--ready", "--admin", bridge.url).status == 0  # paused ones do not count
    sent = paused.send("waits")
    with site.running() as bridge:
        states = {row["name"]: row["state"] for row in asked(site, bridge, "list")}
        assert states == {"orders": "Disabled", "bills": "Enabled"}
        other.send("goes")
        bridge.empties(other)
        assert sum(paused.counts()) == 1
        assert bridge.metric("bridge_esm_state", mapping="orders", state="Disabled") == 1
        (row,) = asked(site, bridge, "resume", bridge.view("orders").uuid)
        assert row["state"] in ("Enabling", "Enabled")
        bridge.empties(paused)
    assert site.journal.ids(paused.name) == sent
    with site.running() as bridge:
        assert [row["state"] for row in asked(site, bridge)] == ["Enabled", "Enabled"]


def test_a_pause_waits_for_what_runs(one_site: Site) -> None:
    queue = one_site.queue(visibility=30)
    one_site.function()
    one_site.mapping(queue, name="orders", BatchSize=1)
    with one_site.running() as bridge:
        queue.send(say(sleep=1.5))
        bridge.until(one_site.journal.invocations)
        (row,) = asked(one_site, bridge, "pause", "orders")
        (run,) = one_site.journal.invocations()
        assert run.well
        assert (row["state"], row["in_flight"]) == ("Disabled", 0)
        (shown,) = asked(one_site, bridge, "show", "orders", "--why")
        assert shown["gate"]["name"] == "paused"
    assert queue.counts() == (0, 0)


def test_show_says_why(one_site: Site) -> None:
    busy, failing, filtered = one_site.queue(visibility=30), one_site.queue(), one_site.queue()
    one_site.function(Timeout=20)
    one_site.mapping(busy, name="busy")
    one_site.mapping(failing, name="failing")
    one_site.mapping(filtered, name="filtered", FilterCriteria={"Filters": [{"Pattern": '{"body": ["yes"]}'}]})
    with one_site.running() as bridge:
        busy.send(say(sleep=5))
        failing.send(say(raises=True))
        (removed,) = filtered.send("no")
        bridge.until(lambda: bridge.view("failing").last_error and bridge.view("filtered").filtered)
        bridge.until(lambda: bridge.view("busy").gate.name == "invoking")  # type: ignore[union-attr]
        bridge.until(lambda: one_site.journal.invocations(busy.name))  # its environment has to start
        done = one_site.cli("mappings", "show", "--why", "--admin", bridge.url)
        assert done.status == 0
        request = one_site.journal.invocations(busy.name)[0].request
        for part in (request, "ValueError", "told to raise", removed, busy.arn):
            assert part in done.out, done.out
        rows = {row["name"]: row for row in asked(one_site, bridge)}
        keys = {"name", "uuid", "function", "source_arn", "state", "gate", "in_flight", "lag_seconds", "last_error"}
        assert all(row.keys() >= keys for row in rows.values())
        assert rows["busy"]["in_flight"] == 1
        assert rows["busy"]["gate"]["name"] == "invoking"
        bridge.empties(failing, busy)


def test_health(one_site: Site) -> None:
    one_site.function()
    one_site.mapping(one_site.queue(), name="there")
    with one_site.running() as bridge:
        url = bridge.url
        assert one_site.cli("health", "--admin", url).status == 0
        assert one_site.cli("health", "--ready", env={"BRIDGE_ADMIN": url}).status == 0
        one_site.mapping("arn:aws:sqs:eu-west-1:123456789012:not-there", name="absent")
        bridge.reload()
        bridge.until(lambda: bridge.view("absent").last_error)
        ready = one_site.cli("health", "--ready", "--admin", url)
        assert (ready.status, len(ready.lines)) == (1, 1)
        assert "absent" in ready.err
        assert one_site.cli("health", "--admin", url).status == 0  # a dead queue must not restart anything
    gone = one_site.cli("health", "--admin", url)
    assert (gone.status, len(gone.lines)) == (1, 1)
    assert url in gone.err


def test_an_unknown_name_gets_the_nearest(one_site: Site) -> None:
    one_site.function()
    one_site.mapping(one_site.queue(), name="orders")
    with one_site.running() as bridge:
        done = one_site.cli("mappings", "pause", "oders", "--admin", bridge.url)
        assert (done.status, len(done.lines)) == (2, 1)
        assert '"orders"' in done.err
        assert bridge.view("orders").state == "Enabled"
        url = bridge.url
    done = one_site.cli("mappings", "--admin", url)
    assert (done.status, len(done.lines)) == (1, 1)
