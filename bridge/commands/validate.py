"""``bridge validate``: checks a configuration without starting anything."""

from __future__ import annotations

import argparse
import sys

HELP = """Check a configuration without starting. Every problem at once, FILE:LINE: path: message, one a line on stderr.

Advice that needs no network is a `warning:`; it does not change the exit status."""
EXAMPLE = "bridge validate -c bridge.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, and what to lay over it."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="configuration; default: $BRIDGE_CONFIG, bridge.yaml, /etc/bridge/bridge.yaml",
    )
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="set an option: mappings.orders.BatchSize=5",
    )


def run(args: argparse.Namespace) -> int:
    """Prints what was found. Raises ConfigError with every problem."""
    from bridge.settings import load

    settings = load(args.config, sets=args.sets)
    for notice in settings.notices:
        print(f"notice: {notice}", file=sys.stderr)
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"ok: {len(settings.mappings)} mappings, {len(settings.functions)} functions")
    return 0
