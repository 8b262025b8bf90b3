"""``bridge replay``: looks at dead letters, and puts them back without losing one."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.commands import replay_options
from bridge.errors import ConfigError, UsageError

if TYPE_CHECKING:
    import anyio

    from bridge.attempt import Attempt
    from bridge.aws import Aws
    from bridge.function import AwsSettings
    from bridge.replay.bucket import BucketShelf
    from bridge.replay.dump import DumpShelf
    from bridge.replay.journal import Journal
    from bridge.replay.letter import Letter
    from bridge.replay.plan import Plan
    from bridge.replay.queue import SqsShelf
    from bridge.replay.queues import Queue
    from bridge.replay.shelf import Shelf
    from bridge.replay.summary import Fate, Summary
    from bridge.replay.target import Target
    from bridge.settings import Settings

HELP = """Looks at the messages of a dead-letter queue and sends them back, whole and without losing one.

Each is written to a journal before it is sent and deleted after it was, so that a replay may be killed at any moment
and started again: it goes on, and names what was perhaps sent twice. Exit status 0: all is done; 3: some are left, and
the summary says which and why; 130: interrupted."""
EXAMPLE = """bridge replay --dlq orders --filter '{"body": {"kind": ["order"]}}' --rate 20"""

add_arguments = replay_options.add_arguments


def run(args: argparse.Namespace) -> int:
    """0 all done, 1 the queue cannot be reached, 3 some are left, 130 interrupted. Raises UsageError."""
    replay_options.check(args)
    plan = replay_options.plan(args, time.time())
    looks = args.peek or args.export or args.dry_run
    if not looks and not args.yes and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for consent; say --yes, or look first with --dry-run or --peek")
    settings = _settings(args)
    import anyio

    from bridge.telemetry import logs

    logs.configure("warning", None, sys.stderr)
    return anyio.run(_Command(args, plan, settings).run)


def _settings(args: argparse.Namespace) -> Settings | None:
    """None: there is no configuration, and none was named."""
    from bridge.settings import find, load

    try:
        file = find(args.config, os.environ)
    except ConfigError:
        if args.sets:
            raise
        return None
    return load(file, os.environ, args.sets)


class _Command:
    """One call of the command."""

    def __init__(self, args: argparse.Namespace, plan: Plan, settings: Settings | None) -> None:
        self._args, self._plan, self._settings = args, plan, settings
        self._stop: anyio.Event
        self._given: AwsSettings

    async def run(self) -> int:
        import anyio

        from bridge.aws import Aws
        from bridge.function import AwsSettings
        from bridge.replay import bucket, objects
        from bridge.replay.finding import resolve
        from bridge.replay.queue import SqsShelf
        from bridge.replay.queues import find

        self._stop = anyio.Event()
        args = self._args
        configured = self._settings.aws.region if self._settings else None
        region = args.region or configured or os.environ.get("AWS_REGION")
        self._given = given = AwsSettings(region=region, endpoint_url=args.endpoint_url, profile=args.profile)
        async with Aws() as aws:
            place = await resolve(aws, args.dlq, self._settings, given)
            if stored := objects.Place.parse(place.word):
                place_of = await bucket.find(aws, place.aws, stored)
                return await self._work(aws, place.aws, place_of, f"bucket {stored}")
            queue = await find(aws, place.aws, place.word)
            _advise(queue, looks=args.peek or args.dry_run or bool(args.export))
            if args.native:
                return await self._native(aws, place.aws, queue)
            return await self._work(aws, place.aws, SqsShelf(queue), str(queue))

    async def _work(self, aws: Aws, settings: AwsSettings, shelf: SqsShelf | BucketShelf, name: str) -> int:
        """``name``: of the shelf, for people."""
        args = self._args
        if args.native:
            raise UsageError(f"--native: AWS's own task moves messages of queues; {name} has none")
        if args.peek:
            return await self._peek(shelf)
        if args.export:
            return await self._export(shelf)
        return await self._replay(aws, settings, shelf, name)

    # Looking.

    async def _peek(self, shelf: Shelf) -> int:
        from bridge.commands import replay_shown
        from bridge.replay.loop import peek
        from bridge.replay.plan import Selection

        most = self._plan.most or replay_options.LOOKED_AT
        async with self._signals():
            found = await peek(shelf, most, Selection(self._plan, shelf.arn), self._stop)
        attempts = await self._attempts(found)
        if self._args.json:
            for letter in found:
                print(replay_shown.letter_json(letter, attempts.get(letter.id, ())))
        else:
            for line in replay_shown.letters(found, time.time(), attempts):
                print(line)
        print(f"{len(found)} messages looked at and given back", file=sys.stderr)
        return self._interrupted(0)

    async def _attempts(self, letters: Sequence[Letter]) -> dict[str, Sequence[Attempt]]:
        """What the daemon keeps of their last failed attempts, by letter."""
        from bridge import ledger

        known = await ledger.attempts((key for letter in letters for key in letter.keys), config=self._args.config)
        return {
            letter.id: known[key]
            for letter in letters
            for key in reversed(letter.keys)  # the first of them counts
            if key in known
        }

    async def _export(self, shelf: SqsShelf | BucketShelf) -> int:
        from bridge.replay.dump import Writer
        from bridge.replay.loop import look
        from bridge.replay.plan import Selection

        file = Path(self._args.export)
        most = float("inf") if self._plan.most is None else self._plan.most

        def keep(letters: Sequence[Letter]) -> None:
            writer.add(letters)
            if self._args.json:
                for letter in letters:
                    print(_exported(letter))

        with Writer(file, shelf.arn, retention=shelf.retention, fifo=shelf.fifo) as writer:
            async with self._signals():
                count = await look(shelf, most, Selection(self._plan, shelf.arn), keep, self._stop)
        what = "queue" if shelf.service == "sqs" else "bucket"
        print(f"{count} messages written to {file}; they are in the {what} still", file=sys.stderr)
        return self._interrupted(0)

    def _interrupted(self, status: int) -> int:
        return 130 if self._stop.is_set() else status

    # Sending.

    async def _replay(self, aws: Aws, settings: AwsSettings, shelf: SqsShelf | BucketShelf, name: str) -> int:
        from bridge.replay.audit import caller_arn
        from bridge.replay.dump import DumpShelf
        from bridge.replay.queue import SqsShelf

        args, plan = self._args, self._plan
        dump = DumpShelf(Path(args.import_)) if args.import_ else None
        if dump is not None:
            _check_dump(dump, shelf.arn)
        async with AsyncExitStack() as stack:
            target = await self._target(stack, aws, settings, shelf)
            if target is None:
                print(f"{shelf.arn.rpartition(':')[2]} is empty, and no queue uses it", file=sys.stderr)
                return 0
            await target.check(dry=plan.dry_run)
            waiting = (await (dump or shelf).count()).waiting
            caller = await caller_arn(aws, settings, shelf.arn)
            if not (plan.dry_run or args.yes):
                _ask(f"Send about {self._expected(waiting)} messages of {name} to {target.name}", caller)
            journal = None
            if not plan.dry_run:
                journal = await stack.enter_async_context(self._journal(aws, shelf, caller))
                if isinstance(shelf, SqsShelf):  # nothing of a bucket is held for anybody
                    self._resume(shelf, journal)
            await stack.enter_async_context(self._signals())
            summary = await self._carry_out(plan, dump or shelf, target, journal, self._expected(waiting))
            if dump is not None and journal and plan.defer and not self._stop.is_set():
                await self._finish(shelf, target, journal, summary)
                journal.ended(complete=summary.complete)
        return self._tell(summary, journal)

    async def _carry_out(
        self, plan: Plan, shelf: Shelf, target: Target, journal: Journal | None, expected: int
    ) -> Summary:
        from bridge.commands.replay_shown import Bar, fate_json, fate_line, progress
        from bridge.replay.loop import replay

        bar = Bar(expected)

        def on_fate(fate: Fate) -> None:
            if self._args.json:
                print(fate_json(fate), flush=True)
            elif plan.dry_run:
                print(fate_line(fate))

        try:
            return await replay(
                plan,
                shelf,
                target,
                journal,
                stop=self._stop,
                on_progress=lambda summary: bar.draw(*progress(summary)),
                on_fate=on_fate,
            )
        finally:
            bar.clear()

    async def _finish(self, shelf: Shelf, target: Target, journal: Journal, summary: Summary) -> None:
        """Deletes the originals of what was sent from a dump."""
        from bridge.replay.plan import Plan

        print("deleting the originals of what was sent", file=sys.stderr)
        plan = Plan(finish_only=True, run=self._plan.run)
        finished = await self._carry_out(plan, shelf, target, journal, 0)
        summary.deleted, summary.left = finished.deleted, finished.left
        summary.undeleted = finished.undeleted
        summary.stopped = summary.stopped or finished.stopped
        summary.broken, summary.interrupted = finished.broken, finished.interrupted

    def _expected(self, waiting: int) -> int:
        named = waiting if self._plan.ids is None else len(self._plan.ids)
        return min(waiting, named, self._plan.most or waiting)

    def _tell(self, summary: Summary, journal: Journal | None) -> int:
        from bridge.commands.replay_shown import outcome

        for line in outcome(summary, dry_run=self._plan.dry_run):
            print(line, file=sys.stderr)
        if journal is not None:
            print(f"journal: {journal.path}", file=sys.stderr)
        if summary.interrupted:
            return 130
        if summary.broken:
            return 1
        return 0 if summary.complete else 3

    async def _target(
        self, stack: AsyncExitStack, aws: Aws, settings: AwsSettings, shelf: SqsShelf | BucketShelf
    ) -> Target | None:
        """None: the queue is empty, and nothing tells where its letters would come from."""
        from bridge.commands.replay_targets import Given, Targets

        args = self._args
        given = Given(self._settings, self._given, word=args.dlq, api=args.api or "")
        targets = Targets(aws, given, settings, shelf)
        target = await targets.find(args.to)
        for part in targets.functions:
            await stack.enter_async_context(part)
        return target

    def _journal(self, aws: Aws, shelf: SqsShelf | BucketShelf, caller: str) -> Journal:
        from bridge.replay.audit import state_file
        from bridge.replay.journal import Journal, default_path

        if self._args.journal:
            path = Path(self._args.journal)
        else:
            endpoint = next(place.endpoint for place in aws.describe() if place.service == shelf.service)
            path = default_path(state_file(self._settings.state if self._settings else None), shelf.arn, endpoint)
        return Journal(path, shelf.arn, run=self._plan.run, caller=caller)

    def _resume(self, shelf: SqsShelf, journal: Journal) -> None:
        from bridge.replay.queue import HOLD

        if journal.resumes:
            shelf.expects = lambda: not self._stop.is_set()
            print(
                "an earlier run did not come to its end: going on, with what it held as soon as it is back,"
                f" {HOLD} s at the most",
                file=sys.stderr,
            )

    # The native way.

    async def _native(self, aws: Aws, settings: AwsSettings, queue: Queue) -> int:
        from bridge.commands.replay_shown import Bar
        from bridge.replay.audit import caller_arn
        from bridge.replay.native import FACTS, MOST_RATE, hand_over
        from bridge.replay.queues import find

        args, rate = self._args, self._args.rate
        if rate is not None and (rate != int(rate) or not 1 <= rate <= MOST_RATE):
            raise UsageError(f"--rate {rate:g}: AWS's own task takes a whole number from 1 to {MOST_RATE}")
        to = None if args.to in (None, "source") else await find(aws, settings, args.to)
        print(f"AWS's own message move task: {FACTS}", file=sys.stderr)
        if not args.yes:
            _ask(
                f"Have AWS move all messages of {queue} to {to or 'where they came from'}",
                await caller_arn(aws, settings, queue.arn),
            )
        bar = Bar(0)
        async with self._signals():
            moved = await hand_over(
                queue,
                to,
                int(rate) if rate else None,
                stop=self._stop,
                on_progress=lambda it: bar.draw(it.moved, it.status.lower()),
            )
        bar.clear()
        of = "" if moved.total is None else f" of about {moved.total}"
        print(f"{moved.status.lower()}: {moved.moved}{of} messages moved {moved.reason}".strip(), file=sys.stderr)
        return self._interrupted(0 if moved.status == "COMPLETED" else 3)

    def _signals(self) -> _Interruption:
        return _Interruption(self._stop)


class _Interruption:
    """The first SIGINT or SIGTERM asks to stop, a second one ends the process: the journal bears it."""

    def __init__(self, stop: anyio.Event) -> None:
        self._stop = stop

    async def __aenter__(self) -> None:
        import asyncio
        import signal

        def interrupted() -> None:
            if self._stop.is_set():
                os._exit(130)
            self._stop.set()
            print("stopping; once more to end at once", file=sys.stderr, flush=True)

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupted)

    async def __aexit__(self, *_: object) -> None:
        import asyncio
        import signal

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)


def _ask(what: str, caller: str) -> None:
    """Raises KeyboardInterrupt unless the answer is yes."""
    import signal

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the loop's own would wait for the answer
    try:
        print(f"{what}{f', as {caller}' if caller else ''}? [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, before)
    if answer.strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was done")


def _advise(queue: Queue, *, looks: bool) -> None:
    """What a receive does here, where it matters."""
    if queue.dead_letters:
        dead = queue.dead_letters.rpartition(":")[2]
        print(
            f"warning: {queue.name} has a redrive policy of its own: every receive counts, a look too, and after"
            f" {queue.max_receives} of them a message goes to {dead}",
            file=sys.stderr,
        )
    if looks and queue.fifo:
        print(
            f"warning: {queue.name} is FIFO: a look shows the head of each group only, and hides the group meanwhile",
            file=sys.stderr,
        )
    elif queue.fifo:
        print("note: in each group, what is replayed comes behind what is new there by now", file=sys.stderr)


def _check_dump(dump: DumpShelf, arn: str) -> None:
    if dump.arn != arn:
        raise UsageError(f"--import: the file was exported from {dump.arn}, not from {arn}")
    dump.check()


def _exported(letter: Letter) -> str:
    from bridge.commands.replay_shown import fate_json
    from bridge.replay.summary import Fate

    return fate_json(Fate(letter=letter, what="exported"))
