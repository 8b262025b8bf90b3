"""The embedded endpoint of `run --local` and `demo`: an AWS-compatible server as a child on a loopback port, state in
memory, with the sources in it that the configuration names."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping as Dict
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import msgspec
import structlog

from bridge.aws import Aws, Credentials
from bridge.errors import BridgeError, UsageError
from bridge.executors.child import Child
from bridge.executors.output import Output
from bridge.faults import Backoff
from bridge.function import AwsSettings, Function
from bridge.leash import Leash
from bridge.local_sources import Found, Maker, Needs, Plan, planned
from bridge.mapping import Mapping, SourceArn
from bridge.settings import Settings

log = structlog.get_logger()

SECRET = "local"  # noqa: S105 - it looks at the access key alone
START_LIMIT = 30.0
POLL = 0.02
"""Seconds between two looks whether it answers."""
PORTS = 5
"""Free ports that are tried: somebody else may take one before the child does."""
LAST_LINES = 20


class LocalEndpoint:
    """The running server. An async context manager: leaving it kills the server and removes its folder, and when the
    daemon is killed the leash does so. A server that dies is started again on its port, without what was in it;
    ``moved`` is called when sources have other ARNs since, and the settings are to be adapted again.

    Raises UsageError when the extra is not installed, BridgeError with the server's last lines when it does not start.
    """

    def __init__(
        self,
        leash: Leash,
        announce: Callable[[str], None] | None = None,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._leash = leash
        self._announce = announce
        self._moved = moved
        self._announced: set[str] = set()
        self._port = 0
        self._folder = Path()
        self._child: _Server | None = None
        self._plan: Plan = {}
        self._found: Found = {}
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<LocalEndpoint {self.url}: {self._child or 'not running'}>"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        if importlib.util.find_spec("ministack") is None:
            raise UsageError(
                "the embedded endpoint is not installed; install the extra local: pip install 'bridge[local]'"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="bridge-local-"))
        self._leash.hold_folder(self._folder)
        try:
            self._child = await self._start_anywhere()
            self._tasks = anyio.create_task_group()
            await self._tasks.__aenter__()
        except BaseException:
            await self._clear()
            raise
        self._tasks.start_soon(self._keep, name="local endpoint")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._clear()

    # What the configuration becomes here.

    async def adapt(self, settings: Settings) -> Settings:
        """The settings with every source and function here; the sources are there when it returns. ``announce`` gets
        each line of ``export_lines`` once."""
        mappings = settings.mappings.values()
        await self.create_sources(mappings, settings.functions)
        for line in self.export_lines(mappings):
            if self._announce and line not in self._announced:
                self._announce(line)
                self._announced.add(line)
        return msgspec.structs.replace(
            settings,
            mappings={name: self.mapping(mapping) for name, mapping in settings.mappings.items()},
            functions={name: self.function(function) for name, function in settings.functions.items()},
        )

    def mapping(self, mapping: Mapping) -> Mapping:
        """The mapping with its source here. The last part of the ARN of a table's stream, or of a stream's consumer, is
        invented by the service: it is the one here, not the one of the configuration."""
        aws = msgspec.structs.replace(self.settings(mapping.source_arn), client=mapping.aws.client)
        arn = self._found.get(mapping.source_arn, mapping.source_arn)
        return msgspec.structs.replace(mapping, aws=aws, source_arn=arn)

    def function(self, function: Function) -> Function:
        """The function whose handler calls AWS here."""
        return msgspec.structs.replace(function, aws=self.settings(SourceArn.parse(function.arn)))

    def settings(self, arn: SourceArn) -> AwsSettings:
        """How to reach, here, what has this ARN."""
        return AwsSettings(region=arn.region, endpoint_url=self.url, account_id=arn.account)

    @staticmethod
    def credentials(settings: AwsSettings) -> Credentials:
        """For ``Aws(credentials=...)``: here an access key of 12 digits is the account."""
        return Credentials(settings.account_id or "000000000000", SECRET)

    def export_lines(self, mappings: Iterable[Mapping]) -> tuple[str, ...]:
        """What to paste into a shell so that the AWS CLI finds the sources: one line per account and region."""
        sites = dict.fromkeys((mapping.source_arn.account, mapping.source_arn.region) for mapping in mappings)
        return tuple(
            f"export AWS_ENDPOINT_URL={self.url} AWS_ACCESS_KEY_ID={account} AWS_SECRET_ACCESS_KEY={SECRET}"
            f" AWS_DEFAULT_REGION={region}"
            for account, region in sites
        )

    async def create_sources(self, mappings: Iterable[Mapping], functions: Dict[str, Function]) -> None:
        """Makes what the mappings read from, queues each with its dead-letter queue, and what their functions tell of
        failures; what is there gets the attributes. ``functions`` by name. Raises RemoteError."""
        plan = planned(mappings, functions)
        await self._create(plan)
        for site, needs in plan.items():
            self._plan.setdefault(site, Needs()).add(needs)

    async def _create(self, plan: Plan) -> None:
        async with Aws(credentials=self.credentials) as aws:
            self._found |= await Maker(aws, self.url).make(plan)

    # The server.

    async def _start_anywhere(self) -> _Server:
        for _ in range(PORTS):
            self._port = free_port()
            try:
                return await self._start()
            except _Ended as error:
                failure = error
        raise failure

    async def _start(self) -> _Server:
        server = _Server(self._port, self._folder, self._leash)
        try:
            await server.ready()
        except BaseException:
            await server.stop()
            raise
        return server

    async def _keep(self) -> None:
        """Starts it again whenever it ends."""
        while self._child is not None:
            await self._child.ended.wait()
            log.error("local_endpoint_died", url=self.url, status=self._child.status, output=self._child.last_lines)
            self._child = await self._start_again()

    async def _start_again(self) -> _Server:
        backoff = Backoff(0.5)
        before = dict(self._found)
        while True:
            try:
                server = await self._start_with_sources()
            except BridgeError as error:
                log.error("local_endpoint_not_restarted", url=self.url, error=str(error))
                await anyio.sleep(backoff.next())
            else:
                log.warning("local_endpoint_restarted", url=self.url, detail="it is empty: state is in memory")
                if self._found != before:
                    self._moved()
                return server

    async def _start_with_sources(self) -> _Server:
        server = await self._start()
        try:
            await self._create(self._plan)
        except BaseException:
            await server.stop()
            raise
        return server

    async def _clear(self) -> None:
        """Leaves neither process nor folder behind."""
        with anyio.CancelScope(shield=True):
            if self._child is not None:
                await self._child.stop()
            await anyio.to_thread.run_sync(shutil.rmtree, self._folder, True)
        self._leash.release_folder(self._folder)


class _Ended(BridgeError):
    """The embedded endpoint ended while it started."""


class _Server:
    """One process of it."""

    def __init__(self, port: int, folder: Path, leash: Leash) -> None:
        self.ended = anyio.Event()
        self.status: int | None = None
        self._port = port
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        try:
            self._child = Child(
                # Not the script: it need not be on the path. -P: the folder shall not lend it modules.
                [sys.executable, "-P", "-m", "ministack"],
                folder=folder,
                variables=variables(port, folder),
                leash=leash,
                ended=self._on_end,
            )
        except OSError as error:
            raise BridgeError(f"the embedded endpoint cannot be started: {error}") from error
        self._output = Output(self._child.stdout, self._child.stderr, _ignore, self._on_line, "")
        self._output.open()

    def __repr__(self) -> str:
        return repr(self._child)

    @property
    def last_lines(self) -> str:
        """What it wrote last."""
        return "\n".join(self._lines)

    async def ready(self) -> None:
        """Waits until it answers. Raises BridgeError when it ends instead, or takes too long."""
        with anyio.move_on_after(START_LIMIT):
            while not self.ended.is_set():
                if await _answers(self._port) and not self.ended.is_set():
                    return
                with anyio.move_on_after(POLL):
                    await self.ended.wait()
        told = self.last_lines or "it wrote nothing"
        if self.ended.is_set():
            raise _Ended(f"the embedded endpoint ended with status {self.status}: {told}")
        raise BridgeError(f"the embedded endpoint gave no answer in {START_LIMIT:g} s: {told}")

    async def stop(self) -> None:
        """Kills it: its state is in memory."""
        with anyio.CancelScope(shield=True):
            self._child.kill()
            await self.ended.wait()

    def _on_end(self, status: int) -> None:
        self.status = status
        self._output.close()
        self.ended.set()

    def _on_line(self, line: str, *, stream: str, function: str, mapping: str, request_id: str) -> None:  # noqa: ARG002
        if line:
            self._lines.append(line)
            log.debug("local_endpoint_output", stream=stream, line=line)


def variables(port: int, folder: Path) -> dict[str, str]:
    """The environment of the server: its port, loopback alone, nothing kept, nothing outside its folder."""
    inherited = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
    return {
        **{name: os.environ[name] for name in inherited if name in os.environ},
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "S3_DATA_DIR": str(folder / "s3"),
        "STATE_DIR": str(folder / "state"),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "LOG_LEVEL": "WARNING",
        # These would listen on ports of their own, on all interfaces; and its clean-up would stop others' containers.
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": f"unix://{folder}/no-docker",
    }


def free_port() -> int:
    """A TCP port on loopback that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ignore(data: bytes) -> None:
    """What goes to the log by lines is kept nowhere else."""


async def _answers(port: int) -> bool:
    """Whether its health page does."""
    try:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /_ministack/health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            return b" 200 " in (await stream.receive()).split(b"\r\n", 1)[0]
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
        return False
