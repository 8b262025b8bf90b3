"""AWS's words for what went wrong."""

from __future__ import annotations

import json

import pytest
import structlog

from bridge.executors.failures import Failures, exit_text, parse_error
from bridge.executors.log_tail import LogTail, report
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
    assert report(0.00301, None, 128, None) == "Duration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\t"
    assert report(0.00301, 0.1101, 128, 36 << 20, "timeout") == (
        "Duration: 3.01 ms\tBilled Duration: 114 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t"
        "Init Duration: 110.10 ms\tStatus: timeout\t"
    )


def test_the_tail_is_bounded_while_it_grows() -> None:  # INV-30
    tail = LogTail()
    tail.begin("id-1")
    for number in range(100_000):
        tail.write(b"line %d\n" % number)
        assert len(tail._text) <= 5 * 4096
    tail.write(b"x" * 1_000_000)
    assert len(tail._text) <= 5 * 4096
    text = tail.end("Duration: 1.00 ms\t")
    assert len(text) == 4096
    assert text.endswith(b"x\nEND RequestId: id-1\nREPORT RequestId: id-1\tDuration: 1.00 ms\t\n")
