"""``bridge mappings``: what the mappings of a running daemon do, pausing and resuming them, forgetting positions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bridge.errors import BridgeError, Unreachable, UsageError
from bridge.nearest import did_you_mean

if TYPE_CHECKING:
    from bridge.admin.client import Client
    from bridge.commands.mappings_shown import Failed
    from bridge.snapshot import MappingView, Snapshot

HELP = """List, show, pause and resume the mappings of a running daemon; forget those that are gone.

  list    one line a mapping (the default)
  show    all about one mapping, or about each; --why names what holds it right now and since when, its last
          failures, and the attempts at records that failed; FUNCTION:async are a function's asynchronous events
  pause   receive nothing more and give back what was not started, until resume, also over restarts;
          waits until nothing runs
  resume  the opposite
  forget  drop the stored positions of a mapping that is gone: under its name it would start anew"""
EXAMPLE = "bridge mappings show orders --why"

ACTIONS = ("list", "show", "pause", "resume", "forget")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which mapping, and whom to ask."""
    parser.add_argument("action", nargs="?", default="list", metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("mapping", nargs="?", metavar="NAME|UUID", help="the mapping")
    parser.add_argument(
        "--why",
        action="store_true",
        help="with show: the gates, the last failures, the attempts at failing records, the filtered ids",
    )
    parser.add_argument("--json", action="store_true", help="print an array for programs")
    parser.add_argument("--all", action="store_true", help="with pause and resume: every mapping")
    parser.add_argument("--no-wait", action="store_true", help="with pause: do not wait until nothing runs")
    parser.add_argument(
        "--admin", metavar="URL", help="the daemon; default: $BRIDGE_ADMIN, the configuration's admin.listen"
    )
    parser.add_argument("--token", help="the daemon's admin.token; default: $BRIDGE_ADMIN_TOKEN")


def run(args: argparse.Namespace) -> int:
    """Prints what was asked for. Raises UsageError, and Unreachable when no daemon answers."""
    _check(args)
    from bridge.admin.client import Client, find
    from bridge.commands import mappings_shown

    client = Client(find(args.admin, args.token))
    if args.action == "forget":
        forgotten = client.forget(args.mapping)
        print(mappings_shown.forgotten_as_json(forgotten) if args.json else mappings_shown.forgotten(forgotten))
        return 0
    snapshot = client.snapshot()
    chosen = _chosen(snapshot, args.mapping, shown=args.action in ("list", "show"))
    if args.action in ("pause", "resume"):
        return _change(args, client, snapshot, chosen)
    failed = {view.name: in_ledger(client, view) for view in chosen} if args.why else {}
    if args.json:
        print(mappings_shown.as_json(snapshot, chosen, why=args.why, failed=failed))
    elif args.action == "show":
        print(mappings_shown.pages(snapshot, chosen, why=args.why, failed=failed))
    else:
        print(mappings_shown.table(snapshot, chosen))
    return 0


def in_ledger(client: Client, view: MappingView) -> Failed | str:
    """What the failure ledger knows of a mapping, and of the records that hold something up; where we are not told,
    why."""
    from bridge.commands.mappings_shown import Failed

    waited_for = [runner.blocked.record for runner in view.runners if runner.blocked]
    waited_for += [wait.record for wait in view.waits if wait.record]
    try:
        return Failed(client.failed(view.name), client.attempts(waited_for) if waited_for else {})
    except BridgeError as error:
        return str(error)


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError for what does not go together."""
    changes = args.action in ("pause", "resume")
    if args.action not in ACTIONS:
        raise UsageError(
            f'no action "{args.action}"; expected {", ".join(ACTIONS)}{did_you_mean(args.action, ACTIONS)}'
        )
    for option, used, fits in (
        ("--why", args.why, args.action == "show"),
        ("--all", args.all, changes),
        ("--no-wait", args.no_wait, args.action == "pause"),
    ):
        if used and not fits:
            raise UsageError(f"{option} does not go with {args.action}; see bridge mappings --help")
    if changes and bool(args.mapping) == args.all:
        raise UsageError(f"{args.action} needs either the NAME or UUID of one mapping, or --all")
    if args.action == "forget" and not args.mapping:
        raise UsageError("forget needs the NAME or UUID of a mapping that is gone")


def _chosen(snapshot: Snapshot, wanted: str | None, *, shown: bool) -> Sequence[MappingView]:
    """The mappings that are meant: all, or the one with this name or UUID. Where they are ``shown``, what feeds a
    function from its asynchronous events may be named, too."""
    if wanted is None:
        return snapshot.mappings
    events = snapshot.asynchronous if shown else ()
    for view in (*snapshot.mappings, *events):
        if wanted == view.name or wanted.lower() == view.uuid.lower():
            return (view,)
    known = [word for view in (*snapshot.mappings, *events) for word in (view.name, view.uuid)]
    advice = did_you_mean(wanted, known) or "; bridge mappings lists them"
    raise UsageError(f'the daemon has no mapping "{wanted}"{advice}')


def _change(args: argparse.Namespace, client: Client, snapshot: Snapshot, chosen: Sequence[MappingView]) -> int:
    """Pauses or resumes them all, whatever happens to one of them; the exit status."""
    changed: dict[str, MappingView] = {}
    failed: dict[str, BridgeError] = {}
    for step in _steps(args, client, chosen):
        for view in chosen:
            if view.name in failed:
                continue
            try:
                changed[view.name] = step(view.name)
            except Unreachable:
                raise
            except BridgeError as error:
                failed[view.name] = error
    from bridge.commands import mappings_shown

    done = [view for name, view in changed.items() if name not in failed]
    if args.json:
        print(mappings_shown.as_json(snapshot, done))
    else:
        for view in done:
            print(f"{view.name}: {view.state}{f', {view.in_flight} records in flight' if view.in_flight else ''}")
    for name, reason in failed.items():
        print(f"bridge: {name}: {reason}", file=sys.stderr)
    if not failed:
        return 0
    return 2 if all(isinstance(reason, UsageError) for reason in failed.values()) else 1


def _steps(
    args: argparse.Namespace, client: Client, chosen: Sequence[MappingView]
) -> list[Callable[[str], MappingView]]:
    """What to do with each mapping, in turn. None of many goes on while one of them is waited for."""
    if args.action == "resume":
        return [client.resume]
    if args.no_wait:
        return [partial(client.pause, wait=False)]
    running = sum(view.in_flight for view in chosen)
    if running and sys.stderr.isatty():
        print(f"waiting for {running} records in flight; Ctrl-C ends the wait, not the pause", file=sys.stderr)
    first = [partial(client.pause, wait=False)] if len(chosen) > 1 else []
    return [*first, partial(client.pause, wait=True)]
