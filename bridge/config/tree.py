"""YAML as a tree in which every value knows where it stands, and ``${VARIABLES}`` in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping as Dict
from typing import Any

import msgspec
import yaml

from bridge.errors import ConfigError

MOST_VALUES = 100_000
"""Values in one file, aliases counted each time they are used."""
MOST_LEVELS = 64

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")
_MARKABLE = r"\$\$|\$\{[^}\n]*\}"
_VARIABLE = r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\}"


class Place(msgspec.Struct, frozen=True):
    """Where a value comes from: a line of a file, an environment variable, a ``--set``."""

    name: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


class Scalar(msgspec.Struct, frozen=True):
    """``text`` is what stands there, after expansion; ``value`` what YAML takes it for (text in quotes stays text)."""

    value: bool | int | float | str | None
    text: str
    place: Place


class Array(msgspec.Struct, frozen=True):
    """A list."""

    items: tuple[Node, ...]
    place: Place


class Table(msgspec.Struct, frozen=True):
    """A mapping. Keys are text as written; each item's place is the line of its key."""

    items: dict[str, Node]
    place: Place


Node = Scalar | Array | Table


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong, or advice: where it stands, which option it is about, what to do."""

    place: Place
    path: str
    message: str
    settled: bool = False
    """Whatever else seems wrong with this value follows from it."""
    aws: str = ""
    """How AWS's API words it, where that is known."""

    def __str__(self) -> str:
        message = " ".join(self.message.split("\n"))
        return f"{self.place}: {self.path}: {message}" if self.path else f"{self.place}: {message}"


def join(path: str, key: object) -> str:
    """``mappings`` and ``orders`` give ``mappings.orders``."""
    return f"{path}.{key}" if path else str(key)


def plain(node: Node) -> Any:
    """The tree as ordinary Python values."""
    if isinstance(node, Table):
        return {key: plain(item) for key, item in node.items.items()}
    if isinstance(node, Array):
        return [plain(item) for item in node.items]
    return node.value


def parse(text: str, name: str, environ: Dict[str, str], problems: list[Problem]) -> Node:
    """One YAML document; an empty one is an empty table. ``name`` is the file's, for messages.

    Adds duplicate keys, unset variables and the like to ``problems``. Raises ConfigError for what is no YAML, or is too
    large once its aliases are followed.
    """
    marks = _Marks(text, environ) if "$" in text else None
    return _Composer(marks.text if marks else text, lambda line: Place(name, line + 1), marks, problems).document()


def parse_value(text: str, place: Place) -> Node:
    """One value from a command line or the environment: a YAML scalar, or a list or mapping in flow form. Nothing in it
    is expanded: that was the shell's part. Raises ConfigError.
    """
    problems: list[Problem] = []
    node = _Composer(text, lambda _line: place, None, problems).document(empty=Scalar(None, "", place))
    if problems:
        raise ConfigError(*map(str, problems))
    return node


class _Marks:
    """Keeps ``${NAME}`` out of the parser's way, for whom an unquoted ``{`` in ``{token: ${TOKEN}}`` begins a mapping:
    while YAML is read, a short mark stands in its place.
    """

    def __init__(self, text: str, environ: Dict[str, str]) -> None:
        self._environ = environ
        self._hidden: list[str] = []
        self._sign = next(sign for sign in map(chr, range(0xE000, 0xF900)) if sign not in text)
        self._pattern = re.compile(rf"\$\$|{self._sign}([0-9]+){self._sign}")
        self.text = re.sub(_MARKABLE, self._hide, text)

    def _hide(self, match: re.Match[str]) -> str:
        if match[0] == "$$":
            return match[0]
        self._hidden.append(match[0])
        return f"{self._sign}{len(self._hidden) - 1}{self._sign}"

    def restore(self, text: str) -> str:
        """The text as it was written."""
        return self._pattern.sub(lambda match: self._hidden[int(match[1])] if match[1] else match[0], text)

    def expand(self, text: str, complain: Callable[[str], None]) -> str:
        """The text with its variables filled in."""

        def value(match: re.Match[str]) -> str:
            return self._value(self._hidden[int(match[1])], complain) if match[1] else "$"

        return self._pattern.sub(value, text)

    def _value(self, expression: str, complain: Callable[[str], None]) -> str:
        variable = re.fullmatch(_VARIABLE, expression)
        if not variable:
            complain(f"{expression} names no variable; write ${{NAME}} or ${{NAME:-default}}, and $$ for a dollar sign")
            return expression
        name, default = variable.groups()
        value = self._environ.get(name)
        if default is not None:
            return value or str(default)  # as in the shell: `:-` also replaces an empty value
        if value is None:
            complain(f"the environment variable {name} is not set; set it, or write a default: ${{{name}:-…}}")
            return expression
        return value


