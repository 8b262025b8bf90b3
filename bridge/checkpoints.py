"""The positions of all mappings, written together: one write is under way, and what is moved meanwhile shares the next
one. The event loop never waits for the disk, and whoever moves a position goes on when it has been written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping as Dict, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio
import msgspec

from bridge.errors import BridgeError, HoldLost, StateError, UsageError
from bridge.nearest import did_you_mean
from bridge.position import Move, Position, Positions
from bridge.station import held

if TYPE_CHECKING:
    from bridge.mapping import Mapping

WRITE_MOVES, WRITE_BYTES = 1000, 16 << 20
"""In one write at the most; bytes of window states."""
NAMES = "positions"
"""The kind of document that says whose positions they are: UUID -> the mapping's name."""


class PositionStore(Protocol):
    """The part of the state store that is needed here."""

    async def positions(self, mapping: str, source: str) -> dict[str, Position]: ...

    async def move_positions(self, moves: Sequence[Move]) -> None: ...

    async def forget_positions(self, mapping: str) -> None: ...

    async def positioned(self) -> dict[str, int]: ...

    async def documents(self, kind: str) -> dict[str, bytes]: ...

    async def keep(self, kind: str, key: str, document: bytes) -> None: ...

    async def forget(self, kind: str, key: str) -> None: ...


class Stored(NamedTuple):
    """The positions of one mapping. ``name`` is the one it had when it ran last."""

    uuid: str
    name: str
    partitions: int


class Checkpoints:
    """Keeps the positions in a store. Work with it inside ``running``. ``wrote`` is told the seconds of each write."""

    def __init__(self, store: PositionStore, wrote: Callable[[float], None] | None = None) -> None:
        self._store = store
        self._wrote = wrote
        self._queue: deque[_Call] = deque()
        self._wake = anyio.Event()
        self._open = False

    def __repr__(self) -> str:
        return f"<Checkpoints {len(self._queue)} wait>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Checkpoints]:
        """Positions can be moved inside; leaving writes what is still to be written."""
        self._open = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, name="position writer")
            try:
                yield self
            finally:
                self._open = False
                self._wake.set()

    def of(self, mapping: Mapping) -> Positions:
        """The positions of one mapping in its source; those of another source, which it had before, are kept apart."""
        stream = str(mapping.source_arn).partition("/consumer/")[0]  # with or without fan-out it stands at one place
        return _Positions(self, mapping.uuid, mapping.name, stream)

    async def stored(self) -> list[Stored]:
        """Whose positions are known, by name. Raises StateError."""
        names = await self._store.documents(NAMES)
        decoded = {uuid: msgspec.json.decode(name, type=str) for uuid, name in names.items()}
        counts = await self._store.positioned()
        everybody = {**dict.fromkeys(counts, ""), **decoded}
        return sorted(
            (Stored(uuid, name, counts.get(uuid, 0)) for uuid, name in everybody.items()), key=lambda it: it[1]
        )

    async def forget(self, uuid: str) -> None:
        """Drops all positions of a mapping that does not run any more. Twice is as once. Raises StateError."""
        await self._written()
        await self._store.forget_positions(uuid)
        await self._store.forget(NAMES, uuid)

    # What the positions of a mapping use.

    async def load(self, uuid: str, name: str, source: str) -> dict[str, Position]:
        """Writes down whose they are: a store that cannot be written to is noticed before anything is polled."""
        with held("store", "reads the positions"):
            await self._store.keep(NAMES, uuid, msgspec.json.encode(name))
            await self._written()
            return await self._store.positions(uuid, source)

    async def move(self, moves: Sequence[Move]) -> None:
        """Returns when they are written. Raises StateError or HoldLost: none of them is."""
        if not self._open:
            raise StateError("the state is closed: the daemon is stopping")
        if not moves:
            return
        call = _Call(moves)
        self._queue.append(call)
        self._wake.set()
        with held("store", lambda: f"writes {len(call.moves)} positions; {len(self._queue)} writes are asked for"):
            await call.written.wait()
        if call.error:
            raise type(call.error)(str(call.error))

    async def _written(self) -> None:
        """Returns when what has been asked for until now is written, or has failed."""
        if self._queue:
            await self._queue[-1].written.wait()

    # The writer.

    async def _run(self) -> None:
        """Until ``running`` is left. Shielded: what somebody asked for is written."""
        with anyio.CancelScope(shield=True):
            while self._queue or self._open:
                if not self._queue:
                    self._wake = anyio.Event()
                    await self._wake.wait()
                    continue
                await self._write(self._next())

    def _next(self) -> list[_Call]:
        """What shares the next write. It stays in the queue until it is written."""
        calls: list[_Call] = []
        moves = size = 0
        for call in self._queue:
            moves, size = moves + len(call.moves), size + call.size
            if calls and (moves > WRITE_MOVES or size > WRITE_BYTES):
                break
            calls.append(call)
        return calls

    async def _write(self, calls: list[_Call]) -> None:
        began = anyio.current_time()
        try:
            await self._store.move_positions([move for call in calls for move in call.moves])
            if self._wrote:
                self._wrote(anyio.current_time() - began)
        except HoldLost as error:
            if len(calls) > 1:  # the others go on: each by itself
                for call in calls:
                    await self._write([call])
                return
            calls[0].error = error
        except StateError as error:
            for call in calls:
                call.error = error
        for call in calls:
            self._queue.popleft()
            call.written.set()


class _Call(msgspec.Struct, eq=False):
    """One ``move``: written whole or not at all."""

    moves: Sequence[Move]
    written: anyio.Event = msgspec.field(default_factory=anyio.Event)
    error: BridgeError | None = None

    @property
    def size(self) -> int:
        """Bytes of window states."""
        return sum(len(move.position.state) for move in self.moves if move.position)


class _Positions:
    """Of one mapping."""

    def __init__(self, checkpoints: Checkpoints, uuid: str, name: str, source: str) -> None:
        self._checkpoints = checkpoints
        self._uuid = uuid
        self._name = name
        self._source = source

    def __repr__(self) -> str:
        return f"<Positions of {self._name} in {self._source}>"

    async def load(self) -> dict[str, Position]:
        return await self._checkpoints.load(self._uuid, self._name, self._source)

    async def move(self, moved: Dict[str, Position]) -> None:
        await self._checkpoints.move([Move(self._uuid, self._source, *one) for one in moved.items()])

    async def forget(self, partitions: Collection[str]) -> None:
        await self._checkpoints.move([Move(self._uuid, self._source, name, None) for name in partitions])


def the_gone(name: str, stored: Sequence[Stored], there: Dict[str, str]) -> Stored:
    """The mapping with this name or UUID among those that are not ``there`` (UUID -> name) any more.

    Raises UsageError when there is none, or several, or it is there.
    """
    gone = [it for it in stored if it.uuid not in there]
    meant = [it for it in gone if name == it.name or name.lower() == it.uuid.lower()]
    uuids = " and ".join(it.uuid for it in meant)
    if name in there.values() or name.lower() in map(str.lower, there):
        earlier = f"; an earlier one of this name has the UUID {uuids}" if meant else ""
        raise UsageError(f'the mapping "{name}" exists, and keeps its positions{earlier}')
    if len(meant) > 1:
        raise UsageError(f'several mappings were called "{name}"; say which by its UUID: {uuids}')
    if not meant:
        known = {word for it in gone for word in (it.name, it.uuid)}
        raise UsageError(f'no positions are stored for a mapping "{name}"{did_you_mean(name, known)}')
    return meant[0]
