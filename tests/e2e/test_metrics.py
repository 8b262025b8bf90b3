"""/metrics of a real run (tests/spec/metrics.md)."""

from __future__ import annotations

from collections import Counter

from tests.deploy.exposed import uses
from tests.deploy.test_alerts import ALERTS, promtool
from tests.e2e.harness import Bridge, Site, say

MAPPING = {
    "bridge_esm_polls_total": {("result", "empty"), ("result", "data"), ("result", "error")},
    "bridge_esm_polled_events_total": set(),
    "bridge_esm_polled_bytes_total": set(),
    "bridge_esm_filtered_events_total": set(),
    "bridge_esm_invoked_events_total": set(),
    "bridge_esm_failed_invoke_events_total": {("reason", "function"), ("reason", "timeout"), ("reason", "partial")},
    "bridge_esm_invoke_errors_total": set(),
    "bridge_esm_deleted_events_total": set(),
    "bridge_esm_retries_total": {("reason", "function_error"), ("reason", "partial"), ("reason", "throttle")},
    "bridge_esm_batch_size_count": set(),
    "bridge_esm_batch_bytes_count": set(),
    "bridge_esm_message_age_seconds_count": set(),
}
FUNCTION = {
    "bridge_invocations_total": {("outcome", "success"), ("error_type", "timeout"), ("error_type", "exit")},
    "bridge_throttles_total": set(),
    "bridge_invocation_duration_seconds_count": set(),
    "bridge_concurrent_executions": set(),
    "bridge_workers": {("state", "idle"), ("state", "busy"), ("state", "starting")},
}


def test_series_stand_at_zero_from_the_start(one_site: Site) -> None:
    one_site.function()
    one_site.mapping("arn:aws:sqs:eu-west-1:123456789012:never-there", name="orders")
    with one_site.start() as bridge:
        bridge.said("started")
        labels = {"mapping": "orders", "source": "sqs", "function": "actor"}
        for name, kinds in MAPPING.items():
            assert bridge.metric(name, **labels) == 0, name
            for key, value in kinds:
                assert bridge.metric(name, **labels, **{key: value}) == 0
        for name, kinds in FUNCTION.items():
            assert bridge.metric(name, function="actor") == 0, name
            for key, value in kinds:
                assert bridge.metric(name, function="actor", **{key: value}) == 0
        assert bridge.metric("bridge_build_info") == 1


def test_every_event_is_accounted_for(site: Site) -> None:
    queue = site.queue(visibility=1)
    site.function(partial=True)
    pattern = '{"body": {"n": [{"numeric": ["<", 60]}]}}'
    site.mapping(queue, name="orders", partial=True, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    with site.running() as bridge:
        sent = queue.send(*(say(n=n, fails=n % 7 == 0, raises=n % 31 == 30) for n in range(80)))
        bridge.empties(queue)
        identity(bridge)
        runs = site.journal.invocations()
        count = bridge.metric
        assert count("bridge_esm_filtered_events_total") == 20
        assert count("bridge_esm_deleted_events_total") == 80
        assert count("bridge_esm_invoked_events_total") == sum(len(run.ids) for run in runs)  # MET-13
        assert count("bridge_esm_polled_events_total") == 20 + sum(len(run.ids) for run in runs)
        assert count("bridge_invocations_total", outcome="success") == sum(run.well for run in runs)
        assert count("bridge_invocations_total", outcome="function_error") == sum(not run.well for run in runs) > 0
        assert count("bridge_esm_batch_size_count") == len(runs)
        assert count("bridge_esm_failed_invoke_events_total", reason="partial") > 0
        assert count("bridge_esm_retries_total") > 0
        assert set(site.journal.ids()) == set(sent[:60])
        sizes = Counter(len(run.ids) for run in runs)
        assert max(sizes) <= 10


def identity(bridge: Bridge) -> None:
    """MET-11 of a drained mapping: whatever was read was filtered, or it succeeded, or it went back."""
    view = bridge.view("orders")
    assert view.in_flight == 0
    assert view.polled == view.filtered + view.succeeded + view.failed
    assert bridge.metric("bridge_esm_polled_events_total") == view.polled
    assert view.filtered + view.succeeded == bridge.metric("bridge_esm_deleted_events_total")


def test_the_pages_for_machines(one_site: Site) -> None:
    queue = one_site.queue(visibility=30)
    one_site.function(ReservedConcurrentExecutions=2)
    one_site.mapping(queue, name="orders", BatchSize=1)
    with one_site.running() as bridge:
        queue.send(*[say(sleep=1.5)] * 2)
        bridge.until(lambda: len(one_site.journal.invocations()) == 2)
        assert bridge.metric("bridge_concurrent_executions", function="actor") == 2
        assert bridge.metric("bridge_workers", function="actor", state="busy") == 2
        assert bridge.get("/healthz")[0] == 200
        status, page = bridge.get("/scale")
        assert status == 200
        assert '"busy_ratio":1.0' in page
        bridge.empties(queue)
        assert bridge.state().buffered_bytes == 0
        check_page(bridge)


def check_page(bridge: Bridge) -> None:
    """Prometheus's own tool finds nothing in it to complain about, and the alerts find all that they ask for."""
    done = promtool("check", "metrics", given=bridge.get("/metrics")[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    there = {name for name, _, _ in bridge.metrics()}
    asked = {use.metric for rule in ALERTS.values() for use in uses(rule["expr"])}
    streams = {"bridge_esm_blocked_seconds", "bridge_esm_dropped_events_total", "bridge_esm_gaps_total"}
    assert asked - there == {"up", *streams}
