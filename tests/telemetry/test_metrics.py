"""Metrics: the names of tests/spec/metrics.md, their labels, and the life of their series."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf
from pathlib import Path

import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bridge import __version__
from bridge.snapshot import FunctionView, Gate, MappingView, Snapshot
from bridge.telemetry.metrics import MOST_CODES, STATES, MappingMeter, Metrics
from bridge.telemetry.stream_metrics import StreamMeter

SPEC = (Path(__file__).parents[1] / "spec" / "metrics.md").read_text()
OURS = {
    "bridge_buffered_bytes",
    "bridge_buffered_limit_bytes",
    "bridge_esm_in_flight_events",
    "bridge_esm_lag_seconds",
    "bridge_esm_retention_seconds",
    "bridge_esm_unready_seconds",
    "bridge_log_lines_dropped_total",
    "bridge_state_errors_total",
    "bridge_ledger_lost_total",
}
LABELS = {"mapping": "orders", "source": "sqs", "function": "worker"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def meter(metrics: Metrics) -> MappingMeter:
    made = metrics.mapping_meter("orders", "sqs", "worker")
    assert isinstance(made.stream, StreamMeter)  # there from now on
    return made


def families(metrics: Metrics) -> Iterator[Metric]:
    page, _ = metrics.render()
    yield from parse_text(page.decode())


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def of_mapping(metrics: Metrics, name: str, **labels: str) -> float | None:
    return value(metrics, f"bridge_esm_{name}", **LABELS, **labels)


def test_names_are_those_of_the_specification(metrics: Metrics, meter: MappingMeter) -> None:
    metrics.function_meter("worker")
    ours = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families(metrics)
        if family.name.startswith("bridge_")
    }
    assert len(ours) > 25
    specified = set(re.findall(r"bridge_[a-z_]+", SPEC))
    assert ours - specified == OURS


def test_every_family_keeps_the_conventions(metrics: Metrics, meter: MappingMeter) -> None:
    """What `promtool check metrics` would say, and MET-30."""
    metrics.function_meter("worker")
    metrics.api_meter().observe("sqs", "ReceiveMessage", "OK", 0.1)
    for family in families(metrics):
        assert family.documentation, family.name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert not re.search(r"_(ms|milliseconds|kb|minutes|count|sum|counter|gauge|histogram)(_|$)", family.name)
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert (family.type == "counter") == all(sample.name.endswith("_total") for sample in family.samples)


def test_buckets_reach_from_a_millisecond_to_900_seconds(metrics: Metrics, meter: MappingMeter) -> None:  # MET-30
    metrics.function_meter("worker")
    metrics.api_meter().observe("sqs", "ReceiveMessage", "OK", 0.1)
    seen = 0
    for family in families(metrics):
        if family.type == "histogram" and family.name.endswith("_seconds"):
            bounds = {float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")}
            assert min(bounds) == 0.001
            assert 900.0 in bounds
            seen += 1
    assert seen == 6


def test_all_series_of_a_mapping_start_at_zero(metrics: Metrics, meter: MappingMeter) -> None:
    samples = [sample for family in families(metrics) for sample in family.samples if "mapping" in sample.labels]
    assert {sample.value for sample in samples} == {0.0}
    for name, label, words in [
        ("polls_total", "result", {"empty", "data", "error"}),
        ("retries_total", "reason", {"function_error", "partial", "throttle"}),
        ("state", "state", set(STATES)),
    ]:
        assert {s.labels[label] for s in samples if s.name == f"bridge_esm_{name}"} == words


def test_a_mapping_is_counted(metrics: Metrics, meter: MappingMeter) -> None:
    meter.poll("data")
    meter.polled(10, 2560)
    meter.message_age(0.5)
    meter.message_age(-1)  # the server's clock may be ahead of ours
    meter.filtered(3)
    meter.batch(7, 1800)
    meter.invoked(7)
    meter.failed_invoke(7, "partial")
    meter.invoke_error()
    meter.retried("partial")
    meter.deleted(6)
    meter.pollers(5)
    assert of_mapping(metrics, "polls_total", result="data") == 1
    assert of_mapping(metrics, "polled_events_total") == 10
    assert of_mapping(metrics, "polled_bytes_total") == 2560
    assert of_mapping(metrics, "message_age_seconds_count") == 2
    assert of_mapping(metrics, "message_age_seconds_sum") == 0.5
    assert of_mapping(metrics, "filtered_events_total") == 3
    assert of_mapping(metrics, "batch_size_bucket", le="5.0") == 0
    assert of_mapping(metrics, "batch_size_bucket", le="10.0") == 1
    assert of_mapping(metrics, "batch_bytes_sum") == 1800
    assert of_mapping(metrics, "invoked_events_total") == 7
    assert of_mapping(metrics, "failed_invoke_events_total", reason="partial") == 7
    assert of_mapping(metrics, "invoke_errors_total") == 1
    assert of_mapping(metrics, "retries_total", reason="partial") == 1
    assert of_mapping(metrics, "deleted_events_total") == 6
    assert of_mapping(metrics, "pollers") == 5


def test_a_function_is_counted(metrics: Metrics) -> None:
    meter = metrics.function_meter("worker")
    meter.invocation("success", "", 0.02)
    meter.invocation("function_error", "timeout", 3)
    meter.throttled()
    meter.workers(1, 2, 3)
    meter.concurrent(2)
    assert value(metrics, "bridge_invocations_total", function="worker", outcome="success", error_type="") == 1
    assert (
        value(metrics, "bridge_invocations_total", function="worker", outcome="function_error", error_type="timeout")
        == 1
    )
    assert value(metrics, "bridge_invocation_duration_seconds_sum", function="worker") == 3.02
    assert value(metrics, "bridge_throttles_total", function="worker") == 1
    assert [
        value(metrics, "bridge_workers", function="worker", state=state) for state in ("idle", "busy", "starting")
    ] == [1, 2, 3]
    assert value(metrics, "bridge_concurrent_executions", function="worker") == 2


def test_a_mapping_is_in_one_state(metrics: Metrics, meter: MappingMeter) -> None:
    meter.state("Creating")
    meter.state("Enabled")
    assert {state for state in STATES if of_mapping(metrics, "state", state=state)} == {"Enabled"}


def test_closing_removes_every_series(metrics: Metrics, meter: MappingMeter) -> None:  # MET-31
    other = metrics.mapping_meter("other", "sqs", "worker")
    function = metrics.function_meter("worker")
    other.poll("data")
    meter.poll_error("AccessDenied")
    meter.close()
    function.close()
    meter.poll_error("Late")
    meter.poll("data")
    page = metrics.render()[0].decode()
    assert '"orders"' not in page
    assert "bridge_workers{" not in page
    assert 'bridge_esm_polls_total{function="worker",mapping="other",result="data",source="sqs"} 1.0' in page


def test_a_meter_lives_until_the_last_user_has_closed_it(metrics: Metrics, meter: MappingMeter) -> None:
    meter.polled(5, 50)
    again = metrics.mapping_meter("orders", "sqs", "worker")
    meter.close()
    again.polled(5, 50)
    assert of_mapping(metrics, "polled_events_total") == 10
    again.close()
    assert of_mapping(metrics, "polled_events_total") is None
    metrics.mapping_meter("orders", "sqs", "worker")
    assert of_mapping(metrics, "polled_events_total") == 0


def test_error_codes_make_a_bounded_number_of_series(metrics: Metrics, meter: MappingMeter) -> None:
    for number in range(500):
        meter.poll_error(f"Code{number}")
        metrics.api_meter().observe("sqs", "ReceiveMessage", f"Code{number}", 0.1)
    meter.poll_error('no "code"\n')
    for name in ("bridge_esm_poll_errors_total", "bridge_source_api_requests_total"):
        samples = [s for family in families(metrics) for s in family.samples if s.name == name]
        assert len(samples) == MOST_CODES + 1
        assert sum(sample.value for sample in samples) >= 500
    assert of_mapping(metrics, "poll_errors_total", error="other") == 500 - MOST_CODES + 1


def test_requests_to_services_are_counted(metrics: Metrics) -> None:
    meter = metrics.api_meter()
    meter.observe("sqs", "ReceiveMessage", "OK", 0.25)
    meter.observe("sqs", "ReceiveMessage", "ThrottlingException", 0.5)
    labels = {"service": "sqs", "op": "ReceiveMessage"}
    assert value(metrics, "bridge_source_api_requests_total", **labels, code="OK") == 1
    assert value(metrics, "bridge_source_api_requests_total", **labels, code="ThrottlingException") == 1
    assert value(metrics, "bridge_source_api_seconds_sum", **labels) == 0.75


def test_what_does_not_poll_is_counted_in_seconds(metrics: Metrics, meter: MappingMeter) -> None:
    view = MappingView(
        name="orders", uuid="u", function="worker", source_arn="arn", source="sqs", state="Enabling", ready=False,
        gate=Gate("endpoint", 40.0, "does not answer"),
    )  # fmt: skip
    snapshot = Snapshot(
        version="1", pid=1, started_at=0, at=100, draining=False, buffered_bytes=0, max_buffered_bytes=1,
        mappings=(view,), functions=(),
    )  # fmt: skip
    metrics.show(snapshot)
    assert of_mapping(metrics, "unready_seconds") == 60
    metrics.show(msgspec.structs.replace(snapshot, mappings=(msgspec.structs.replace(view, ready=True),)))
    assert of_mapping(metrics, "unready_seconds") == 0


def test_retention_is_what_the_source_says(metrics: Metrics, meter: MappingMeter) -> None:
    meter.retention(86_400)
    assert of_mapping(metrics, "retention_seconds") == 86_400
    meter.retention(inf)
    assert of_mapping(metrics, "retention_seconds") == 0


def test_failures_of_the_state_store_are_shown(metrics: Metrics) -> None:
    assert value(metrics, "bridge_state_errors_total") == 0
    metrics.state_errors = lambda: 3
    assert value(metrics, "bridge_state_errors_total") == 3


def test_gauges_show_the_snapshot(metrics: Metrics, meter: MappingMeter) -> None:
    metrics.function_meter("worker")
    view = MappingView(
        name="orders",
        uuid="u",
        function="worker",
        source_arn="arn",
        source="sqs",
        state="Enabled",
        ready=True,
        in_flight=7,
        lag_seconds=12.5,
    )
    stranger = MappingView(
        name="new", uuid="v", function="worker", source_arn="arn", source="sqs", state="Creating", ready=False
    )
    function = FunctionView(name="worker", arn="arn", concurrency=4, busy=3, idle=1, starting=0)
    metrics.show(
        Snapshot(
            version="1", pid=1, started_at=0, at=1, draining=False, buffered_bytes=100, max_buffered_bytes=200,
            mappings=(view, stranger), functions=(function,),
        )
    )  # fmt: skip
    assert of_mapping(metrics, "state", state="Enabled") == 1
    assert of_mapping(metrics, "in_flight_events") == 7
    assert of_mapping(metrics, "lag_seconds") == 12.5
    assert of_mapping(metrics, "unready_seconds") == 0
    assert value(metrics, "bridge_workers", function="worker", state="busy") == 3
    assert value(metrics, "bridge_concurrent_executions", function="worker") == 3
    assert value(metrics, "bridge_buffered_bytes") == 100
    assert value(metrics, "bridge_buffered_limit_bytes") == 200


def test_the_version_and_the_process_are_shown(metrics: Metrics) -> None:
    assert value(metrics, "bridge_build_info", version=__version__) == 1
    assert (value(metrics, "process_resident_memory_bytes") or 0) > 1 << 20


def test_both_text_formats_are_served(metrics: Metrics, meter: MappingMeter) -> None:
    page, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    text = page.decode()
    assert any(family.name == "bridge_esm_polls" for family in parse_openmetrics(text))  # type: ignore[no-untyped-call]
    for accept in ("", "*/*", "text/plain; version=odd", "application/openmetrics-text; version=odd", ";,;=,"):
        assert metrics.render(accept)[1].startswith("text/plain; version=0.0.4")
