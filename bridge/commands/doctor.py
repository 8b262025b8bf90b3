"""``bridge doctor``: looks at the real queues, streams and destinations, changing nothing, and says what will come."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from bridge.errors import BridgeError, UsageError
from bridge.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.doctor.facts import Case
    from bridge.doctor.findings import Finding
    from bridge.settings import Settings
    from bridge.snapshot import Snapshot

HELP = """Look at the real queues, streams and destinations of a configuration, by calls that change nothing, and say
for each mapping what is wrong, what will come of it, and how to fix it.

Exit 0: nothing at or above --fail-on; 1: something is; 2: the configuration is not in order. Nothing is ever received
from a queue. A running daemon is asked for what it has counted."""
EXAMPLE = "bridge doctor -c bridge.yaml --fail-on warning orders"

PATIENCE = 20.0
DAEMON_PATIENCE = 3.0
"""Seconds for the daemon's answer; it is on this machine as a rule."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which mappings, of which file, and when it counts as a failure."""
    parser.add_argument("mapping", nargs="*", metavar="NAME", help="mappings to look at; default: all")
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="default: BRIDGE_CONFIG, bridge.yaml, /etc/bridge/bridge.yaml"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="sets", help="override one setting"
    )
    parser.add_argument(
        "--fail-on",
        choices=("warning", "error"),
        default="error",
        help="the least level that makes the exit status 1; default: error",
    )
    parser.add_argument("--json", action="store_true", help="print an array of findings for programs")
    parser.add_argument(
        "--timeout",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help=f"for each mapping altogether; what does not answer is a finding; default: {PATIENCE:g}",
    )
    parser.add_argument("--admin", metavar="URL", help="the daemon; default: $BRIDGE_ADMIN, the file's admin.listen")


def run(args: argparse.Namespace) -> int:
    """Prints what was found. Raises ConfigError, and UsageError for a mapping that is none."""
    from bridge.settings import load

    if not args.timeout > 0:
        raise UsageError(f"--timeout {args.timeout:g}: expected seconds, more than 0")
    settings = load(args.config, os.environ, args.sets)
    for name in args.mapping:
        if name not in settings.mappings:
            raise UsageError(f'{settings.file} has no mapping "{name}"{did_you_mean(name, settings.mappings)}')

    import anyio

    from bridge.commands import doctor_shown
    from bridge.doctor.checks import findings
    from bridge.doctor.findings import at_or_above
    from bridge.telemetry import logs

    logs.configure("error", settings.log_format, sys.stderr)
    cases = anyio.run(_look, settings, args.mapping, args.timeout, args.admin)
    found: list[tuple[Case, list[Finding]]] = [(case, findings(case)) for case in cases]
    print(doctor_shown.as_json(found) if args.json else doctor_shown.pages(found))
    grave = any(at_or_above(finding.level, args.fail_on) for _, about in found for finding in about)
    return 1 if grave else 0


async def _look(settings: Settings, names: Sequence[str], timeout: float, admin: str | None) -> list[Case]:
    from bridge.aws import Aws
    from bridge.doctor.gather import cases, gather

    snapshot = await _daemon(settings, admin)
    async with Aws() as aws:
        found = cases(settings, names, snapshot)
        await gather(aws, settings, found, timeout, _watch)
    return found


async def _daemon(settings: Settings, admin: str | None) -> Snapshot | None:
    """What a running daemon says of itself; none where none answers. Raises Unreachable for one that was named."""
    from anyio import move_on_after
    from anyio.to_thread import run_sync

    from bridge.admin.client import Address, Client

    named = admin or os.environ.get("BRIDGE_ADMIN")
    url = named or _listening(settings)
    if not url:
        return None
    client = Client(Address(url))
    with move_on_after(DAEMON_PATIENCE):
        try:
            return await run_sync(client.snapshot, abandon_on_cancel=True)
        except UsageError:
            raise
        except BridgeError:
            if named:
                raise
    return None


def _listening(settings: Settings) -> str:
    """The URL of the file's ``admin.listen``; empty where nothing listens, or at a free port."""
    if settings.admin_host is None or not settings.admin_port:
        return ""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.admin_host, settings.admin_host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.admin_port}"


def _watch(done: int, count: int) -> None:
    """A line that is overwritten, on a terminal alone."""
    if sys.stderr.isatty() and count > 1:
        end = "\r" if done < count else "\r\033[K"
        print(f"looked at {done} of {count}", end=end, file=sys.stderr, flush=True)
