"""An HTTP server on one address: bounded in connections and patience, closed in bounded time."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bridge.errors import UsageError

IDLE_TIMEOUT = 15.0
"""Seconds until a connection that sends no whole request is closed."""
READER_TIMEOUT = 30_000
"""Milliseconds until a connection whose client takes nothing is closed by the kernel."""
STOP_TIMEOUT = 0.5
BACKLOG = 1024


class Refused(asyncio.Protocol):
    """A connection too many: closed at once, so that the daemon keeps its descriptors for its work."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class HttpListener:
    """Serves ``app`` on ``host`` and ``port`` (0: any free one, see ``port``) to at most ``connections`` clients;
    ``refuse`` makes the protocol for more. ``option`` names what configured the address, for messages.
    """

    def __init__(
        self,
        app: web.Application,
        option: str,
        host: str,
        port: int,
        *,
        connections: int,
        refuse: Callable[[], asyncio.Protocol] = Refused,
    ) -> None:
        self.host = host
        self.port = port
        self._option = option
        self._connections = connections
        self._refuse = refuse
        self._listener: asyncio.Server | None = None
        logger = logging.getLogger(f"bridge.{option.partition('.')[0]}.http")
        if is_our_fault not in logger.filters:
            logger.addFilter(is_our_fault)
        self._runner: web.AppRunner | None = web.AppRunner(
            app, access_log=None, logger=logger, keepalive_timeout=IDLE_TIMEOUT, shutdown_timeout=STOP_TIMEOUT
        )

    def __repr__(self) -> str:
        return f"{self.host}:{self.port} {'listening' if self._listener else 'closed'}"

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Those that listen."""
        return tuple(self._listener.sockets) if self._listener else ()

    async def start(self) -> None:
        """Listens. Raises UsageError, one line, when it cannot."""
        assert self._runner is not None  # noqa: S101 - it is started once
        await self._runner.setup()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connection, self.host, self.port, start_serving=False, backlog=BACKLOG
            )
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
                for listener in self.sockets:
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, READER_TIMEOUT)
            self.port = self.sockets[0].getsockname()[1]
            await self._listener.start_serving()
        except (OSError, OverflowError, UnicodeError) as error:
            await self.stop()
            raise UsageError(f"{self._option} {self.host}:{self.port}: {_cannot_listen(error)}") from error

    def close(self) -> None:
        """No new connections from now on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def stop(self) -> None:
        """Closes; answers that are under way get ``STOP_TIMEOUT`` seconds."""
        self.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server if self._runner else None
        if server is None or len(server.connections) >= self._connections:
            return self._refuse()
        return server()


def is_our_fault(record: logging.LogRecord) -> bool:
    """Whether an error of the server is our fault: garbage and lost connections are the client's, and no news."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)


def _cannot_listen(error: Exception) -> str:
    match error:
        case OSError(errno=errno.EADDRINUSE):
            return "the port is in use; stop what listens there, or set another port (or off)"
        case OSError(errno=errno.EACCES | errno.EPERM):
            return "this user may not listen there; set a port above 1023"
        case OSError(errno=errno.EADDRNOTAVAIL):
            return "this machine has no such address; set 127.0.0.1, or 0.0.0.0 for all"
        case socket.gaierror():
            return "the name is unknown; set an address of this machine"
        case _:
            return f"{error}; set an address and a port from 1 to 65535"
