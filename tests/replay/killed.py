"""A program that replays and kills itself at a given step of a message's life, from the outside of the product: it
wraps what is written and what is asked.

Reads a request a line (JSON) on stdin, forks for each, and answers how the child ended:

    {"url": …, "dlq": …, "journal": …, "result": …, "kill": [17, "before"]}
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping as Dict
from pathlib import Path
from typing import Any

import anyio
import msgspec

from bridge.aws import Api, Aws
from bridge.function import AwsSettings
from bridge.replay.journal import Journal
from bridge.replay.loop import replay
from bridge.replay.plan import Plan
from bridge.replay.queue import SqsShelf
from bridge.replay.queues import find
from bridge.replay.to_queue import QueueTarget

HOLD = 2


class Steps:
    """Counts what happens, and kills this process before or after one of it."""

    def __init__(self, kill: tuple[int, str] | None) -> None:
        self.seen: list[str] = []
        self._kill = kill

    def before(self, what: str) -> int:
        self.seen.append(what)
        number = len(self.seen)
        self._at(number, "before")
        return number

    def after(self, number: int) -> None:
        self._at(number, "after")

    def _at(self, number: int, when: str) -> None:
        if self._kill and tuple(self._kill) == (number, when):
            os.kill(os.getpid(), signal.SIGKILL)


class SteppedApi:
    """An Api whose calls are steps."""

    def __init__(self, api: Api, steps: Steps) -> None:
        self._api, self._steps = api, steps

    async def call(self, operation: str, params: Dict[str, Any], *, timeout: float) -> dict[str, Any]:
        number = self._steps.before(operation)
        answer = await self._api.call(operation, params, timeout=timeout)
        self._steps.after(number)
        return answer


class SteppedJournal(Journal):
    """A journal whose writes are steps, named after the states of their lines."""

    def __init__(self, *args: Any, steps: Steps, **options: Any) -> None:
        super().__init__(*args, **options)
        self._steps = steps

    def _write(self, text: bytes) -> None:
        states = sorted({json.loads(line).get("state", "header") for line in text.splitlines()})
        number = self._steps.before(f"write {' '.join(states)}")
        super()._write(text)
        self._steps.after(number)


async def run(request: Dict[str, Any]) -> None:
    steps = Steps(request.get("kill"))
    async with Aws() as aws:
        settings = AwsSettings(region="eu-west-1", endpoint_url=request["url"])
        dead, source = [await find(aws, settings, request[name]) for name in ("dlq", "source")]
        api: Any = SteppedApi(dead.api, steps)
        dead, source = (msgspec.structs.replace(queue, api=api) for queue in (dead, source))
        shelf, target = SqsShelf(dead, hold=HOLD, poll=0), QueueTarget(source, dead)
        plan = Plan(rate=0, concurrency=1)
        async with SteppedJournal(Path(request["journal"]), dead.arn, run=plan.run, steps=steps) as journal:
            shelf.expects = lambda: journal.resumes
            summary = await replay(plan, shelf, target, journal)
    result = {
        "steps": steps.seen, "sent": summary.sent, "duplicates": summary.duplicate_ids, "resumed": summary.resumed,
        "deleted": summary.deleted, "complete": summary.complete,
    }  # fmt: skip
    Path(request["result"]).write_text(json.dumps(result))


async def bounded(request: Dict[str, Any]) -> None:
    with anyio.fail_after(20):
        await run(request)


async def warm() -> None:
    """Loads the SDK, once for all children."""
    async with Aws() as aws:
        await aws.api("sqs", AwsSettings(region="eu-west-1", endpoint_url="http://127.0.0.1:1"))


def main() -> None:
    anyio.run(warm)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            status = 1
            try:
                anyio.run(bounded, request)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
