"""Event patterns: the filter language of EventBridge and of event source mappings, compiled once to functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from bridge.operators import COMPARISONS, OPERATORS, InvalidPattern, Leaf, leaf

__all__ = ["InvalidPattern", "compile_filter", "compile_pattern", "decode_body"]

MAX_LENGTH = 4096
"""Characters of a pattern (FLT-6)."""
MAX_DEPTH = 100
"""Levels of objects in a pattern, and steps of a path."""
MAX_FIELDS = 10_000
"""Leaves of a pattern that was given as a dict."""
MAX_BRANCHES = 1000
"""Ways in which the ``$or`` of one pattern can combine."""


def compile_pattern(pattern: str | dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """A function that says whether an event matches ``pattern``, JSON text or what that decodes to.

    Events are what JSON decodes to; the function never raises for them, however deep, and does bounded work. Raises
    InvalidPattern with the reason and the place, and nothing else.
    """
    return _any_of([_matcher(tree) for tree in _trees(pattern)])


def compile_filter(patterns: Sequence[str | dict[str, Any]], data_key: str) -> Callable[[dict[str, Any]], bool]:
    """A function that says whether a record passes: any pattern matches, or there are none (FLT-1).

    The function gets the record as a handler would see it (FLT-44), except that the value of ``data_key`` is decoded:
    a dict or list where it is JSON, else a str (``decode_body``). A pattern about the data matches only data of its own
    kind (FLT-31, FLT-32), whatever it asks. Raises InvalidPattern.
    """
    if not patterns:
        return lambda _: True
    return _any_of([_agreeing(tree, data_key) for pattern in patterns for tree in _trees(pattern)])


def decode_body(text: str) -> str | dict[str, Any] | list[Any]:
    """The JSON object or array that ``text`` is, else ``text`` itself (FLT-34). Never raises."""
    if not text.lstrip(" \t\n\r").startswith(("{", "[")):
        return text
    try:
        decoded: dict[str, Any] | list[Any] = _decode(text)
    except (ValueError, RecursionError):
        return text
    return decoded


def _decode(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:
        return _any_float.decode(text)  # 1e999 is JSON too, and as a double it is infinite


_any_float = msgspec.json.Decoder(Any, float_hook=float)


# From the pattern to trees: one for each way in which its `$or` can be satisfied.


class _Node:
    """What is asked of the value at one path: alternatives of leaves there, and what is asked below."""

    __slots__ = ("children", "leaves")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.leaves: list[Leaf] = []


_Field = tuple[tuple[str, ...], Leaf]

RESERVED = frozenset(
    {"exactly", "regex", "not-wildcard", "not-equals-ignore-case", "ip-address-in-range", "ip-address-not-in-range"}
    | {"date-after", "date-on-or-after", "date-before", "date-on-or-before", "in-date-range"}
).union(OPERATORS, COMPARISONS)
"""Words that are no field names inside ``$or`` (FLT-28)."""


def _trees(pattern: str | dict[str, Any]) -> list[_Node]:
    document = _document(pattern) if isinstance(pattern, str) else pattern
    if not isinstance(document, dict):
        raise InvalidPattern("Filter is not an object")
    trees = []
    for fields in _Reader().branches(document, (), "", 1, within_or=False):
        root = _Node()
        for path, alternatives in fields:
            node = root
            for step in path:
                node = node.children.setdefault(step, _Node())
            node.leaves.append(alternatives)
        trees.append(root)
    return trees


def _document(text: str) -> Any:
    if len(text) > MAX_LENGTH:
        raise InvalidPattern(f"the pattern has {len(text)} characters, more than {MAX_LENGTH}")
    try:
        return msgspec.json.decode(text)  # the last of duplicate keys wins (FLT-7)
    except RecursionError:
        raise InvalidPattern(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidPattern(f"Filter is not valid JSON: {error}") from None


class _Reader:
    """Reads one pattern, and counts what it reads."""

    def __init__(self) -> None:
        self._fields = 0

    def branches(
        self, pattern: dict[str, Any], path: tuple[str, ...], place: str, depth: int, *, within_or: bool
    ) -> list[list[_Field]]:
        """The alternatives of which one must hold, each as the fields that must all match (FLT-2, FLT-28)."""
        if not pattern:
            raise InvalidPattern("Empty objects are not allowed", place)
        branches: list[list[_Field]] = [[]]
        for key, value in pattern.items():
            branches = _combined(branches, self._member(key, value, path, place, depth, within_or=within_or))
        return branches

    def _member(
        self, key: Any, value: Any, path: tuple[str, ...], place: str, depth: int, *, within_or: bool
    ) -> list[list[_Field]]:
        if not isinstance(key, str):
            raise InvalidPattern(f"field names are strings, not {type(key).__name__}", place)
        here = f"{place}.{key}" if place else key
        if depth > MAX_DEPTH:
            raise InvalidPattern(f"nested deeper than {MAX_DEPTH} levels", place)
        if key == "$or" and _is_or(value):
            options: list[list[_Field]] = []
            for index, option in enumerate(value):
                options += self.branches(option, path, f"{here}[{index}]", depth + 1, within_or=True)
                _refuse_many(len(options))
            return options
        if within_or and key in RESERVED:
            raise InvalidPattern(f"{key} is Ruler reserved fieldName which cannot be used inside $or.", place)
        path = (*path, *key.split("."))  # FLT-29 (e)
        if len(path) > MAX_DEPTH:
            raise InvalidPattern(f"the path has more than {MAX_DEPTH} steps", place)
        if isinstance(value, dict):
            return self.branches(value, path, here, depth + 1, within_or=within_or)
        if isinstance(value, list):
            return [[(path, self._leaf(value, here))]]
        raise InvalidPattern(f'"{key}" must be an object or an array', here)

    def _leaf(self, alternatives: list[Any], place: str) -> Leaf:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise InvalidPattern(f"Rule is too complex - it has more than {MAX_FIELDS} fields")
        try:
            return leaf(alternatives)
        except InvalidPattern as error:
            raise InvalidPattern(error.reason, place) from None


def _is_or(value: Any) -> bool:
    """Otherwise ``$or`` is a field like any other (FLT-28)."""
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(option, dict) and RESERVED.isdisjoint(option) for option in value)
    )


def _combined(branches: list[list[_Field]], options: list[list[_Field]]) -> list[list[_Field]]:
    _refuse_many(len(branches) * len(options))
    if len(options) == 1:
        for fields in branches:
            fields += options[0]
        return branches
    return [fields + option for fields in branches for option in options]


def _refuse_many(branches: int) -> None:
    if branches > MAX_BRANCHES:
        raise InvalidPattern(f"Rule is too complex - its $or combine in more than {MAX_BRANCHES} ways")


# From a tree to functions. Each says of a value what the event has for the fields of its subtree.

_NO, _PRESENT, _ABSENT = 0, 1, 2
"""Not what is asked; what is asked, with at least one leaf to show for it; what is asked, as no leaf is there.

