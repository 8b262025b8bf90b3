"""``bridge top``: the running daemon, live in a terminal."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time

from bridge.errors import UsageError

HELP = """Watch a running daemon: what each mapping receives, holds and fails, and what holds it; its functions below.

Keys: arrows or j and k choose a mapping, Enter shows all about it, p pauses it and r resumes it (both ask first),
q ends. Without a terminal, or with --once, one frame is printed."""
EXAMPLE = "bridge top --interval 5"

SHORTEST, LONGEST = 0.1, 3600.0
ONE_FRAME = 1.0
"""Seconds between the two looks that one frame with rates needs, at the most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often, and whom to ask."""
    parser.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="between looks; default: 2")
    parser.add_argument("--once", action="store_true", help="print one frame and end")
    parser.add_argument(
        "--admin", metavar="URL", help="the daemon; default: $BRIDGE_ADMIN, the configuration's admin.listen"
    )
    parser.add_argument("--token", help="the daemon's admin.token; default: $BRIDGE_ADMIN_TOKEN")


def run(args: argparse.Namespace) -> int:
    """Until somebody ends it; then the terminal is as it was. Raises Unreachable when no daemon answers at first."""
    from bridge.admin.client import Client, find

    client = Client(find(args.admin, args.token))
    snapshot = client.snapshot()
    if args.once or not _on_a_screen():
        from bridge.commands.top_frame import Look, plain

        time.sleep(min(args.interval, ONE_FRAME))
        print(plain(Look(client.url, client.snapshot(), snapshot)))
        return 0
    from bridge.commands.top_screen import watch

    return watch(client, snapshot, args.interval)


def _on_a_screen() -> bool:
    """Whether there is a terminal for reading and writing, and it can place text."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    import curses

    try:
        curses.setupterm(os.environ.get("TERM") or "dumb", sys.stdout.fileno())
    except curses.error:
        return False
    return bool(curses.tigetstr("cup"))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not SHORTEST <= seconds <= LONGEST:
        raise UsageError(f"--interval {text}: expected seconds from {SHORTEST:g} to {LONGEST:g}")
    return seconds
