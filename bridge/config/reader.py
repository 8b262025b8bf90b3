"""From the tree to the declared options: types, ranges and unknown keys, with every problem collected."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping as Dict
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import inspect

from bridge.config.tree import Array, Node, Place, Problem, Scalar, Table, join, plain
from bridge.nearest import did_you_mean

Model = TypeVar("Model", bound=msgspec.Struct)
Refuse = Callable[[str, Node], str | None]
"""What to say about a key that the model does not declare: a message, ``""`` to pass over it in silence, or None for
the ordinary `unknown option`."""

_BROKEN: Any = object()


class Report:
    """What reading the configuration has brought to light."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.dropped: dict[str, list[str]] = {}
        """Path of a mapping -> what it holds of AWS's answers, which is no option."""


class Section:
    """One table of the configuration and its path, for checks that know more than the types do."""

    def __init__(self, node: Node, path: str, report: Report) -> None:
        self.path, self.report, self.place = path, report, node.place
        if not isinstance(node, Table):
            if not _is_null(node):
                report.problems.append(Problem(node.place, path, f"expected options below it, got {_described(node)}"))
            node = Table({}, node.place)
        self.table = node

    def node(self, *keys: str) -> Node | None:
        """What stands under these keys; null counts as absent."""
        node: Node | None = self.table
        for key in keys:
            node = node.items.get(key) if isinstance(node, Table) else None
        return None if node is None or _is_null(node) else node

    def problem(self, keys: str, message: str, *, aws: str = "") -> None:
        """Something is wrong with the option at this path below the section (empty: with the section itself). ``aws``:
        how AWS's API says it."""
        self.report.problems.append(msgspec.structs.replace(self._about(keys, message), aws=aws))

    def warn(self, keys: str, message: str) -> None:
        """Advice: it will run like this."""
        self.report.warnings.append(self._about(keys, message))

    def _about(self, keys: str, message: str) -> Problem:
        place: Place = self.place
        node: Node = self.table
        for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", keys):
            below = _below(node, key, index)
            if below is None:
                break
            place, node = below.place, below
        return Problem(place, join(self.path, keys) if keys else self.path, message)


def read(section: Section, model: type[Model], refuse: Refuse | None = None) -> Model:
    """The section as an instance of ``model``. What is missing, null or wrong has its default; what is wrong, and each
    key that is unknown, has been reported.
    """
    return _Reader(section.report).struct(section.table, model, section.path, refuse)


def check_required(model: type[msgspec.Struct], section: Section, besides: Container[str] = ()) -> None:
    """Reports the options of the model that are declared as required and are not there, except those ``besides``."""
    for key, type_ in options_of(model).items():
        if is_required(type_) and key not in besides and section.node(key) is None:
            section.problem("", f"{key} is missing{_for_example(type_)}")


def is_required(type_: Any) -> bool:
    """Whether the declaration says ``extra={"required": True}``."""
    return any((meta.extra or {}).get("required") for meta in metas(type_))


