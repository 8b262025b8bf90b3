"""One execution environment: a child process, the Runtime API listener that it talks to, and what it writes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping as Dict, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

import structlog

from bridge.executors.cgroups import Cgroup
from bridge.executors.child import Child
from bridge.executors.failures import exit_text, parse_error
from bridge.executors.log_tail import LogTail, Report, Status
from bridge.executors.output import Origin, Output, OutputSink
from bridge.executors.runtime_api import Answer, RuntimeApi
from bridge.function import Function
from bridge.invocation import Invocation
from bridge.leash import Leash
from bridge.station import held

log = structlog.get_logger()

HANG_UP = 1.0
"""Seconds after its end in which what a process had sent is still read."""
LINGER = 8
"""Turns of the loop in which a connection is accepted and read, and then some."""
MEMORY_EVERY = 1.0
"""Seconds between two looks at a child's memory."""


class Ready(NamedTuple):
    """It waits for an event."""


class InitFailed(NamedTuple):
    """It reported that it cannot start."""

    error: bytes


class Exited(NamedTuple):
    """The process ended; negative: by a signal."""

    status: int


class OutOfTime(NamedTuple):
    """Its time was over, and it was killed."""


class OutOfMemory(NamedTuple):
    """It used more than the function's memory, and was killed."""


Event = Ready | InitFailed | Answer | Exited | OutOfTime | OutOfMemory


