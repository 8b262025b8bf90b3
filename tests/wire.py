"""A scripted fake of AWS's wire: an HTTP server in the test's own loop that answers each operation as the test says.

    async with Wire() as wire:
        wire.on("DeleteMessageBatch", {"Successful": [{"Id": "0"}], "Failed": []})  # from now on
        wire.once("ReceiveMessage", error("ThrottlingException"), NEVER, cut({}))   # first these, in turn
        wire.on("ReceiveMessage", receive)             # a handler: async (Request) -> Answer or dict
        ...                                            # the client talks to wire.url
        await wire.received("ReceiveMessage", 2)       # waits for the event, never for a duration
        assert wire.requests[0].params["WaitTimeSeconds"] == 20

It speaks the JSON protocol (SQS, DynamoDB, ...) and reads the query protocol (STS; answer with XML text).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import msgspec


class Request(msgspec.Struct, frozen=True):
    """What came in. ``headers`` have lower-case names; ``at`` is the loop's time; ``connection`` counts from 1."""

    operation: str
    params: dict[str, Any]
    headers: dict[str, str]
    at: float
    connection: int
    path: str = "/"

    @property
    def access_key(self) -> str:
        """Who signed it."""
        return self._scope[0]

    @property
    def region(self) -> str:
        """The region it was signed for."""
        return self._scope[2]

    @property
    def _scope(self) -> list[str]:
        found = re.search(r"Credential=([^,]+)", self.headers.get("authorization", ""))
        return found[1].split("/") if found else [""] * 5


class Answer(msgspec.Struct, frozen=True):
    """What goes out, ``delay`` seconds later. A dict becomes JSON. ``cut``: so many bytes of the body, then the
    connection drops; -1: it drops without a word."""

    body: dict[str, Any] | str | bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = {}
    delay: float = 0.0
    cut: int | None = None

    def encoded(self) -> bytes:
        if isinstance(self.body, dict):
            return json.dumps(self.body).encode()
        return self.body.encode() if isinstance(self.body, str) else self.body


Handler = Callable[[Request], Awaitable["Answer | dict[str, Any]"]]
Script = Answer | dict[str, Any] | Handler

NEVER = Answer(delay=float("inf"))
"""Takes the request and stays silent until the client leaves."""
DROPPED = Answer(cut=-1)
"""Closes the connection instead of answering."""
GARBAGE = Answer('{"Messages": [{"MessageId":')
"""A complete HTTP answer whose body is no JSON."""


def error(code: str, *, status: int = 400, query_code: str = "", message: str = "as scripted") -> Answer:
    """An error of the JSON protocol; ``query_code`` is the older name that SQS sends along in a header."""
    headers = {"x-amzn-query-error": f"{query_code};Sender"} if query_code else {}
    return Answer({"__type": code, "message": message}, status, headers)


def cut(body: dict[str, Any]) -> Answer:
    """An answer that ends in the middle of its body."""
    return Answer(body, cut=len(json.dumps(body)) // 2)


class Wire:
    """The server. ``url`` stays the same while it goes ``down`` and comes ``up`` again. ``tls``: it speaks https."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        """Open now."""
        self.connected = 0
        """Opened so far."""
        self._lasting: dict[str, Script] = {}
        self._queued: dict[str, list[Script]] = {}
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._arrival = asyncio.Event()
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<Wire {self.url}: {self.connections} connections, {len(self.requests)} requests>"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def on(self, operation: str, script: Script) -> None:
        """The answer to every request of this operation for which nothing else is queued."""
        self._lasting[operation] = script

    def once(self, operation: str, *scripts: Script) -> None:
        """The answers to the next requests of this operation, one each."""
        self._queued.setdefault(operation, []).extend(scripts)

    def of(self, operation: str) -> list[Request]:
        """The requests of one operation so far."""
        return [request for request in self.requests if request.operation == operation]

    async def received(self, operation: str, count: int = 1, *, within: float = 20.0) -> list[Request]:
        """Waits until ``count`` requests of the operation have come."""
        with anyio.fail_after(within):
            while len(self.of(operation)) < count:
                self._arrival.clear()
                await self._arrival.wait()
        return self.of(operation)

    async def up(self) -> None:
        """Listens, on the port it had before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuses connections and drops those that are open."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self.down()
        if isinstance(failure, asyncio.CancelledError):  # a script of the test failed, or somebody cancels
            return await self._tasks.__aexit__(kind, failure, trace)
        await self._tasks.__aexit__(None, None, None)
        return None  # the test's own failure, not wrapped in a group

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        self._tasks.start_soon(self._serve, reader, writer, self.connected, name=f"connection {self.connected}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer, number):
                    continue
        finally:
            self.connections -= 1
            self._writers.discard(writer)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """One request and its answer; false when the connection is over."""
        request = await _read(reader, number)
        self.requests.append(request)
        self._arrival.set()
        answer = await _unless_gone(reader, self._answer(request))
        if answer is None:
            return False
        if answer.cut != -1:
            writer.write(_head(answer) + answer.encoded()[: answer.cut])
            await writer.drain()
        if answer.cut is not None:
            writer.close()  # lets what was written arrive, unlike an abort
            await writer.wait_closed()
        return answer.cut is None

    async def _answer(self, request: Request) -> Answer:
        queued = self._queued.get(request.operation)
        script = queued.pop(0) if queued else self._lasting.get(request.operation)
        if script is None:
            return error("InvalidAction", message=f"nothing is scripted for {request.operation}")
        reply = script if isinstance(script, Answer | dict) else await script(request)
        answer = Answer(reply) if isinstance(reply, dict) else reply
        if answer.delay == float("inf"):
            await anyio.sleep_forever()
        await anyio.sleep(answer.delay)
        return answer


async def _read(reader: asyncio.StreamReader, number: int) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    params = json.loads(body or "{}") if operation else dict(urllib.parse.parse_qsl(body))
    now = asyncio.get_running_loop().time()
    return Request(operation or params.get("Action", ""), params, headers, now, number, first.split(" ")[1])


async def _unless_gone(reader: asyncio.StreamReader, work: Awaitable[Answer]) -> Answer | None:
    """The result, or none when the client leaves first, whereupon the work is cancelled."""
    result: Answer | None = None

    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read(1)  # no client here pipelines: whatever comes is the end
            tasks.cancel_scope.cancel()

        async def answer() -> None:
            nonlocal result
            result = await work
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        tasks.start_soon(answer)
    return result


def _head(answer: Answer) -> bytes:
    kind = "text/xml" if isinstance(answer.body, str) and answer.body.startswith("<") else "application/x-amz-json-1.0"
    length = len(answer.encoded())
    headers = {"content-type": kind, "content-length": str(length), "x-amzn-requestid": "scripted", **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
