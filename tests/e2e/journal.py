"""What really happened, as the handlers wrote it down (handlers/actor.py)."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, NamedTuple

Entry = dict[str, Any]


class Invocation(NamedTuple):
    """One run of the handler. Times are those of the wall clock; ``ended`` is none while it runs, and for ever when it
    was cut off. ``well``: it ended without an error."""

    request: str
    function: str
    setting: str
    pid: int
    at: float
    records: list[dict[str, Any]]
    ended: float | None = None
    well: bool = False

    @property
    def ids(self) -> list[str]:
        return [record["messageId"] for record in self.records]

    @property
    def counts(self) -> list[int]:
        """How often each record had been received."""
        return [int(record["attributes"]["ApproximateReceiveCount"]) for record in self.records]


class Journal:
    """The file; many processes append to it, and many threads read it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read = 0
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Journal {self.file}: {len(self._entries)} entries>"

    def entries(self, what: str) -> list[Entry]:
        """All of a kind so far."""
        with self._lock:
            if self.file.exists():
                with self.file.open("rb") as file:
                    file.seek(self._read)
                    whole, newline, _ = file.read().rpartition(b"\n")
                self._read += len(whole) + len(newline)
                self._entries += [json.loads(line) for line in whole.splitlines()]
            return [entry for entry in self._entries if entry["what"] == what]

    def invocations(self, queue: str = "") -> list[Invocation]:
        """Those of one queue, or all, in the order in which they began."""
        starts = self.entries("start")  # first: what has ended by then has begun
        ends = {(entry["request"], entry["pid"]): entry for entry in self.entries("end")}
        found = []
        for start in starts:
            if queue and not any(record["eventSourceARN"].endswith(f":{queue}") for record in start["records"][:1]):
                continue
            end = ends.get((start["request"], start["pid"]))
            known = {name: start[name] for name in ("request", "function", "setting", "pid", "at", "records")}
            found.append(Invocation(**known, ended=end["at"], well=end["well"]) if end else Invocation(**known))
        return sorted(found, key=lambda run: run.at)

    def ids(self, queue: str = "") -> list[str]:
        """The messages that were handed to a handler, as often as they were."""
        return [name for run in self.invocations(queue) for name in run.ids]