class Environment:
    """Serves one invocation at a time: ``listen`` and ``start``, then ``ready`` and ``run`` in turns. Ends by ``kill``
    or by itself; ``ended`` is called when the process is gone.
    """

    def __init__(
        self,
        function: Function,
        *,
        scratch: Path,
        sink: OutputSink,
        leash: Leash,
        ended: Callable[[Environment], None],
        cgroup: Cgroup | None = None,
    ) -> None:
        self.alive = True
        """Not killed, and not ended."""
        self.retired = False
        """Not needed any more: ended on purpose, or to be ended after its invocation."""
        self.scratch = scratch
        self.answers = 0
        self.duration = 0.0
        """Seconds of the last ``ready`` or ``run``."""
        self.init_duration: float | None = None
        """Seconds; of a cold start, until its first invocation was reported."""
        self._function = function
        self._sink = sink
        self._leash = leash
        self._ended = ended
        self._log = log.bind()  # once: it is asked three times in each invocation
        self._cgroup = cgroup
        self._loop = asyncio.get_running_loop()
        self._api = RuntimeApi(self, function.arn)
        self._tail = LogTail(function.logging, function.version, self._tell)
        self._waiter: asyncio.Future[Event] | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._deadline = inf
        self._over: Event | None = None
        self._gone = asyncio.Event()
        self._memory: int | None = None
        self._memory_at = -MEMORY_EVERY
        self._exit: tuple[int, asyncio.TimerHandle] | None = None
        self._child: Child
        self._output: Output

    def __repr__(self) -> str:
        state = "waiting" if self.waiting else "working" if self.alive else "ended"
        return f"<Environment of {self._function.name}, {self._child!r}: {state}, {self.answers} answers>"

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def agent(self) -> str:
        """How its runtime client calls itself."""
        return self._api.agent

    @property
    def waiting(self) -> bool:
        """Whether it can take an invocation right now."""
        return self.alive and self._api.waiting

    @property
    def working(self) -> bool:
        """Whether it does anything: starts, or runs an invocation."""
        return self.alive and not self._api.waiting

    @property
    def end_text(self) -> str:
        """Why it ended."""
        match self._over:
            case Exited(status):
                return exit_text(status)
            case OutOfTime():
                return "The runtime did not ask for the next invocation in time"
            case OutOfMemory():
                return exit_text(-signal.SIGKILL)
            case InitFailed(error):
                told = parse_error(error)
                return f"{told.errorType}: {told.errorMessage}"
        return ""

    async def listen(self) -> None:
        """Opens the Runtime API. Raises OSError. Without a ``start`` after it, call ``unlisten``."""
        try:
            await self._api.open()
        except BaseException:
            self._api.close()
            raise

    def unlisten(self) -> None:
        """Gives the Runtime API up before a process was started."""
        self._api.close()
        if self._cgroup is not None:
            self._cgroup.remove()

    def start(
        self, command: Sequence[str], folder: Path, variables: Callable[[str], Dict[str, str]], origin: Origin
    ) -> None:
        """Starts the process. ``variables`` gets the address of the Runtime API; ``origin`` is who needs it.

        Raises OSError.
        """
        self._child = Child(
            command,
            folder=folder,
            variables=variables(self._api.address),
            leash=self._leash,
            ended=self._on_exit,
            cgroup=self._cgroup,
        )
        self._output = Output(self._child.stdout, self._child.stderr, self._tail.write, self._sink, self._function.name)
        self._output.origin = origin
        self._output.open()

    async def ready(self, limit: float) -> Event:
        """Waits until it can take an invocation; after an answer that is when the runtime asks for the next one."""
        began = self._loop.time()
        if not self.waiting:
            self._start_clock(limit)
        while self._over is None and not self.waiting:
            await self._wait()  # more than once if the connection is lost while it waits
        self.duration = self._loop.time() - began
        return Ready() if self._over is None else self._over

    def begin(self, invocation: Invocation) -> None:
        """From now on the log belongs to this invocation."""
        self._output.origin = Origin(invocation.mapping, invocation.request_id)
        self._tail.begin(invocation.request_id)

    async def run(self, invocation: Invocation, limit: float, *, begun: bool = False) -> Event:
        """Hands the event out (only when it is ready) and waits for an Answer, Exited or OutOfTime. ``limit`` seconds
        from now it is over (RT-32, RT-38). ``begun``: its log has begun already, with the init."""
        began = self._loop.time()
        self._api.hand_out(invocation, time.time() + limit)
        self._start_clock(limit)  # after it, as what follows: the process works already
        if not begun:
            self.begin(invocation)
        event = await self._wait()
        self.duration = self._loop.time() - began
        if self._output.crowded:
            with held("output", "lines that the handler printed are still to be passed on"):
                await self._output.passed_on()
        return event

    def log_tail(self, status: Status = "success", error_type: str = "") -> bytes:
        """The end of the log of the invocation that is over (INV-30)."""
        now = self._loop.time()
        if now - self._memory_at >= MEMORY_EVERY:
            self._memory, self._memory_at = self._child.peak_memory() or self._memory, now
        init, self.init_duration = self.init_duration, None
        return self._tail.end(Report(self.duration, init, self._function.memory, self._memory, status, error_type))

    def kill(self) -> None:
        """All processes of it, at once (RT-36)."""
        self.alive = False
        self._child.kill()

    def retire(self) -> None:
        """Ends it on purpose."""
        self.retired = True
        self.kill()

    async def gone(self) -> None:
        """Waits until its process is reaped and its output has been passed on."""
        await self._gone.wait()

    # What the runtime does (RT-1..8).

    def parked(self) -> None:
        if not self.alive:
            return
        if not self.answers:
            self._output.flush()  # what init wrote belongs to no invocation
        self._stop_clock()
        self._resolve(Ready())

    def answered(self, answer: Answer) -> None:
        # The clock goes on until it asks for the next event: what it does after its answer counts, too.
        self.answers += 1
        self._output.flush()
        self._resolve(answer)

    def init_failed(self, error: bytes) -> None:
        self._finish(InitFailed(error))

    def hung_up(self) -> None:
        self._settle_exit()

    # What happens to the process.

    def out_of_memory(self, used: int) -> None:
        """It used so many bytes, more than it has."""
        self._memory, self._memory_at = used, self._loop.time()
        self._finish(OutOfMemory())

    def _out_of_time(self) -> None:
        self._finish(OutOfTime())

    def _finish(self, event: Event) -> None:
        if self._over is None:
            self._over = event
        self._stop_clock()
        self._output.flush()
        self.kill()
        self._resolve(event)

    def _on_exit(self, status: int) -> None:
        self.alive = False
        if self._clock is not None:
            self._clock.cancel()
        self._output.close()
        self._linger(status, LINGER)

    def _linger(self, status: int, turns: int) -> None:
        """It may have answered before it ended: what it sent is in the kernel, perhaps on a connection that is still to
        be accepted, and comes out within a few turns of the loop."""
        if turns:
            self._loop.call_soon(self._linger, status, turns - 1)
            return
        # A process that left its group may keep a connection for ever.
        self._exit = (status, self._loop.call_later(HANG_UP, self._settle_exit))
        if not self._api.connections:
            self._settle_exit()

    def _settle_exit(self) -> None:
        """The process has ended, and nothing that it sent is still on its way. Once."""
        if self._exit is None:
            return
        (status, hang_up), self._exit = self._exit, None
        hang_up.cancel()
        self._api.close()
        if self._over is None and self._child.out_of_memory:
            self._over = OutOfMemory()
            self._memory, self._memory_at = self._function.memory << 20, self._loop.time()
        elif self._over is None:
            self._over = Exited(status)
        self._resolve(self._over)
        self._leave()

    def _leave(self) -> None:
        if self._output.quiet:
            self._gone.set()
            self._ended(self)
        else:  # its last lines are passed on a few in each turn of the loop
            self._loop.call_soon(self._leave)

    def _tell(self, line: str) -> None:
        mapping, request_id = self._output.origin
        self._log.debug("platform", function=self._function.name, mapping=mapping, request_id=request_id, line=line)

    def _wait(self) -> asyncio.Future[Event]:
        self._waiter = self._loop.create_future()
        return self._waiter

    def _resolve(self, event: Event) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(event)

    def _start_clock(self, limit: float) -> None:
        self._deadline = self._loop.time() + limit
        if self._clock is not None and self._clock.when() > self._deadline:
            self._clock.cancel()
            self._clock = None
        if self._clock is None:
            self._clock = self._loop.call_at(self._deadline, self._on_clock)

    def _stop_clock(self) -> None:
        """Its timer goes on: one for many invocations costs less than one each."""
        self._deadline = inf

    def _on_clock(self) -> None:
        self._clock = None
        if self._deadline <= self._loop.time():
            self._out_of_time()
        elif self._deadline < inf:
            self._clock = self._loop.call_at(self._deadline, self._on_clock)