@cache
def options_of(model: type[msgspec.Struct]) -> Dict[str, Any]:
    """The declared options of a model: file key -> type."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(model)}


@cache
def _attributes_of(model: type[msgspec.Struct]) -> Dict[str, str]:
    """File key -> attribute: ``lambda`` cannot be one."""
    return {field.encode_name: field.name for field in msgspec.structs.fields(model)}


def choices(type_: Any) -> tuple[Any, ...]:
    """The alternatives that a declared type allows, without null: ``Annotated[int | str | None, ...]`` -> int, str."""
    while get_origin(type_) is Annotated:
        type_ = get_args(type_)[0]
    if get_origin(type_) in (Union, UnionType):
        return tuple(choice for part in get_args(type_) if part is not NoneType for choice in choices(part))
    return (type_,)


def section_type(type_: Any) -> Any:
    """The struct or dict that a declared type allows, if it allows one."""
    return next((choice for choice in choices(type_) if _is_struct(choice) or get_origin(choice) is dict), None)


def is_text(type_: Any) -> bool:
    """Whether an unquoted value is taken as it is written, never as a number, a truth value or a date."""
    return all(choice is str or get_origin(choice) is Literal for choice in choices(type_))


def shown(value: object) -> str:
    """A value in a message: as JSON, shortened."""
    if isinstance(value, str):
        value = value.encode(errors="backslashreplace").decode()
    text = msgspec.json.encode(value).decode() if isinstance(value, str | bool | NoneType) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


class _Reader:
    def __init__(self, report: Report) -> None:
        self._report = report

    def struct(self, table: Table, model: type[Model], path: str, refuse: Refuse | None = None) -> Model:
        known = options_of(model)
        values = {}
        for key, node in table.items.items():
            if key not in known:
                self._unknown(key, node, path, known, refuse)
            elif not _is_null(node):
                value = self._value(node, known[key], join(path, key))
                if value is not _BROKEN:
                    values[key] = value
        names = _attributes_of(model)
        return model(**{names[key]: value for key, value in values.items()})

    def _unknown(self, key: str, node: Node, path: str, known: Dict[str, Any], refuse: Refuse | None) -> None:
        message = refuse(key, node) if refuse else None
        if message is None:
            message = f"unknown option{did_you_mean(key, known) or _listed(known)}"
        if message:
            self._wrong(node.place, join(path, key), message)

    def _wrong(self, place: Place, path: str, message: str) -> Any:
        self._report.problems.append(Problem(place, path, message))
        return _BROKEN

    def _value(self, node: Node, type_: Any, path: str) -> Any:
        if isinstance(node, Table) and (section := section_type(type_)):
            return self._table(node, section, path)
        items = next((choice for choice in choices(type_) if get_origin(choice) is tuple), None)
        if isinstance(node, Array) and items:
            return self._array(node, get_args(items)[0], path)
        if not isinstance(node, Scalar) or items or all(map(section_type, choices(type_))):
            return self._wrong(node.place, path, f"expected {_expected(type_)}, got {_described(node)}")
        return self._leaf(node, type_, path)

    def _table(self, node: Table, type_: Any, path: str) -> Any:
        if _is_struct(type_):
            return self.struct(node, type_, path)
        _, item_type = get_args(type_)
        if item_type is Any:
            return plain(node)
        items = {key: self._value(item, item_type, join(path, key)) for key, item in node.items.items()}
        return {key: item for key, item in items.items() if item is not _BROKEN}

    def _array(self, node: Array, item_type: Any, path: str) -> tuple[Any, ...]:
        items = (self._value(item, item_type, f"{path}[{index}]") for index, item in enumerate(node.items))
        return tuple(item for item in items if item is not _BROKEN)

    def _leaf(self, node: Scalar, type_: Any, path: str) -> Any:
        leaves = [choice for choice in choices(type_) if not section_type(choice)]
        value = node.text if node.value is not None and all(map(is_text, leaves)) else node.value
        if isinstance(value, str) and not _is_clean(value):
            return self._wrong(node.place, path, "contains a NUL character, or bytes that are not UTF-8")
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError:
            return self._wrong(node.place, path, _explained(value, type_))


def _explained(value: object, type_: Any) -> str:
    """Why the value does not fit its type: what came, and what is allowed."""
    for info in _leaves(inspect.type_info(type_)):
        if isinstance(info, inspect.LiteralType) and isinstance(value, str):
            allowed = [str(choice) for choice in info.values]
            return f"{shown(value)} is not one of {', '.join(allowed)}{did_you_mean(value, allowed)}"
        if isinstance(info, inspect.IntType | inspect.FloatType) and (message := _out_of_range(value, info)):
            return message
    return f"expected {_expected(type_)}, got {shown(value)}"


def _leaves(info: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(info, inspect.Metadata):
        yield from _leaves(info.type)
    elif isinstance(info, inspect.UnionType):
        for part in info.types:
            yield from _leaves(part)
    else:
        yield info


def _out_of_range(value: object, info: inspect.IntType | inspect.FloatType) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if info.ge is not None and value < info.ge:
        return f"{shown(value)} is less than {info.ge}, the least that is allowed"
    if info.le is not None and value > info.le:
        return f"{shown(value)} is more than {info.le}, the most that is allowed"
    return ""


def _expected(type_: Any) -> str:
    """The type in words; a declaration may have words of its own."""
    for meta in metas(type_):
        if meta.extra and "expected" in meta.extra:
            return str(meta.extra["expected"])
    return " or ".join(dict.fromkeys(map(_words, choices(type_))))


def _for_example(type_: Any) -> str:
    examples = [example for meta in metas(type_) for example in meta.examples or ()]
    return f", for example {examples[0]}" if examples else ""


def metas(type_: Any) -> tuple[msgspec.Meta, ...]:
    """What the declaration says about the option itself."""
    return get_args(type_)[1:] if get_origin(type_) is Annotated else ()


def _words(choice: Any) -> str:
    if get_origin(choice) is Literal:
        return " or ".join(map(str, get_args(choice)))
    if get_origin(choice) is tuple:
        return "a list"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(choice, "options below it")


def _described(node: Node) -> str:
    if isinstance(node, Scalar):
        return shown(node.value)
    return "a list" if isinstance(node, Array) else "options below it"


def _listed(known: Dict[str, Any]) -> str:
    return f"; known are: {', '.join(known)}"


def _below(node: Node, key: str, index: str) -> Node | None:
    if isinstance(node, Table):
        return node.items.get(key)
    return node.items[int(index)] if isinstance(node, Array) and index and int(index) < len(node.items) else None


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _is_clean(text: str) -> bool:
    """Whether a program can be given the text: the environment may hold bytes that are no text."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)
