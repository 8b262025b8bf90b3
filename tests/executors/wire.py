"""Both sides of a Runtime API listener for its tests: a client of raw bytes, and somebody who hears what happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import anyio

from bridge.executors.runtime_api import Answer, RuntimeApi
from bridge.invocation import Invocation
from tests.executors.surroundings import ARN

ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
INVOCATION = Invocation(b'{"a":1}', ID, trace_id="Root=1-5bef4de7;Parent=9a9197af;Sampled=0")
NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n"
DEADLINE = 1_700_000_000.1239


def post(path: str, body: bytes = b"{}", headers: str = "") -> bytes:
    return f"POST /2018-06-01/runtime/{path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        shape = json.loads(self.body)
        assert set(shape) == {"errorMessage", "errorType"}
        assert isinstance(shape["errorMessage"], str)
        kind: str = shape["errorType"]
        return kind


class Heard:
    """The other side of the listener: notes what happened."""

    def __init__(self) -> None:
        self.parks = 0
        self.answers: list[Answer] = []
        self.init_errors: list[bytes] = []
        self.hang_ups = 0
        self.happened = asyncio.Event()

    def parked(self) -> None:
        self.parks += 1
        self.happened.set()

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)
        self.happened.set()

    def init_failed(self, error: bytes) -> None:
        self.init_errors.append(error)
        self.happened.set()

    def hung_up(self) -> None:
        self.hang_ups += 1
        self.happened.set()

    async def until(self, condition: Any) -> None:
        with anyio.fail_after(20):
            while not condition():
                self.happened.clear()
                await self.happened.wait()


class Client:
    """Speaks raw bytes with the listener."""

    def __init__(self, api: RuntimeApi) -> None:
        self._host, _, port = api.address.partition(":")
        self._port = int(port)

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        with anyio.fail_after(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers.get("Content-Length", "0")))
        return Reply(int(first.split(" ")[1]), headers, body)

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply()

    async def ended(self) -> bool:
        with anyio.fail_after(20):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[RuntimeApi, Heard]]:
    heard = Heard()
    api = RuntimeApi(heard, ARN)
    await api.open()
    try:
        yield api, heard
    finally:
        api.close()


@asynccontextmanager
async def invoked(invocation: Invocation = INVOCATION) -> AsyncIterator[tuple[RuntimeApi, Heard, Client]]:
    """A client that was just handed an event."""
    async with listening() as (api, heard), Client(api) as client:
        await client.send(NEXT)
        await heard.until(lambda: api.waiting)
        api.hand_out(invocation, DEADLINE)
        await client.reply()
        yield api, heard, client
