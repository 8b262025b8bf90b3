"""The simulation finds faults: each of these, planted into the product, breaks a promise within a few runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import anyio
import msgspec
import pytest

from bridge import runner
from bridge.destinations import delivery
from bridge.pipeline import streams, windows
from bridge.pipeline.progress import Progress
from bridge.pipeline.verdict import StreamPolicy, Verdict
from bridge.record import Record
from bridge.sources import shard_lanes, shard_reader, shards, streams as stream_sources
from bridge.sources.shards import Lineage, Where
from tests.clock import wall
from tests.simulation.ledger import Broken
from tests.simulation.plan import plan
from tests.simulation.play import play

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]
RUNS = 5
MUTATIONS: dict[Plant, int] = {}
"""How a fault is planted -> the first seed that is tried: close to one that finds it, since most do not. When plans are
drawn in another way they are to be looked for anew: from 0 on, in some hundred runs."""


def mutation(first: int) -> Callable[[Plant], Plant]:
    def mark(plant: Plant) -> Plant:
        MUTATIONS[plant] = first
        return plant

    return mark


@mutation(3)
def positions_run_ahead(patch: Patch) -> None:
    """What was read counts as done."""
    opened = Progress.opened

    def ahead(self: Any, items: Any) -> None:
        items = list(items)
        opened(self, items)
        self._safe = items[-1][1] or self._safe

    patch.setattr(Progress, "opened", ahead)


@mutation(3)
def lanes_do_not_wait_for_each_other(patch: Patch) -> None:
    """The position follows whatever is finished last."""

    def finished(self: Any, items: Any) -> bool:
        for item in items:
            self._safe = (item.id, item.arrived_at)
        return True

    patch.setattr(Progress, "finished", finished)


@mutation(24)
def a_drain_commits_what_it_gives_back(patch: Patch) -> None:
    settle = shard_lanes.ShardLane.settle

    async def all_of_it(self: Any, done: Any = (), failed: Any = (), unstarted: Any = (), **more: Any) -> None:
        await settle(self, (*done, *failed, *unstarted), **more)

    patch.setattr(shard_lanes.ShardLane, "settle", all_of_it)


@mutation(15)
def a_child_starts_at_its_parents_end(patch: Patch) -> None:
    """When it was read, not when it was processed."""
    end = shard_reader.OpenShard._end

    def at_once(self: Any, children: Any = ()) -> None:
        end(self, children)
        source = self.terms.ended.__self__
        source._lineage.stored({self.shard.id: self.tombstone})
        source._lineage.finished(self.shard.id)
        source._look.set()

    patch.setattr(shard_reader.OpenShard, "_end", at_once)


@mutation(13)
def one_parent_is_enough(patch: Patch) -> None:
    patch.setattr(Lineage, "_gone", lambda self, parent, child: any(p in self._finished() for p in child.parents))


@mutation(2876)
def one_listing_is_enough(patch: Patch) -> None:
    patch.setattr(shards, "TWICE", 1)


@mutation(3)
def nothing_is_too_old(patch: Patch) -> None:
    admit = streams.admit
    patch.setattr(
        "bridge.pipeline.decide.streams.admit",
        lambda batch, policy, *more: admit(batch, msgspec.structs.replace(policy, max_age=inf), *more),
    )


@mutation(57)
def what_is_too_old_takes_the_rest_along(patch: Patch) -> None:
    admit = streams.admit

    def greedy(batch: Any, policy: Any, *more: Any) -> Verdict | None:
        verdict = admit(batch, policy, *more)
        return msgspec.structs.replace(verdict, retry=()) if verdict and verdict.discard else verdict

    patch.setattr("bridge.pipeline.decide.streams.admit", greedy)


@mutation(45)
def reading_goes_on_at_the_tip_behind_a_gap(patch: Patch) -> None:
    patch.setattr(shard_reader, "TRIM_HORIZON", Where("LATEST", at=1_700_010_000.0))


@mutation(190)
def what_is_pushed_is_renewed_too_far_on(patch: Patch) -> None:
    """Behind records that were not pushed yet."""
    feed = shard_reader.OpenShard._feed

    def further(self: Any, page: Any) -> None:
        feed(self, page)
        if page.passed:
            self._where = Where("AFTER_SEQUENCE_NUMBER", str(int(page.passed) + 3000))

    patch.setattr(shard_reader.OpenShard, "_feed", further)


@mutation(144)
def latest_moves(patch: Patch) -> None:
    """It is another place each time that it is asked for."""
    patch.setattr(Where, "resolved", property(lambda self: self))


@mutation(401)
def shards_are_heard_before_latest_is_known_of_all(patch: Patch) -> None:
    async def at_once(self: Any) -> None:
        self.terms.placed(self.shard)

    patch.setattr(shard_reader.OpenShard, "_is_placed", at_once)


@mutation(6)
def a_time_begins_too_late(patch: Patch) -> None:
    begin = Lineage.begin
    patch.setattr(
        Lineage,
        "begin",
        lambda self, start: begin(self, start._replace(at=start.at + 1) if start.kind == "AT_TIMESTAMP" else start),
    )
    begun = stream_sources.StreamSource._begin

    async def stored(self: Any) -> None:
        await begun(self)
        self._first.clear()

    patch.setattr(stream_sources.StreamSource, "_begin", stored)


@mutation(36)
def nothing_blocks(patch: Patch) -> None:
    patch.setattr(streams, "StreamPolicy", lambda **options: StreamPolicy(**{**options, "block": False}))


@mutation(3)
def positions_move_before_reports_are_there(patch: Patch) -> None:
    """And what comes in between ends both."""
    report = runner.Runner._report

    async def later(self: Any, verdict: Verdict) -> None:
        await self._partition.settle(done=tuple(record for record, _ in verdict.discard))
        await report(self, verdict)

    patch.setattr(runner.Runner, "_report", later)


@mutation(3)
def reports_are_not_tried_again(patch: Patch) -> None:
    patch.setattr(delivery, "PATIENCE", 0.0)


@mutation(3)
def a_state_has_no_limit(patch: Patch) -> None:
    grown = windows.Windows._grown

    def unlimited(self: Any, *about: Any) -> Any:
        return msgspec.structs.replace(grown(self, *about), early=False)

    patch.setattr(windows.Windows, "_grown", unlimited)


@mutation(3)
def a_state_that_is_too_large_is_told_twice(patch: Patch) -> None:
    """Its window goes on with it."""

    def closed(self: Any) -> bytes:
        kept = self._open
        if kept.early:
            self._open = msgspec.structs.replace(kept, early=False)
            return msgspec.json.encode(self._open)
        self._open = None
        return msgspec.json.encode(windows.Kept(kept.end, kept.start))

    patch.setattr(windows.Windows, "_closed", closed)


@mutation(4)
def states_are_not_stored(patch: Patch) -> None:
    settle = shard_reader.OpenShard.settle

    async def without(self: Any, done: Sequence[Record], state: bytes | None) -> None:
        await settle(self, done, b"" if state else state)

    patch.setattr(shard_reader.OpenShard, "settle", without)


@mutation(24)
def a_reload_does_not_drain(patch: Patch) -> None:
    """What it interrupts counts as done."""
    give_back = runner.Runner._give_back

    async def done(self: Any) -> None:
        await self._partition.settle(done=tuple(self._held))
        await give_back(self)

    patch.setattr(runner.Runner, "_give_back", done)


@mutation(13)
def a_shard_that_is_gone_is_read_for_ever(patch: Patch) -> None:
    async def never(self: Any, shard: Any, error: Any) -> None:
        await anyio.sleep(10)
        raise error

    patch.setattr(stream_sources.StreamSource, "_missing", never)


@mutation(3)
def a_restart_forgets_where_a_shard_stood(patch: Patch) -> None:
    patch.setattr(
        Lineage,
        "start_of",
        lambda self, shard: Where("LATEST", at=wall()) if self.position(shard) else Where("TRIM_HORIZON"),
    )


@pytest.mark.parametrize("plant", MUTATIONS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant: Plant, monkeypatch: Patch) -> None:
    monkeypatch.setattr(time, "time", wall)
    plant(monkeypatch)
    first = MUTATIONS[plant]
    with pytest.raises(Broken):  # noqa: PT012 - one of them
        for seed in range(first, first + RUNS):
            play(plan(seed))
