"""``bridge config-schema``: the shape of the configuration file, for editors and for people."""

from __future__ import annotations

import argparse

HELP = """Print the JSON Schema (draft 2020-12) of the configuration file, for editors.

With --example: every option, as a commented configuration file."""
EXAMPLE = "bridge config-schema > bridge.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which of the two."""
    parser.add_argument("--example", action="store_true", help="print every option as a commented configuration file")


def run(args: argparse.Namespace) -> int:
    """Prints it."""
    from bridge.config.schema import example, schema

    print(example() if args.example else schema(), end="")
    return 0