class _Composer:
    """Builds the tree from the parser's events, so that depth, size and aliases are bounded while it grows."""

    def __init__(self, text: str, place: Callable[[int], Place], marks: _Marks | None, problems: list[Problem]) -> None:
        self._text, self._place, self._marks, self._problems = text, place, marks, problems
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._values = 0

    def document(self, empty: Node | None = None) -> Node:
        try:
            self._loader = _Loader(self._text)
            try:
                return self._document(empty)
            finally:
                self._loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = error.problem or "it cannot be read"
            hint = "; quote a text that has a colon" if "mapping values" in problem else ""
            raise self._broken(mark.line if mark else 0, f"{problem}{hint}") from None
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position)
            raise self._broken(line, f"the character {error.character!r} is not allowed") from None
        except UnicodeError:
            raise self._broken(0, "it is not valid Unicode text") from None

    def _document(self, empty: Node | None) -> Node:
        self._loader.get_event()  # the stream starts
        if self._loader.check_event(yaml.StreamEndEvent):
            return empty or Table({}, self._place(0))
        self._loader.get_event()  # the document starts
        node = self._node(self._loader.get_event(), None, "", 0)
        self._loader.get_event()  # the document ends
        if not self._loader.check_event(yaml.StreamEndEvent):
            line = self._loader.peek_event().start_mark.line
            raise self._broken(line, "a second document starts here; one file holds one configuration")
        return node

    def _broken(self, line: int, what: str) -> ConfigError:
        what = self._marks.restore(what) if self._marks else what
        return ConfigError(str(Problem(self._place(line), "", f"broken YAML: {what}")))

    def _node(self, event: Any, place: Place | None, path: str, depth: int) -> Node:
        line = event.start_mark.line
        place = place or self._place(line)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        before = self._values
        self._count(1, line)
        if depth > MOST_LEVELS:
            raise self._broken(line, f"more than {MOST_LEVELS} levels deep")
        self._check_tag(event, path, place)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, path, place)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._array(path, place, depth)
        else:
            node = self._table(path, place, depth)
        if event.anchor:
            self._anchors[event.anchor] = (node, self._values - before)
        return node

    def _count(self, values: int, line: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise self._broken(line, f"more than {MOST_VALUES} values, counting each use of an alias")

    def _alias(self, event: Any, line: int) -> Node:
        if event.anchor not in self._anchors:
            raise self._broken(line, f"no anchor &{event.anchor} stands before *{event.anchor}")
        node, values = self._anchors[event.anchor]
        self._count(values, line)
        return node

    def _check_tag(self, event: Any, path: str, place: Place) -> None:
        if event.tag is None or (isinstance(event, yaml.ScalarEvent) and event.tag in _TEXT_TAGS):
            return
        self._complain(place, path, f"the tag {event.tag} is not understood; remove it")

    def _complain(self, place: Place, path: str, message: str) -> None:
        self._problems.append(Problem(place, path, message, settled=True))

    def _scalar(self, event: Any, path: str, place: Place) -> Scalar:
        text: str = event.value
        if self._marks:
            text = self._marks.expand(text, lambda message: self._complain(place, path, message))
        is_plain = event.implicit[0] and event.tag is None
        return Scalar(self._typed(text) if is_plain else text, text, place)

    def _typed(self, text: str) -> bool | int | float | str | None:
        """What an unquoted scalar is. Dates stay text: no option is one."""
        tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))
        if tag not in _PLAIN_TAGS:
            return text
        try:
            value: bool | int | float | None = self._loader.construct_object(yaml.ScalarNode(tag, text))
        except ValueError:  # looks like a number and is none: `0b_`
            return text
        return value

    def _array(self, path: str, place: Place, depth: int) -> Array:
        items: list[Node] = []
        while not self._loader.check_event(yaml.SequenceEndEvent):
            items.append(self._node(self._loader.get_event(), None, f"{path}[{len(items)}]", depth + 1))
        self._loader.get_event()
        return Array(tuple(items), place)

    def _table(self, path: str, place: Place, depth: int) -> Table:
        items: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        while not self._loader.check_event(yaml.MappingEndEvent):
            key_event = self._loader.get_event()
            key_place = self._place(key_event.start_mark.line)
            if not isinstance(key_event, yaml.ScalarEvent):
                raise self._broken(key_event.start_mark.line, "a key is plain text, not a list, mapping or alias")
            key = self._marks.restore(key_event.value) if self._marks else key_event.value
            key_path = join(path, key)
            node = self._node(self._loader.get_event(), key_place, key_path, depth + 1)
            if key == "<<" and key_event.implicit[0]:
                merged = self._merged(node, key_path, key_place)
            elif key in items:
                where = f"first in line {items[key].place.line}" if items[key].place.line else "twice"
                self._problems.append(Problem(key_place, key_path, f"given more than once, {where}; keep one"))
            else:
                items[key] = node
        self._loader.get_event()
        return Table(merged | items, place)

    def _merged(self, node: Node, path: str, place: Place) -> dict[str, Node]:
        """The items that ``<<`` brings in: of several mappings, the earlier wins."""
        items: dict[str, Node] = {}
        for part in reversed(node.items) if isinstance(node, Array) else [node]:
            if isinstance(part, Table):
                items |= part.items
            else:
                self._problems.append(Problem(place, path, "<< takes a mapping or a list of mappings"))
        return items
