"""A real HTTP server in the test's own loop, at which the handlers of the executor contract run: as a plain web server,
as Lambda's runtime interface emulator, and as Lambda's Invoke API."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from bridge.executors import Surroundings
from bridge.executors.http import HttpExecutor
from bridge.function import Endpoint, Function
from bridge.leash import Leash
from tests.contracts.executor import PATIENCE
from tests.executors.surroundings import ARN

VERSION = "$LATEST"


class Raised(Exception):
    """The handler raised."""


class Seen(msgspec.Struct, frozen=True):
    """A request as it came."""

    headers: dict[str, str]
    query: dict[str, str]
    body: bytes
    connection: object


class Far:
    """The server: ``url`` is its root. What came is in ``seen``; ``answers`` come first, in place of handlers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[Seen] = []
        self.answers: list[Callable[[web.Request], Awaitable[web.StreamResponse]]] = []
        self.calls = 0

    def plain(self, behaviour: str) -> str:
        """Where it is a web server whose handler behaves like that."""
        return f"{self.url}/plain/{behaviour}"

    def emulator(self, behaviour: str) -> str:
        """Where it is the emulator."""
        return f"{self.url}/2015-03-31/functions/function/invocations?behaviour={behaviour}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(Seen(dict(request.headers), dict(request.query), body, request.transport))
        if self.answers:
            return await self.answers.pop(0)(request)
        name = unquote(request.match_info["name"]).split(":")
        behaviour = request.query.get("behaviour") or (name[6] if len(name) > 6 else name[0])
        error = None
        try:
            result = await HANDLERS[behaviour](json.loads(body))
            if len(result) > 6_291_556 and request.path.startswith("/2015"):
                text = "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
                error = {"errorMessage": text, "errorType": "Function.ResponseSizeTooLarge"}
        except Raised as raised:
            error = {"errorMessage": str(raised), "errorType": "ValueError", "requestId": ""}
        if error is not None:
            result = json.dumps(error).encode()
        if request.path.startswith("/plain"):
            return web.Response(status=200 if error is None else 500, body=b"" if result == b"null" else result)
        if "behaviour" in request.query:
            return web.Response(body=result)  # the emulator
        log = f"START RequestId: {ID} Version: {VERSION}\nworking\nEND RequestId: {ID}\nREPORT RequestId: {ID}\t\n"
        headers = {"X-Amz-Executed-Version": VERSION, "X-Amz-Log-Result": base64.b64encode(log.encode()).decode()}
        if error is not None:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return web.Response(body=result, headers=headers)


ID = "11111111-2222-4333-8444-555555555555"


async def echo(event: Any) -> bytes:
    return json.dumps(event).encode()


async def nothing(event: Any) -> bytes:
    return b"null"


async def raises(event: Any) -> bytes:
    raise Raised("no")


async def picky(event: Any) -> bytes:
    if event["poison"]:
        raise Raised("no")
    return await echo(event)


async def sleeps(event: Any) -> bytes:
    await asyncio.sleep(event["seconds"])
    return await echo(event)


async def large(event: Any) -> bytes:
    return b'"%s"' % (b"x" * (int(event["bytes"]) - 2))


async def prose(event: Any) -> bytes:
    return b"not json"


async def meets(event: Any) -> bytes:
    Path(event["mine"]).touch()
    while not Path(event["theirs"]).exists():
        await asyncio.sleep(0.01)
    return await echo(event)


HANDLERS: dict[str, Callable[[Any], Awaitable[bytes]]] = {
    "echo": echo,
    "nothing": nothing,
    "raises": raises,
    "picky": picky,
    "sleeps": sleeps,
    "large": large,
    "prose": prose,
    "meets": meets,
}


@asynccontextmanager
async def far(ssl: Any = None) -> AsyncIterator[Far]:
    """One that runs."""
    application = web.Application(client_max_size=16 << 20)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    server = Far("")
    application.router.add_post("/plain/{name}", server.answer)
    application.router.add_post("/2015-03-31/functions/{name}/invocations", server.answer)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl).start()
        scheme, host = ("http", "127.0.0.1") if ssl is None else ("https", "localhost")
        server.url = f"{scheme}://{host}:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def behind(url: str, *, timeout: float = PATIENCE, **endpoint: Any) -> Function:
    return Function(name="worker", arn=ARN, kind="url", timeout=timeout, endpoint=Endpoint(url=url, **endpoint))


@asynccontextmanager
async def calling(function: Function) -> AsyncIterator[HttpExecutor]:
    async with HttpExecutor(function, Surroundings(Leash())) as executor:
        yield executor
