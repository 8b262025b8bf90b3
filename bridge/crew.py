"""The runners of one partition: as many as its scaling says, ended together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import structlog

from bridge.flow import Flow
from bridge.invocation import Outcome, Succeeded
from bridge.record import Page
from bridge.runner import Runner
from bridge.snapshot import RunnerView

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from bridge.sources import Partition

log = structlog.get_logger()


class Crew:
    """Starts runners while polls keep bringing records, and lets them go when they do not."""

    def __init__(self, flow: Flow, partition: Partition, *, polled: Callable[[], None]) -> None:
        self._flow = flow
        self._partition = partition
        self._has_polled = polled
        self._scaling = flow.source.scaling()
        self._members: set[Runner] = set()
        self._leaving: set[Runner] = set()
        self._pollers = 0
        self._draining = False
        self._failure: BaseException | None = None
        self._tasks: TaskGroup | None = None
        self._limit()

    def __repr__(self) -> str:
        return f"<Crew {self._partition.id}: {len(self._members)} runners, {self._scaling!r}>"

    @property
    def partition(self) -> str:
        """Its id."""
        return self._partition.id

    async def run(self) -> None:
        """Until it is drained or its partition ends. A runner's error drains the others first: what they run ends
        well and is settled; then it is raised."""
        async with anyio.create_task_group() as self._tasks:
            self._fill()
        if self._failure:
            raise self._failure

    def drain(self) -> None:
        """Ends all runners as ``Runner.drain`` says."""
        self._draining = True
        for runner in (*self._members, *self._leaving):
            runner.drain()

    def hurry(self) -> None:
        """Before the task is cancelled: bounds the settles that may be under way."""
        for runner in (*self._members, *self._leaving):
            runner.hurry()

    def views(self) -> tuple[RunnerView, ...]:
        """What each runner does."""
        return tuple(runner.view() for runner in (*self._members, *self._leaving))

    def due(self) -> float:
        """Monotonic: when the first runner should have got on."""
        return min((runner.due for runner in (*self._members, *self._leaving)), default=float("inf"))

    def keeps(self, runner: Runner) -> bool:
        """Whether ``runner`` shall go on; where not, it does not count any more from now on."""
        if runner in self._members and len(self._members) > self._wanted:
            self._members.discard(runner)
            self._leaving.add(runner)
        return runner in self._members

    @property
    def _wanted(self) -> int:
        if self._flow.breaker.open:
            return 1  # a probe is one batch at a time
        return min(self._scaling.runners, self._flow.invoker.limit + 1) or 1

    def _polled(self, page: Page, idle: bool) -> None:
        if page.answered:
            self._has_polled()
        enough = self._flow.lane.waiting > 0 or len(self._members) > self._flow.invoker.limit
        now = anyio.current_time()
        self._scaling.polled(len(page.records), full=page.full, enough=enough, idle=idle, now=now)
        self._fill()

    def _ended(self, outcome: Outcome) -> None:
        self._scaling.ended(failed=not isinstance(outcome, Succeeded))
        self._limit()

    def _limit(self) -> None:
        """A queue's runners share its concurrency; partitions of an ordered source have one invocation each anyway."""
        if not self._flow.source.ordered:
            self._flow.lane.limit = self._scaling.concurrency

    def _fill(self) -> None:
        assert self._tasks is not None  # noqa: S101 - only runners of this group call
        while not self._draining and len(self._members) < self._wanted:
            runner = Runner(self._flow, self._partition, wanted=self.keeps, polled=self._polled, ended=self._ended)
            self._members.add(runner)
            self._tasks.start_soon(self._run, runner, name=f"runner {self._flow.mapping.name} {self._partition.id}")
        self._count()

    async def _run(self, runner: Runner) -> None:
        try:
            await runner.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others end well first
            self._failure = self._failure or error
            self.drain()
        finally:
            self._members.discard(runner)
            self._leaving.discard(runner)
            self._count()

    def _count(self) -> None:
        """Tells how many pollers they are now."""
        before, self._pollers = self._pollers, self._scaling.pollers(len(self._members))
        self._flow.staffed(self._pollers - before)
