"""Which runtime a function asks for, and whether the programs that it needs are there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from bridge.config.handler import found
from bridge.config.options_functions import FunctionOptions
from bridge.config.reader import Section, shown
from bridge.nearest import did_you_mean

OLDEST_PYTHON = 9
NEWEST_PYTHON = 14
OLDEST_NODE = 18
NEWEST_NODE = 24

_OF_KIND = {"python": "python", "node": "nodejs", "command": "provided"}
"""Options that only one kind of runtime has."""


class Programs(NamedTuple):
    """``kind`` is a key of EXECUTORS, empty when nothing known is asked for; none: the usual interpreter."""

    kind: str
    python: str | None = None
    node: str | None = None
    command: tuple[str, ...] = ()


def needless(options: FunctionOptions) -> frozenset[str]:
    """The required options that a runtime of this kind can do without."""
    if options.command:
        return frozenset({"Runtime", "Handler", "CodeUri"})
    return frozenset({"Handler"}) if (options.Runtime or "").startswith("provided") else frozenset()


def programs(options: FunctionOptions, section: Section, folder: Path) -> Programs:
    """What runs the function. Relative paths start at ``folder``."""
    kind = _kind(options, section)
    for option, owner in _OF_KIND.items():
        if kind and kind != owner and getattr(options, option):
            section.warn(option, f"an option of {owner} runtimes; it has no effect on {options.Runtime}")
    match kind:
        case "python":
            advice = "give the path of an interpreter"
            return Programs(kind, python=_program("python", options.python, section, folder, advice))
        case "nodejs":
            advice = "install Node.js, or give the path of its interpreter"
            return Programs(kind, node=_program("node", options.node or "node", section, folder, advice))
        case "provided" if options.command:
            program, *arguments = options.command
            found = _program("command", program, section, folder, "name an executable file and its arguments")
            return Programs(kind, command=(found or program, *arguments))
    return Programs(kind)


def check_debug(options: FunctionOptions, section: Section) -> None:
    """Reports a debugger's port where nothing could wait at it, and what else asks for more than one environment."""
    if options.debug is None:
        return
    if options.command or (options.Runtime or "").startswith("provided"):
        advice = "remove it, and start the program under its own debugger with `command`"
        section.problem("debug", f"an option of python and nodejs runtimes; {advice}")
    for option in ("ReservedConcurrentExecutions", "ProvisionedConcurrentExecutions", "max_environments"):
        if section.node(option) and (getattr(options, option) or 0) > 1:
            section.warn(option, "does not count while there is a `debug`: one port, one environment")


def _kind(options: FunctionOptions, section: Section) -> str:
    runtime = options.Runtime
    if runtime is None:
        return "provided" if options.command else ""
    if re.fullmatch(r"provided(\.[a-z0-9]{1,20})?", runtime):
        return "provided"
    node = re.fullmatch(r"nodejs([1-9][0-9]{1,3})\.x", runtime)
    if node and int(node[1]) >= OLDEST_NODE:
        return "nodejs"
    python = re.fullmatch(r"python3\.(0|[1-9][0-9]{0,3})", runtime)
    if python and int(python[1]) >= OLDEST_PYTHON:
        _advise_version(f"3.{python[1]}", section)
        return "python"
    pythons = [f"python3.{minor}" for minor in range(OLDEST_PYTHON, NEWEST_PYTHON + 1)]
    nodes = [f"nodejs{major}.x" for major in range(OLDEST_NODE, NEWEST_NODE + 1, 2)]
    known = f"known are: {pythons[0]} to {pythons[-1]}, {nodes[0]} to {nodes[-1]}, provided.*"
    nearest = did_you_mean(runtime, [*pythons, *nodes, "provided.al2023", "provided.al2"])
    section.problem("Runtime", f"no runtime {shown(runtime)}; {known}{nearest}")
    return ""


def _advise_version(version: str, section: Section) -> None:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if version != own and section.node("python") is None:
        section.warn(
            "Runtime",
            f"the handler will run under python {own}, the bridge's own; name another interpreter with `python`",
        )


def _program(option: str, name: str | None, section: Section, folder: Path, advice: str) -> str | None:
    """The program's path, by a path or by a name on the PATH; none when none is named, or none is there."""
    if name is None:
        return None
    if os.sep in name:
        path = folder / name
        program = str(path) if found(path) == "file" and os.access(path, os.X_OK) else None
    else:
        from shutil import which

        program = which(name)
    if not program:
        section.problem(option, f"{name}: no such program; {advice}")
    return program
