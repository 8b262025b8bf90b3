"""The options of ``bridge replay``: declared, checked, and read into a plan."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.replay.plan import Plan

DAY = 86_400.0
LOOKED_AT = 10
"""Messages that ``--peek`` shows unless told otherwise."""

CHOOSING = ("filter", "since", "until", "max", "ids")
TO = (
    "source, function[:NAME], or a queue's name, URL or ARN; default: where each came from, which is its function for"
    " what a function did not take"
)
SENDING = ("to", "api", "rate", "concurrency", "keep", "max_failures", "journal")
GOES_WITH = {
    "native": {"to", "rate", "yes"},
    "peek": {*CHOOSING, "json"},
    "export": {*CHOOSING, "json"},
    "import_": {*CHOOSING, *SENDING, "json", "dry_run", "yes"},
    "dry_run": {*CHOOSING, *SENDING, "json", "import_", "yes"},
}
"""What else may be asked together with these; everything may without them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which letters, where to, and how."""
    add = parser.add_argument
    add("--dlq", metavar="QUEUE", required=True, help="name, URL or ARN; or a mapping or function: then its own DLQ")
    add("--to", metavar="WHERE", help=TO)
    add("--api", metavar="URL", help="the daemon that runs the functions; default: api.listen of the configuration")
    add("--filter", metavar="PATTERN", action="append", help="only what matches this event pattern; repeatable: any")
    add("--since", metavar="TIME", help="only what was sent from then on: 2026-11-23T02:00, or 02:00 (local time)")
    add("--until", metavar="TIME", help="only what was sent before")
    add("--max", metavar="N", type=_count, help=f"at most so many; default: all, with --peek {LOOKED_AT}")
    add("--ids", metavar="FILE", help="only the messages whose ids stand there, one a line")
    add("--rate", metavar="N", type=_rate, help="messages a second; default 50, 0 means no limit")
    add("--concurrency", metavar="N", type=_count, help="requests at once; default 4")
    add("--dry-run", action="store_true", help="show what would be sent, and change nothing")
    add("--peek", action="store_true", help="print messages, by reason, with when they expire; change nothing")
    add("--keep", action="store_true", help="leave the originals where they are")
    add("--max-failures", metavar="N", type=_count, help="stop after so many; 10 in a row stop it anyway")
    add("--export", metavar="FILE", help="write the messages to a new file; they stay in the queue")
    add("--import", dest="import_", metavar="FILE", help="send what such a file holds, then delete the originals")
    add("--native", action="store_true", help="have AWS's own move task do it; goes with --to and --rate alone")
    add("--journal", metavar="FILE", help="default: beside the state, by queue, so that starting again goes on")
    add("--yes", action="store_true", help="do not ask; needed without a terminal")
    add("--json", action="store_true", help="print a line of JSON for each message")
    add("-c", "--config", metavar="FILE", help="default: BRIDGE_CONFIG, bridge.yaml, /etc/bridge/bridge.yaml, if any")
    add("--set", metavar="KEY=VALUE", action="append", default=[], dest="sets", help="override one setting; repeatable")
    add("--region", help="instead of the configuration's and the environment's")
    add("--endpoint-url", metavar="URL", help="instead of AWS's")
    add("--profile", metavar="NAME", help="of the AWS configuration files")


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what does not go together."""
    asked = [name for name in (*CHOOSING, *SENDING, "json", "yes", *GOES_WITH) if _given(args, name)]
    for name in filter(asked.__contains__, GOES_WITH):
        for other in asked:
            if other not in {name, *GOES_WITH[name]}:
                extra = ": AWS's own task can do nothing of the kind" if name == "native" else ""
                raise UsageError(f"{_option(other)} does not go with {_option(name)}{extra}; see bridge replay --help")


def _given(args: argparse.Namespace, name: str) -> bool:
    value = getattr(args, name)
    return value is not None and value is not False


def _option(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"


def plan(args: argparse.Namespace, now: float) -> Plan:
    """What is to be done; ``now`` in epoch seconds. Raises UsageError."""
    from bridge.filtering import InvalidPattern, compile_filter
    from bridge.replay.plan import CONCURRENCY, RATE, Plan

    patterns = tuple(args.filter or ())
    try:
        compile_filter(patterns, "body")
    except InvalidPattern as error:
        raise UsageError(f"--filter: {error}") from None
    return Plan(
        patterns=patterns,
        since=None if args.since is None else instant("--since", args.since, now),
        until=None if args.until is None else instant("--until", args.until, now),
        ids=None if args.ids is None else _ids(Path(args.ids)),
        most=args.max,
        rate=RATE if args.rate is None else args.rate,
        concurrency=args.concurrency or CONCURRENCY,
        most_failures=args.max_failures,
        keep=args.keep,
        defer=bool(args.import_) and not args.keep,
        dry_run=args.dry_run,
    )


def instant(option: str, text: str, now: float) -> float:
    """Epoch seconds of an ISO 8601 date or time. A naive one is local; a time without a date is the latest such time
    that has been. Raises UsageError."""
    from datetime import datetime, time

    try:
        if re.fullmatch(r"\d\d:\d\d(:\d\d(\.\d+)?)?", text):
            today = datetime.fromtimestamp(now)  # noqa: DTZ006 - local time is meant
            at = datetime.combine(today, time.fromisoformat(text)).timestamp()
            return at if at <= now else at - DAY
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f'{option}: "{text[:50]}" is no time; expected 2026-11-23T02:00, 2026-11-23T02:00Z or 02:00'
        ) from None


def _ids(file: Path) -> frozenset[str]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"--ids: {file} cannot be read: {reason}") from None
    found = frozenset(line.strip() for line in lines if line.strip())
    if not found:
        raise UsageError(f"--ids: {file} names no message; expected their ids, one a line")
    return found


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:18]) < 1 or len(text) > 18:
        raise argparse.ArgumentTypeError(f'expected a whole number from 1 on, got "{text[:30]}"')
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < math.inf:
        raise argparse.ArgumentTypeError(f'expected a number from 0 on, got "{text[:30]}"')
    return rate
