"""Whole replays of pointers to a function: what is deleted, what stays, what the next run does with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.replay.journal import Journal
from bridge.replay.loop import replay
from bridge.replay.plan import Plan
from bridge.replay.summary import Fate, Summary
from bridge.replay.to_function import EXPIRED
from bridge.sources.kinesis_stream import KinesisStream
from tests.replay.post import Box, Post
from tests.replay.running import story
from tests.replay.world import World, pointer
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.near_streams import LocalKinesis
from tests.streams.world import failures, names_of, numbers_of

pytestmark = pytest.mark.anyio

Numbers = list[str]


class Scene:
    """A stream, a queue with pointers into it, and the function ``worker`` of the mapping ``clicks``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.near = LocalKinesis(FaultyKinesis())
        self.near.stream.reads = 1e9
        self.dead = Box("clicks-dlq")
        self.dead.impatient = True
        self.world = World(self.near.stream)
        self.world.function("worker")
        self.world.mapping("clicks", "worker", self.near.stream.arn, partial=True)

    async def records(self, *bodies: str) -> Numbers:
        return list(await self.near.put(*bodies, key="k"))

    def letter(self, numbers: Numbers) -> str:
        """Its message id."""
        return self.dead.put(pointer(self.near, numbers).message.body)

    async def run(self, fates: list[Fate] | None = None, **plan: Any) -> Summary:
        made = Plan(**{"rate": 0, "concurrency": 1, **plan})
        shelf = await Post(self.dead).shelf("clicks-dlq")
        on_fate = (lambda _: None) if fates is None else fates.append
        async with (
            self.world.target(mapping=self.world.mappings["clicks"]) as target,
            Journal(self.folder / "journal.jsonl", shelf.arn, run=made.run) as journal,
        ):
            return await replay(made, shelf, target, journal, on_fate=on_fate)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(KinesisStream, "pause", 0.0)
    return Scene(tmp_path)


async def test_expired_letters_do_not_keep_the_others_from_being_replayed(scene: Scene) -> None:
    """REPLAY-DO-9, REPLAY-DO-12"""
    old = await scene.records(*(f"old {n}" for n in range(11)))
    kept = [scene.letter([number]) for number in old]
    scene.near.stream.trim(scene.near.stream.open[0])
    new = await scene.records("a", "b", "c")
    sent = [scene.letter([number]) for number in new]
    fates: list[Fate] = []
    summary = await scene.run(fates)
    assert (summary.sent, summary.deleted, summary.stopped) == (3, 3, "")
    assert summary.failed == {EXPIRED: 11}
    assert sorted(scene.dead.deleted) == sorted(sent)
    assert sorted(scene.dead.visible) == sorted(kept)
    assert [names_of(event) for event in scene.world.events("worker")] == [["a"], ["b"], ["c"]]
    assert all("none of the 1 records" in fate.detail for fate in fates if fate.what == "failed")


async def test_a_function_that_fails_every_time_stops_it(scene: Scene) -> None:  # REPLAY-DO-12
    def raising(event: Any) -> None:
        raise ValueError("not mended")

    scene.world.function("worker", raising)
    for number in await scene.records(*(f"{n}" for n in range(11))):
        scene.letter([number])
    summary = await scene.run()
    assert summary.stopped == "the target failed 10 times in a row, last: the function failed: ValueError"
    assert len(scene.dead.visible) == 11
    assert scene.dead.deleted == []


async def test_a_partly_failed_letter_is_done_again_by_the_next_run(scene: Scene) -> None:  # REPLAY-DO-1, REPLAY-DO-9
    numbers = await scene.records("a", "b", "c")
    letter = scene.letter(numbers)
    scene.world.function("worker", lambda event: failures(numbers_of(event)[2]))
    first = await scene.run()
    assert (first.sent, first.possible_duplicates, first.duplicate_ids) == (0, 1, [letter])
    assert list(first.failed) == ["in part: the function's answer names records that failed"]
    assert story(scene.folder, letter) == ["sending", "unknown"]
    scene.world.function("worker")
    second = await scene.run()
    assert (second.sent, second.deleted, second.possible_duplicates) == (1, 1, 1)
    assert [names_of(event) for event in scene.world.events("worker")] == [["a", "b", "c"]] * 2
    assert scene.dead.deleted == [letter]


async def test_a_dry_run_invokes_nothing(scene: Scene) -> None:  # REPLAY-DONT-13
    scene.letter(await scene.records("a"))
    shelf = await Post(scene.dead).shelf("clicks-dlq")
    fates: list[Fate] = []
    async with scene.world.target(mapping=scene.world.mappings["clicks"]) as target:
        summary = await replay(Plan(dry_run=True, rate=0), shelf, target, None, on_fate=fates.append)
    assert (summary.matched, summary.sent) == (1, 0)
    assert [(fate.what, fate.target) for fate in fates] == [("would_send", scene.world.functions["worker"].arn)]
    assert scene.world.events("worker") == []
    assert len(scene.dead.visible) == 1
