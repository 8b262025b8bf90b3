"""The command line: finds the command, runs it, and turns what went wrong into one line and an exit status.

A command is a module with ``HELP`` (what it does), ``EXAMPLE`` (a command line), ``add_arguments(parser)`` and
``run(args) -> int`` (the exit status). It is imported only when it is called.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import NoReturn

from bridge import __version__
from bridge.errors import BridgeError, ConfigError, UsageError

COMMANDS = {
    "demo": ("bridge.commands.demo", "show the rules at work on an embedded endpoint, without account or config"),
    "run": ("bridge.commands.run", "the daemon, in the foreground"),
    "validate": ("bridge.commands.validate", "check a configuration without starting"),
    "doctor": ("bridge.commands.doctor", "look at the real queues, streams and destinations, and say what will happen"),
    "iam-policy": ("bridge.commands.iam_policy", "print the least IAM policy that the configuration needs"),
    "invoke": ("bridge.commands.invoke", "invoke a function once, without a daemon"),
    "event": ("bridge.commands.event", "print a sample event"),
    "mappings": ("bridge.commands.mappings", "list, show, pause and resume the mappings of a running daemon"),
    "top": ("bridge.commands.top", "a running daemon, live in a terminal"),
    "health": ("bridge.commands.health", "exit 0 if the daemon is alive, or ready: for probes"),
    "replay": ("bridge.commands.replay", "look at dead letters, and put them back without losing one"),
    "config-schema": ("bridge.commands.config_schema", "print the JSON Schema of the configuration file"),
}
"""Name -> module, and its line in the overview."""

NOT_YET = ("import",)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. argparse's own way to learn that costs a tenth of the start."""

    def __init__(self, prog: str) -> None:
        try:
            width = os.get_terminal_size().columns
        except OSError:
            width = 100
        super().__init__(prog, width=min(width - 2, 118))


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match("unrecognized arguments: (--[^ =]+)", message)
        near = _near(unknown[1], re.findall("--[a-z][a-z-]+", self.format_help())) if unknown else ""
        raise UsageError(f"{message}{near}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and gives its exit status: 0 done, 1 the work failed, 2 usage, configuration, port or state
    error, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = _dispatch(list(arguments))
        print(end="", flush=True)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # the outermost frame: all is reported, whatever it is
        return _report(error, debug="--debug" in arguments)
    return status


def _dispatch(arguments: list[str]) -> int:
    parser = _overview()
    options, rest = _split(arguments)
    chosen = parser.parse_args(options)
    if not rest:
        parser.print_help(sys.stderr)
        return 2
    name, *rest = rest
    if name not in COMMANDS:
        raise UsageError(_unknown(name))
    command = import_module(COMMANDS[name][0])
    command_parser = Parser(
        prog=f"bridge {name}",
        description=command.HELP,
        epilog=f"example:\n  {command.EXAMPLE}",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    command_parser.add_argument(
        "--debug", action="store_true", default=chosen.debug, help="show where an error comes from"
    )
    command.add_arguments(command_parser)
    status: int = command.run(command_parser.parse_args(rest))
    return status


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    lines = (f"  {name:<{width}}{line}" for name, (_, line) in COMMANDS.items())
    parser = Parser(
        prog="bridge",
        usage="bridge [-h] [--version] [--debug] COMMAND ...",
        description="AWS Lambda's event source mapping as a program you own.",
        epilog="\n".join(["commands:", *lines, "", "bridge COMMAND --help says more, with an example."]),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bridge {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The options before the command, and the command with what follows it."""
    start = next((index for index, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    return arguments[:start], arguments[start:]


def _unknown(name: str) -> str:
    if name in NOT_YET:
        return f"{name} is not implemented yet"
    return f'no command "{name}"{_near(name, COMMANDS) or "; see bridge --help"}'


def _near(word: str, known: Iterable[str]) -> str:
    from bridge.nearest import did_you_mean

    return did_you_mean(word, known)


def _report(error: BaseException, *, debug: bool) -> int:
    """One line an error on stderr, with the trace before it where it was asked for; the exit status."""
    if debug:
        import traceback

        traceback.print_exception(error)
    errors = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in errors):
        return 130
    for leaf in errors:
        for line in _lines(leaf):
            print(line, file=sys.stderr)
    return 2 if all(isinstance(leaf, UsageError) for leaf in errors) else 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors themselves, out of the groups that task groups make of them."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _lines(error: BaseException) -> Iterator[str]:
    if isinstance(error, ConfigError):
        yield from error.problems
    elif isinstance(error, BridgeError):
        yield f"bridge: {' '.join(str(error).split())}"
    else:
        kind = type(error).__name__
        yield f"bridge: unexpected {kind}: {' '.join(str(error).split())} (a bug of bridge; --debug shows where)"
