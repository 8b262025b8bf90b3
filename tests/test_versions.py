"""Which version an invocation gets."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from bridge.function import LATEST, Alias
from bridge.versions import at, resolve, shares
from tests.world import function

WORKER = function(
    code=Path("now"),
    provisioned=3,
    versions={"1": Path("one"), "2": Path("two")},
    aliases={
        "live": Alias(version="1"),
        "canary": Alias(version="1", weights={"2": 0.1}),
        "all": Alias(version="1", weights={"2": 1.0}),
        "none": Alias(version="1", weights={"2": 0.0}),
        "next": Alias(version=LATEST),
    },
)


@pytest.mark.parametrize(
    ("qualifier", "luck", "version"),
    [
        ("", 0.0, LATEST),
        (LATEST, 0.0, LATEST),
        ("2", 0.0, "2"),
        ("3", 0.0, None),
        ("Live", 0.0, None),
        ("live", 0.0, "1"),
        ("live", 0.99, "1"),
        ("next", 0.5, LATEST),
        ("canary", 0.0, "2"),
        ("canary", 0.0999, "2"),
        ("canary", 0.1, "1"),
        ("canary", 0.9999, "1"),
        ("all", 0.9999, "2"),
        ("none", 0.0, "1"),
    ],
)
def test_the_version_behind_a_qualifier(qualifier: str, luck: float, version: str | None) -> None:  # INV-3
    assert resolve(WORKER, qualifier, luck) == version


def test_a_weight_is_a_share_of_the_invocations() -> None:
    luck = random.Random(7)
    seen = Counter(resolve(WORKER, "canary", luck.random()) for _ in range(20_000))
    assert seen.keys() == {"1", "2"}
    assert 0.09 < seen["2"] / 20_000 < 0.11  # five standard deviations to each side


@pytest.mark.parametrize(
    ("qualifier", "count", "each"),
    [
        ("2", 10, {"2": 10}),
        ("live", 10, {"1": 10}),
        ("canary", 10, {"1": 9, "2": 1}),
        ("canary", 1, {"1": 1, "2": 0}),
        ("all", 4, {"1": 0, "2": 4}),
        ("gone", 4, {}),
    ],
)
def test_environments_started_ahead_are_divided_as_invocations(  # RT-62
    qualifier: str, count: int, each: dict[str, int]
) -> None:
    assert shares(WORKER, qualifier, count) == each


def test_a_version_is_the_function_with_its_own_code() -> None:
    second = at(WORKER, "2")
    assert (second.version, second.code, second.provisioned) == ("2", Path("two"), 0)
    assert (second.arn, second.timeout, second.environment) == (WORKER.arn, WORKER.timeout, WORKER.environment)
    assert at(WORKER, LATEST) is WORKER
    assert WORKER.qualified("canary") == f"{WORKER.arn}:canary"
    assert WORKER.qualified("") == WORKER.arn
