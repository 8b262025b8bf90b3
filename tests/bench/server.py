"""The stub server of the benches (fakeaws/): built once for each version of its source, run on a free loopback port."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SOURCE = Path(__file__).parent / "fakeaws" / "fakeaws.c"
QUEUE_ARN = "arn:aws:sqs:us-east-1:000000000000:q0"
POLL = 0.02
"""Seconds between two looks at the counters: fine enough for runs of seconds, and no load for the server."""

Stats = dict[str, Any]


class BenchError(Exception):
    """A run that cannot be counted: what happened is the message."""


def built() -> Path:
    """The server's program: compiled by the machine's C compiler, kept in the user's cache under its source's hash."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("the bench server is one C file: install a C compiler (`cc`)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bridge-bench"
    program = cache / f"fakeaws-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            fresh = Path(folder) / "fakeaws"
            subprocess.run([compiler, "-O2", "-o", fresh, SOURCE], check=True)
            fresh.rename(program)
    return program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(core: int | None) -> Callable[[], None] | None:
    """What keeps a child on one core, its own children too; none where there is nothing to choose."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


class Server:
    """One running stub server with the queue ``q0``. Options are those of its README, with underscores."""

    def __init__(self, core: int | None = None, **options: float) -> None:
        self.port = free_port()
        self._core = core
        self._options = options

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        options = [word for key, value in self._options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        self._process = subprocess.Popen(
            [built(), "--port", str(self.port), *options], stderr=subprocess.DEVNULL, preexec_fn=pinned(self._core)
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the bench server does not answer on port {self.port}")
            time.sleep(POLL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        try:
            self._ask("GET", "/health")
        except OSError:
            return False
        return True

    def _ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def stats(self) -> Stats:
        stats: Stats = json.loads(self._ask("GET", "/stats"))
        return stats

    def fill(self, messages: int) -> None:
        """Adds messages now and wakes the long polls."""
        self._ask("POST", f"/fill?messages={messages}")

    def clear(self) -> None:
        """Counts requests and latencies from zero; messages stay as they are."""
        self._ask("POST", "/clear")

    def restart(self, rate: float) -> None:
        """An empty queue which gets ``rate`` messages a second from now on."""
        self._ask("POST", f"/reset?messages=0&rate={rate:g}")

    def stop_traffic(self) -> None:
        self._ask("POST", "/set?rate=0")

    def control(self, path: str) -> None:
        """Any other command of its README."""
        self._ask("POST", path)

    def wait_for(self, what: str, condition: Callable[[Stats], bool], within: float) -> Stats:
        """The counters as soon as ``condition`` holds."""
        deadline = time.monotonic() + within
        while not condition(stats := self.stats()):
            if time.monotonic() > deadline:
                raise BenchError(f"waited {within:g} s for {what}; the server counts {stats['messages']}")
            time.sleep(POLL)
        return stats


def drained(stats: Stats) -> bool:
    return bool(stats["messages"]["remaining"] == 0)


def receiving(stats: Stats) -> bool:
    return bool(stats["requests"].get("ReceiveMessage"))


def reject_unclean(stats: Stats) -> None:
    """A figure counts only if every message was handed out once and deleted once."""
    counters = ("remaining", "in_flight", "duplicates", "visibility_expired", "stale_deletes")
    wrong = {name: stats["messages"][name] for name in counters if stats["messages"][name]}
    if wrong:
        raise BenchError(f"not a clean run: {wrong}")
