"""A store that forgets everything when the process ends: for `demo`, `run --local` and tests."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from bridge.stores import StateUrl


class MemoryStore:
    """Keeps the state in the process."""

    def __init__(self, url: StateUrl) -> None:
        self._url = url
        self._paused: set[str] = set()
        self._documents: dict[str, dict[str, bytes]] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore paused={len(self._paused)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._paused.clear()
        self._documents.clear()

    async def paused(self) -> frozenset[str]:
        return frozenset(self._paused)

    async def pause(self, uuid: str) -> None:
        self._paused.add(uuid)

    async def resume(self, uuid: str) -> None:
        self._paused.discard(uuid)

    async def documents(self, kind: str) -> dict[str, bytes]:
        return dict(self._documents.get(kind, {}))

    async def keep(self, kind: str, key: str, document: bytes) -> None:
        self._documents.setdefault(kind, {})[key] = document

    async def forget(self, kind: str, key: str) -> None:
        self._documents.get(kind, {}).pop(key, None)
