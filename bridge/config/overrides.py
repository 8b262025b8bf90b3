"""What the environment and ``--set`` lay over the file: each option of the declared model has a path in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping as Dict
from typing import Any

import msgspec

from bridge.config.reader import is_text, options_of, section_type
from bridge.config.tree import Node, Place, Problem, Scalar, Table, join, parse_value
from bridge.errors import ConfigError

PREFIX = "BRIDGE_"
NOT_OPTIONS = frozenset({"CONFIG", "ADMIN"})
"""Variables of the commands: where the file is, and where the daemon that they ask listens."""


def lay_environment(
    root: Table, model: type[msgspec.Struct], environ: Dict[str, str], problems: list[Problem]
) -> Table:
    """The tree with every ``BRIDGE_…`` variable in it, whose names match keys whatever their case, `-` written `_`.

    A variable without ``__`` that is no option is somebody else's (Kubernetes makes some for a service of this name).
    """
    top_level = {_folded(key) for key in options_of(model)}
    paths = []
    for variable in environ:
        parts = variable.removeprefix(PREFIX).split("__")
        if not variable.startswith(PREFIX) or (parts[0] in NOT_OPTIONS and len(parts) == 1):
            continue
        if len(parts) > 1 or _folded(parts[0]) in top_level:
            paths.append((len(parts), variable, parts))  # whole sections first, then what is inside them
    for _, variable, parts in sorted(paths):
        root = _lay(root, model, parts, environ[variable], Place(variable), problems, any_case=True)
    return root


def lay_sets(root: Table, model: type[msgspec.Struct], sets: Iterable[str], problems: list[Problem]) -> Table:
    """The tree with each ``path=value`` in it, the later over the earlier."""
    for assignment in sets:
        path, equals, value = assignment.partition("=")
        place = Place(f"--set {path}")
        if not equals or not path.strip():
            problems.append(Problem(place, "", "expected path=value, such as mappings.orders.BatchSize=5"))
            continue
        root = _lay(root, model, path.strip().split("."), value, place, problems, any_case=False)
    return root


def _lay(
    node: Node, type_: Any, parts: list[str], text: str, place: Place, problems: list[Problem], *, any_case: bool,
    path: str = "",
) -> Any:  # fmt: skip
    """A copy of the node with the value at the path. What is no section so far becomes one; keys that the model does
    not know are laid as well, so that the reader says what is wrong with them.
    """
    if not parts:
        return _value(type_, text, place, path, problems)
    section = section_type(type_)
    items = node.items if isinstance(node, Table) else {}
    key = _key(parts[0], section, items, any_case)
    path = join(path, key)
    inner = _inner(section, key)
    below = items.get(key, Table({}, place))
    laid = _lay(below, inner, parts[1:], text, place, problems, any_case=any_case, path=path)
    return Table({**items, key: laid}, node.place if isinstance(node, Table) else place)


def _key(part: str, section: Any, items: Dict[str, Node], any_case: bool) -> str:
    known = [
        *items,
        *(options_of(section) if isinstance(section, type) and issubclass(section, msgspec.Struct) else ()),
    ]
    if part in known or not any_case:
        return part
    alike = {key for key in known if _folded(key) == _folded(part)}
    return alike.pop() if len(alike) == 1 else part


def _inner(section: Any, key: str) -> Any:
    if isinstance(section, type) and issubclass(section, msgspec.Struct):
        return options_of(section).get(key, Any)
    return section.__args__[1] if section else Any


def _value(type_: Any, text: str, place: Place, path: str, problems: list[Problem]) -> Node:
    """Text for a text option is taken to the letter; everything else is YAML. Empty: back to the default, but for the
    entries of a table of texts, which may be empty.
    """
    if is_text(type_):
        return Scalar(None if not text and type_ is not str else text, text, place)
    try:
        return parse_value(text, place)
    except ConfigError as error:
        problems.append(Problem(place, path, error.problems[0].removeprefix(f"{place}: ")))
        return Scalar(None, "", place)


def _folded(key: str) -> str:
    return key.lower().replace("-", "_")
