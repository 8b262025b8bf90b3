"""The failure ledger: the last attempts that failed, so that a dead letter says why it died.

The daemon's half collects them beside the straight path and writes what came within a second together; nothing waits
for it, and nothing stops when it cannot be written. The commands' half asks a running daemon, or reads its state file.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping as Dict,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.to_thread
import structlog

from bridge.attempt import BOUNDS, Attempt, Bounds, FailedBatch
from bridge.errors import BridgeError, StateError
from bridge.telemetry.logs import Once

if TYPE_CHECKING:
    from bridge.mapping import Mapping

log = structlog.get_logger()

GROUP = 1.0
"""Seconds from one write to the next at least."""
TRIM_AFTER = 1000
"""Attempts written until the bounds are enforced again."""
TRIM_EVERY = 3600.0
"""Seconds likewise."""
RETRY = 10.0
"""Seconds until a write that failed is tried again."""
WRITE_ATTEMPTS = 1000
"""In one write, and those of the invocation that goes beyond it."""
LAST_WRITE = 5.0
"""Seconds for what is left when the daemon stops."""
LONGEST_MESSAGE = 1024
LONGEST_TYPE = 80
LONGEST_TAIL = 4096
MOST_RECORDS = 1000
"""Of one invocation. Of more the first ones and the last are kept."""
ASKED_AT_ONCE = 200
"""Ids in one request to a daemon."""


class AttemptStore(Protocol):
    """The part of the state store that is needed here."""

    async def add_attempts(self, batches: Sequence[FailedBatch], bounds: Bounds) -> None: ...

    async def trim_attempts(self, bounds: Bounds, now: float) -> None: ...

    async def attempts(self, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]: ...

    async def last_failed(self, uuid: str, most: int) -> list[FailedBatch]: ...


class Ledger:
    """Keeps failed attempts in a store. Work with it inside ``running``. ``lost`` is told how many attempts could not
    be kept."""

    def __init__(self, store: AttemptStore, lost: Callable[[int], None], bounds: Bounds = BOUNDS) -> None:
        self._store = store
        self._lost = lost
        self._bounds = bounds
        self._waiting: dict[str, _Line] = {}
        """By mapping."""
        self._writing: Sequence[FailedBatch] = ()
        self._wake = anyio.Event()
        self._stop = anyio.Event()
        self._last = 0
        self._untrimmed = TRIM_AFTER  # what an earlier process left
        self._trimmed_at = -TRIM_EVERY
        self._failing = False
        self._once = Once(log)

    def __repr__(self) -> str:
        return f"<Ledger {sum(line.attempts for line in self._waiting.values())} attempts wait>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Ledger]:
        """What is noted is written inside; leaving writes what is left."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, name="failure ledger")
            try:
                yield self
            finally:
                self._stop.set()
                self._wake.set()

    def note(
        self,
        mapping: Mapping,
        partition: str,
        records: Sequence[tuple[str, int]],
        *,
        outcome: str,
        request_id: str = "",
        error: tuple[str, str] = ("", ""),
        duration: float = 0.0,
        log_tail: bytes = b"",
    ) -> None:
        """An invocation failed for these records (id, number). ``error``: type and message. Never waits or raises."""
        if not records:
            return
        if len(records) > MOST_RECORDS:
            records = (*records[: MOST_RECORDS - 1], records[-1])
        now = time.time()
        self._last = max(self._last + 1, int(now * 1e9))
        batch = FailedBatch(
            id=self._last,
            uuid=mapping.uuid,
            mapping=mapping.name,
            partition=partition,
            at=now,
            request_id=request_id,
            outcome=outcome,
            error_type=_text(error[0], LONGEST_TYPE),
            message=_text(error[1], LONGEST_MESSAGE),
            duration=round(duration, 6),
            log_tail=log_tail[-LONGEST_TAIL:].decode(errors="replace"),
            records=tuple(records),
        )
        line = self._waiting.setdefault(mapping.uuid, _Line())
        line.put(batch)
        while line.attempts > self._bounds.per_mapping and len(line.batches) > 1:
            oldest = line.pop()  # it would be forgotten as soon as it is written
            self._lost(len(oldest.records) if self._failing else 0)
        self._wake.set()

    async def attempts(self, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
        """What is known about records with these ids, the oldest attempt first. Raises StateError."""
        wanted = set(records)
        unwritten = [it for batch in self._unwritten() for it in batch.attempts() if it.record in wanted]
        found = await self._store.attempts(records)
        for attempt in unwritten:
            if attempt not in found.get(attempt.record, ()):
                found[attempt.record] = (*found.get(attempt.record, ()), attempt)[-self._bounds.per_record :]
        return found

    async def last_failed(self, uuid: str, most: int) -> tuple[FailedBatch, ...]:
        """The last failed invocations of the mapping with this UUID, the newest first. Raises StateError."""
        unwritten = {batch.id: batch for batch in self._unwritten() if batch.uuid == uuid}
        written = {batch.id: batch for batch in await self._store.last_failed(uuid, most)}
        both = unwritten | written
        return tuple(both[number] for number in sorted(both, reverse=True)[:most])

    # The writer.

    def _unwritten(self) -> Iterator[FailedBatch]:
        yield from self._writing
        for line in self._waiting.values():
            yield from line.batches

    async def _run(self) -> None:
        """Until ``running`` is left. Shielded: the last failures are those that somebody will ask about."""
        with anyio.CancelScope(shield=True):
            while not self._stop.is_set():
                await self._trim()
                if not self._waiting and not self._stop.is_set():
                    self._wake = anyio.Event()
                    with anyio.move_on_after(TRIM_EVERY):
                        await self._wake.wait()
                await self._write()
                with anyio.move_on_after(RETRY if self._failing else GROUP):
                    await self._stop.wait()
            with anyio.move_on_after(LAST_WRITE):
                await self._write()
            self._lost(sum(len(batch.records) for batch in self._unwritten()))

    async def _write(self) -> None:
        """All that waits now, in pieces: others write to the store, too."""
        until = self._last
        while self._writing_next(until):
            written = False  # it may be cut short
            try:
                written = await self._done(self._store.add_attempts(self._writing, self._bounds))
            finally:
                batches, self._writing = self._writing, ()
                self._failing = not written
                if self._failing:
                    self._put_back(batches)
            if self._failing:
                return
            self._untrimmed += sum(len(batch.records) for batch in batches)

    def _writing_next(self, until: int) -> bool:
        """Takes the next piece of what had come until then; false: there is none."""
        taken: list[FailedBatch] = []
        size = 0
        for uuid, line in tuple(self._waiting.items()):
            while line.batches and line.batches[0].id <= until and size < WRITE_ATTEMPTS:
                taken.append(line.pop())
                size += len(taken[-1].records)
            if not line.batches:
                del self._waiting[uuid]
        self._writing = taken
        return bool(taken)

    async def _done(self, write: Awaitable[None]) -> bool:
        """Whether it could be written. Whatever is wrong, records come first: it must stop nothing."""
        try:
            await write
        except Exception as error:  # noqa: BLE001
            line = str(error) if isinstance(error, StateError) else repr(error)
            self._once.log("ledger", "ledger_not_written", error=line)
            return False
        self._once.end("ledger")
        return True

    def _put_back(self, batches: Sequence[FailedBatch]) -> None:
        """In front of what came meanwhile, as far as there is room."""
        for batch in reversed(batches):
            line = self._waiting.setdefault(batch.uuid, _Line())
            if line.attempts + len(batch.records) <= self._bounds.per_mapping:
                line.put_back(batch)
            else:
                self._lost(len(batch.records))

    async def _trim(self) -> None:
        late = anyio.current_time() - self._trimmed_at >= TRIM_EVERY
        if self._failing or not (late or self._untrimmed >= TRIM_AFTER):
            return
        if await self._done(self._store.trim_attempts(self._bounds, time.time())):
            self._untrimmed, self._trimmed_at = 0, anyio.current_time()


class _Line:
    """What waits to be written of one mapping."""

    def __init__(self) -> None:
        self.batches: deque[FailedBatch] = deque()
        self.attempts = 0
        """Of all batches."""

    def put(self, batch: FailedBatch) -> None:
        self.batches.append(batch)
        self.attempts += len(batch.records)

    def put_back(self, batch: FailedBatch) -> None:
        self.batches.appendleft(batch)
        self.attempts += len(batch.records)

    def pop(self) -> FailedBatch:
        """The oldest."""
        self.attempts -= len(self.batches[0].records)
        return self.batches.popleft()


# Whoever asks from outside.


async def attempts(
    ids: Iterable[str],
    *,
    config: str | None = None,
    admin: str | None = None,
    token: str | None = None,
    environ: Dict[str, str] = os.environ,
) -> dict[str, tuple[Attempt, ...]]:
    """Why records failed: id -> the attempts that are known, the oldest first; ids that nothing is known of are absent.

    Asks the running daemon (``admin`` and ``token`` as `bridge mappings` takes them, else as ``config`` says). Where
    none answers, or it does not let us, looks into the state file of ``config`` (a path; none: the one that is found),
    without changing it. Where there is neither, nothing is known. Never raises for any of that.
    """
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return {}
    if config is not None:
        environ = {**environ, "BRIDGE_CONFIG": config}
    try:
        return await anyio.to_thread.run_sync(_ask, wanted, admin, token, environ, abandon_on_cancel=True)
    except BridgeError as unanswered:
        log.debug("ledger_unanswered", error=str(unanswered))
    try:
        return await _look(wanted, environ)
    except BridgeError as unread:
        log.debug("ledger_unread", error=str(unread))
        return {}


def _ask(
    wanted: list[str], admin: str | None, token: str | None, environ: Dict[str, str]
) -> dict[str, tuple[Attempt, ...]]:
    from bridge.admin.client import Client, find

    client = Client(find(admin, token, environ))
    found: dict[str, tuple[Attempt, ...]] = {}
    for start in range(0, len(wanted), ASKED_AT_ONCE):
        found |= client.attempts(wanted[start : start + ASKED_AT_ONCE])
    return found


async def _look(wanted: list[str], environ: Dict[str, str]) -> dict[str, tuple[Attempt, ...]]:
    from bridge.settings import load
    from bridge.stores import glance

    return await glance(load(None, environ).state, wanted)


def _text(text: str, most: int) -> str:
    """At most so many characters, and none that is half a character."""
    return text[:most].encode(errors="replace").decode()
