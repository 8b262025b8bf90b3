"""What a daemon exposes, and what expressions of PromQL ask of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from bridge.telemetry.metrics import Metrics

Series = dict[str, dict[str, set[str]]]
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""
WORDS = {
    "and", "by", "changes", "count", "absent", "deriv", "histogram_quantile", "ignoring", "increase", "max", "min",
    "on", "or", "rate", "sum", "unless", "without",
}  # fmt: skip
"""What may stand in an expression besides metrics."""
OPEN_ENDED = {"mapping", "function", "source", "service", "op", "code", "error", "version", "le"}
"""Labels whose values are the user's, a service's, or numbers."""


class Use(NamedTuple):
    """One metric in an expression, with the matchers at it: label, operator, value."""

    metric: str
    matchers: list[tuple[str, str, str]]


@cache
def page() -> str:
    """A daemon's /metrics, with one mapping of each kind, a function, and a request to a service."""
    metrics = Metrics()
    for source in ("sqs", "kinesis", "lambda"):
        meter = metrics.mapping_meter(source, source, "worker")
        meter.poll_error("Unreachable")
        meter.stream.gap()
    metrics.function_meter("worker")
    metrics.api_meter().observe("sqs", "ReceiveMessage", "OK", 0.1)
    return metrics.render()[0].decode()


@cache
def exposed() -> Series:
    """Name of each series -> its labels, with the values they have."""
    found: Series = {"up": {}}
    for family in text_string_to_metric_families(page()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def uses(expression: str) -> Iterator[Use]:
    """The metrics of an expression. What is no metric, function or grouping label is taken for one, and found out."""
    masked = _masked(r'"(?:[^"\\]|\\.)*"', expression)  # nothing in a string looks like PromQL
    masked = _masked(r"\b(?:by|without|on|ignoring|group_left)\s*\([^)]*\)", masked)
    masked = _masked(r"\[[^]]*\]", masked)
    for match in re.finditer(r"(?<![\w.])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?", masked):
        if match[1] not in WORDS:
            matchers = expression[match.start(2) : match.end(2)] if match[2] else ""
            yield Use(match[1], re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"', matchers))


def _masked(pattern: str, text: str) -> str:
    return re.sub(pattern, lambda found: " " * len(found[0]), text)


def grouped(expression: str) -> set[str]:
    """The labels by which an expression groups or joins."""
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left)\s*\(([^)]*)\)", expression)
    return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}


def complaints(expression: str) -> list[str]:
    """What of an expression no daemon has."""
    wrong: list[str] = []
    known = exposed()
    labels_there: set[str] = set(SCRAPED)
    for use in uses(expression):
        if use.metric not in known:
            wrong.append(f"no metric {use.metric}")
            continue
        labels = known[use.metric]
        labels_there |= labels.keys()
        for label, operator, value in use.matchers:
            if label in SCRAPED:
                continue
            if label not in labels:
                wrong.append(f"{use.metric} has no label {label}")
            elif operator == "=" and label not in OPEN_ENDED and value not in labels[label]:
                wrong.append(f"{use.metric} has no {label}={value!r}: {sorted(labels[label])}")
    wrong += [f"nothing in it has the label {label}" for label in grouped(expression) - labels_there]
    return wrong