The difference between the last two matters in arrays: all fields must agree on one element (FLT-29 c), but a leaf is
absent only if no element has it.
"""

_Match = Callable[[Any], int]
_MISSING: Any = object()


def _matcher(node: _Node) -> _Match:
    parts = [_leaf_matcher(alternatives) for alternatives in node.leaves]
    if node.children:
        parts.append(_object_matcher(node))
    return parts[0] if len(parts) == 1 else _both_matcher(parts)


def _leaf_matcher(alternatives: Leaf) -> _Match:
    test = alternatives.test
    nothing = _ABSENT if alternatives.absent else _NO

    def match(value: Any) -> int:
        if isinstance(value, str):
            return _PRESENT if test(value) else _NO
        if isinstance(value, list):
            return _in_elements(match, nothing, value)
        if value is _MISSING or isinstance(value, dict):  # an object is no leaf (FLT-18, FLT-19)
            return nothing
        return _PRESENT if test(value) else _NO

    return match


def _object_matcher(node: _Node) -> _Match:
    children = tuple((step, _matcher(child)) for step, child in node.children.items())
    dotted = frozenset(_dotted(node))

    def match(value: Any) -> int:
        if isinstance(value, dict):
            if dotted and not dotted.isdisjoint(value):
                value = _unfolded(value, dotted)
            found = _ABSENT
            for step, child in children:
                result = child(value.get(step, _MISSING))
                if result != _ABSENT:
                    if not result:
                        return _NO
                    found = _PRESENT
            return found
        if isinstance(value, list):
            return _in_elements(match, nothing, value)
        return nothing

    nothing = match({})
    return match


def _both_matcher(parts: Sequence[_Match]) -> _Match:
    def match(value: Any) -> int:
        results = [part(value) for part in parts]
        return _NO if _NO in results else min(results)

    return match


def _in_elements(match: _Match, nothing: int, array: list[Any]) -> int:
    result = nothing
    for element in _elements(array):
        found = match(element)
        if found == _PRESENT:
            return _PRESENT
        if not found:
            result = _NO
    return result


def _elements(array: list[Any]) -> Iterator[Any]:
    """What is in an array and, however deep, in the arrays in it (FLT-29 d)."""
    arrays = [array]
    while arrays:
        for element in arrays.pop():
            if isinstance(element, list):
                arrays.append(element)
            else:
                yield element


# FLT-29 (e): an event's `{"a.b": 1}` is `{"a": {"b": 1}}`.


def _dotted(node: _Node) -> Iterator[str]:
    """The keys with dots that lead to something below."""
    for step, child in node.children.items():
        for deeper in (*child.children, *_dotted(child)):
            yield f"{step}.{deeper}"


def _unfolded(value: dict[str, Any], dotted: frozenset[str]) -> dict[str, Any]:
    """A copy in which these keys are nested objects."""
    result = dict(value)
    for key in dotted.intersection(value):
        *steps, last = key.split(".")
        inner = result
        for step in steps:
            inner[step] = _joined(inner[step], {}) if step in inner else {}
            inner = inner[step] if isinstance(inner[step], dict) else inner[step][-1]
        inner[last] = _joined(inner[last], value[key]) if last in inner else value[key]
    return result


def _joined(one: Any, other: Any) -> Any:
    """Both values at one path: the members of both objects; else side by side, as elements are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{key: [one[key], value] if key in one else value for key, value in other.items()}}
    return [one, other]


def _any_of(matches: Sequence[_Match]) -> Callable[[dict[str, Any]], bool]:
    if len(matches) == 1:
        only = matches[0]
        return lambda event: only(event) != _NO

    def matches_any(event: dict[str, Any]) -> bool:
        for match in matches:  # noqa: SIM110 (a generator costs three times as much)
            if match(event):
                return True
        return False

    return matches_any


def _agreeing(tree: _Node, data_key: str) -> _Match:
    """The tree's matcher, for records whose data is of the kind that the tree asks about: the table of FLT-31."""
    match = _matcher(tree)
    data = tree.children.get(data_key)
    if data is None:
        return match
    if data.leaves and data.children:
        return lambda _: _NO
    kind = str if data.leaves else (dict, list)
    return lambda record: match(record) if isinstance(record.get(data_key), kind) else _NO
