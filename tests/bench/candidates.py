"""The programs that the bench compares, each as a whole process against one stub server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import yaml

from tests.bench.cpu import Cpu, cpu_of
from tests.bench.server import POLL, QUEUE_ARN, BenchError, Server, free_port, pinned

BENCH = Path(__file__).parent
ROOT = BENCH.parents[1]
HANDLERS = BENCH / "handlers"
PEER_CONSUMERS = 4
"""Consumers in the peer's process: it polls one receive at a time, and four are its best on two cores."""


class Candidate(NamedTuple):
    """``command(server, folder)`` is what to start; ``folder`` is empty and the candidate's own."""

    name: str
    what: str
    command: Callable[[Server, Path], list[str]]


def _naive(server: Server, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.bench.naive", queue_url(server), str(HANDLERS / "noop.py")]


def _bridge(server: Server, folder: Path) -> list[str]:
    config = {
        "state": f"sqlite:///{folder}/state.db",
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "functions": {
            "noop": {
                "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
                "Handler": "noop.handler",
                "CodeUri": str(HANDLERS),
                "Timeout": 30,
            }
        },
        "mappings": {"q0": {"FunctionName": "noop", "EventSourceArn": QUEUE_ARN, "BatchSize": 10}},
    }
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "bridge", "run", "-c", str(path)]


def _peer(server: Server, folder: Path) -> list[str]:
    return ["node", str(BENCH / "sqs_consumer.mjs"), queue_url(server), str(PEER_CONSUMERS)]


BRIDGE = Candidate("bridge", "bridge run, Python handler in its own process", _bridge)
NAIVE = Candidate("naive", "aiobotocore as it comes, 5 pollers, a worker process each", _naive)
PEER = Candidate("sqs-consumer", f"npm sqs-consumer, {PEER_CONSUMERS} consumers, handler in the process", _peer)


def queue_url(server: Server) -> str:
    return f"{server.url}/000000000000/q0"


def node_modules() -> Path:
    """Where the peer and its SDK are installed: BRIDGE_NODE_MODULES, else where .ci/run puts them."""
    return Path(os.environ.get("BRIDGE_NODE_MODULES") or ROOT / ".ci" / "cache" / "node_modules")


def why_absent(candidate: Candidate) -> str | None:
    if candidate is PEER and shutil.which("node") is None:
        return "node is not installed"
    if candidate is PEER and not (node_modules() / "sqs-consumer").is_dir():
        return f"no sqs-consumer in {node_modules()} (set BRIDGE_NODE_MODULES)"
    return None


class Running:
    """A candidate while it runs. Leaving stops it as an operator would, by SIGTERM."""

    def __init__(self, candidate: Candidate, server: Server, folder: Path, core: int | None = None) -> None:
        folder.mkdir()
        self._candidate = candidate
        self._server = server
        self._core = core
        self._folder = folder
        self._log = folder / "output.log"

    def __enter__(self) -> Self:
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self._server.url,
            "BRIDGE_NODE_MODULES": str(node_modules()),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._candidate.command(self._server, self._folder),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=pinned(self._core),
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        finally:
            with suppress(ProcessLookupError):  # nothing left behind, as it should be
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def cpu(self) -> Cpu:
        if self._process.poll() is not None:
            raise BenchError(f"{self._candidate.name} ended with {self._process.returncode}:\n{self._tail()}")
        return cpu_of(self._process.pid)

    def memory(self) -> int:
        """Bytes of the process alone, as resident now."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def wait_until_polling(self, within: float = 30) -> None:
        deadline = time.monotonic() + within
        while not self._server.stats()["requests"].get("ReceiveMessage"):
            self.cpu()  # or says how it ended
            if time.monotonic() > deadline:
                raise BenchError(f"{self._candidate.name} did not poll within {within:g} s:\n{self._tail()}")
            time.sleep(POLL)

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
