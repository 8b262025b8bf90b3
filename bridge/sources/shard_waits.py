"""What waits in a sharded stream while its runners go on, in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping as Dict, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from bridge.pipeline.progress import Progress
from bridge.record import Record
from bridge.snapshot import Gate, WaitView
from bridge.sources.shards import Lineage

if TYPE_CHECKING:
    from bridge.sources.shard_lanes import ReadAhead, ShardLane
    from bridge.sources.shard_reader import OpenShard

MOST_SHOWN = 50
"""Of each kind; of more shards the others are counted."""


def waits(lineage: Lineage, since: Dict[str, float], opened: Dict[str, OpenShard]) -> Iterator[WaitView]:
    """``since``: what has waited for how long, epoch seconds."""
    yield from _bounded(_readers(opened))
    yield from _bounded(_children(lineage, since, opened))
    yield from _bounded(_orphans(lineage, since))


def ahead_line(lanes: Sequence[ShardLane], progress: Progress[Record, Any], ahead: ReadAhead) -> str:
    """Why nothing more of a shard is read now."""
    if progress.full:
        oldest = progress.oldest
        record = f" {oldest.id}" if oldest else ""
        return f"{progress.spread} records are read since record{record}, which is not finished"
    if not any(lane.hungry for lane in lanes):
        return f"{sum(lane.ahead for lane in lanes)} records are read and not taken yet"
    return f"{ahead.held} of {ahead.limit} bytes of this mapping are read and not taken yet"


def _readers(opened: Dict[str, OpenShard]) -> Iterator[WaitView]:
    for name, shard in opened.items():
        if gate := shard.gate:
            yield WaitView(f"reader of {name}", gate)


def _children(lineage: Lineage, since: Dict[str, float], opened: Dict[str, OpenShard]) -> Iterator[WaitView]:
    for name, parents in lineage.held_back().items():
        if name in since:
            told = (f"{parent}, which {'is being read' if parent in opened else 'waits too'}" for parent in parents)
            yield WaitView(name, Gate("parent", since[name], f"waits for {' and for '.join(told)}"))


def _orphans(lineage: Lineage, since: Dict[str, float]) -> Iterator[WaitView]:
    for name in lineage.orphans():
        if name in since:
            yield WaitView(
                name, Gate("children", since[name], "it was read to its end; the shards after it are to come")
            )


def _bounded(views: Iterable[WaitView]) -> Iterator[WaitView]:
    views = iter(views)
    yield from islice(views, MOST_SHOWN)
    if more := list(views):
        gate = min((view.gate for view in more), key=lambda gate: gate.since)
        yield WaitView(f"{len(more)} more", Gate(gate.name, gate.since, f"likewise; the first is {more[0].what}"))
