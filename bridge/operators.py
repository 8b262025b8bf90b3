"""What the alternatives of a pattern's leaf accept: plain values and the comparison operators (FLT-12 to FLT-27)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from math import inf, isfinite
from typing import Any, NamedTuple

from bridge.errors import UsageError

Test = Callable[[Any], bool]
"""Whether one scalar of the event (string, number, boolean or null) is accepted. Never raises."""


class InvalidPattern(UsageError):
    """The event pattern is not valid."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.reason = reason
        """What is wrong, in AWS's words where they are known."""
        self.place = place
        """The path to it, ``body.status``; empty: the pattern as a whole."""


class Leaf(NamedTuple):
    """The alternatives of one field, ORed (FLT-27)."""

    test: Test
    absent: bool
    """One alternative is ``{"exists": false}``: a missing leaf is accepted too."""


def leaf(alternatives: Sequence[Any]) -> Leaf:
    """The array in a pattern, compiled. Raises InvalidPattern without a place."""
    if not alternatives:
        raise InvalidPattern("Empty arrays are not allowed")
    constants: set[str | None] = set()
    numbers: set[float] = set()
    tests: list[Test] = []
    absent = False
    for alternative in alternatives:
        if alternative is None or isinstance(alternative, str):
            constants.add(alternative)
        elif isinstance(alternative, bool):
            tests.append(_identical(alternative))
        elif isinstance(alternative, dict):
            tests.append(_comparison(alternative))
            absent = absent or alternative.get("exists") is False
        elif (number := _finite(alternative)) is not None:
            numbers.add(number)
        else:
            raise InvalidPattern("Match value must be String, number, true, false, or null")
    _refuse_complex(list(_wildcards(alternatives)))
    if numbers:
        tests.append(lambda value: _double(value) in numbers)  # FLT-22
    if constants:
        tests.insert(0, frozenset(constants).__contains__)
    return Leaf(_any_of(tests), absent)


