"""Requests, answers and errors on the wire, as the SDK's own model of Lambda describes them, not typed by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping as Dict
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from bridge.api import Answer, ApiError

Shape = dict[str, Any]

NUMBERS = ("integer", "long", "float", "double")
EXPECTED = {
    "string": "a string", "blob": "a string", "boolean": "true or false", "list": "a list", "structure": "an object",
    "map": "an object", "integer": "a number", "long": "a number", "float": "a number", "double": "a number",
    "timestamp": "a number",
}  # fmt: skip
SHOWN = 1000
"""Characters of a wrong value that are repeated in a message."""


class Operation(NamedTuple):
    """One operation of the service."""

    name: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    """Parameters by which it is told from others of the same path."""
    status: int
    input: str
    output: str


class Wire(NamedTuple):
    """What goes back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Received(NamedTuple):
    """The parts of a request. ``headers`` ignore case."""

    path: Dict[str, str]
    query: Dict[str, list[str]]
    headers: Dict[str, str]
    body: bytes


class Model:
    """The service's model."""

    def __init__(self, model: Dict[str, Any]) -> None:
        self._shapes: dict[str, Shape] = model["shapes"]
        self._operations = model["operations"]

    def __repr__(self) -> str:
        return f"<Model: {len(self._operations)} operations>"

    def operation(self, name: str) -> Operation:
        """KeyError when the service has none of this name."""
        described = self._operations[name]
        http = described["http"]
        path, _, query = http["requestUri"].partition("?")
        return Operation(
            name,
            http["method"],
            path.rstrip("/"),
            tuple(parse_qsl(query)),
            http.get("responseCode", 200),
            described.get("input", {}).get("shape", ""),
            described.get("output", {}).get("shape", ""),
        )

    # Requests.

    def parse(self, operation: Operation, received: Received) -> dict[str, Any]:
        """The members of the input. Raises ApiError: SerializationException for what is no such request at all,
        ValidationException with every broken constraint (ESM-3)."""
        shape = self._shapes[operation.input]
        given = self._parsed(shape, received)
        broken = list(self._broken(shape, given, ""))
        if broken:
            noun = "error" if len(broken) == 1 else "errors"
            text = f"{len(broken)} validation {noun} detected: {'; '.join(broken)}"
            raise ApiError("ValidationException", text)
        return given

    def _parsed(self, shape: Shape, received: Received) -> dict[str, Any]:
        payload = shape.get("payload")
        inside = {name: member for name, member in shape["members"].items() if "location" not in member}
        body = _object(received.body) if inside and not payload else {}
        given: dict[str, Any] = {payload: received.body} if payload else {}
        for name, member in shape["members"].items():
            kind = self._shapes[member["shape"]]
            if "location" in member:
                value = self._located(member, kind, received, name)
            else:
                value = None if payload else self._value(kind, body.get(name), name)
            if value is not None:
                given[name] = value
        return given

    def _located(self, member: Shape, kind: Shape, received: Received, name: str) -> Any:
        """A member from the path, the query or a header."""
        key = member["locationName"]
        if member["location"] == "uri":
            return received.path.get(key)
        if member["location"] == "header":
            text = received.headers.get(key)
        elif kind["type"] == "list":
            return received.query.get(key)
        else:
            text = received.query[key][-1] if received.query.get(key) else None
        return None if text is None else _from_text(kind["type"], text, name)

    def _value(self, shape: Shape, value: Any, path: str) -> Any:
        """The value with the members that the model knows; null is absent."""
        kind = shape["type"]
        if value is None:
            return None
        if not _fits(kind, value):
            raise _unreadable(f"{path} must be {EXPECTED[kind]}")
        if kind == "structure":
            members = {name: self._shapes[member["shape"]] for name, member in shape["members"].items()}
            read = {name: self._value(it, value.get(name), f"{path}.{name}") for name, it in members.items()}
            return {name: item for name, item in read.items() if item is not None}
        if kind == "list":
            inner = self._shapes[shape["member"]["shape"]]
            return [self._value(inner, item, f"{path}[{index}]") for index, item in enumerate(value)]
        if kind == "map":
            inner = self._shapes[shape["value"]["shape"]]
            return {key: self._value(inner, item, f"{path}.{key}") for key, item in value.items()}
        return int(value) if kind in ("integer", "long") else value

    # Constraints, in AWS's words.

    def _broken(self, shape: Shape, value: Any, path: str) -> Iterator[str]:
        kind = shape["type"]
        if kind == "structure":
            for name, member in shape["members"].items():
                below = f"{path}.{_camel(name)}" if path else _camel(name)
                if value.get(name) is not None:
                    yield from self._broken(self._shapes[member["shape"]], value[name], below)
                elif name in shape.get("required", ()):
                    yield f"Value null at '{below}' failed to satisfy constraint: Member must not be null"
        elif rule := self._rule(shape, value):
            shown = "*****" if shape.get("sensitive") else _shown(value)
            yield f"Value '{shown}' at '{path}' failed to satisfy constraint: {rule}"
        elif kind == "list":
            inner = self._shapes[shape["member"]["shape"]]
            for number, item in enumerate(value, 1):
                if item is not None:
                    yield from self._broken(inner, item, f"{path}.{number}.member")

    def _rule(self, shape: Shape, value: Any) -> str:
        """The constraint that the value breaks, or nothing."""
        kind = shape["type"]
        if kind == "list":
            item = self._shapes[shape["member"]["shape"]]
            wrong = (self._rule(item, it) for it in value if it is not None and item["type"] == "string")
            return _length(shape, value) or next((f"Member must satisfy constraint: [{it}]" for it in wrong if it), "")
        if kind == "map":
            key, item = self._shapes[shape["key"]["shape"]], self._shapes[shape["value"]["shape"]]
            rules = (self._rule(*pair) for each in value.items() for pair in zip((key, item), each, strict=True))
            return _length(shape, value) or next(
                (f"Map value must satisfy constraint: [{it}]" for it in rules if it), ""
            )
        if kind == "string":
            return _string_rule(shape, value)
        if kind in NUMBERS:
            return _number_rule(shape, value)
        return ""

    # Answers.

    def answer(self, operation: Operation, answer: Answer) -> Wire:
        """The response. Members that the output does not have are an error of ours (KeyError)."""
        shape: Shape = self._shapes[operation.output] if operation.output else {"members": {}}
        status, headers, body = operation.status, {}, {}
        for name, value in answer.items():
            member = shape["members"][name]
            if value is None or name == shape.get("payload"):
                continue
            location = member.get("location")
            if location == "statusCode":
                status = value
            elif location == "header":
                headers[member["locationName"]] = str(value)
            else:
                body[name] = value
        if "payload" in shape:
            return Wire(status, headers, answer.get(shape["payload"]) or b"")
        return Wire(status, headers, msgspec.json.encode(body) if operation.output else b"")

    def error(self, error: ApiError) -> Wire:
        """The error response (ESM-2)."""
        shape = self._shapes.get(error.name, {})
        members = shape.get("members", {})
        status = shape.get("error", {}).get("httpStatusCode", error.status)
        body: dict[str, str] = {}
        if "Type" in members:
            body["Type"] = "Service" if shape.get("fault") else "User"
        key = "Message" if "Message" in members or error.name in CAPITAL_MESSAGE else "message"
        body[key] = error.message
        headers = {"x-amzn-ErrorType": error.name}
        for name, value in error.more.items():
            member = members.get(name, {})
            if member.get("location") == "header":
                headers[member["locationName"]] = value
            else:
                body[name] = value
        return Wire(status, headers, msgspec.json.encode(body))


