"""AWS's words for what went wrong."""

from __future__ import annotations

import json

import pytest
import structlog

from bridge.executors.failures import Failures, exit_text, parse_error
from bridge.executors.log_tail import LogTail, Report
from bridge.function import Logging
from bridge.invocation import Invocation
from tests.executors.surroundings import function

ASKED = Invocation(b"{}", "id-1", "orders")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "Runtime exited without providing a reason"),
        (1, "Runtime exited with error: exit status 1"),
        (-9, "Runtime exited with error: signal: killed"),
        (-6, "Runtime exited with error: signal: aborted"),
        (-15, "Runtime exited with error: signal: terminated"),
        (-63, "Runtime exited with error: signal: real-time signal 29"),
    ],
)
def test_why_a_process_ended(status: int, text: str) -> None:  # INV-24
    assert exit_text(status) == text


def test_a_time_out_names_the_configured_timeout() -> None:  # INV-23
    failed = Failures(function("app.handler", timeout=3.0)).timed_out(ASKED, 3.01, b"tail")
    assert json.loads(failed.error) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": "RequestId: id-1 Error: Task timed out after 3.00 seconds",
    }
    assert (failed.duration, failed.log_tail) == (3.01, b"tail")


@pytest.mark.parametrize("posted", [b"", b"no json", b"[]", b"\xff", b'{"errorMessage": 5}', b"{" * 10_000])
def test_whatever_is_posted_is_the_error(posted: bytes) -> None:  # RT-5
    with structlog.testing.capture_logs() as logs:
        failed = Failures(function("app.handler")).posted(ASKED, posted)
    assert failed.error == (posted or b"{}")
    assert (logs[0]["error_type"], logs[0]["message"]) == ("", "")


def test_long_messages_are_logged_in_part() -> None:
    with structlog.testing.capture_logs() as logs:
        Failures(function("app.handler")).posted(ASKED, json.dumps({"errorMessage": "x" * 1000}).encode())
    assert logs[0]["message"] == "x" * 200 + "…"


def test_repeated_failures_that_differ_in_their_request_id_alone_are_one() -> None:
    with structlog.testing.capture_logs() as logs:
        failures = Failures(function("app.handler"))
        for number in range(5):
            failures.timed_out(Invocation(b"{}", f"id-{number}", "orders"), 3.0, b"")
    assert [line["message"] for line in logs] == ["Task timed out after 3.00 seconds"]


def test_what_errors_have_in_common() -> None:  # INV-21
    error = parse_error(b'{"errorType": "T", "errorMessage": "m", "stackTrace": [], "requestId": ""}')
    assert (error.errorType, error.errorMessage) == ("T", "m")


def test_the_report_line() -> None:  # RT-50, RT-51, RT-52
    short = "Duration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\t"
    assert Report(0.00301, None, 128, None).text() == short
    assert Report(0.00301, None, 128, None, "error", "ValueError").text() == short
    assert Report(0.00301, None, 128, None, "failure", "Runtime.ExitError").text() == (
        f"{short}Status: error\tError Type: Runtime.ExitError\t"
    )
    assert Report(0.00301, 0.1101, 128, 36 << 20, "timeout").text() == (
        "Duration: 3.01 ms\tBilled Duration: 114 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t"
        "Init Duration: 110.10 ms\tStatus: timeout\t"
    )


def test_the_tail_is_bounded_while_it_grows() -> None:  # INV-30
    told: list[str] = []
    tail = LogTail(Logging(), "$LATEST", told.append)
    tail.begin("id-1")
    for number in range(100_000):
        tail.write(b"line %d\n" % number)
        assert len(tail._text) <= 5 * 4096
    tail.write(b"x" * 1_000_000)
    assert len(tail._text) <= 5 * 4096
    text = tail.end(Report(0.001, None, 128, None))
    assert len(text) == 4096
    last = ["END RequestId: id-1", f"REPORT RequestId: id-1\t{Report(0.001, None, 128, None).text()}"]
    assert text.decode().endswith("x\n" + "".join(f"{line}\n" for line in last))
    assert told == ["START RequestId: id-1 Version: $LATEST", *last]


@pytest.mark.parametrize(
    ("level", "report", "types"),
    [
        ("DEBUG", Report(0.001, None, 128, None), ["start", "runtimeDone", "report"]),
        ("INFO", Report(0.001, None, 128, None), ["start", "report"]),
        ("WARN", Report(0.001, None, 128, None), []),
        ("WARN", Report(3.0, None, 128, None, "timeout"), ["runtimeDone", "report"]),
    ],
)
def test_the_platforms_lines_as_json(level: str, report: Report, types: list[str]) -> None:  # RT-54, RT-55
    told: list[str] = []
    tail = LogTail(Logging(json=True, system=level), "$LATEST", told.append)
    tail.begin("id-1")
    tail.write(b"between")
    text = tail.end(report)
    lines = [json.loads(line) for line in told]
    assert [line["type"] for line in lines] == [f"platform.{name}" for name in types]
    assert all(line["record"]["requestId"] == "id-1" and line["time"].endswith("Z") for line in lines)
    assert b"between\n" in text
    assert text.count(b"\n") == len(types) + 1


def test_the_report_as_json() -> None:  # RT-54
    told: list[str] = []
    tail = LogTail(Logging(json=True), "$LATEST", told.append)
    tail.begin("id-1")
    tail.end(Report(0.00301, 0.1101, 128, 36 << 20, "failure", "Runtime.ExitError"))
    assert json.loads(told[-1])["record"] == {
        "requestId": "id-1",
        "metrics": {
            "durationMs": 3.01,
            "billedDurationMs": 114,
            "memorySizeMB": 128,
            "maxMemoryUsedMB": 36,
            "initDurationMs": 110.1,
        },
        "status": "failure",
        "errorType": "Runtime.ExitError",
    }
