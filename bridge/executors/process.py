"""Runs a function in child processes: a pool of execution environments, started on demand and kept warm."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup

from bridge.errors import BridgeError
from bridge.executors import Environments, Surroundings
from bridge.executors.cgroups import Cgroup
from bridge.executors.code import changes
from bridge.executors.credentials import ChildCredentials
from bridge.executors.debugger import check_debugger, free_port
from bridge.executors.environment import Environment, Event, Exited, InitFailed, OutOfMemory, OutOfTime, Ready
from bridge.executors.failures import Failures, parse_error
from bridge.executors.idle import Idle
from bridge.executors.launch import LOOPBACK, code_folder, command, variables
from bridge.executors.memory import MemoryWatch, enforced
from bridge.executors.output import Origin, log_line
from bridge.executors.private_tmp import TMP, wrapper
from bridge.executors.restarts import Restarts
from bridge.executors.runtime_api import Answer
from bridge.executors.scratch import Scratch
from bridge.function import Function
from bridge.gates import GateName
from bridge.invocation import Invocation, Outcome, Succeeded
from bridge.snapshot import WaitView
from bridge.station import Detail, Station, countdown, held
from bridge.telemetry.logs import Once

log = structlog.get_logger()

INIT_LIMIT = 10.0  # RT-30
PROVISIONED_INIT_LIMIT = 130.0  # RT-30
RELOADING = "the code has changed; what is there runs until the new one is ready"
NOBODY = Invocation(b"", "")
"""For whom environments are started ahead."""
CREDENTIALS_LIMIT = 10.0
"""Seconds that the AWS chain gets to find the keys for a new environment."""
CLOSING = 5.0
"""Seconds that killed processes get to disappear."""

_AGENT = re.compile(r"bridge-(?:python/(\d+\.\d+)|nodejs/(\d+))").match
_RUNTIME = re.compile(r"python(\d+\.\d+)$|nodejs(\d+)\.x$").match


class _Started(NamedTuple):
    environment: Environment
    limit: float
    """Seconds left for the invocation."""
    begun: bool = False
    """Its init belonged to the invocation, as the log of it does already."""


class ProcessExecutor:
    """At most ``function.concurrency`` environments, the most recently used first; one that was not used for
    ``function.idle_timeout`` is retired, unless it is one of the ``function.provisioned`` that are started ahead and
    kept, or has a debugger. Entering it raises UsageError when interpreter, code folder or debugger are missing.
    """

    def __init__(self, function: Function, surroundings: Surroundings) -> None:
        self.function = function
        self._leash = surroundings.leash
        self._cgroups = surroundings.cgroups
        self._sink = log_line if surroundings.output is None else surroundings.output
        self._credentials: ChildCredentials | None = None
        if surroundings.credentials is not None and function.credentials == "inherit":
            self._credentials = ChildCredentials(surroundings.credentials)
        self._failures = Failures(function)
        self._restarts = Restarts()
        self._once = Once(log)
        self._command: tuple[str, ...] = ()
        self._folder = Path()
        self._wrapper: tuple[str, ...] = ()
        self._all: set[Environment] = set()
        self._provisioned = function.provisioned if function.debug is None else min(function.provisioned, 1)
        self._failing = ""
        self._ahead: list[Station] = []
        """What is being started ahead now."""
        self._idle: Idle[Environment] = Idle(
            function.idle_timeout, self._provisioned or int(function.debug is not None)
        )
        self._memory = MemoryWatch(function.memory << 20, self._all, needed=self._cgroups is None)
        self._scratch = Scratch(surroundings.leash)
        self._background: TaskGroup | None = None
        self._lost = anyio.Event()
        self._busy = 0
        self._starting = 0
        self._closed = False
        self._version_compared = False
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        idle, busy, starting = self.environments()[:3]
        return f"<ProcessExecutor {self.function.name}: {idle} idle, {busy} busy, {starting} starting>"

    async def __aenter__(self) -> Self:
        self._command = command(self.function)
        self._folder = code_folder(self.function)
        self._wrapper = await to_thread.run_sync(wrapper, self.function, self._command, self._folder)
        await check_debugger(self.function)
        if self._credentials is not None:
            await self._stack.enter_async_context(self._credentials)
        if not self._cgroups and not enforced():
            log.info("memory_not_enforced", function=self.function.name, reason="this system has no /proc")
        self._background = await anyio.create_task_group().__aenter__()
        self._background.start_soon(self._provision, name=f"provision {self.function.name}")
        if self.function.reload:
            self._background.start_soon(self._follow_code, name=f"follow the code of {self.function.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        try:
            if self._background is not None:
                self._background.cancel_scope.cancel()
                await self._background.__aexit__(None, None, None)
        finally:
            await self._close()

    async def _close(self) -> None:
        self._idle.close()
        self._memory.close()
        for environment in self._all:
            environment.kill()
        with anyio.move_on_after(CLOSING, shield=True):
            while self._all:
                await next(iter(self._all)).gone()
        if self._all:
            log.error("environments_left", function=self.function.name, pids=[left.pid for left in self._all])
        with anyio.CancelScope(shield=True):
            await self._scratch.close()
            await self._stack.aclose()

    async def invoke(self, invocation: Invocation) -> Outcome:
        while (environment := self._idle.take()) is not None:
            if environment.waiting or await self._becomes_ready(environment):
                return await self._run(_Started(environment, self.function.limit), invocation)
        started = await self._start(invocation)
        if isinstance(started, _Started):
            return await self._run(started, invocation)
        return started

    def environments(self) -> Environments:
        version = f"{self.function.name}:{self.function.version}"
        waits = tuple(WaitView(version, station.whole) for station in self._ahead)
        return Environments(len(self._idle), self._busy, self._starting, self._failing, waits)

    def provision(self, count: int) -> None:
        self._provisioned = count
        self._failing = ""
        self._idle.keep(count)
        self._lost.set()

    async def _becomes_ready(self, environment: Environment) -> bool:
        """It has answered, but not asked for the next event yet."""
        try:
            await environment.ready(self.function.limit)
        finally:
            if not environment.waiting:
                environment.kill()
        return environment.waiting

    async def _run(self, started: _Started, invocation: Invocation) -> Outcome:
        environment = started.environment
        self._busy += 1
        self._memory.wake()
        event: Event | None = None
        try:
            event = await environment.run(invocation, started.limit, begun=started.begun)
        finally:
            self._busy -= 1
            if isinstance(event, Answer) and environment.alive and not environment.retired:
                self._idle.put(environment)
            else:
                environment.kill()
        if isinstance(event, Answer):
            self._restarts.answered()
        elif isinstance(event, Exited | OutOfMemory):
            self._restarts.ended_badly()
        return self._outcome(environment, invocation, event)

    def _outcome(self, environment: Environment, invocation: Invocation, event: Event) -> Outcome:
        duration = environment.duration
        match event:
            case Answer("response", body):
                return Succeeded(body, invocation.request_id, self.function.version, duration, environment.log_tail())
            case Answer("error", body):
                tail = environment.log_tail("error", parse_error(body).errorType)
                return self._failures.posted(invocation, body, duration, tail)
            case Answer():
                tail = environment.log_tail("error", "Function.ResponseSizeTooLarge")
                return self._failures.too_large(invocation, duration, tail)
            case InitFailed(error):
                tail = environment.log_tail("error", parse_error(error).errorType)
                return self._failures.posted(invocation, error, duration, tail)
            case Exited(status):
                tail = environment.log_tail("failure", "Runtime.ExitError")
                return self._failures.exited(invocation, status, duration, tail)
            case OutOfTime():
                return self._failures.timed_out(invocation, duration, environment.log_tail("timeout"))
            case OutOfMemory():
                tail = environment.log_tail("failure", "Runtime.ExitError")
                return self._failures.out_of_memory(invocation, duration, tail)
            case Ready():
                raise RuntimeError("an invocation that was handed out is waited for again")

    async def _start(self, invocation: Invocation) -> _Started | Outcome:
        """A new environment that is ready, or the failure of one that does not become ready."""
        self._starting += 1
        try:
            environment, event = await self._init(invocation, INIT_LIMIT)
            if isinstance(event, Ready):
                environment.init_duration = environment.duration
                return _Started(environment, self.function.limit)
            self._tell_init(invocation, environment, event)
            # RT-30, RT-31: repeated inside the invocation, now under the function's timeout.
            environment, event = await self._init(invocation, self.function.limit, inside=True)
            if isinstance(event, Ready):
                return _Started(environment, self.function.limit - environment.duration, begun=True)
            return self._outcome(environment, invocation, event)
        except BridgeError as error:
            self._restarts.ended_badly()
            return self._failures.unstarted(invocation, str(error))
        finally:
            self._starting -= 1

    async def _init(
        self, invocation: Invocation, limit: float, *, inside: bool = False, provisioned: bool = False
    ) -> tuple[Environment, Event]:
        """One start. ``inside`` the invocation, to whose log it belongs then. Raises BridgeError."""
        if self._restarts.delay:
            again = countdown("environments keep ending; one is started", anyio.current_time() + self._restarts.delay)
            with held("restarting", again):
                await self._restarts.pause()
        if self.function.debug is not None:
            limit = self.function.limit
            with held("debugger", f"port {self.function.debug} is taken, so that no debugger can be waited for there"):
                await free_port(self.function.debug)
            log.info("debugger_awaited", function=self.function.name, address=f"{LOOPBACK}:{self.function.debug}")
        environment = await self._open(invocation, provisioned=provisioned)
        self._memory.wake()
        if inside:
            environment.begin(invocation)
        event: Event | None = None
        try:
            with held(*self._starting_gate(limit)):
                event = await environment.ready(limit)
        finally:
            if not environment.waiting:
                environment.kill()
        if isinstance(event, Ready):
            self._compare_versions(environment)
        else:
            self._restarts.ended_badly()
        return environment, event

    def _starting_gate(self, limit: float) -> tuple[GateName, Detail]:
        """What holds a batch whose environment is being started, and has ``limit`` seconds for it."""
        if self.function.debug is not None:
            return "debugger", f"a debugger has to connect to {LOOPBACK}:{self.function.debug}"
        began = anyio.current_time()
        return (
            "environment",
            lambda: f"an environment of {self.function.name} starts: {anyio.current_time() - began:.1f} of {limit:g} s",
        )

    async def _open(self, invocation: Invocation, *, provisioned: bool) -> Environment:
        keys = await self._keys()
        cgroup, scratch = self._make_cgroup(), self._take_scratch()
        words, temporary = self._command, scratch
        if self._wrapper:
            words, temporary = (*self._wrapper, str(scratch), *words), TMP
        seen = partial(variables, self.function, self._folder, keys, scratch=temporary, provisioned=provisioned)
        environment = Environment(
            self.function, scratch=scratch, sink=self._sink, leash=self._leash, ended=self._on_ended, cgroup=cgroup
        )
        try:
            await environment.listen()
            if self._closed:
                raise BridgeError(f"the function {self.function.name} is being closed")
            environment.start(words, self._folder, seen, Origin(invocation.mapping, invocation.request_id))
        except BaseException as error:
            environment.unlisten()
            self._scratch.keep(scratch)
            if isinstance(error, OSError):
                raise BridgeError(f"cannot start {self._command[0]} in {self._folder}: {error.strerror}") from error
            raise
        self._all.add(environment)
        return environment

    def _take_scratch(self) -> Path:
        try:
            return self._scratch.take()
        except OSError as error:
            raise BridgeError(f"cannot make a temporary folder: {error}") from error

    def _make_cgroup(self) -> Cgroup | None:
        try:
            return Cgroup(self._cgroups, self.function.memory << 20, self._leash) if self._cgroups else None
        except OSError as error:
            raise BridgeError(f"cannot make a control group: {error}") from error

    async def _keys(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        try:
            with anyio.fail_after(CREDENTIALS_LIMIT), held("credentials", "the AWS chain, for a new environment"):
                return await self._credentials.variables()
        except TimeoutError:
            raise BridgeError(f"the AWS chain gave no credentials within {CREDENTIALS_LIMIT:.0f} seconds") from None

    def _on_ended(self, environment: Environment) -> None:
        self._all.discard(environment)
        self._lost.set()
        if environment.retired:
            self._scratch.remove(environment.scratch)
        else:
            self._scratch.keep(environment.scratch)  # RT-33
        if self._idle.remove(environment):
            self._restarts.ended_badly()
            self._once.log("idle", "environment_lost", function=self.function.name, reason=environment.end_text)

    def _tell_init(self, invocation: Invocation, environment: Environment, event: Event) -> None:
        """The first init of an environment failed (RT-31). Its repetition decides what becomes of the invocation."""
        kind = "Runtime.ExitError" if isinstance(event, Exited) else ""
        if isinstance(event, InitFailed):
            kind = parse_error(event.error).errorType
        self._once.log(
            ("init", kind),
            "init_failed",
            function=self.function.name,
            mapping=invocation.mapping,
            status="timeout" if isinstance(event, OutOfTime) else "error",
            error_type=kind,
            duration_ms=round(environment.duration * 1000, 2),
        )

    async def _provision(self) -> None:
        """Starts environments ahead, and others in place of those that end (RT-62)."""
        limit = max(PROVISIONED_INIT_LIMIT, self.function.limit)
        while True:
            self._lost = anyio.Event()
            if sum(environment.alive for environment in self._all) >= self._provisioned:
                await self._lost.wait()
                continue
            self._failing = failed = await self._start_ahead(
                limit, f"{self._provisioned} provisioned environments are to stand ready"
            )
            if failed:
                self._once.log(("ahead", failed), "provisioning_failed", function=self.function.name, reason=failed)

    async def _follow_code(self) -> None:
        """Replaces all environments when the code has changed, if the new code can be loaded."""
        async for _ in changes(self._folder):
            old = [environment for environment in self._all if environment.alive]
            if not old:
                continue
            # A debugger's port is taken until the old one is gone: the next invocation starts the new one.
            failed = "" if self.function.debug else await self._start_ahead(INIT_LIMIT, RELOADING)
            if failed:
                log.error("code_not_reloaded", function=self.function.name, reason=failed)
                continue
            for environment in old:
                environment.retired = True  # if it is busy, then after its invocation
                if self._idle.remove(environment):
                    environment.retire()
            log.info("code_reloaded", function=self.function.name, replaced=len(old))

    async def _start_ahead(self, limit: float, why: str) -> str:
        """One environment for whoever comes; why there is none, where it does not become ready."""
        self._starting += 1
        station = Station("version", why)
        station.bind()
        self._ahead.append(station)
        try:
            environment, event = await self._init(NOBODY, limit, provisioned=self._provisioned > 0)
        except BridgeError as error:
            self._restarts.ended_badly()
            return str(error)
        finally:
            self._starting -= 1
            self._ahead.remove(station)
        if not isinstance(event, Ready):
            return environment.end_text or "it did not become ready"
        self._idle.put(environment)
        return ""

    def _compare_versions(self, environment: Environment) -> None:
        """A Runtime of another version than the interpreter is a warning, once."""
        wanted, found = _RUNTIME(self.function.runtime), _AGENT(environment.agent)
        if self._version_compared or wanted is None or found is None:
            return
        self._version_compared = True
        if wanted.groups() != found.groups():
            log.warning(
                "runtime_version_differs",
                function=self.function.name,
                runtime=self.function.runtime,
                interpreter=self.function.python or self.function.node or self._command[0],
                version=found[1] or found[2],
            )
