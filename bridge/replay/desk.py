"""The dead letters of a running daemon's mappings and functions, for its dashboard: found, looked at and replayed with
the daemon's own sessions, by its own functions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping as Dict, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import anyio
import msgspec

from bridge.admin.letters import MOST_SHOWN, Fate, LetterView, Looked, Place, Progress
from bridge.attempt import Attempt
from bridge.errors import BridgeError, UsageError
from bridge.function import AwsSettings, Function
from bridge.invocation import Invocation, Outcome
from bridge.mapping import Mapping
from bridge.nearest import did_you_mean
from bridge.replay import bucket, objects
from bridge.replay.aims import Known
from bridge.replay.audit import caller_arn, state_file
from bridge.replay.callers import patiently
from bridge.replay.finding import Place as Whose, of_function, of_mapping
from bridge.replay.journal import Journal, default_path
from bridge.replay.letter import Letter
from bridge.replay.loop import peek, replay
from bridge.replay.plan import CONCURRENCY, Plan
from bridge.replay.queue import SqsShelf
from bridge.replay.queues import Queue, find
from bridge.replay.summary import Fate as Settled, Summary
from bridge.replay.target import Target
from bridge.replay.to_function import ToFunction
from bridge.replay.to_origin import OriginTarget
from bridge.replay.to_source import source_target

if TYPE_CHECKING:
    from bridge.daemon import Daemon
    from bridge.invoker import Invoker

PATIENCE = 5.0
"""Seconds for which a place is asked how much lies there."""
AT_ONCE = 10
FEW = 10
"""Letters that one receive may give: a second one at the same time would only wait for nothing."""
LANE = "replay"
"""The name under which replays wait for a function's environments."""


class Owned(NamedTuple):
    """A place, and whose letters lie there."""

    aws: AwsSettings
    mappings: tuple[Mapping, ...] = ()
    functions: tuple[Function, ...] = ()

    @property
    def of(self) -> tuple[str, ...]:
        """For people."""
        return (*(it.name for it in self.mappings), *(f"function {it.name}" for it in self.functions))

    @property
    def stands_for_others(self) -> bool:
        """What lies there are no messages of a queue, but records of what a function did not take."""
        return bool(self.functions) or any(it.stream is not None for it in self.mappings)


