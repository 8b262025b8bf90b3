"""What people see of the demo: the live view on stderr, the summary on stdout."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any, NamedTuple

import msgspec

from bridge.daemon import Daemon
from bridge.local import LocalEndpoint
from bridge.snapshot import MappingView


class Rule(NamedTuple):
    """One rule, and what of it was seen."""

    rule: str
    seen: bool
    text: str


class Sent(NamedTuple):
    """How much was sent."""

    messages: int = 0
    records: int = 0
    """Put into the stream."""
    writes: int = 0
    """Of items of the table."""


class Live:
    """What happens, on stderr: redrawn in place on a terminal, else a line whenever the figures changed."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._began = time.monotonic()
        self._last = ""
        self._drawn = 0
        self._terminal = sys.stderr.isatty()

    def show(self) -> None:
        width = shutil.get_terminal_size().columns - 1 if self._terminal else None
        lines = [self._line(view)[:width] for view in self._daemon.snapshot().mappings]
        text = "\n".join(lines)
        if self._terminal:
            self._erase()
            tell(text)
            self._drawn = len(lines)
        elif text != self._last:
            tell(f"{time.monotonic() - self._began:5.1f} s  " + " | ".join(lines))
        self._last = text

    def end(self) -> None:
        self.show()

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}A\x1b[J")

    def _line(self, view: MappingView) -> str:
        gate = f", {view.gate.name}" if view.gate and self._terminal else ""
        return (
            f"{view.name}: {view.polled} received, {view.filtered} filtered out, {view.succeeded} done, "
            f"{view.failed} failed, {view.in_flight} in flight{gate}"
        )


def report(rules: list[Rule], sent: Sent, seconds: float, *, as_json: bool) -> None:
    """The summary, on stdout."""
    if as_json:
        summary: dict[str, Any] = {
            **sent._asdict(),
            "seconds": round(seconds, 1),
            "rules": [rule._asdict() for rule in rules],
        }
        print(msgspec.json.encode(summary).decode(), flush=True)
        return
    print(
        f"\n{sent.messages} messages, {sent.records} records of a stream and {sent.writes} writes to a table in "
        f"{seconds:.1f} s. What AWS's rules made of them:\n"
    )
    for rule in rules:
        print(f"  {'ok  ' if rule.seen else 'MISS'}  {rule.rule:<7} {rule.text}")
    print("\nThe numbers are those of the project's tests/spec. Next: bridge run --local -c bridge.yaml", flush=True)


def stay(daemon: Daemon, endpoint: LocalEndpoint) -> None:
    """How to look around while it is kept."""
    for line in endpoint.export_lines(daemon.settings.mappings.values()):
        tell(line)
    if daemon.admin:
        tell(f"export BRIDGE_ADMIN=http://127.0.0.1:{daemon.admin.port}")
    tell("running until Ctrl-C; try: bridge mappings show --why")


def tell(line: str) -> None:
    """For people."""
    print(line, file=sys.stderr, flush=True)
