"""Versions and aliases of functions, and mappings that name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.function import LATEST, Alias
from tests.config.test_functions import one
from tests.configured import QUEUE, problem, problems, settings


def shared(version: str, weights: str) -> str:
    routing = f"{{AdditionalVersionWeights: {{{weights}}}}}"
    return f"{VERSIONS}, aliases: {{live: {{FunctionVersion: {version}, RoutingConfig: {routing}}}}}"


VERSIONS = "versions: {1: {CodeUri: one}, 2: {CodeUri: two}}"
LIVE = "aliases: {live: {FunctionVersion: 1}}"


@pytest.fixture(autouse=True)
def code(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text("def handler(event, context): ...\n")


def mapped(function: str, options: str = f"{VERSIONS}, {LIVE}") -> str:
    mappings = f"mappings: {{orders: {{FunctionName: '{function}', EventSourceArn: '{QUEUE}'}}}}\n"
    return one(options) + mappings


def test_all_of_it(tmp_path: Path) -> None:
    text = one(
        f"{VERSIONS}, aliases: {{live: {{FunctionVersion: 1, Description: for all, RoutingConfig:"
        " {AdditionalVersionWeights: {2: 0.1}}}, next: {FunctionVersion: $LATEST}}"
    )
    worker = settings(tmp_path, text).functions["worker"]
    assert worker.versions == {"1": tmp_path / "one", "2": tmp_path / "two"}
    assert worker.aliases == {
        "live": Alias(version="1", weights={"2": 0.1}, description="for all"),
        "next": Alias(version=LATEST),
    }
    assert worker.qualifiers == (LATEST, "1", "2", "live", "next")


def test_versions_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    text = one("versions: {10: {CodeUri: one}, 9: {CodeUri: two}}")
    assert list(settings(tmp_path, text).functions["worker"].versions) == ["9", "10"]


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ("versions: {first: {CodeUri: one}}", "versions.first", '"first" is no version; expected a number such as 1'),
        ("versions: {0: {CodeUri: one}}", "versions.0", '"0" is no version; expected a number such as 1'),
        ("versions: {1: {}}", "versions.1", "CodeUri is missing, for example ./examples/handlers"),
        ("versions: {1: {Handler: a.b, CodeUri: one}}", "versions.1.Handler", "unknown option; known are: CodeUri"),
        ("aliases: {live: {}}", "aliases.live", "FunctionVersion is missing, for example $LATEST"),
        (
            f"{VERSIONS}, aliases: {{7: {{FunctionVersion: 1}}}}",
            "aliases.7",
            '"7" is no name of an alias; expected up to 128 letters, digits, - and _, and not digits alone',
        ),
        (
            "aliases: {live: {FunctionVersion: 1}}",
            "aliases.live.FunctionVersion",
            'there is no version "1"; known are: $LATEST',
        ),
        (
            shared("1", "3: 0.1"),
            "aliases.live.RoutingConfig.AdditionalVersionWeights.3",
            'there is no version "3"; known are: $LATEST, 1, 2',
        ),
        (
            shared("1", "2: 1.1"),
            "aliases.live.RoutingConfig.AdditionalVersionWeights.2",
            "1.1 is more than 1, the most that is allowed",
        ),
        (
            shared("1", "1: 0.1"),
            "aliases.live.RoutingConfig.AdditionalVersionWeights.1",
            "1 is the alias's own FunctionVersion; name another version, or none",
        ),
        (
            shared("$LATEST", "1: 0.1"),
            "aliases.live.RoutingConfig.AdditionalVersionWeights.1",
            "$LATEST is no version: an alias with weights names two of `versions`",
        ),
        (
            shared("$LATEST", "1: 0.1, 2: 0.1"),
            "aliases.live.RoutingConfig.AdditionalVersionWeights",
            "2 versions; an alias has one beside its own",
        ),
    ],
)
def test_mistakes(tmp_path: Path, options: str, path: str, message: str) -> None:
    assert problem(tmp_path, one(options)) == f"bridge.yaml:1: functions.worker.{path}: {message}"


def test_each_version_has_its_code(tmp_path: Path) -> None:
    assert problem(tmp_path, one("versions: {1: {CodeUri: three}}")) == (
        "bridge.yaml:1: functions.worker.versions.1.CodeUri: three: no such folder"
    )
    (tmp_path / "two" / "app.py").unlink()
    assert problem(tmp_path, one(VERSIONS)).startswith(
        'bridge.yaml:1: functions.worker.Handler: "app.handler": no such file two/app.py'
    )


def test_what_runs_elsewhere_has_none(tmp_path: Path) -> None:
    text = f"functions: {{worker: {{url: 'http://h/', {VERSIONS}, {LIVE}}}}}\n"
    assert [line.split(": ")[1] for line in problems(tmp_path, text)] == [
        "functions.worker.versions", "functions.worker.aliases",
    ]  # fmt: skip


# Mappings.


@pytest.mark.parametrize(
    ("name", "qualifier"), [("worker", ""), ("worker:live", "live"), ("worker:2", "2"), ("worker:$LATEST", "$LATEST")]
)
def test_a_mapping_names_a_version_or_alias(tmp_path: Path, name: str, qualifier: str) -> None:  # ESM-8, ESM-10
    for text in (name, f"arn:aws:lambda:eu-west-1:123456789012:function:{name}"):
        mapping = settings(tmp_path, mapped(text)).mappings["orders"]
        assert (mapping.function, mapping.qualifier) == ("worker", qualifier)


def test_one_that_is_not_there(tmp_path: Path) -> None:  # ESM-12
    assert problem(tmp_path, mapped("worker:life")) == (
        "bridge.yaml:2: mappings.orders.FunctionName: Function does not exist: worker has no version or alias"
        ' "life"; did you mean "live"?'
    )


def test_the_same_source_for_two_aliases(tmp_path: Path) -> None:  # ESM-11, ESM-15
    both = one(f"{VERSIONS}, {LIVE}") + (
        f"mappings: {{a: {{FunctionName: worker, EventSourceArn: '{QUEUE}'}},"
        f" b: {{FunctionName: 'worker:live', EventSourceArn: '{QUEUE}'}}}}\n"
    )
    assert len(settings(tmp_path, both).mappings) == 2