def _any_of(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def test(value: Any) -> bool:
        for accepts in tests:  # noqa: SIM110 (a generator costs three times as much)
            if accepts(value):
                return True
        return False

    return test


def _identical(constant: bool) -> Test:
    return lambda value: value is constant


def _comparison(expression: dict[str, Any]) -> Test:
    if not expression:
        raise InvalidPattern("Match expression name not found")
    name = next(iter(expression))
    if name not in OPERATORS:
        raise InvalidPattern(f"Unrecognized match type {_shown(name)}")
    return OPERATORS[name](_only_value(expression))


def _only_value(expression: dict[str, Any]) -> Any:
    if len(expression) > 1:
        raise InvalidPattern("Only one key allowed in match expression")
    return next(iter(expression.values()))


# Numbers: compared as IEEE 754 doubles (FLT-21, FLT-22); a boolean is none.


def _double(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def _finite(value: Any) -> float | None:
    number = _double(value)
    return number if number is not None and isfinite(number) else None


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _numeric(operand: Any) -> Test:
    """``=`` alone, one bound, or a lower bound followed by an upper one (FLT-21)."""
    if not isinstance(operand, list):
        raise InvalidPattern("Value of numeric must be an array.")
    first = operand[0] if operand else None
    if not isinstance(first, str):
        raise InvalidPattern(f"Invalid member in numeric match: {_shown(first) if operand else ']'}")
    if first not in COMPARISONS:
        raise InvalidPattern(f"Unrecognized numeric range operator: {first}")
    bound = _bound(operand, 1)
    if len(operand) == 2:
        return _compared((first, bound))
    if first not in (">", ">="):
        raise InvalidPattern("Too many elements in numeric expression")
    second = operand[2]
    if not isinstance(second, str):
        raise InvalidPattern(f"Bad value in numeric range: {_shown(second)}")
    if second not in ("<", "<="):
        raise InvalidPattern(f"Bad numeric range operator: {second}")
    top = _bound(operand, 3)
    if len(operand) > 4:
        raise InvalidPattern("Too many terms in numeric range expression")
    if bound >= top:
        raise InvalidPattern("Bottom must be less than top")
    return _compared((first, bound), (second, top))


def _bound(operand: list[Any], index: int) -> float:
    number = _finite(operand[index]) if index < len(operand) else None
    if number is None:
        name = operand[index - 1]
        raise InvalidPattern(f"Value of {'equals' if name == '=' else name} must be numeric")
    return number


def _compared(*bounds: tuple[str, float]) -> Test:
    comparisons = [(COMPARISONS[name], bound) for name, bound in bounds]

    def test(value: Any) -> bool:
        number = _double(value)
        return number is not None and all(compare(number, bound) for compare, bound in comparisons)

    return test


def _shown(value: Any) -> str:
    """A value for a message, short, as JSON begins to write it."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return "{" if isinstance(value, dict) else "["
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    number = _double(value)
    return type(value).__name__ if number is None else f"{number:g}"


# Strings: code unit by code unit (FLT-15); all but anything-but accept nothing that is no string (FLT-20).


def _prefix(operand: Any) -> Test:
    if isinstance(operand, dict):
        start = _fold(_ignore_case(operand, "prefix"))
        return lambda value: isinstance(value, str) and _fold(value).startswith(start)
    text = _text(operand, "prefix match pattern must be a string")
    return lambda value: isinstance(value, str) and value.startswith(text)


def _suffix(operand: Any) -> Test:
    if isinstance(operand, dict):
        end = _fold(_ignore_case(operand, "suffix"))
        return lambda value: isinstance(value, str) and _fold(value).endswith(end)
    text = _text(operand, "suffix match pattern must be a string")
    return lambda value: isinstance(value, str) and value.endswith(text)


def _ignore_case(operand: dict[str, Any], name: str) -> str:
    if not operand:
        raise InvalidPattern(f"{name.capitalize()} expression name not found")
    inner = next(iter(operand))
    if inner != "equals-ignore-case":
        raise InvalidPattern(f"Unsupported {name} pattern: {_shown(inner)}")
    return _text(_only_value(operand), "equals-ignore-case match pattern must be a string")


def _equals_ignore_case(operand: Any) -> Test:
    text = _fold(_text(operand, "equals-ignore-case match pattern must be a string"))
    return lambda value: isinstance(value, str) and _fold(value) == text


def _text(operand: Any, otherwise: str) -> str:
    if not isinstance(operand, str):
        raise InvalidPattern(otherwise)
    return operand


def _fold(text: str) -> str:
    """Without case, character by character, so that a folded prefix stays a prefix."""
    return text.lower() if text.isascii() else "".join(map(_fold_character, text))


def _fold_character(character: str) -> str:
    upper = character.upper()
    if len(upper) == 1:
        character = upper
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _exists(operand: Any) -> Test:
    if not isinstance(operand, bool):
        raise InvalidPattern("exists match pattern must be either true or false.")
    return lambda _: operand  # `false` accepts no scalar: Leaf.absent stands for it


# anything-but (FLT-23, FLT-24)


def _anything_but(operand: Any) -> Test:
    if isinstance(operand, dict):
        return _anything_but_nested(operand)
    values = operand if isinstance(operand, list) else [operand]
    numbers = {number for value in values if (number := _finite(value)) is not None}
    strings = {value for value in values if isinstance(value, str)}
    if not all(isinstance(value, str) or _finite(value) is not None for value in values):
        raise InvalidPattern(
            "Inside anything but list, start|null|boolean is not supported."
            if isinstance(operand, list)
            else "Value of anything-but must be an array or single string/number value."
        )
    if bool(numbers) == bool(strings):
        raise InvalidPattern(
            "Inside anything but list, either all values are number or string, mixed type is not supported"
        )
    if numbers:
        return lambda value: _double(value) not in numbers
    return lambda value: value not in strings


def _anything_but_nested(operand: dict[str, Any]) -> Test:
    if not operand:
        raise InvalidPattern("Anything-But expression name not found")
    name = next(iter(operand))
    if name not in NOT_A_STRING:
        raise InvalidPattern(f"Unsupported anything-but pattern: {_shown(name)}")
    inner = _only_value(operand)
    if not isinstance(inner, str | list) and _double(inner) is None:
        raise InvalidPattern("Value of anything-but must be an array or single string/number value.")
    texts = inner if isinstance(inner, list) else [inner]
    if not texts:
        raise InvalidPattern("Empty arrays are not allowed")
    if not all(isinstance(text, str) for text in texts):
        raise InvalidPattern(NOT_A_STRING[name])
    if name in ("prefix", "suffix") and "" in texts:
        raise InvalidPattern("Null prefix/suffix not allowed")
    accepts = _any_of([OPERATORS[name](text) for text in texts])
    return lambda value: not accepts(value)


NOT_A_STRING = {
    "prefix": "prefix/suffix match pattern must be a string",
    "suffix": "prefix/suffix match pattern must be a string",
    "equals-ignore-case": "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.",
    "wildcard": "wildcard match pattern must be a string",
}
"""What may stand inside anything-but, and the reason given when its operand is neither a string nor a list of them."""


# wildcard (FLT-25)

MAX_SIMULTANEOUS = 10
"""How many beginnings of one field's wildcards a single text may fit at once before AWS calls the rule too complex."""


def _wildcard(operand: Any) -> Test:
    pieces = _pieces(_text(operand, "wildcard match pattern must be a string"))
    if len(pieces) == 1:
        return lambda value: bool(value == pieces[0])
    first, *middle, last = pieces
    shortest = len(first) + len(last)

    def test(value: Any) -> bool:
        if not isinstance(value, str) or len(value) < shortest:
            return False
        if not (value.startswith(first) and value.endswith(last)):
            return False
        position, end = len(first), len(value) - len(last)
        for piece in middle:  # the earliest place of each is the best one: nothing is ever tried twice
            found = value.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True

    return test


def _pieces(text: str) -> list[str]:
    """The literal texts between the wildcards."""
    pieces = [""]
    characters = enumerate(text)
    for index, character in characters:
        if character == "*":
            if text.startswith("*", index + 1):
                raise InvalidPattern(f"Consecutive wildcard characters at pos {index + 1}")
            pieces.append("")
            continue
        if character == "\\":
            _, character = next(characters, (0, ""))
            if character not in ("*", "\\"):
                raise InvalidPattern(f"Invalid escape character at pos {index + 1}")
        pieces[-1] += character
    return pieces


def _wildcards(alternatives: Iterable[Any]) -> Iterable[list[str]]:
    for alternative in alternatives:
        expression = alternative.get("anything-but", alternative) if isinstance(alternative, dict) else None
        operand = expression.get("wildcard", []) if isinstance(expression, dict) else []
        yield from map(_pieces, operand if isinstance(operand, list) else [operand])


def _refuse_complex(wildcards: list[list[str]]) -> None:
    """Refuses what a text could fit in too many ways at once.

    A text that has come past a wildcard stays past it; after each it may besides stand anywhere in the literal that
    follows. Wildcards count together if one text can begin like all of them.
    """
    for beginning in {pieces[0] for pieces in wildcards}:
        literals = [literal for first, *rest in wildcards if beginning.startswith(first) for literal in rest]
        stars = len(literals)
        if stars > MAX_SIMULTANEOUS or stars + _overlaps(literals) > MAX_SIMULTANEOUS:
            raise InvalidPattern(
                "Rule is too complex - try using fewer wildcard characters or fewer repeating character sequences "
                "after a wildcard character"
            )


def _overlaps(literals: Sequence[str]) -> int:
    """The most beginnings of these literals that can end at one place of a text (Aho and Corasick's automaton)."""
    following: list[dict[str, int]] = [{}]
    counts = [0]
    for literal in literals:
        node = 0
        for character in literal:
            if character not in following[node]:
                following[node][character] = len(following)
                following.append({})
                counts.append(0)
            node = following[node][character]
            counts[node] += 1
    fallback = [0] * len(following)
    level = list(following[0].values())
    while level:
        deeper = []
        for node in level:
            counts[node] += counts[fallback[node]]
            for character, child in following[node].items():
                shorter = fallback[node]
                while shorter and character not in following[shorter]:
                    shorter = fallback[shorter]
                fallback[child] = following[shorter].get(character, 0)
                deeper.append(child)
        level = deeper
    return max(counts)


# cidr (FLT-26)


def _cidr(operand: Any) -> Test:
    from ipaddress import ip_address, ip_network  # the rarest operator pays for its import itself

    address, _, mask = _text(operand, "cidr match pattern must be a string").partition("/")
    if not (address and mask) or "/" in mask:
        raise InvalidPattern("Malformed CIDR, one '/' required")
    digits = mask.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise InvalidPattern("Malformed CIDR, mask bits must be an integer")
    if mask != digits:
        raise InvalidPattern("Malformed CIDR, mask bits must not be negative")
    try:
        base = ip_address(address)
    except ValueError:
        raise InvalidPattern(f"Nonstandard IP address: {address}") from None
    if int(digits) > base.max_prefixlen:
        raise InvalidPattern(f"IPv{base.version} mask bits must be at most {base.max_prefixlen}")
    network = ip_network((address, int(digits)), strict=False)

    def test(value: Any) -> bool:
        try:
            return isinstance(value, str) and ip_address(value) in network
        except ValueError:
            return False

    return test


OPERATORS: dict[str, Callable[[Any], Test]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
    "numeric": _numeric,
    "anything-but": _anything_but,
    "exists": _exists,
    "cidr": _cidr,
}
"""Name -> what makes a test of its operand, or raises InvalidPattern."""
