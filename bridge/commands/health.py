"""``bridge health``: whether the daemon is alive, or ready, as an exit status."""

from __future__ import annotations

import argparse
import json
import sys

HELP = """Exit 0 if the daemon is alive, with --ready if every enabled mapping polls; else exit 1 and say why in a line.

For HEALTHCHECK and probes where there is no curl."""
EXAMPLE = "bridge health --ready"

TIMEOUT = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to ask, and whom."""
    parser.add_argument("--ready", action="store_true", help="ask whether every enabled mapping polls")
    parser.add_argument(
        "--admin", metavar="URL", help="the daemon; default: $BRIDGE_ADMIN, the configuration's admin.listen"
    )


def run(args: argparse.Namespace) -> int:
    """Prints one line. Raises Unreachable (exit 1) when no daemon answers."""
    from bridge.admin.client import Client, find

    client = Client(find(args.admin, None))
    status, body = client.get("/readyz" if args.ready else "/healthz", TIMEOUT)
    if status == 200:
        print(f"{'ready' if args.ready else 'alive'}: {client.url}")
        return 0
    print(f"bridge: {'not ready' if args.ready else 'not alive'}: {_reasons(status, body)}", file=sys.stderr)
    return 1


def _reasons(status: int, body: bytes) -> str:
    try:
        answer = json.loads(body)
        waiting = [f"{name}: {why['reason']} (since {why['since']})" for name, why in answer["mappings"].items()]
        if reason := answer.get("reason"):
            waiting.append(str(reason))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"it answers {status}, as no daemon does"
    return "; ".join(waiting) or f"it answers {status}"
