"""Runs of the loop in tests: against queues in the test's own loop, with a journal on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from bridge.function import AwsSettings
from bridge.replay.journal import Journal
from bridge.replay.loop import replay
from bridge.replay.plan import Plan
from bridge.replay.queue import SqsShelf
from bridge.replay.summary import Fate, Summary
from bridge.replay.target import Target
from bridge.replay.to_queue import QueueTarget
from bridge.replay.to_source import source_target
from tests.replay.post import Box, Post, redrives

CALLER = "arn:aws:iam::123456789012:user/somebody"


def orders(fifo: bool = False, **options: Any) -> tuple[Post, Box, Box]:
    """The service, a queue, and the queue of its dead letters."""
    suffix = ".fifo" if fifo else ""
    dead = Box(f"orders-dlq{suffix}")
    source = Box(f"orders{suffix}", attributes=redrives(dead), **options)
    return Post(source, dead), source, dead


async def run(
    post: Post,
    folder: Path,
    *,
    dlq: str = "orders-dlq",
    to: str = "",
    stop: anyio.Event | None = None,
    fates: list[Fate] | None = None,
    on_progress: Callable[[Summary], None] = lambda _: None,
    **plan: Any,
) -> Summary:
    """One run; ``rate`` is no limit unless it is given."""
    made = Plan(**{"rate": 0, **plan})
    shelf = await post.shelf(dlq)
    found = await target(post, shelf, to)
    await found.check(dry=made.dry_run)
    on_fate = (lambda _: None) if fates is None else fates.append
    if made.dry_run:
        return await replay(made, shelf, found, None, stop=stop, on_fate=on_fate, on_progress=on_progress)
    async with Journal(folder / "journal.jsonl", shelf.arn, run=made.run, caller=CALLER) as journal:
        if journal.resumes:
            shelf.expects = lambda: True
        return await replay(made, shelf, found, journal, stop=stop, on_fate=on_fate, on_progress=on_progress)


async def target(post: Post, shelf: SqsShelf, to: str) -> Target:
    """The queue of this name; empty: the source."""
    if to:
        return QueueTarget(await post.queue(to), shelf.queue)
    aws: Any = post
    found = await source_target(aws, AwsSettings(), shelf)
    assert found is not None
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    """The journal, without its header."""
    text = (folder / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in text[1:]]


def story(folder: Path, message_id: str) -> list[str]:
    """The states of one message, over all runs."""
    return [line["state"] for line in lines(folder) if line.get("id") == message_id]
