"""What survives a restart: the contract that every store keeps. tests/contracts/store.py is its specification."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from bridge.attempt import Attempt, Bounds, FailedBatch
from bridge.errors import StateError
from bridge.event import Event, Waiting
from bridge.nearest import did_you_mean
from bridge.position import Move, Position

STORES = {
    "sqlite": "bridge.stores.sqlite:SqliteStore",
    "memory": "bridge.stores.memory:MemoryStore",
}
"""The scheme of the state URL -> ``module:Class``."""

NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class StateUrl(NamedTuple):
    """Where the state is. ``namespace`` separates people (or daemons) who share one place."""

    scheme: str
    path: Path
    namespace: str = ""

    @classmethod
    def parse(cls, text: str) -> StateUrl:
        """Reads ``sqlite:////absolute/path?namespace=me``, ``sqlite:///relative/path`` or ``memory:``.

        Raises StateError, one line, for anything else.
        """
        scheme, colon, rest = text.partition(":")
        if scheme not in STORES or not colon:
            known = "write sqlite:////PATH or memory:"
            raise StateError(f"state: {text!r} is no URL of a store; {known}{did_you_mean(scheme, STORES)}")
        try:
            parts = urlsplit(rest)
        except ValueError as error:
            raise StateError(f"state: {text!r} is no URL of a store ({error}); write sqlite:////PATH") from None
        namespace = _namespace(parts.query, text)
        path = unquote(parts.path)
        if scheme == "memory":
            if parts.netloc or path or parts.fragment:
                raise StateError(f"state: {text!r} names a place; the store in memory is just memory:")
            return cls(scheme, Path(), namespace)
        if not rest.startswith("///") or parts.fragment or path.endswith("/") or "\0" in path:
            raise StateError(f"state: {text!r} names no file; an absolute path takes four slashes: sqlite:////PATH")
        return cls(scheme, Path(path[1:]), namespace)


class Store(Protocol):
    """Keeps what must survive a restart, in the namespace of its URL. An async context manager: entering opens it for
    this process alone, leaving closes it.

    Each call is one write or read that has happened when it returns. StateError, one line that says what and how to fix
    it: it did not happen. The event loop never waits for a disk.
    """

    failures: int
    """Calls that have ended with StateError."""

    def __init__(self, url: StateUrl) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    async def paused(self) -> frozenset[str]:
        """The UUIDs of the mappings that are paused."""
        ...

    async def pause(self, uuid: str) -> None:
        """This mapping is paused from now on. Twice is as once."""
        ...

    async def resume(self, uuid: str) -> None:
        """This mapping is not paused any more, if it was."""
        ...

    async def change_events(
        self, added: Sequence[Event] = (), moved: Sequence[Waiting] = (), done: Sequence[str] = ()
    ) -> None:
        """One write: ``added`` asynchronous events are kept (one whose request id is known stays as it was), ``moved``
        get a new due time, attempts and deliveries, and those with the request ids ``done`` are forgotten. When it
        returns, all of it is on disk and survives a power cut; StateError: none of it is.
        """
        ...

    async def waiting_events(self) -> list[Waiting]:
        """All asynchronous events, without their payloads."""
        ...

    async def event(self, request_id: str) -> Event | None:
        """One asynchronous event."""
        ...

    async def documents(self, kind: str) -> dict[str, bytes]:
        """What was kept under this kind: key -> bytes as they were given. ``kind`` is a few lower-case letters."""
        ...

    async def keep(self, kind: str, key: str, document: bytes) -> None:
        """Keeps ``document`` in place of what had this key before."""
        ...

    async def forget(self, kind: str, key: str) -> None:
        """Nothing is kept under this key any more. Twice is as once."""
        ...

    async def positions(self, mapping: str, source: str) -> dict[str, Position]:
        """Where the partitions of a source stand for the mapping with this UUID; nothing of other sources."""
        ...

    async def move_positions(self, moves: Sequence[Move]) -> None:
        """One write: all of them in this order, or none. It survives the end of this process by any means; a power cut
        may undo the last of them, never a part of one.

        Raises HoldLost, and nothing has happened, when one has a lower epoch than what is stored (SCO-32).
        """
        ...

    async def forget_positions(self, mapping: str) -> None:
        """The mapping with this UUID has no position any more, in no source. Twice is as once."""
        ...

    async def positioned(self) -> dict[str, int]:
        """The UUIDs that have positions -> of how many partitions."""
        ...

    async def add_attempts(self, batches: Sequence[FailedBatch], bounds: Bounds) -> None:
        """One write: these are kept, and of each record the newest ``bounds.per_record`` attempts. A power cut may undo
        the last such writes."""
        ...

    async def trim_attempts(self, bounds: Bounds, now: float) -> None:
        """Forgets the attempts that are beyond the bounds at ``now``, epoch seconds."""
        ...

    async def attempts(self, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
        """What is kept about records with these ids, the oldest first; ids of which nothing is known are absent."""
        ...

    async def last_failed(self, uuid: str, most: int) -> list[FailedBatch]:
        """The last ``most`` failed invocations of the mapping with this UUID, the newest first; the records of each in
        any order."""
        ...

    @classmethod
    async def glance(cls, url: StateUrl, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
        """``attempts`` of a store that is not opened here, but perhaps by another process. Changes nothing, and gives
        nothing where there is nothing to be read."""
        ...


def open_store(url: str) -> Store:
    """The store behind a URL, to be entered. Raises StateError when the URL is none."""
    parsed = StateUrl.parse(url)
    return _kind(parsed)(parsed)


async def glance(url: str, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
    """``Store.attempts`` of the store behind a URL, without opening it. Raises StateError when the URL is none."""
    parsed = StateUrl.parse(url)
    return await _kind(parsed).glance(parsed, records)


def _kind(url: StateUrl) -> type[Store]:
    module, _, name = STORES[url.scheme].partition(":")
    kind: type[Store] = getattr(import_module(module), name)
    return kind


def _namespace(query: str, text: str) -> str:
    options = dict(parse_qsl(query, keep_blank_values=True))
    namespace = options.pop("namespace", None)
    if options:
        raise StateError(f"state: {text!r} has the option {next(iter(options))!r}; the only one is namespace")
    if namespace is not None and not NAMESPACE.fullmatch(namespace):
        raise StateError(f"state: the namespace {namespace!r} is not 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return namespace or ""
