"""Log lines: their shape (interfaces.md section 7), and what must never be in one."""

from __future__ import annotations

import logging
import os
import pty
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge.telemetry import logs
from bridge.telemetry.logs import REDACTED, Once
from tests.telemetry.conftest import Lines

module_logger = structlog.get_logger()


def test_a_line_is_one_json_object_with_time_level_and_event(lines: Lines) -> None:
    before = datetime.now(UTC)
    structlog.get_logger().bind(mapping="orders").info("batch_done", batch_size=10, duration_ms=1.5)

    [line] = lines.read_all()
    assert list(line) == ["timestamp", "level", "event", "mapping", "batch_size", "duration_ms"]
    assert line["level"] == "info"
    assert line["event"] == "batch_done"
    assert (line["mapping"], line["batch_size"], line["duration_ms"]) == ("orders", 10, 1.5)
    assert line["timestamp"].endswith("Z")
    at = datetime.fromisoformat(line["timestamp"])
    assert at.utcoffset() == timedelta(0)
    assert before <= at <= datetime.now(UTC)


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "session_token",
        "aws_secret_access_key",
        "Authorization",
        "password",
        "access_key",
        "AccessKeyId",
        "credentials",
        "cookie",
        "api_key",
        "body",
        "payload",
        "environment",
    ],
)
def test_a_value_under_a_secret_name_is_not_logged(lines: Lines, key: str) -> None:
    module_logger.info("e", **{key: "hunter2"})
    module_logger.info("e", nested={"list": [{key: "hunter2"}]})
    module_logger.bind(**{key: "hunter2"}).error("e")
    assert "hunter2" not in lines.getvalue()
    assert lines.getvalue().count(REDACTED) == 3


@pytest.mark.parametrize("key", ["mapping", "batch_size", "request_id", "source_arn", "message", "keys"])
def test_ordinary_names_are_logged(lines: Lines, key: str) -> None:
    module_logger.info("e", **{key: "shown"})
    assert lines.read_all()[0][key] == "shown"


def test_a_password_inside_a_url_is_not_logged(lines: Lines) -> None:
    module_logger.info("e", url="http://me:hunter2@sqs.local:9324/q", urls=["amqp://me:hunter2@mq"])
    [line] = lines.read_all()
    assert line["url"] == f"http://{REDACTED}@sqs.local:9324/q"
    assert line["urls"] == [f"amqp://{REDACTED}@mq"]


def test_values_of_any_type_make_a_line(lines: Lines) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: list[Any] = []
    loop.append(loop)
    module_logger.info("e", path=Path("/x"), error=ValueError("bad"), rude=Rude(), surrogate="\udcff", huge=1 << 80)
    module_logger.info("e", loop=loop, odd={1: {2}, (3,): b"raw"}, nan=float("nan"))
    first, second = lines.read_all()
    assert first["path"] == "/x"
    assert first["error"] == "bad"
    assert "Rude" in first["rude"]
    assert second["event"] == "e"


def test_a_very_long_value_is_cut(lines: Lines) -> None:
    module_logger.info("e", message="x" * 1_000_000)
    assert len(lines.getvalue()) < 2 * logs.LONGEST
    assert "967232 more" in lines.read_all()[0]["message"]


def test_an_exception_stays_on_its_line(lines: Lines) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        module_logger.exception("runner_failed")
    [line] = lines.read_all()
    assert line["level"] == "error"
    assert "ValueError: two\nlines" in line["exception"]


def test_the_level_of_loggers_that_exist_follows(lines: Lines) -> None:
    bound = module_logger.bind(mapping="m")
    bound.debug("unseen")
    logs.configure("debug", "json", lines)
    bound.debug("seen")
    module_logger.debug("seen")
    logs.configure("error", "json", lines)
    bound.warning("unseen")
    module_logger.warning("unseen")
    assert [line["event"] for line in lines.read_all()] == ["seen", "seen"]


