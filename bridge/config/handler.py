"""Checks that a handler is there, without running any of its code."""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping as Dict
from pathlib import Path
from typing import Literal

from bridge.config.reader import Section, shown
from bridge.nearest import did_you_mean

MOST_SOURCE_BYTES = 4 << 20
"""Larger files are not looked into."""


def found(path: Path) -> Literal["file", "folder", ""]:
    """What is there; nothing, also for a path that can be none."""
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else ""
    except (OSError, ValueError):  # too long, a part of it unreadable, a NUL in it
        return ""


def check_handler(handler: str, code: Path, python: str | None, variables: Dict[str, str], section: Section) -> None:
    """Reports a handler whose module is neither in the folder ``code`` nor installed; warns if the module has no such
    name at its top level, or cannot be parsed.
    """
    module, _, name = handler.rpartition(".")
    parts = module.replace("/", ".").split(".")
    if not name.isidentifier() or not all(part.replace("-", "").replace("_", "").isalnum() for part in parts):
        section.problem("Handler", f"{shown(handler)} is no handler; expected MODULE.FUNCTION, such as app.handler")
        return
    folder = code.joinpath(*parts[:-1])
    sources = (folder / f"{parts[-1]}.py", folder / parts[-1] / "__init__.py")
    source = next((source for source in sources if found(source) == "file"), None)
    if source:
        _check_name(source, name, python, section)
    elif not (_is_extension(folder, parts[-1]) or "PYTHONPATH" in variables or _is_installed(parts[0], python)):
        section.problem("Handler", f"{shown(handler)}: no such file {sources[0]}{_nearest_module(sources[0])}")


def check_node_handler(handler: str, code: Path, section: Section) -> None:
    """Reports a handler whose module is not in the folder ``code``."""
    named = re.fullmatch(r"((?:[^/]+/)*[^./][^./]*)\.[^/]+", handler)
    if named is None or ".." in handler.split("/"):
        section.problem("Handler", f"{shown(handler)} is no handler; expected MODULE.FUNCTION, such as app.handler")
    elif not any(found(Path(f"{code / named[1]}{ending}")) for ending in ("", ".js", ".mjs", ".cjs")):
        missing = code / f"{named[1]}.mjs"
        section.problem("Handler", f"{shown(handler)}: no such file {missing}, nor one that ends in .js or .cjs")


def check_bootstrap(code: Path, section: Section) -> None:
    """Reports a folder ``code`` without an executable ``bootstrap``."""
    path = code / "bootstrap"
    if found(path) != "file":
        section.problem("CodeUri", f"{path}: no such file; put the runtime's program there, or name it with `command`")
    elif not os.access(path, os.X_OK):
        section.problem("CodeUri", f"{path} is not executable; chmod +x it")


def _is_extension(folder: Path, module: str) -> bool:
    return any(name.startswith(f"{module}.") and name.endswith(".so") for name in _listed(folder))


def _is_installed(package: str, python: str | None) -> bool:
    """Whether the module comes out of the interpreter's packages, as wrappers of handlers do."""
    if python is None:
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(package, sys.path) is not None
    libraries = Path(python).parent.parent.glob("lib/python3*/site-packages")
    return any(name.partition(".")[0] == package for library in libraries for name in _listed(library))


def _nearest_module(source: Path) -> str:
    modules = [name.removesuffix(".py") for name in _listed(source.parent) if name.endswith(".py")]
    return did_you_mean(source.stem, modules)


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:  # nothing there to be listed, or nothing that we may see
        return []


def _check_name(source: Path, name: str, python: str | None, section: Section) -> None:
    try:
        if source.stat().st_size > MOST_SOURCE_BYTES:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the code's own, such as invalid escapes
            body = ast.parse(source.read_bytes()).body
    except OSError as error:
        section.problem("Handler", f"{source}: {error.strerror}")
    except SyntaxError as error:
        if python is None:  # another interpreter may know the syntax
            section.warn("Handler", f"{source}, line {error.lineno}: {error.msg}; every invocation will fail")
    except (ValueError, RecursionError, MemoryError) as error:
        section.warn("Handler", f"{source}: not understood as python source: {error}")
    else:
        names = set(_names(body))
        if not names & {name, "*", "__getattr__"}:
            section.warn("Handler", f"{source} has no {name}; every invocation will fail{did_you_mean(name, names)}")


def _names(body: list[ast.stmt]) -> Iterator[str]:
    """What the statements bind in their module, ``*`` for an import of everything."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for statement in body:
        for node in [statement] if isinstance(statement, definitions) else ast.walk(statement):
            if isinstance(node, definitions):
                yield node.name
            elif isinstance(node, ast.alias):
                yield (node.asname or node.name).partition(".")[0]
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
