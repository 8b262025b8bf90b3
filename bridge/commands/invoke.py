"""``bridge invoke``: one invocation of a function, without a daemon."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.errors import UsageError
from bridge.nearest import did_you_mean

if TYPE_CHECKING:
    from bridge.function import Function
    from bridge.invocation import Outcome

HELP = "Invokes a function once: its answer on stdout, its log on stderr. A function error exits with 1."
EXAMPLE = "bridge event sqs --body '{\"id\": 1}' | bridge invoke my-worker -e -"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FUNCTION, -e, -c, --set."""
    parser.add_argument(
        "function",
        metavar="FUNCTION",
        help="a name under `functions` of the configuration, also NAME:ALIAS or NAME:VERSION",
    )
    parser.add_argument("-e", "--event", metavar="FILE|-", help="the event as JSON, - for standard input; default {}")
    parser.add_argument(
        "--async",
        action="store_true",
        dest="asynchronous",
        help="hand the event to a running daemon and print the request id; its API must be on",
    )
    parser.add_argument(
        "--api",
        metavar="URL",
        help="with --async: the daemon's API; default: api.listen of the configuration; signed with the AWS keys of the"
        " environment where there are any",
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="default: BRIDGE_CONFIG, bridge.yaml, /etc/bridge/bridge.yaml"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="sets", help="override one setting"
    )


def run(args: argparse.Namespace) -> int:
    """0, or 1 after a function error."""
    from bridge.settings import load

    if args.asynchronous:
        return run_async(args)
    if args.api:
        raise UsageError("--api goes with --async: without it no daemon is asked")
    settings = load(args.config, os.environ, args.sets)
    name, _, qualifier = args.function.partition(":")
    function = settings.functions.get(name)
    if function is None:
        near = did_you_mean(name, settings.functions)
        raise UsageError(f'{settings.file} has no function "{name}"{near}')
    if qualifier not in ("", *function.qualifiers):
        near = did_you_mean(qualifier, function.qualifiers)
        raise UsageError(f'{settings.file}: the function {name} has no version or alias "{qualifier}"{near}')
    payload = read_event(args.event)

    import anyio

    from bridge.invocation import Succeeded
    from bridge.telemetry import logs

    logs.configure(settings.log_level, settings.log_format, sys.stderr)
    outcome = anyio.run(invoke, function, qualifier, payload)
    answer = outcome.payload if isinstance(outcome, Succeeded) else outcome.error
    sys.stdout.buffer.write(answer + b"\n")
    sys.stdout.buffer.flush()
    return 0 if isinstance(outcome, Succeeded) else 1


def run_async(args: argparse.Namespace) -> int:
    """0: the daemon has accepted it."""
    from bridge.api.client import accept

    payload = read_event(args.event)
    url = args.api
    if not url:
        from bridge.settings import load

        settings = load(args.config, os.environ, args.sets)
        if settings.api_host is None:
            raise UsageError(
                f"{settings.file} has no api.listen; set it there, or name the daemon's API with --api URL"
            )
        host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
        url = f"http://{host}:{settings.api_port}"
    print(accept(url, args.function, payload, os.environ))
    return 0


def read_event(name: str | None) -> bytes:
    """The event's bytes; UsageError when there is no JSON in them (INV-7)."""
    import msgspec

    if name is None:
        return b"{}"
    try:
        payload = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from None
    payload = payload.strip() or b"{}"  # INV-6
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        place = "standard input" if name == "-" else name
        raise UsageError(f"{place}: no JSON: {error}") from None
    return payload


async def invoke(function: Function, qualifier: str, payload: bytes) -> Outcome:
    """One attempt by an executor of its own."""
    import uuid

    from bridge.aws import Aws
    from bridge.executors import Surroundings
    from bridge.executors.versions import Versions
    from bridge.invocation import Invocation
    from bridge.leash import Leash

    def to_stderr(line: str, **_origin: str) -> None:
        print(line, file=sys.stderr)

    async with Leash() as leash, Aws() as aws:
        surroundings = Surroundings(leash, aws.credentials(function.aws), to_stderr, aws)
        async with Versions(function, surroundings) as executor:
            return await executor.invoke(Invocation(payload, str(uuid.uuid4()), qualifier=qualifier))
