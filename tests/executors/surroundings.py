"""What the tests of executors are built with: functions, executors, and what their handlers wrote."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec

from bridge.executors import Surroundings
from bridge.executors.credentials import CredentialSource
from bridge.executors.output import OutputSink
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.leash import Leash

HANDLERS = Path(__file__).with_name("handlers")
PATIENCE = 20.0
"""Seconds after which something that should have happened has not."""
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:worker"


Write = Callable[..., Function]
"""What the fixture ``write`` gives."""


class Line(NamedTuple):
    """What a sink got."""

    text: str
    stream: str
    function: str
    mapping: str
    request_id: str


class Lines(list[Line]):
    """A sink that keeps everything."""

    def __call__(self, line: str, *, stream: str, function: str, mapping: str, request_id: str) -> None:
        self.append(Line(line, stream, function, mapping, request_id))

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self]


def said(logs: Iterable[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    """The captured lines without those that every invocation has, at level debug."""
    return [line for line in logs if line["event"] != "platform"]


def function(handler: str, **settings: Any) -> Function:
    """One of the fixtures in tests/executors/handlers, unless ``code`` says otherwise."""
    given: dict[str, Any] = {"name": "worker", "arn": ARN, "kind": "python", "handler": handler, "code": HANDLERS}
    return Function(**given | settings)


@asynccontextmanager
async def running(
    function: Function, *, credentials: CredentialSource | None = None, output: OutputSink | None = None
) -> AsyncIterator[ProcessExecutor]:
    """An executor under a leash of its own. The fixtures tell the tests about themselves by files below the machine's
    /tmp, and hence keep that."""
    if function.code == HANDLERS:
        environment = {"TMPDIR": tempfile.gettempdir(), **function.environment}
        function = msgspec.structs.replace(function, environment=environment)
    async with Leash() as leash, ProcessExecutor(function, Surroundings(leash, credentials, output)) as executor:
        yield executor


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # a system without /proc, or just gone


async def gone(pid: int) -> None:
    """Waits until the process does not run any more."""
    with anyio.fail_after(PATIENCE):
        while alive(pid):
            await anyio.sleep(0.01)


async def appears(path: Path) -> str:
    """Waits until a handler has written its file."""
    with anyio.fail_after(PATIENCE):
        while not (path.exists() and path.read_text().endswith("\n")):
            await anyio.sleep(0.01)
    return path.read_text()
