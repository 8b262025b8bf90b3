"""A store that forgets everything when the process ends: for `demo`, `run --local` and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Self

import msgspec

from bridge.attempt import Attempt, Bounds, FailedBatch
from bridge.errors import HoldLost
from bridge.event import Event, Waiting
from bridge.position import Move, Position
from bridge.stores import StateUrl


class MemoryStore:
    """Keeps the state in the process."""

    failures = 0

    def __init__(self, url: StateUrl) -> None:
        self._url = url
        self._paused: set[str] = set()
        self._events: dict[str, Event] = {}
        self._documents: dict[str, dict[str, bytes]] = {}
        self._positions: dict[tuple[str, str, str], Position] = {}
        self._failed: list[FailedBatch] = []
        """By id."""

    def __repr__(self) -> str:
        return f"<MemoryStore paused={len(self._paused)} events={len(self._events)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._paused.clear()
        self._events.clear()
        self._documents.clear()
        self._positions.clear()
        self._failed.clear()

    async def paused(self) -> frozenset[str]:
        return frozenset(self._paused)

    async def pause(self, uuid: str) -> None:
        self._paused.add(uuid)

    async def resume(self, uuid: str) -> None:
        self._paused.discard(uuid)

    async def change_events(
        self, added: Sequence[Event] = (), moved: Sequence[Waiting] = (), done: Sequence[str] = ()
    ) -> None:
        for event in added:
            self._events.setdefault(event.request_id, event)
        for now in moved:
            if now.request_id in self._events:
                self._events[now.request_id] = msgspec.structs.replace(
                    self._events[now.request_id],
                    due_at=now.due_at,
                    attempts=now.attempts,
                    deliveries=now.deliveries,
                )
        for request_id in done:
            self._events.pop(request_id, None)

    async def waiting_events(self) -> list[Waiting]:
        return [event.waiting for event in self._events.values()]

    async def event(self, request_id: str) -> Event | None:
        return self._events.get(request_id)

    async def documents(self, kind: str) -> dict[str, bytes]:
        return dict(self._documents.get(kind, {}))

    async def keep(self, kind: str, key: str, document: bytes) -> None:
        self._documents.setdefault(kind, {})[key] = document

    async def forget(self, kind: str, key: str) -> None:
        self._documents.get(kind, {}).pop(key, None)

    async def positions(self, mapping: str, source: str) -> dict[str, Position]:
        known = self._positions.items()
        return {key[2]: position for key, position in known if key[:2] == (mapping, source)}

    async def move_positions(self, moves: Sequence[Move]) -> None:
        after: dict[tuple[str, str, str], Position | None] = {}
        for move in moves:
            key, position = move[:3], move.position
            stored = after.get(key, self._positions.get(key))
            if position and stored and position.epoch < stored.epoch:
                raise HoldLost
            after[key] = position
        for key, position in after.items():
            if position is None:
                self._positions.pop(key, None)
            else:
                self._positions[key] = position

    async def forget_positions(self, mapping: str) -> None:
        self._positions = {key: position for key, position in self._positions.items() if key[0] != mapping}

    async def positioned(self) -> dict[str, int]:
        return dict(Counter(mapping for mapping, _, _ in self._positions))

    async def add_attempts(self, batches: Sequence[FailedBatch], bounds: Bounds) -> None:
        known = {it.id for it in self._failed}
        self._failed = sorted([*self._failed, *(it for it in batches if it.id not in known)], key=lambda it: it.id)
        self._limit(lambda _, record: record, bounds.per_record)

    async def trim_attempts(self, bounds: Bounds, now: float) -> None:
        self._failed = [it for it in self._failed if it.id >= (now - bounds.age) * 1e9]
        self._limit(lambda batch, _: batch.uuid, bounds.per_mapping)
        self._limit(lambda *_: "", bounds.total)
        self._failed = [it for it in self._failed if it.records]

    def _limit(self, group: Callable[[FailedBatch, str], str], most: int) -> None:
        """Keeps the newest attempts of each group."""
        seen: Counter[str] = Counter()
        for place in reversed(range(len(self._failed))):
            batch = self._failed[place]
            kept: list[tuple[str, int]] = []
            for record in batch.records:
                name = group(batch, record[0])
                seen[name] += 1
                if seen[name] <= most:
                    kept.append(record)
            self._failed[place] = msgspec.structs.replace(batch, records=tuple(kept))

    async def attempts(self, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
        wanted = set(records)
        found: dict[str, tuple[Attempt, ...]] = {}
        for batch in self._failed:
            if any(record in wanted for record, _ in batch.records):
                for attempt in batch.attempts():
                    if attempt.record in wanted:
                        found[attempt.record] = (*found.get(attempt.record, ()), attempt)
        return found

    async def last_failed(self, uuid: str, most: int) -> list[FailedBatch]:
        return [it for it in reversed(self._failed) if it.uuid == uuid][:most]

    @classmethod
    async def glance(cls, url: StateUrl, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:  # noqa: ARG003
        return {}  # it is nowhere but in its process
