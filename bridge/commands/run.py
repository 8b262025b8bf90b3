"""``bridge run``: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import os
import sys

from bridge.init import as_init

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
    return as_init(lambda: _serve(args))


def _serve(args: argparse.Namespace) -> int:
    from bridge.settings import Settings, load

    def read() -> Settings:
        return load(args.config, os.environ, args.sets, local=args.local)

    settings = read()  # before the imports below, which cost far more than a mistake should
    import anyio
    import structlog

    from bridge.daemon import Daemon
    from bridge.leash import Leash
    from bridge.telemetry import logs

    allow_files()
    logs.configure(settings.log_level, settings.log_format, sys.stderr)
    log = structlog.get_logger()
    for line in (*settings.notices, *settings.warnings):
        log.warning("configuration", detail=line)
    if not args.local:
        return anyio.run(Daemon(settings, read).run)
    from bridge.local import LocalEndpoint

    def stage(leash: Leash) -> LocalEndpoint:
        return LocalEndpoint(leash, announce=lambda line: print(line, flush=True), moved=daemon.reload)

    daemon = Daemon(settings, read, stage=stage)
    return anyio.run(daemon.run)


def allow_files() -> None:
    """Each parked poll and each environment is an open file or two: as many as the system allows."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
