"""The Grafana dashboard: whole, and about what a daemon exposes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.exposed import complaints, exposed, uses
from tests.deploy.test_alerts import ALERTS, promtool

BOARD: dict[str, Any] = json.loads((Path(__file__).parents[2] / "deploy" / "grafana" / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
VARIABLES: dict[str, dict[str, Any]] = {it["name"]: it for it in BOARD["templating"]["list"]}
STANDING_IN = {"$__rate_interval": "5m", "$mapping": ".*", "$function": ".*", "$instance": ".*"}


def queries() -> Iterator[tuple[str, str]]:
    """Title of a panel and each of its expressions, with something in place of the variables."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            expression: str = target["expr"]
            for name, value in STANDING_IN.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression


@pytest.mark.parametrize(("title", "expression"), list(queries()))
def test_panels_ask_for_what_is_there(title: str, expression: str) -> None:
    assert "$" not in expression
    assert complaints(expression.replace("vector(0)", "0")) == []


def test_expressions_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{number}", "expr": it} for number, (_, it) in enumerate(queries())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_variables_are_labels_that_are_there() -> None:
    assert list(VARIABLES) == ["datasource", "instance", "mapping", "function"]
    for name, variable in VARIABLES.items():
        if variable["type"] == "datasource":
            continue
        found = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["query"]["query"])
        assert found
        assert found[2] == name
        assert name == "instance" or name in exposed()[found[1]]
        assert variable["multi"]
        assert variable["includeAll"]


def test_panels_are_whole() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        labels = {
            label for target in panel["targets"] for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        }
        asked = " ".join(target["expr"] for target in panel["targets"])
        assert all(re.search(rf"\b{label}\b", asked) for label in labels), panel["title"]


def test_panels_do_not_overlap() -> None:
    def area(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

    areas = [area(panel) for panel in PANELS]
    assert all(x < 24 for one in areas for x, _ in one)
    assert not any(one & other for one, other in combinations(areas, 2))


def test_whatever_an_alert_is_about_can_be_looked_at() -> None:
    shown = {use.metric for _, expression in queries() for use in uses(expression)}
    alerted = {use.metric for rule in ALERTS.values() for use in uses(rule["expr"])}
    unseen = {"up", "process_start_time_seconds", "bridge_esm_retention_seconds", "bridge_log_lines_dropped_total"}
    assert alerted - shown == unseen