class DaemonDesk:
    """A ``Desk`` of bridge.admin.letters."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._found: dict[str, Owned] = {}
        """By ARN, or s3:// URL: what was found when it was last looked for."""

    def __repr__(self) -> str:
        return f"<DaemonDesk {list(self._found)}>"

    async def places(self) -> tuple[Place, ...]:
        troubles = await self._search()
        places: dict[str, Place] = {}
        limiter = anyio.Semaphore(AT_ONCE)

        async def ask(arn: str, owned: Owned) -> None:
            async with limiter:
                places[arn] = await self._asked(arn, owned)

        async with anyio.create_task_group() as tasks:
            for arn, owned in self._found.items():
                tasks.start_soon(ask, arn, owned)
        return (*(places[arn] for arn in self._found), *troubles)

    async def known(self, place: str) -> Place:
        return Place(arn=place, name=_name(place), of=(await self._owned(place)).of)

    async def peek(self, place: str, most: int) -> Looked:
        owned = await self._owned(place)
        async with AsyncExitStack() as stack:
            shelf = await self._shelf(place, owned)
            letters = await peek(shelf, most)
            where = await self._where(stack, owned, shelf)
            attempts = await self._daemon.attempts({key for letter in letters for key in letter.keys})
        return Looked(
            letters=tuple(_view(letter, attempts) for letter in letters),
            target=where,
            warning=_warning(shelf.queue) if isinstance(shelf, SqsShelf) else "",
        )

    async def _where(self, stack: AsyncExitStack, owned: Owned, shelf: SqsShelf | bucket.BucketShelf) -> str:
        """Where a replay would send them, or why it could not; for people."""
        try:
            target = await self._target(stack, owned, shelf)
            if target is None:
                return "where they came from"
            await target.check(dry=True)
        except BridgeError as error:
            return f"nowhere yet: {error}"
        return target.name

    async def replay(
        self, place: str, ids: frozenset[str], *, dry_run: bool, stop: anyio.Event, tell: Callable[[Progress], None]
    ) -> Progress:
        owned = await self._owned(place)
        concurrency = 1 if len(ids) <= FEW else CONCURRENCY
        plan = Plan(ids=ids, concurrency=concurrency, dry_run=dry_run)
        fates: list[Fate] = []
        async with AsyncExitStack() as stack:
            shelf = await self._shelf(place, owned)
            target = await self._target(stack, owned, shelf)
            if target is None:
                raise UsageError(f"{_name(place)} is empty, and no queue uses it")
            await target.check(dry=dry_run)
            journal = None if dry_run else await stack.enter_async_context(await self._journal(owned, shelf, plan))
            summary = await replay(
                plan,
                shelf,
                target,
                journal,
                stop=stop,
                on_progress=lambda it: tell(_progress(ids, fates, it)),
                on_fate=lambda it: fates.append(_fate(it)),
            )
        return _progress(ids, fates, summary)

    # Finding.

    async def _owned(self, place: str) -> Owned:
        if place not in self._found:
            await self._search()
        return self._found[place]

    async def _search(self) -> list[Place]:
        """Finds the places anew; gives what stands for those that cannot be known."""
        found: dict[str, Owned] = {}
        troubles: list[Place] = []
        functions = {name: invoker.function for name, invoker in self._daemon.invokers.items()}
        for mapping, place in await self._of_mappings(functions):
            if isinstance(place, BridgeError):
                troubles.append(Place(arn="", name="not known", of=(mapping.name,), trouble=str(place)))
            elif place is not None and _holds_letters(place.word):
                owned = found.get(place.word, Owned(place.aws))
                found[place.word] = owned._replace(mappings=(*owned.mappings, mapping))
        for function in functions.values():
            for place in {it.word: it for it in of_function(function, AwsSettings())}.values():
                if _holds_letters(place.word):
                    owned = found.get(place.word, Owned(place.aws))
                    found[place.word] = owned._replace(functions=(*owned.functions, function))
        self._found = found
        return troubles

    async def _of_mappings(self, functions: Dict[str, Function]) -> list[tuple[Mapping, Whose | BridgeError | None]]:
        """Where the letters of each mapping lie; none: nowhere."""
        mappings = [supervised.mapping for supervised in self._daemon.supervisor.mappings]
        places: dict[str, Whose | BridgeError | None] = {}
        limiter = anyio.Semaphore(AT_ONCE)

        async def ask(mapping: Mapping) -> None:
            async with limiter:
                try:
                    function = functions.get(mapping.function)
                    places[mapping.uuid] = await of_mapping(self._daemon.aws, mapping, function, AwsSettings())
                except UsageError:
                    places[mapping.uuid] = None
                except BridgeError as error:
                    places[mapping.uuid] = error

        async with anyio.create_task_group() as tasks:
            for mapping in mappings:
                tasks.start_soon(ask, mapping)
        return [(mapping, places[mapping.uuid]) for mapping in mappings]

    async def _asked(self, arn: str, owned: Owned) -> Place:
        """How much lies there."""
        place = Place(arn=arn, name=_name(arn), of=owned.of)
        try:
            with anyio.fail_after(PATIENCE):
                count = await (await self._shelf(arn, owned)).count()
        except BridgeError as error:
            return msgspec.structs.replace(place, trouble=str(error))
        except TimeoutError:
            return msgspec.structs.replace(place, trouble=f"it did not answer within {PATIENCE:g} s")
        return msgspec.structs.replace(place, waiting=count.waiting)

    # Opening.

    async def _shelf(self, arn: str, owned: Owned) -> SqsShelf | bucket.BucketShelf:
        if stored := objects.Place.parse(arn):
            return await bucket.find(self._daemon.aws, owned.aws, stored)
        return SqsShelf(await find(self._daemon.aws, owned.aws, arn))

    async def _target(self, stack: AsyncExitStack, owned: Owned, shelf: SqsShelf | bucket.BucketShelf) -> Target | None:
        """Where each letter came from. None: there is no letter, and nothing tells where one would come from."""
        queues = None
        if isinstance(shelf, SqsShelf) and not owned.stands_for_others:
            queues = await source_target(self._daemon.aws, owned.aws, shelf)
            if queues is None:
                return None
        functions = await stack.enter_async_context(self._functions(owned, shelf.arn))
        return OriginTarget(queues, functions, "") if queues else functions

    def _functions(self, owned: Owned, shelf: str) -> ToFunction:
        names = {it.function for it in owned.mappings} | {it.name for it in owned.functions}
        known = Known(
            mappings={it.mapping.name: it.mapping for it in self._daemon.supervisor.mappings},
            mapping=owned.mappings[0] if len(owned.mappings) == 1 and not owned.functions else None,
            function=names.pop() if len(names) == 1 else "",
            aws=owned.aws,
            shelf=shelf,
        )
        return ToFunction(DaemonCaller(self._daemon.invokers), self._daemon.aws, known)

    async def _journal(self, owned: Owned, shelf: SqsShelf | bucket.BucketShelf, plan: Plan) -> Journal:
        aws = self._daemon.aws
        region = shelf.arn.split(":")[3] or None
        endpoint = aws.place(shelf.service, owned.aws, region).endpoint
        path = default_path(state_file(self._daemon.settings.state), shelf.arn, endpoint)
        return Journal(path, shelf.arn, run=plan.run, caller=await caller_arn(aws, owned.aws, shelf.arn))


