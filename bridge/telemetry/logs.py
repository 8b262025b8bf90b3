"""Log lines by structlog: one JSON object a line, or readable text on a terminal; never a secret, never a crash."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TextIO, cast

import msgspec
import structlog

from bridge.telemetry.writer import Writer

Format = Literal["json", "console"]
EventDict = MutableMapping[str, Any]

REDACTED = "[redacted]"
LONGEST = 32 * 1024
"""Characters of one value that are logged."""

_SECRET = re.compile(
    r"token|secret|password|passwd|authorization|access_?key|api_?key|credential|signature|cookie", re.IGNORECASE
)
_PAYLOAD = frozenset({"body", "payload", "environment", "env"})
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

_writer = Writer()
_processors: list[Any] = []


class Logger(structlog.make_filtering_bound_logger(logging.NOTSET)):  # type: ignore[misc]
    """What ``structlog.get_logger()`` gives. Its methods are those of the level set last, so that a reload changes the
    level of loggers that exist already, and a line below the level costs a call that does nothing."""


def configure(level: str = "info", format: Format | None = None, stream: TextIO | None = None) -> None:  # noqa: A002
    """Sends all log lines of ``level`` (debug, info, warning, error) and above to ``stream`` (standard error).

    ``format`` none: console on a terminal, else json. Lines of libraries come along from warning on. May be called
    again: loggers that exist already follow.
    """
    stream = stream or cast("TextIO | None", sys.stderr)
    terminal = stream is not None and _is_terminal(stream)
    _set_level(level)
    _writer.open(stream)
    _processors[:] = [structlog.processors.format_exc_info, _clean, _stamp]
    if (format or ("console" if terminal else "json")) == "json":
        _processors.append(_to_json)
    else:
        _processors.append(_to_console(colors=terminal and _wants_colors()))
    structlog.configure(
        processors=_processors,
        wrapper_class=Logger,
        logger_factory=structlog.BytesLoggerFactory(cast("Any", _writer)),
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(logging.WARNING)


def dropped() -> int:
    """How many lines could not be written since the start."""
    return _writer.dropped


class Once:
    """Logs a repeating trouble once, then counts it.

    The first ``log`` of a key writes its line. Later ones are counted and written at most once in ``every`` seconds,
    with ``repeated=N``; ``end`` writes what is left of the count and forgets the key. Of more than ``most`` keys the
    one that was quiet longest is ended.
    """

    def __init__(
        self, logger: Any, *, every: float = 60.0, most: int = 256, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._every = every
        self._most = most
        self._clock = clock
        self._troubles: OrderedDict[Hashable, _Trouble] = OrderedDict()

    def log(self, key: Hashable, event: str, *, level: str = "warning", **fields: Any) -> bool:
        """Whether a line was written."""
        now = self._clock()
        trouble = self._troubles.get(key)
        if trouble is None:
            if len(self._troubles) >= self._most:
                self.end(next(iter(self._troubles)))
            self._troubles[key] = _Trouble(event, level, fields, now)
            getattr(self._logger, level)(event, **fields)
            return True
        self._troubles.move_to_end(key)
        trouble.repeated += 1
        trouble.event, trouble.level, trouble.fields = event, level, fields
        if now - trouble.logged_at < self._every:
            return False
        self._summary(trouble)
        trouble.logged_at, trouble.repeated = now, 0
        return True

    def end(self, key: Hashable) -> bool:
        """The trouble is over. Whether there had been one."""
        trouble = self._troubles.pop(key, None)
        if trouble is not None and trouble.repeated:
            self._summary(trouble)
        return trouble is not None

    def _summary(self, trouble: _Trouble) -> None:
        getattr(self._logger, trouble.level)(trouble.event, **trouble.fields, repeated=trouble.repeated)


class _Trouble:
    __slots__ = ("event", "fields", "level", "logged_at", "repeated")

    def __init__(self, event: str, level: str, fields: dict[str, Any], logged_at: float) -> None:
        self.event = event
        self.level = level
        self.fields = fields
        self.logged_at = logged_at
        self.repeated = 0


def _set_level(level: str) -> None:
    for name, method in vars(structlog.make_filtering_bound_logger(level)).items():
        if not name.startswith("__"):
            setattr(Logger, name, method)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _wants_colors() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# Processors, in the order in which an event passes them.


def _clean(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Takes out what must not be logged, and bounds the rest."""
    for key, value in event.items():
        if _is_secret(key):
            event[key] = REDACTED
        elif type(value) is str:
            if len(value) > LONGEST or "://" in value:
                event[key] = _clean_text(value)
        elif isinstance(value, (dict, list, tuple)):
            event[key] = _clean_nested(value)
    return event


@lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    return key in _PAYLOAD or bool(_SECRET.search(key))


def _clean_text(text: str) -> str:
    text = _USER_IN_URL.sub(f"{REDACTED}@", text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST} more)"


def _clean_nested(value: Any, depth: int = 4) -> Any:
    if isinstance(value, str):
        return _clean_text(value)
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        return {
            key: REDACTED if _is_secret(str(key)) else _clean_nested(item, depth - 1) for key, item in value.items()
        }
    return [_clean_nested(item, depth - 1) for item in value]


def _stamp(_logger: object, method: str, event: EventDict) -> EventDict:
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": "error" if method == "exception" else method,
        "event": event.pop("event"),
        **event,
    }


def _to_json(_logger: object, _method: str, event: EventDict) -> bytes:
    try:
        return _encoder.encode(event)
    except Exception:  # noqa: BLE001  a value that cannot be shown must not stop the work that mentions it
        return json.dumps({str(key): _text(value) for key, value in event.items()}).encode()


def _to_console(*, colors: bool) -> Callable[[object, str, EventDict], bytes]:
    render = structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
    )

    def to_console(logger: object, method: str, event: EventDict) -> bytes:
        event["timestamp"] = datetime.now().astimezone().strftime("%H:%M:%S")
        for key, value in event.items():
            # What a handler or a server wrote must not steer the terminal.
            event[key] = (value if isinstance(value, str) else _text(value)).translate(_CONTROLS)
        return render(cast("Any", logger), method, event).encode(errors="backslashreplace")

    return to_console


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  foreign code runs here
        return f"<{type(value).__name__}>"


_encoder = msgspec.json.Encoder(enc_hook=_text)


class _Bridge(logging.Handler):
    """Carries what libraries log with the standard library over to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the text
            message = f"{record.msg} {record.args}"
        fields: dict[str, Any] = {"logger": record.name, "message": message}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exc_info"] = record.exc_info
        level = max(logging.DEBUG, min(record.levelno // 10 * 10, logging.CRITICAL))
        structlog.get_logger().log(level, "library", **fields)
