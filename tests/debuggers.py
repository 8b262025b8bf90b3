"""Two small clients for debuggers: of the Debug Adapter Protocol, which debugpy speaks, and of Node.js's inspector."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import aiohttp
import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

PATIENCE = 20.0


def free_port() -> int:
    """One of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    return number


class Debugpy:
    """One session with debugpy."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self._incoming = BufferedByteReceiveStream(stream)
        self._numbers = count(1)
        self._passed: list[Any] = []

    async def send(self, command: str, **arguments: Any) -> int:
        """Gives the number by which the answer names the request."""
        number = next(self._numbers)
        body = json.dumps({"seq": number, "type": "request", "command": command, "arguments": arguments}).encode()
        await self._stream.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        return number

    async def ask(self, command: str, **arguments: Any) -> Any:
        """The body of the answer."""
        number = await self.send(command, **arguments)
        while (answer := await self._receive()).get("request_seq") != number:
            self._passed.append(answer)
        assert answer["success"], answer
        return answer.get("body")

    async def event(self, name: str) -> Any:
        """The body of the next event of this name."""
        while True:
            message = self._passed.pop(0) if self._passed else await self._receive()
            if message.get("event") == name:
                return message.get("body")

    async def _receive(self) -> Any:
        head = await self._incoming.receive_until(b"\r\n\r\n", 65536)
        return json.loads(await self._incoming.receive_exactly(int(head.rpartition(b":")[2])))

    async def attach(self, file: str, line: int) -> None:
        """Lets what waits go on, up to this line."""
        await self.ask("initialize", adapterID="test", clientID="test", pathFormat="path")
        await self.send("attach", justMyCode=False)  # answered at the end
        await self.event("initialized")
        await self.ask("setBreakpoints", source={"path": file}, breakpoints=[{"line": line}])
        await self.ask("configurationDone")


class Inspector:
    """One session with Node.js."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._events: list[Any] = []

    async def ask(self, method: str, **params: Any) -> Any:
        """The result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while (message := await self._socket.receive_json()).get("id") != number:
            self._events.append(message)
        assert "error" not in message, message
        return message["result"]

    async def event(self, method: str) -> Any:
        """The parameters of the next event of this name."""
        while True:
            message = self._events.pop(0) if self._events else await self._socket.receive_json()
            if message.get("method") == method:
                return message["params"]

    async def attach(self) -> None:
        """Lets what waits go on, up to its first ``debugger`` statement."""
        await self.ask("Runtime.enable")
        await self.ask("Debugger.enable")
        await self.ask("Runtime.runIfWaitingForDebugger")


@asynccontextmanager
async def debugpy(port: int) -> AsyncIterator[Debugpy]:
    """A session, as soon as it listens."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", port)
            except OSError:
                await anyio.sleep(0.05)
            else:
                break
    async with stream:
        yield Debugpy(stream)


@asynccontextmanager
async def inspector(port: int) -> AsyncIterator[Inspector]:
    """A session, as soon as it listens."""
    async with aiohttp.ClientSession() as session:
        with anyio.fail_after(PATIENCE):
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                        (target,) = await answer.json()
                except aiohttp.ClientConnectionError:
                    await anyio.sleep(0.05)
                else:
                    break
        async with session.ws_connect(target["webSocketDebuggerUrl"]) as socket:
            yield Inspector(socket)
