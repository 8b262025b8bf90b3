"""``bridge event``: prints a sample event, to be piped into ``bridge invoke``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from bridge.errors import UsageError
from bridge.samples import SHAPES, sample_event

HELP = "\n".join(
    ["Print a sample event of a source, as a handler gets it.", "", "SOURCE, and what its body is:"]
    + [f"  {source:<14}{shape.body}" for source, shape in SHAPES.items()]
)
EXAMPLE = """bridge event sqs --body '{"id": 1}' | bridge invoke my-worker -e -"""

MOST_RECORDS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which source, what body, how many records."""
    parser.add_argument("source", metavar="SOURCE", help="one of the sources above")
    parser.add_argument(
        "--body", metavar="TEXT|@FILE", help="what every record carries; default: an example of its own"
    )
    parser.add_argument("-n", type=int, default=1, metavar="N", dest="count", help="records in the event; default: 1")
    parser.add_argument("--seed", default="0", metavar="S", help="the same seed gives the same bytes; default: 0")


def run(args: argparse.Namespace) -> int:
    """Prints the event as JSON in UTF-8."""
    if not 1 <= args.count <= MOST_RECORDS:
        raise UsageError(f"-n {args.count} is not between 1 and {MOST_RECORDS}")
    body = None if args.body is None else _body(args.body)
    try:
        event = sample_event(args.source, [body] * args.count, args.seed)
        text = json.dumps(event, indent=2, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise UsageError("--body is nested too deeply") from None
    sys.stdout.buffer.write(f"{text}\n".encode())
    return 0


def _body(argument: str) -> bytes:
    """The bytes of the text as they were typed, or those of the file."""
    if not argument.startswith("@"):
        return os.fsencode(argument)
    try:
        return Path(argument[1:]).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read --body {argument}: {reason}") from None
