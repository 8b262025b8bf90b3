"""How children get AWS credentials: constant ones as variables, those that expire from an endpoint on loopback."""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import anyio
import structlog

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from aiohttp import web

    from bridge.aws import Credentials

log = structlog.get_logger()

PATH = "/credentials"


class CredentialSource(Protocol):
    """Where a function's credentials come from: the configured AWS chain."""

    async def current(self) -> Credentials | None:
        """Valid now, refreshed where they expire. None: the chain has none. Raises BridgeError when it fails."""
        ...


class ChildCredentials:
    """The variables by which the children of one executor find their credentials. An async context manager."""

    def __init__(self, source: CredentialSource) -> None:
        self._source = source
        self._token = secrets.token_urlsafe(32)
        self._runner: web.AppRunner | None = None
        self._url = ""
        self._opening = anyio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def variables(self) -> dict[str, str]:
        """For a child that starts now. Raises BridgeError when there should be credentials and the chain fails."""
        credentials = await self._source.current()
        if credentials is None:
            return {}
        if credentials.expiry is not None:
            await self._serve()
            return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self._url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": self._token}
        variables = {
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        }
        if credentials.token:
            variables["AWS_SESSION_TOKEN"] = credentials.token
        return variables

    async def _serve(self) -> None:
        """Opens the endpoint that SDKs know as the container credential provider, once."""
        async with self._opening:
            if self._runner is not None:
                return
            from aiohttp import web

            application = web.Application()
            application.router.add_get(PATH, self._answer)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._url = f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
            self._runner = runner

    async def _answer(self, request: web.Request) -> web.Response:
        from aiohttp import web

        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._token.encode()):
            return web.json_response({"code": "Unauthorized", "message": "wrong authorization token"}, status=401)
        try:
            credentials = await self._source.current()
        except BridgeError as error:
            log.warning("credentials_unavailable", error=str(error))
            credentials = None
        if credentials is None:
            return web.json_response({"code": "Unavailable", "message": "no credentials at the moment"}, status=503)
        return web.json_response(_document(credentials))


def _document(credentials: Credentials) -> dict[str, str]:
    document = {"AccessKeyId": credentials.access_key, "SecretAccessKey": credentials.secret_key}
    if credentials.token:
        document["Token"] = credentials.token
    if credentials.expiry is not None:
        document["Expiration"] = credentials.expiry.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return document
