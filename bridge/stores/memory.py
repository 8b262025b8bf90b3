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

    def __repr__(self) -> str:
        return f"<MemoryStore paused={len(self._paused)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._paused.clear()

    async def paused(self) -> frozenset[str]:
        return frozenset(self._paused)

    async def pause(self, uuid: str) -> None:
        self._paused.add(uuid)

    async def resume(self, uuid: str) -> None:
        self._paused.discard(uuid)
