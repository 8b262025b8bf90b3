"""``bridge run``: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import os
import sys

HELP = "Runs the daemon in the foreground, until SIGTERM or SIGINT drains it. SIGHUP reloads the configuration."
EXAMPLE = "bridge run --local -c bridge.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """-c, --local, --set."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="default: BRIDGE_CONFIG, bridge.yaml, /etc/bridge/bridge.yaml"
    )
    parser.add_argument(
        "--local", action="store_true", help="start an embedded AWS endpoint and create the configured sources there"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="sets", help="override one setting; repeatable"
    )


def run(args: argparse.Namespace) -> int:
    """The daemon's exit status."""
    from bridge.settings import Settings, load

    def read() -> Settings:
        return load(args.config, os.environ, args.sets, local=args.local)

    settings = read()  # before the imports below, which cost far more than a mistake should
    import anyio

    from bridge.daemon import Daemon
    from bridge.telemetry import logs

    logs.configure(settings.log_level, settings.log_format, sys.stderr)
    for line in (*settings.notices, *settings.warnings):
        logs.log.warning("configuration", detail=line)
    around = None
    if args.local:
        from bridge.local import around_settings as around
    return anyio.run(Daemon(settings, read, around=around).run)
