"""The platform's own lines of an invocation's log, START, END and REPORT, and the end of that log as Lambda gives it to
a caller who asks (INV-30)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil
from typing import Any, Literal, NamedTuple

import msgspec

from bridge.function import Logging

SIZE = 4096

Status = Literal["success", "error", "failure", "timeout"]
"""``error``: the handler reported one; ``failure``: its process ended."""


class Report(NamedTuple):
    """What is said about an invocation that is over (RT-50..52). Seconds; MiB of ``memory_size``, bytes of
    ``memory_used``; ``init`` only for a cold start."""

    duration: float
    init: float | None
    memory_size: int
    memory_used: int | None
    status: Status = "success"
    error_type: str = ""

    @property
    def billed(self) -> int:
        """Milliseconds."""
        return ceil((self.duration + (self.init or 0.0)) * 1000)

    def text(self) -> str:
        """The fields of the REPORT line."""
        fields = [
            f"Duration: {self.duration * 1000:.2f} ms\tBilled Duration: {self.billed} ms",
            f"Memory Size: {self.memory_size} MB",
        ]
        if self.memory_used is not None:
            fields.append(f"Max Memory Used: {self.memory_used >> 20} MB")
        if self.init is not None:
            fields.append(f"Init Duration: {self.init * 1000:.2f} ms")
        if self.status == "timeout":
            fields.append("Status: timeout")
        elif self.status == "failure":  # RT-51
            fields.append(f"Status: error\tError Type: {self.error_type}")
        return "\t".join([*fields, ""])

    def metrics(self) -> dict[str, float]:
        """The same as numbers (RT-54)."""
        found: dict[str, float] = {
            "durationMs": round(self.duration * 1000, 3),
            "billedDurationMs": self.billed,
            "memorySizeMB": self.memory_size,
        }
        if self.memory_used is not None:
            found["maxMemoryUsedMB"] = self.memory_used >> 20
        if self.init is not None:
            found["initDurationMs"] = round(self.init * 1000, 3)
        return found


class LogTail:
    """Collects the log of the invocation that runs, never more than a few kilobytes of it. ``tell`` gets each line of
    the platform, too."""

    def __init__(self, logging: Logging, version: str, tell: Callable[[str], None]) -> None:
        self._version = version
        self._json = logging.json
        self._least = ("DEBUG", "INFO", "WARN").index(logging.system)
        self._tell = tell
        self._text = bytearray()
        self._request_id = ""

    def begin(self, request_id: str) -> None:
        """A new invocation starts with a new log (RT-50)."""
        self._request_id = request_id
        self._text = bytearray()
        if self._json:
            self._event("INFO", "platform.start", {"version": self._version})
        else:
            self._line(f"START RequestId: {request_id} Version: {self._version}")

    def write(self, data: bytes) -> None:
        text = self._text
        text += data[-SIZE:]
        if len(text) > 4 * SIZE:
            del text[:-SIZE]

    def end(self, report: Report) -> bytes:
        """The newest bytes, with the platform's last lines behind them."""
        if self._text and not self._text.endswith(b"\n"):
            self._text += b"\n"
        if self._json:
            self._end_json(report)
        else:
            self._line(f"END RequestId: {self._request_id}")
            self._line(f"REPORT RequestId: {self._request_id}\t{report.text()}")
        return bytes(self._text[-SIZE:])

    def _end_json(self, report: Report) -> None:
        fine = report.status == "success"
        outcome: dict[str, Any] = {"status": report.status}
        if report.error_type:
            outcome["errorType"] = report.error_type
        metrics = report.metrics()
        done = {**outcome, "metrics": {"durationMs": metrics["durationMs"]}}
        self._event("DEBUG" if fine else "WARN", "platform.runtimeDone", done)
        self._event("INFO" if fine else "WARN", "platform.report", {"metrics": metrics, **outcome})

    def _event(self, level: str, kind: str, record: dict[str, Any]) -> None:
        if ("DEBUG", "INFO", "WARN").index(level) < self._least:  # RT-55
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"requestId": self._request_id, **record}
        self._line(msgspec.json.encode({"time": time, "type": kind, "record": record}).decode())

    def _line(self, line: str) -> None:
        self._text += f"{line}\n".encode()
        self._tell(line)