def test_libraries_are_heard_from_warning_on(lines: Lines) -> None:
    logs.configure("info", "json", lines)  # without pytest's own handlers of this phase
    logger = logging.getLogger("some.library")
    logger.info("unseen")
    logger.warning("retrying %s", "that")
    logger.warning("misfit %d %d", "x")
    logger.log(35, "between")
    try:
        raise OSError("gone")
    except OSError:
        logger.exception("lost")
    first, misfit, between, lost = lines.read_all()
    assert (first["level"], first["event"], first["logger"]) == ("warning", "library", "some.library")
    assert first["message"] == "retrying that"
    assert misfit["message"] == "misfit %d %d ('x',)"
    assert between["level"] == "warning"
    assert "OSError: gone" in lost["exception"]


def test_python_warnings_become_lines(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("odd", RuntimeWarning, stacklevel=1)
    assert "RuntimeWarning: odd" in lines.read_all()[0]["message"]


def _on_a_terminal(**fields: str) -> str:
    """What a terminal shows of one line."""
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w") as terminal:
            logs.configure("info", None, terminal)
            module_logger.info("batch_done", **fields)
            return os.read(master, 65536).decode()
    finally:
        os.close(master)


def test_a_terminal_gets_text_with_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    shown = _on_a_terminal(mapping="orders")
    assert "\x1b[" in shown
    assert "batch_done" in shown
    assert not shown.startswith("{")


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    shown = _on_a_terminal(mapping="orders")
    assert "\x1b" not in shown
    assert "mapping=orders" in shown


def test_a_handlers_words_do_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = _on_a_terminal(message="\x1b]0;title\x07\x9b2J\rgone", password="hunter2")
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    assert r"\x1b]0;title" in shown
    assert "hunter2" not in shown


def test_json_where_there_is_no_terminal_and_console_where_asked() -> None:
    stream = Lines()
    logs.configure("info", None, stream)
    module_logger.info("e")
    assert stream.read_all()[0]["event"] == "e"
    text = Lines()
    logs.configure("info", "console", text)
    module_logger.info("e", error=ValueError("x"), count=3)
    assert "count=3" in text.getvalue()
    assert "error=x" in text.getvalue()


class TestOnce:
    """A repeating error is logged once, then counted."""

    @pytest.fixture
    def once(self, lines: Lines) -> Once:
        self.now = 0.0
        self.lines = lines
        return Once(module_logger, every=60, most=3, clock=lambda: self.now)

    def seen(self) -> list[tuple[str, Any]]:
        return [(line["event"], line.get("repeated")) for line in self.lines.read_all()]

    def test_the_first_is_written_the_others_are_counted(self, once: Once) -> None:
        assert once.log("q", "endpoint_lost", level="error", endpoint="e")
        for _ in range(5):
            self.now += 10
            assert not once.log("q", "endpoint_lost", level="error", endpoint="e")
        self.now += 10
        assert once.log("q", "endpoint_lost", level="error", endpoint="e")
        assert self.seen() == [("endpoint_lost", None), ("endpoint_lost", 6)]
        assert {line["level"] for line in self.lines.read_all()} == {"error"}

    def test_the_end_tells_what_was_counted_since(self, once: Once) -> None:
        once.log("q", "endpoint_lost")
        once.log("q", "endpoint_lost")
        assert once.end("q")
        assert not once.end("q")
        once.log("q", "endpoint_lost")
        assert once.end("q")
        assert self.seen() == [("endpoint_lost", None), ("endpoint_lost", 1), ("endpoint_lost", None)]

    def test_keys_are_apart_and_bounded(self, once: Once) -> None:
        for key in "abc":
            once.log(key, key)
        once.log("a", "a")  # now b is the one that was quiet longest
        once.log("b", "b")
        once.log("a", "a")
        once.log("d", "d")  # c goes
        once.log("e", "e")  # b goes, and tells its count
        assert self.seen() == [("a", None), ("b", None), ("c", None), ("d", None), ("b", 1), ("e", None)]
