"""What was made through the API and outlives the daemon: mappings, concurrency, asynchronous settings, tags."""

from __future__ import annotations

import time
from collections.abc import Mapping as Dict
from typing import TYPE_CHECKING, Any, Self

import msgspec
import structlog

from bridge.config.mappings import mapping as judged
from bridge.config.reader import Report, Section
from bridge.config.tree import Array, Node, Place, Problem, Scalar, Table
from bridge.errors import StateError
from bridge.function import EventInvoke
from bridge.mapping import Mapping
from bridge.versions import shares

if TYPE_CHECKING:
    from bridge.api import AsyncQueue, Host
    from bridge.checkpoints import Checkpoints
    from bridge.executors.versions import Versions
    from bridge.settings import Settings
    from bridge.stores import Store

log = structlog.get_logger()

PLACE = "the API"
"""``Mapping.where`` of what was made here."""


class Entry(msgspec.Struct, frozen=True):
    """One mapping. ``parameters`` are CreateEventSourceMapping's, without the tags; times in epoch seconds."""

    uuid: str
    parameters: dict[str, Any]
    created_at: float
    modified_at: float


class Provisioned(msgspec.Struct, frozen=True):
    """How many environments of a version or alias are to be started ahead (RT-62)."""

    count: int
    modified_at: float


class EventInvokeConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """How asynchronous invocations of a function are retried and reported (ASY-20, ASY-21). Destinations are ARNs."""

    maximum_retry_attempts: int | None = None
    maximum_event_age: int | None = None
    """Seconds."""
    on_success: str = ""
    on_failure: str = ""
    modified_at: float = 0.0

    @property
    def settings(self) -> EventInvoke:
        """As the queue goes by them."""
        return EventInvoke(
            retries=self.maximum_retry_attempts,
            max_age=None if self.maximum_event_age is None else float(self.maximum_event_age),
            on_success=self.on_success,
            on_failure=self.on_failure,
        )

    @classmethod
    def of(cls, settings: EventInvoke, at: float) -> Self:
        """Those of the configuration file."""
        age = None if settings.max_age is None else int(settings.max_age)
        return cls(settings.retries, age, settings.on_success, settings.on_failure, at)


