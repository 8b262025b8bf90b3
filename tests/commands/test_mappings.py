"""`bridge mappings` against a real admin server with a scripted daemon behind it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest

from bridge.commands import main
from bridge.errors import Draining, StateError, UsageError
from bridge.snapshot import Gate
from tests.admin.control import CLICKS, FAILED, ORDERS, STARTED, ScriptedControl, served, view

TOKEN = "s3cret"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration and no daemon is found by accident."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def control() -> ScriptedControl:
    return ScriptedControl(ORDERS, CLICKS)


@pytest.fixture
def daemon(control: ScriptedControl, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served(control, TOKEN) as url:
        monkeypatch.setenv("BRIDGE_ADMIN", url)
        yield url


@pytest.mark.usefixtures("daemon")
class TestShown:
    def test_a_table_for_people(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["mappings"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert out.splitlines() == [
            "NAME    FUNCTION  STATE    GATE          IN FLIGHT    LAG  LAST ERROR",
            "orders  worker    Enabled  window 3.1 s          7  3.2 s  ValueError: no such order",
            "clicks  worker    Enabled  -                     0      -  -",
        ]

    def test_one_mapping_by_name_or_uuid(self, capsys: pytest.CaptureFixture[str]) -> None:
        for wanted in ("clicks", CLICKS.uuid, CLICKS.uuid.upper()):
            assert main(["mappings", "list", wanted]) == 0
            assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["NAME", "clicks"]

    def test_an_array_for_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        expected = {
            "name": "orders",
            "uuid": ORDERS.uuid,
            "function": "worker",
            "source_arn": "arn:aws:sqs:eu-west-1:123456789012:orders",
            "state": "Enabled",
            "gate": {"name": "window", "since": "2023-11-14T22:14:56.900Z", "detail": "3.1 of 5 s, 7 of 10 records"},
            "in_flight": 7,
            "lag_seconds": 3.25,
            "last_error": "ValueError: no such order",
        }
        for arguments in (["list"], ["show"], ["--json", "list"], []):
            assert main(["mappings", *arguments, "--json"]) == 0
            first, second = json.loads(capsys.readouterr().out)
            assert first == expected
            assert list(second) == list(expected)
            assert second["gate"] is None

    def test_show_tells_all_about_a_mapping(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["mappings", "show", "orders"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"orders ({ORDERS.uuid})",
            "  function   worker",
            "  source     arn:aws:sqs:eu-west-1:123456789012:orders",
            "  state      Enabled",
            "  gate       window for 3.1 s, since 2023-11-14T22:14:56.900Z: 3.1 of 5 s, 7 of 10 records",
            "  in flight  7 records",
            "  lag        3.2 s",
            "  so far     100 polled, 2 filtered, 89 succeeded, 2 failed",
            "  last error ValueError: no such order",
        ]

    def test_why_names_each_partitions_gate_the_failures_and_the_filtered(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["mappings", "show", "--why"]) == 0
        orders, clicks = capsys.readouterr().out.split("\n\n")
        assert orders.splitlines()[9:] == [
            "  partitions",
            "    orders, 7 records: window for 3.1 s, since 2023-11-14T22:14:56.900Z: 3.1 of 5 s, 7 of 10 records",
            "    orders, 0 records: polling for 10.0 s, since 2023-11-14T22:14:50.000Z",
            "  failures",
            "    2023-11-14T22:14:10.000Z ValueError: no such order (request 5f0c6e2a-0000-4000-8000-00000000000a)",
            "  attempts",
            f"    2023-11-14T22:14:10.000Z function ValueError: no such order (0.25 s, request {FAILED.request_id})",
            "      m-7 attempt 2, m-8 attempt 1",
            "      | looking for order 7",
            "  filtered   m-1, m-2",
        ]
        assert clicks.splitlines()[4] == "  gate       none"
        assert clicks.splitlines()[-4:] == [
            "  partitions none runs",
            "  failures   none",
            "  attempts   none",
            "  filtered   none",
        ]

    def test_why_for_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["mappings", "show", "orders", "--why", "--json"]) == 0
        [shown] = json.loads(capsys.readouterr().out)
        assert [runner["gate"]["name"] for runner in shown["runners"]] == ["window", "polling"]
        assert shown["failures"][0]["what"] == "ValueError"
        assert shown["filtered_ids"] == ["m-1", "m-2"]
        (attempt,) = shown["attempts"]
        assert attempt["records"] == [{"id": "m-7", "attempt": 2}, {"id": "m-8", "attempt": 1}]
        assert (attempt["outcome"], attempt["error_type"], attempt["at"]) == (
            "function", "ValueError", "2023-11-14T22:14:10.000Z",
        )  # fmt: skip
        assert "looking for order 7" in attempt["log_tail"]

    def test_who_may_not_see_logs_of_handlers_sees_the_rest(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["mappings", "show", "orders", "--why", "--token", "wrong"]) == 0
        out = capsys.readouterr().out.splitlines()
        assert "  attempts   not shown: the token is wrong; give it with --token or BRIDGE_ADMIN_TOKEN" in out
        assert "  partitions" in out
        assert main(["mappings", "show", "orders", "--why", "--json", "--token", "wrong"]) == 0
        [shown] = json.loads(capsys.readouterr().out)
        assert shown["attempts"] is None

    def test_long_times_are_readable(self, control: ScriptedControl, capsys: pytest.CaptureFixture[str]) -> None:
        for lag, shown in ((59.94, "59.9 s"), (90, "1.5 min"), (7200, "2.0 h"), (216000, "2.5 d"), (-1, "0.0 s")):
            control.mappings = {"orders": view("orders", lag_seconds=lag)}
            assert main(["mappings", "show"]) == 0
            assert f"  lag        {shown}\n" in capsys.readouterr().out

    def test_what_a_handler_wrote_stays_in_its_place(
        self, control: ScriptedControl, capsys: pytest.CaptureFixture[str]
    ) -> None:
        control.mappings = {"orders": view("orders", last_error="E: \x1b[2Jgone\nNAME  fake")}
        assert main(["mappings"]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert len(out.splitlines()) == 2

    def test_a_daemon_without_mappings(self, control: ScriptedControl, capsys: pytest.CaptureFixture[str]) -> None:
        control.mappings = {}
        assert main(["mappings", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == []
        assert main(["mappings"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1

    def test_an_unknown_name_gets_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        for action in ("list", "show", "pause", "resume"):
            assert main(["mappings", action, "ordrs"]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert err == 'bridge: the daemon has no mapping "ordrs"; did you mean "orders"?\n'
        assert main(["mappings", "show", "zzz"]) == 2
        assert capsys.readouterr().err == 'bridge: the daemon has no mapping "zzz"; bridge mappings lists them\n'


def test_a_terminal_gets_lines_that_fit(control: ScriptedControl, daemon: str) -> None:
    control.mappings["orders"] = msgspec.structs.replace(ORDERS, last_error="x" * 500)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        subprocess.run(
            [sys.executable, "-m", "bridge", "mappings"],
            stdout=terminal,
            timeout=60,
            check=True,
            env={**os.environ, "COLUMNS": "72", "BRIDGE_ADMIN": daemon},
        )
        shown = os.read(master, 65536).decode()
    os.close(master)
    assert max(map(len, shown.splitlines())) == 72
    assert "…" in shown


@pytest.mark.usefixtures("daemon")
class TestChanged:
    def test_pause_waits_and_resume(self, control: ScriptedControl, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["mappings", "pause", "orders"]) == 0
        assert capsys.readouterr().out == "orders: Disabled, 7 records in flight\n"
        assert main(["mappings", "resume", CLICKS.uuid]) == 0
        assert capsys.readouterr().out == "clicks: Enabled\n"
        assert control.asked == [("pause", "orders", True), ("resume", "clicks")]

    def test_pause_without_waiting(self, control: ScriptedControl) -> None:
        control.finish = anyio.Event()  # nobody sets it
        assert main(["mappings", "pause", "orders", "--no-wait"]) == 0
        assert control.asked == [("pause", "orders", False)]

    def test_the_wait_lasts_until_nothing_runs(self, control: ScriptedControl) -> None:
        control.finish = anyio.Event()
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(main(["mappings", "pause", "orders"])))
        thread.start()
        while not control.asked:
            thread.join(0.001)
            assert thread.is_alive()
        assert statuses == []
        assert control.portal is not None
        control.portal.call(control.finish.set)
        thread.join(30)
        assert statuses == [0]

    def test_all_are_stopped_before_one_is_waited_for(
        self, control: ScriptedControl, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["mappings", "pause", "--all", "--json"]) == 0
        assert [shown["gate"]["name"] for shown in json.loads(capsys.readouterr().out)] == ["paused", "paused"]
        assert control.asked == [
            ("pause", "orders", False),
            ("pause", "clicks", False),
            ("pause", "orders", True),
            ("pause", "clicks", True),
        ]
        assert main(["mappings", "resume", "--all"]) == 0
        assert control.asked[4:] == [("resume", "orders"), ("resume", "clicks")]

    @pytest.mark.parametrize(
        ("failure", "status"), [(StateError("state file /x: its disk is full; free some space"), 2), (Draining(), 1)]
    )
    def test_what_cannot_be_done_is_one_line_a_mapping(
        self, control: ScriptedControl, capsys: pytest.CaptureFixture[str], failure: StateError | Draining, status: int
    ) -> None:
        control.failure = failure
        assert main(["mappings", "pause", "--all"]) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 2
        assert all(str(failure) in line for line in err.splitlines())

    def test_forget_says_what_is_gone(self, control: ScriptedControl, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["mappings", "forget", "gone"]) == 0
        assert capsys.readouterr().out == f"gone ({CLICKS.uuid}): forgot where it stood in 3 partitions\n"
        assert main(["mappings", "forget", "gone", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [{"name": "gone", "uuid": CLICKS.uuid, "partitions": 3}]
        assert control.asked == [("forget", "gone"), ("forget", "gone")]

    def test_what_exists_is_not_forgotten(self, control: ScriptedControl, capsys: pytest.CaptureFixture[str]) -> None:
        control.failure = UsageError('the mapping "orders" exists, and keeps its positions')
        assert main(["mappings", "forget", "orders"]) == 2
        assert capsys.readouterr().err == f"bridge: {control.failure}\n"

    def test_the_token_is_sent_from_option_or_environment(
        self, control: ScriptedControl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["mappings", "pause", "orders", "--token", "wrong"]) == 1
        assert "the token is wrong" in capsys.readouterr().err
        monkeypatch.setenv("BRIDGE_ADMIN_TOKEN", "wrong")
        assert main(["mappings", "pause", "orders"]) == 1
        assert main(["mappings", "pause", "orders", "--token", TOKEN]) == 0
        assert control.asked == [("pause", "orders", True)]
        assert TOKEN not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["forget"], "forget needs the NAME or UUID of a mapping that is gone"),
        (["forget", "orders", "--all"], "--all does not go with forget"),
        (["lsit"], 'did you mean "list"?'),
        (["pause"], "either the NAME or UUID of one mapping, or --all"),
        (["resume"], "either the NAME or UUID of one mapping, or --all"),
        (["pause", "orders", "--all"], "either the NAME"),
        (["list", "--why"], "--why does not go with list"),
        (["list", "--all"], "--all does not go with list"),
        (["resume", "--all", "--no-wait"], "--no-wait does not go with resume"),
        (["show", "a", "b"], "unrecognized arguments: b"),
        (["--jsn"], 'did you mean "--json"?'),
        (["list", "--admin", "nowhere:port"], "is no address"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main(["mappings", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert part in err
    assert err.count("\n") == 1


def test_no_daemon_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    with served(ScriptedControl()) as url:
        pass
    assert main(["mappings", "--admin", url]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"bridge: no daemon answers at {url}")
    assert err.count("\n") == 1


def test_the_gate_of_a_paused_mapping_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    paused = view("orders", state="Disabled", gate=Gate("paused", STARTED - 3500))
    with served(ScriptedControl(paused)) as url:
        assert main(["mappings", "--admin", url]) == 0
    assert "Disabled  paused 1.0 h" in capsys.readouterr().out