class DaemonCaller:
    """A ``Caller`` of bridge.replay.callers: the daemon's functions, in the environments that it has, in turn with its
    mappings."""

    what = "this daemon"

    def __init__(self, invokers: dict[str, Invoker]) -> None:
        self._invokers = invokers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def find(self, name: str, qualifier: str) -> Function:
        invoker = self._invokers.get(name)
        if invoker is None:
            raise UsageError(f'this daemon has no function "{name}"{did_you_mean(name, self._invokers)}')
        if qualifier not in ("", *invoker.function.qualifiers):
            near = did_you_mean(qualifier, invoker.function.qualifiers)
            raise UsageError(f'the function {name} has no version or alias "{qualifier}"{near}')
        return invoker.function

    async def invoke(self, function: Function, payload: bytes, qualifier: str, *, mapping: str, trace: str) -> Outcome:
        invoker = self._invokers[function.name]
        invocation = Invocation(payload, str(uuid.uuid4()), mapping, trace, qualifier)
        with invoker.lane(LANE, rejects=True) as lane:
            await lane.acquire()
            try:
                return await patiently(invoker, invocation)
            finally:
                lane.release()


def _holds_letters(arn: str) -> bool:
    """Topics, buses and functions keep nothing."""
    return ":sqs:" in arn or objects.Place.parse(arn) is not None


def _name(place: str) -> str:
    return place if "://" in place else place.rpartition(":")[2]


def _warning(queue: Queue) -> str:
    """What a look costs there."""
    parts = []
    if queue.dead_letters:
        parts.append(
            f"This queue has a redrive policy of its own: after {queue.max_receives} receives, looks included, a letter"
            f" goes to {_name(queue.dead_letters)}."
        )
    if queue.fifo:
        parts.append("It is FIFO: a look shows the head of each group only, and hides the group meanwhile.")
    return " ".join(parts)


def _view(letter: Letter, attempts: dict[str, tuple[Attempt, ...]]) -> LetterView:
    message, reason = letter.message, letter.reason
    told = []
    if reason:
        error = ": ".join(part for part in (reason.error_type, reason.message) if part)
        tried = f"after {reason.attempts} attempts" if reason.attempts else ""
        told = [part for part in (reason.condition, error, tried) if part]
    return LetterView(
        id=letter.id,
        kind=letter.kind,
        body=message.body[:MOST_SHOWN],
        size=len(message.body),
        receives=message.receives,
        group=message.group,
        at=letter.at,
        expires_at=letter.expires_at,
        reason=", ".join(told) or letter.hindrance,
        attempts=next((attempts[key] for key in letter.keys if key in attempts), ()),
    )


def _fate(settled: Settled) -> Fate:
    return Fate(id=settled.letter.id, what=settled.what, new_id=settled.new_id, reason=settled.reason)


def _progress(ids: frozenset[str], fates: Sequence[Fate], summary: Summary) -> Progress:
    latest = {fate.id: fate for fate in fates}
    return Progress(
        chosen=len(ids),
        fates=tuple(latest.values()),
        failed=dict(summary.failed),
        skipped=dict(summary.skipped),
        possible_duplicates=summary.possible_duplicates,
        left=summary.left,
        stopped=summary.stopped,
        interrupted=summary.interrupted,
    )
