"""`bridge validate`: what it prints, where, and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.commands import main
from tests.configured import QUEUE, WORKER, mapped, write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BRIDGE_CONFIG", raising=False)


def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped())
    assert main(["validate", "-c", "bridge.yaml"]) == 0
    assert capsys.readouterr() == ("ok: 1 mappings, 1 functions\n", "")


def test_the_file_in_the_folder_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped())
    assert main(["validate"]) == 0
    assert capsys.readouterr().out == "ok: 1 mappings, 1 functions\n"


def test_no_file_lists_the_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate"]) == 2
    assert capsys.readouterr() == (
        "",
        "no configuration file; tried: bridge.yaml, /etc/bridge/bridge.yaml; name one with -c FILE or BRIDGE_CONFIG\n",
    )


def test_advice_changes_no_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped().replace("CodeUri: .", "CodeUri: ., ReservedConcurrentExecutions: 0"))
    assert main(["validate"]) == 0
    out, err = capsys.readouterr()
    assert out == "ok: 1 mappings, 1 functions\n"
    assert err == (
        "warning: bridge.yaml:1: functions.worker.ReservedConcurrentExecutions:"
        " 0 stops this function: nothing is invoked\n"
    )


def test_what_was_dropped_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped("LastModified: 1767225600.1"))
    assert main(["validate"]) == 0
    assert capsys.readouterr().err.startswith("notice: bridge.yaml: dropped, ")


def test_every_problem_is_a_line_and_nothing_is_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path,
        f"{WORKER}mappings:\n  orders:\n    FunctionName: wroker\n    EventSourceArn: {QUEUE}\n    BatchSize: 0\n",
    )
    assert main(["validate", "--set", "log.level=loud"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["bridge.yaml:4", "mappings.orders.FunctionName"],
        ["bridge.yaml:6", "mappings.orders.BatchSize"],
        ["--set log.level", "log.level"],
    ]


# The bad input that has to give one line and status 2, never a traceback.
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("functions: [\n", "bridge.yaml:2: broken YAML: "),
        ("function: {}", 'bridge.yaml:1: function: unknown option; did you mean "functions"?'),
        ("shutdown_grace: [1]", "bridge.yaml:1: shutdown_grace: expected a number, got a list"),
        (mapped("BatchSize: 99999"), "bridge.yaml:2: mappings.orders.BatchSize: 99999 is more than 10000, "),
        ("state: ${NOWHERE_SET}", "bridge.yaml:1: state: the environment variable NOWHERE_SET is not set"),
        (mapped().replace("FunctionName: worker", "FunctionName: w"), "bridge.yaml:2: mappings.orders.FunctionName: "),
        (
            mapped(queue="arn:aws:kafka:r:123456789012:cluster/c/u"),
            "bridge.yaml:2: mappings.orders.EventSourceArn: unsupp",
        ),
        (
            mapped("FilterCriteria: {Filters: [{Pattern: x}]}"),
            "bridge.yaml:2: mappings.orders.FilterCriteria.Filters[0]",
        ),
        (WORKER.replace("app.handler", "gone.handler"), "bridge.yaml:1: functions.worker.Handler: "),
    ],
)
def test_bad_input(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, text)
    assert main(["validate"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