CAPITAL_MESSAGE = frozenset({"RequestTooLargeException"})
"""INV-8: here the service differs from its model."""


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body.strip() or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise _unreadable("the body must be a JSON object")
    return value


def _unreadable(message: str) -> ApiError:
    return ApiError("SerializationException", message)


def _fits(kind: str, value: Any) -> bool:
    if kind in ("structure", "map"):
        return isinstance(value, dict)
    if kind == "list":
        return isinstance(value, list)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("integer", "long"):
        return (
            value.is_integer() if isinstance(value, float) else isinstance(value, int) and not isinstance(value, bool)
        )
    if kind in NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "timestamp":
        return isinstance(value, int | float | str) and not isinstance(value, bool)
    return isinstance(value, str)


def _from_text(kind: str, text: str, name: str) -> Any:
    if kind in ("integer", "long"):
        if not re.fullmatch("-?[0-9]{1,18}", text):
            raise _unreadable(f"{name} must be {EXPECTED[kind]}")
        return int(text)
    if kind == "boolean":
        return text == "true"
    return text


def _string_rule(shape: Shape, value: str) -> str:
    if "enum" in shape and value not in shape["enum"]:
        return f"Member must satisfy enum value set: [{', '.join(shape['enum'])}]"
    if rule := _length(shape, value):
        return rule
    pattern = shape.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        return f"Member must satisfy regular expression pattern: {pattern}"
    return ""


def _number_rule(shape: Shape, value: float) -> str:
    if "max" in shape and value > shape["max"]:
        return f"Member must have value less than or equal to {shape['max']}"
    if "min" in shape and value < shape["min"]:
        return f"Member must have value greater than or equal to {shape['min']}"
    return ""


def _length(shape: Shape, value: Any) -> str:
    if "max" in shape and len(value) > shape["max"]:
        return f"Member must have length less than or equal to {shape['max']}"
    if "min" in shape and len(value) < shape["min"]:
        return f"Member must have length greater than or equal to {shape['min']}"
    return ""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """The model's patterns are Java's, whose classes of characters Python writes differently."""
    for java, python in ((r"\p{L}", r"\w"), (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


def _camel(name: str) -> str:
    """``UUID`` is ``uUID`` in AWS's messages as well."""
    return name[:1].lower() + name[1:]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        text = f"[{', '.join(map(_shown, value))}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}={_shown(item)}' for key, item in value.items())}}}"
    else:
        text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
