"""``bridge demo``: the real daemon on an embedded endpoint, with messages, a stream and a table, and the rules that
could be seen at work."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import anyio

from bridge.aws import Aws
from bridge.daemon import Daemon
from bridge.demo.queues import MOST_RECEIVES, VISIBILITY, Queue, Queues
from bridge.demo.show import Live, Rule, Sent, report, stay, tell
from bridge.demo.streams import Streams
from bridge.leash import Leash
from bridge.local import LocalEndpoint
from bridge.settings import Settings, load
from bridge.snapshot import Snapshot

CONFIG = Path(__file__).parents[1] / "samples" / "demo.yaml"
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
LIMIT = 45.0
"""Seconds for the traffic to come to rest."""


class Act(Protocol):
    """One part of the traffic. ``seen``: what the handlers wrote down."""

    @property
    def sent(self) -> Sent: ...

    async def send(self) -> None: ...

    async def at_rest(self, seen: list[dict[str, Any]], snapshot: Snapshot) -> bool: ...

    async def judge(self, seen: list[dict[str, Any]], snapshot: Snapshot) -> list[Rule]: ...


class DemoEndpoint(LocalEndpoint):
    """The embedded endpoint, with visibility and redrive quick enough to watch."""

    async def adapt(self, settings: Settings) -> Settings:
        adapted = await super().adapt(settings)
        async with Aws(credentials=self.credentials) as aws:
            for mapping in adapted.mappings.values():
                if mapping.source != "sqs":
                    continue
                arn = mapping.source_arn
                queue = await Queue.open(await aws.api("sqs", mapping.aws, arn.region), arn.resource)
                redrive = json.loads((await queue.attributes())["RedrivePolicy"])
                redrive["maxReceiveCount"] = str(MOST_RECEIVES)
                await queue.set(VisibilityTimeout=str(VISIBILITY), RedrivePolicy=json.dumps(redrive))
        return adapted


async def demo(*, keep: bool, as_json: bool) -> int:
    """0 when every rule was seen, 1 when not, 130 when interrupted."""
    with TemporaryDirectory(prefix="bridge-demo-") as folder:
        journal = Path(folder) / "journal.jsonl"
        journal.touch(mode=0o600)

        def read() -> Settings:
            return load(CONFIG, {"JOURNAL": str(journal), "RUNTIME": RUNTIME}, local=True)

        stages: list[DemoEndpoint] = []

        def stage(leash: Leash) -> DemoEndpoint:
            leash.hold_folder(Path(folder))
            stages.append(DemoEndpoint(leash))
            return stages[0]

        daemon = Daemon(read(), read, stage=stage)
        rules: list[Rule] = []
        async with anyio.create_task_group() as tasks:
            tell("starting the embedded endpoint and the daemon …")
            ended = anyio.Event()
            await tasks.start(run_daemon, daemon, ended, tasks.cancel_scope)
            began = time.monotonic()
            async with until(daemon.stopping):
                sent, rules = await traffic(daemon, stages[0], journal)
                report(rules, sent, time.monotonic() - began, as_json=as_json)
                if keep:
                    stay(daemon, stages[0])
                    await ended.wait()
            daemon.stop()
            await ended.wait()
    if not rules:
        return 130
    return 0 if all(rule.seen for rule in rules) else 1


async def run_daemon(
    daemon: Daemon, ended: anyio.Event, scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    """When it ends, for whatever reason, the demo ends."""
    await daemon.run(task_status=task_status)
    ended.set()
    scope.cancel()


@asynccontextmanager
async def until(event: anyio.Event) -> AsyncIterator[None]:
    """Ends its body when ``event`` is set."""
    async with anyio.create_task_group() as tasks:

        async def end() -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(end)
        yield
        tasks.cancel_scope.cancel()


async def traffic(daemon: Daemon, endpoint: LocalEndpoint, journal: Path) -> tuple[Sent, list[Rule]]:
    """Sends everything, waits until it has come to rest, and judges."""
    async with Aws(credentials=endpoint.credentials) as aws:
        queues, streams = await Queues.open(aws, daemon.settings), await Streams.open(aws, daemon.settings)
        tell(f"sending {queues.announcement}, {streams.announcement} …")
        acts: tuple[Act, ...] = (queues, streams)
        async with anyio.create_task_group() as tasks:
            for act in acts:
                tasks.start_soon(act.send)
        live = Live(daemon)
        with anyio.move_on_after(LIMIT):
            while not await at_rest(acts, daemon, journal):
                live.show()
                await anyio.sleep(0.25)
        live.end()
        seen, snapshot = entries(journal), daemon.snapshot()
        sent = Sent(*(sum(figures) for figures in zip(*(act.sent for act in acts), strict=True)))
        return sent, [rule for act in acts for rule in await act.judge(seen, snapshot)]


async def at_rest(acts: tuple[Act, ...], daemon: Daemon, journal: Path) -> bool:
    """Whether all of them are."""
    seen, snapshot = entries(journal), daemon.snapshot()
    for act in acts:
        if not await act.at_rest(seen, snapshot):
            return False
    return True


def entries(journal: Path) -> list[dict[str, Any]]:
    """What the handlers wrote down."""
    return [json.loads(line) for line in journal.read_text().splitlines()]
