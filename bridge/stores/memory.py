"""A store that forgets everything when the process ends: for `demo`, `run --local` and tests."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from bridge.event import Event, Waiting
from bridge.stores import StateUrl


class MemoryStore:
    """Keeps the state in the process."""

    def __init__(self, url: StateUrl) -> None:
        self._url = url
        self._paused: set[str] = set()
        self._events: dict[str, Event] = {}
        self._documents: dict[str, dict[str, bytes]] = {}

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