class Book:
    """Keeps it in memory and in the store, and starts the mappings in it."""

    def __init__(self, store: Store, checkpoints: Checkpoints) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self.mappings: dict[str, Entry] = {}
        """UUID -> entry, in the order of creation (ESM-73)."""
        self.unusable: dict[str, str] = {}
        """UUID of a mapping that cannot run as the configuration is now -> why."""
        self.reserved: dict[str, int | None] = {}
        """Function -> its reserved concurrency in place of the file's; none: unreserved."""
        self.provisioned: dict[str, Provisioned] = {}
        """Function and version or alias, ``name:alias`` -> environments to be started ahead."""
        self.event_invoke: dict[str, EventInvokeConfig] = {}
        """Function and qualifier, ``name:$LATEST`` -> settings."""
        self.tags: dict[str, dict[str, str]] = {}
        """UUID of a mapping, or ``function:NAME`` -> tags."""

    def __repr__(self) -> str:
        return f"<Book: {len(self.mappings)} mappings>"

    async def open(self) -> None:
        """Reads all of it, and finishes what an earlier process had no time for."""
        for uuid in await self._store.documents("deleted"):
            await self.forget_positions(uuid)
        entries = [msgspec.json.decode(it, type=Entry) for it in (await self._store.documents("mapping")).values()]
        self.mappings = {entry.uuid: entry for entry in sorted(entries, key=lambda it: (it.created_at, it.uuid))}
        decode = msgspec.json.decode
        reserved = await self._store.documents("concurrency")
        self.reserved = {name: decode(it, type=int | None) for name, it in reserved.items()}
        ahead = await self._store.documents("provisioned")
        self.provisioned = {name: decode(it, type=Provisioned) for name, it in ahead.items()}
        configs = await self._store.documents("eventinvoke")
        self.event_invoke = {name: decode(it, type=EventInvokeConfig) for name, it in configs.items()}
        tags = await self._store.documents("tags")
        self.tags = {name: decode(it, type=dict[str, str]) for name, it in tags.items()}

    async def keep_mapping(self, entry: Entry) -> None:
        await self._store.keep("mapping", entry.uuid, msgspec.json.encode(entry))
        self.mappings[entry.uuid] = entry
        self.unusable.pop(entry.uuid, None)

    async def forget_mapping(self, uuid: str) -> None:
        """With its tags and its pause. Its positions are to be forgotten when it runs no more: `forget_positions`."""
        await self._store.keep("deleted", uuid, b"")
        await self._store.forget("mapping", uuid)
        self.mappings.pop(uuid, None)
        self.unusable.pop(uuid, None)
        await self.keep_tags(uuid, {})
        await self._store.resume(uuid)

    async def forget_positions(self, uuid: str) -> None:
        """Those of a mapping that was forgotten and does not run any more (TW-54); what fails now is done at the next
        start."""
        try:
            await self._checkpoints.forget(uuid)
            await self._store.forget("deleted", uuid)
        except StateError as error:
            log.error("positions_kept", mapping=uuid, error=str(error), until="the next start")

    async def keep_reserved(self, function: str, concurrency: int | None) -> None:
        await self._store.keep("concurrency", function, msgspec.json.encode(concurrency))
        self.reserved[function] = concurrency

    async def forget_reserved(self, function: str) -> None:
        await self._store.forget("concurrency", function)
        self.reserved.pop(function, None)

    async def keep_provisioned(self, key: str, config: Provisioned) -> None:
        await self._store.keep("provisioned", key, msgspec.json.encode(config))
        self.provisioned[key] = config

    async def forget_provisioned(self, key: str) -> None:
        await self._store.forget("provisioned", key)
        self.provisioned.pop(key, None)

    def provision(self, versions: Versions) -> None:
        """Has a function start ahead what was asked for here, for the versions that it has."""
        counts = dict.fromkeys(versions.function.versions, 0)
        for key, config in self.provisioned.items():
            name, _, qualifier = key.partition(":")
            if name == versions.function.name:
                for version, count in shares(versions.function, qualifier, config.count).items():
                    counts[version] += count
        for version, count in counts.items():
            versions.version(version).provision(count)

    async def keep_event_invoke(self, key: str, config: EventInvokeConfig, queue: AsyncQueue | None) -> None:
        """In force at once where there is a queue."""
        await self._store.keep("eventinvoke", key, msgspec.json.encode(config))
        self.event_invoke[key] = config
        _configure(queue, key, config)

    async def forget_event_invoke(self, key: str, queue: AsyncQueue | None) -> None:
        await self._store.forget("eventinvoke", key)
        self.event_invoke.pop(key, None)
        _configure(queue, key, None)

    def configure(self, queue: AsyncQueue) -> None:
        """Tells a queue that has just begun."""
        for key, config in self.event_invoke.items():
            _configure(queue, key, config)

    async def keep_tags(self, key: str, tags: dict[str, str]) -> None:
        """No tags: nothing is kept."""
        if tags:
            await self._store.keep("tags", key, msgspec.json.encode(tags))
            self.tags[key] = tags
        else:
            await self._store.forget("tags", key)
            self.tags.pop(key, None)

    async def start(self, host: Host) -> None:
        """Starts the mappings that do not run yet; what cannot run stays in the book and is told (ESM-14)."""
        running = {it.mapping.uuid: it.mapping for it in host.supervisor.mappings}
        for uuid, entry in self.mappings.items():
            if uuid in running:
                continue
            made, problems = judge(uuid, entry.parameters, host.settings)
            why = str(problems[0].aws or problems[0].message) if problems else ""
            if made and not why:
                same = [it for it in running.values() if identity(it) == identity(made)]
                why = f"the same source and function as mapping {same[0].name} of {same[0].where}" if same else ""
            if made and not why:
                self.unusable.pop(uuid, None)
                await host.supervisor.add(made, host.invokers[made.function])
            elif self.unusable.get(uuid) != why:
                self.unusable[uuid] = why
                log.error("mapping_unusable", mapping=uuid, detail=why)


def _configure(queue: AsyncQueue | None, key: str, config: EventInvokeConfig | None) -> None:
    name, _, qualifier = key.partition(":")
    if queue:  # what is kept for $LATEST is the unqualified function's
        queue.configure(name, "" if qualifier == "$LATEST" else qualifier, config.settings if config else None)


def identity(mapping: Mapping) -> tuple[str, str, str]:
    """What may be there once only (ESM-11)."""
    return str(mapping.source_arn), mapping.function, mapping.qualifier


def judge(uuid: str, parameters: Dict[str, Any], settings: Settings) -> tuple[Mapping | None, tuple[Problem, ...]]:
    """The mapping that these parameters describe, by the very rules that hold for the file; else its problems."""
    report = Report()
    place = Place(PLACE)
    section = Section(_node({**parameters, "UUID": uuid}, place), "", report)
    qualifiers = {name: function.qualifiers for name, function in settings.functions.items()}
    made = judged(uuid, section, qualifiers, settings.aws, {})
    return (None if report.problems else made), tuple(report.problems)


def now() -> float:
    """Epoch seconds, as precise as AWS gives them."""
    return round(time.time(), 3)


def _node(value: Any, place: Place) -> Node:
    if isinstance(value, dict):
        return Table({key: _node(item, place) for key, item in value.items()}, place)
    if isinstance(value, list):
        return Array(tuple(_node(item, place) for item in value), place)
    return Scalar(value, value if isinstance(value, str) else msgspec.json.encode(value).decode(), place)
