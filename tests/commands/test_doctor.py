"""`bridge doctor`: what it prints, where, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.commands import main
from tests.configured import mapped, write
from tests.servers import REGION, Server, unique

LOSES = (
    "no redrive policy: a message that always fails comes again every 30 s, about 11,520 times, until it expires after"
    " 4 d and is gone"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_keys: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BRIDGE_CONFIG", raising=False)
    monkeypatch.delenv("BRIDGE_ADMIN", raising=False)
    monkeypatch.setenv("BRIDGE_ADMIN__LISTEN", "127.0.0.1:0")


@pytest.fixture
def found(ministack_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The ARN of a queue that a configuration in the folder names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack_server.url)
    arn = ministack_server.queue().arn
    write(tmp_path, mapped(queue=arn))
    return arn


def test_a_page_for_people(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"orders ({found})",
        f"  warning  no-dlq: {LOSES}",
        "           fix: set RedrivePolicy with a dead-letter queue and maxReceiveCount 5 or more",
        "  note     idle-cost: while nothing comes: 129,600 API calls a month (long polls of 20 s)",
        "",
        "1 mapping: 0 errors, 1 warning, 1 note",
    ]


def test_an_array_for_programs(found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "orders"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, second = json.loads(out)
    assert first | {"message": "", "fix": ""} == {
        "mapping": "orders",
        "function": "worker",
        "source_arn": found,
        "code": "no-dlq",
        "level": "warning",
        "message": "",
        "fix": "",
    }
    assert second["code"] == "idle-cost"


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(("least", "status"), [("warning", 1), ("error", 0)])
def test_what_fails(least: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--fail-on", least]) == status
    assert capsys.readouterr().out.endswith("1 mapping: 0 errors, 1 warning, 1 note\n")


@pytest.mark.usefixtures("found")
def test_errors_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped(queue=f"arn:aws:sqs:{REGION}:123456789012:{unique('gone')}"))
    assert main(["doctor"]) == 1
    assert "  error    source-missing: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["oders"], 'bridge: bridge.yaml has no mapping "oders"; did you mean "orders"?'),
        (["--timeout", "0"], "bridge: --timeout 0: expected seconds, more than 0"),
        (["--fail-on", "note"], "bridge: argument --fail-on: invalid choice: 'note'"),
        (["--admin", "ftp://x"], 'bridge: "ftp://x" is no address of a daemon'),
        (["-c", "nowhere.yaml"], "nowhere.yaml: the configuration file cannot be read"),
        (["--set", "mappings.orders.BatchSize=0"], "--set mappings.orders.BatchSize: mappings.orders.BatchSize: 0 is"),
    ],
)
def test_usage(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped())
    assert main(["doctor", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(said)


def test_a_daemon_that_was_named_has_to_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped())
    assert main(["doctor", "--admin", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("bridge: no daemon answers at http://127.0.0.1:1 (")
