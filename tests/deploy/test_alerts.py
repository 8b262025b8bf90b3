"""The alert rules: valid, about what a daemon exposes, fired by what they are about, and explained in the README."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.conftest import missing
from tests.deploy.exposed import complaints, page

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
README = (ROOT / "README.md").read_text()
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
AT = {"job": "bridge", "instance": "b:9464"}
OF_MAPPING = {**AT, "mapping": "orders", "source": "sqs", "function": "worker"}
OF_FUNCTION = {**AT, "function": "worker"}


def promtool(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        missing("promtool (Debian's prometheus)")
    return subprocess.run([str(program), *arguments], input=given, capture_output=True, text=True, check=False)


class Case(NamedTuple):
    """Series that fire an alert, others that do not, and how it introduces itself. A point a minute, as promtool writes
    them: ``0+60x30`` is 31 points, each 60 above the one before."""

    fires: dict[str, str]
    quiet: dict[str, str]
    labels: dict[str, str]
    summary: str


def series(name: str, labels: dict[str, str], **more: str) -> str:
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in {**labels, **more}.items()) + "}"


def of_mapping(name: str, **more: str) -> str:
    return series(f"bridge_esm_{name}", OF_MAPPING, **more)


INVOKED, FAILED = of_mapping("invoked_events_total"), of_mapping("failed_invoke_events_total", reason="function")
LAG, RETENTION = of_mapping("lag_seconds"), of_mapping("retention_seconds")
THREE = {"instance": "b:9464", "mapping": "orders", "function": "worker"}
REQUESTS = {**AT, "service": "kinesis", "op": "GetRecords"}
CASES = {
    "BridgeDown": Case(
        {series("up", AT): "1x10 0x30"},
        {series("up", AT): "1x40"},
        AT,
        "bridge b:9464 does not answer",
    ),
    "BridgeRestarting": Case(
        {series("process_start_time_seconds", AT): "100x5 400x5 700x5 1000x5 1300x20"},
        {series("process_start_time_seconds", AT): "100x15 400x25"},
        AT,
        "bridge b:9464 has started 4 times in half an hour",
    ),
    "BridgeMappingNotPolling": Case(
        {of_mapping("unready_seconds"): "0+60x40"},
        {of_mapping("unready_seconds"): "0 60 0x40"},
        OF_MAPPING,
        "orders has not polled for 31m 0s",
    ),
    "BridgeMappingFailing": Case(
        {INVOKED: "0+60x40", FAILED: "0+45x40"},
        {INVOKED: "0+60x40", FAILED: "0+15x40"},
        THREE,
        "75% of what orders invokes fails",
    ),
    "BridgeShardBlocked": Case(
        {of_mapping("blocked_seconds"): "0+60x40"},
        {of_mapping("blocked_seconds"): "0+60x8 0x40"},
        OF_MAPPING,
        "a shard of orders has been blocked for 31m 0s",
    ),
    "BridgeLagGrowing": Case(
        {LAG: "300+30x40"},
        {LAG: "2000-30x40"},
        OF_MAPPING,
        "orders is 20m 30s behind, and falls back further",
    ),
    "BridgeNearRetention": Case(
        {LAG: "80000x40", RETENTION: "86400x40"},
        {LAG: "80000x40", RETENTION: "345600x40"},
        OF_MAPPING,
        "orders is 22h 13m 20s behind: its source will soon drop records",
    ),
    "BridgeRecordsLost": Case(
        {of_mapping("dropped_events_total", reason="age"): "0x20 5x20"},
        {of_mapping("dropped_events_total", reason="age"): "5x40"},
        THREE,
        "records of orders were given up, or had expired, and no destination knows of them",
    ),
    "BridgeEventsDropped": Case(
        {series("bridge_async_events_dropped_total", OF_FUNCTION, reason="EventAgeExceeded"): "0x20 1x20"},
        {series("bridge_async_events_dropped_total", OF_FUNCTION, reason="EventAgeExceeded"): "0x40"},
        {"instance": "b:9464", "function": "worker"},
        "asynchronous events of worker were given up",
    ),
    "BridgeDestinationFailing": Case(
        {series("bridge_dead_letter_errors_total", OF_FUNCTION): "0x20 1x20"},
        {series("bridge_dead_letter_errors_total", OF_FUNCTION): "3x40"},
        OF_FUNCTION,
        "a destination or dead-letter queue of worker does not take what it is told",
    ),
    "BridgeFunctionThrottled": Case(
        {series("bridge_throttles_total", OF_FUNCTION): "0+60x40"},
        {series("bridge_throttles_total", OF_FUNCTION): "0+3x40"},
        OF_FUNCTION,
        "worker is throttled 1 times a second",
    ),
    "BridgeSourceThrottled": Case(
        {
            series("bridge_source_api_requests_total", REQUESTS, code="OK"): "0+30x40",
            series(
                "bridge_source_api_requests_total", REQUESTS, code="ProvisionedThroughputExceededException"
            ): "0+10x40",
        },
        {
            series("bridge_source_api_requests_total", REQUESTS, code="OK"): "0+30x40",
            series("bridge_source_api_requests_total", REQUESTS, code="ExpiredIteratorException"): "0+10x40",
        },
        {"instance": "b:9464", "service": "kinesis", "op": "GetRecords"},
        "25% of kinesis GetRecords is throttled",
    ),
    "BridgeStateFailing": Case(
        {series("bridge_state_errors_total", AT): "0x25 1x20"},
        {series("bridge_state_errors_total", AT): "1x40"},
        AT,
        "bridge b:9464 cannot read or write its state",
    ),
    "BridgeBufferFull": Case(
        {series("bridge_buffered_bytes", AT): "99x40", series("bridge_buffered_limit_bytes", AT): "100x40"},
        {series("bridge_buffered_bytes", AT): "50x40", series("bridge_buffered_limit_bytes", AT): "100x40"},
        AT,
        "max_buffered_bytes of bridge b:9464 is used up",
    ),
    "BridgeLogLinesDropped": Case(
        {series("bridge_log_lines_dropped_total", AT): "0x20 1x20"},
        {series("bridge_log_lines_dropped_total", AT): "0x40"},
        AT,
        "bridge b:9464 cannot write its log",
    ),
}


def unit_test(name: str, given: dict[str, str], expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": it, "values": values} for it, values in given.items()],
        "alert_rule_test": [{"alertname": name, "eval_time": "31m", "exp_alerts": expected}],
    }


def test_what_the_page_looks_like() -> None:
    done = promtool("check", "metrics", given=page())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_rules_are_valid() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_for_what_it_is_about_and_for_nothing_less(tmp_path: Path) -> None:
    assert CASES.keys() == ALERTS.keys()
    tests: list[dict[str, Any]] = []
    for name, case in CASES.items():
        rule = ALERTS[name]
        written = {it: text.replace("{{ $labels.function }}", "worker") for it, text in rule["annotations"].items()}
        told = {
            "exp_labels": {**case.labels, **rule["labels"]},
            "exp_annotations": {**written, "summary": case.summary},
        }
        tests += [unit_test(name, case.fires, [told]), unit_test(name, case.quiet, [])]
    file = tmp_path / "alerts.test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_ask_for_what_is_there(name: str) -> None:
    assert complaints(ALERTS[name]["expr"]) == []


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_its_paragraph(name: str) -> None:
    rule = ALERTS[name]
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / file).read_text() == README
    assert anchor == name.lower()
    found = re.findall(rf'<a id="{anchor}"></a>\*\*{name}\.\*\* (.+?)\n\n', README, re.DOTALL)
    assert len(found) == 1
    assert len(found[0]) > 80, "what it means, and what to do"
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}


def test_no_paragraph_is_about_an_alert_that_is_gone() -> None:
    assert set(re.findall(r'<a id="bridge\w+"></a>\*\*(\w+)\.', README)) == set(ALERTS)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("rate(bridge_esm_polls_total[5m])", []),
        ("bridge_esm_pols_total", ["no metric bridge_esm_pols_total"]),
        ('bridge_esm_polls_total{outcome="data"}', ["bridge_esm_polls_total has no label outcome"]),
        ('bridge_esm_polls_total{result=~"x"} / bridge_esm_polls_total', []),
        ('bridge_esm_polls_total{result="dat"}', ["bridge_esm_polls_total has no result='dat': "]),
        ("sum by (shard) (bridge_esm_polls_total)", ["nothing in it has the label shard"]),
        ("histogram_quantile(0.9, sum by (le) (rate(bridge_invocation_duration_seconds_bucket[5m])))", []),
        ('bridge_esm_state{state="Enabled", mapping="a{b}"} > 1.5e3', []),
    ],
)
def test_how_expressions_are_read(expression: str, complaint: list[str]) -> None:
    found = complaints(expression)
    assert len(found) == len(complaint)
    assert all(one.startswith(other) for one, other in zip(found, complaint, strict=True)), found
