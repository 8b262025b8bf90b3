"""``bridge demo``: the main job on an embedded default."""

from __future__ import annotations

import argparse
import sys

HELP = (
    "Starts an embedded AWS endpoint and the daemon, sends 200 messages through two queues, records through a Kinesis "
    "stream and changes of a DynamoDB table, shows what happens, and sums up which of AWS's rules could be seen. Needs "
    "no account, no Docker and no configuration."
)
EXAMPLE = "bridge demo --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json, --keep."""
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """0 when every rule was seen, 1 when not."""
    import anyio

    from bridge.demo import demo
    from bridge.telemetry import logs

    logs.configure("warning", None, sys.stderr)

    async def main() -> int:
        return await demo(keep=args.keep, as_json=args.json)

    return anyio.run(main)
