"""What the tests of executors are built with: functions, executors, and what their handlers wrote."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from bridge.executors import Surroundings
from bridge.executors.credentials import CredentialSource
from bridge.executors.output import OutputSink
from bridge.executors.process import ProcessExecutor
from bridge.function import Function
from bridge.leash import Leash

HANDLERS = Path(__file__).with_name("handlers")
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:worker"


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


def function(handler: str, **settings: Any) -> Function:
    """One of the fixtures in tests/executors/handlers, unless ``code`` says otherwise."""
    return Function(**{"name": "worker", "arn": ARN, "kind": "python", "handler": handler, "code": HANDLERS} | settings)


@asynccontextmanager
async def running(
    function: Function, *, credentials: CredentialSource | None = None, output: OutputSink | None = None
) -> AsyncIterator[ProcessExecutor]:
    """An executor under a leash of its own."""
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
        return False


async def gone(pid: int) -> None:
    """Waits until the process does not run any more."""
    with anyio.fail_after(20):
        while alive(pid):
            await anyio.sleep(0.01)
