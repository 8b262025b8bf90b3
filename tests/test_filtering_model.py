"""Patterns against a model of the rules, too slow to use: each leaf of the event for each field of the pattern."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from random import Random
from typing import Any

from bridge.filtering import compile_pattern

Found = tuple[str, Any, dict[int, int]]
"""A leaf of the event: path, scalar, and which element of which array it is in."""


def leaves(value: Any, path: str, within: dict[int, int]) -> Iterator[Found]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from leaves(member, f"{path}.{key}" if path else key, within)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            inside = {**within, id(value): index} if isinstance(element, dict | list) else within
            yield from leaves(element, path, inside)
    else:
        yield path, value, within


def expanded(pattern: dict[str, Any], path: str = "") -> list[list[tuple[str, list[Any]]]]:
    """FLT-28: the combinations of which one must match, each a list of fields."""
    result: list[list[tuple[str, list[Any]]]] = [[]]
    for key, value in pattern.items():
        here = f"{path}.{key}" if path else key
        if key == "$or":
            options = [fields for option in value for fields in expanded(option, path)]
        elif isinstance(value, dict):
            options = expanded(value, here)
        else:
            options = [[(here, value)]]
        result = [fields + option for fields in result for option in options]
    return result


def accepts(alternative: Any, scalar: Any) -> bool:
    match alternative:
        case {"exists": expected}:
            return bool(expected)
        case {"prefix": text}:
            return isinstance(scalar, str) and scalar.startswith(text)
        case {"anything-but": texts}:
            return scalar not in texts
        case {"numeric": [_, bound]}:
            return type(scalar) is int and scalar > bound
        case _:
            return type(scalar) is type(alternative) and scalar == alternative


def consistent(one: dict[int, int], other: dict[int, int]) -> bool:
    return all(other.get(array, index) == index for array, index in one.items())


def holds(fields: list[tuple[str, list[Any]]], found: list[Found]) -> bool:
    """Whether leaves can be chosen for all fields that agree on the elements (FLT-29 c), and absent ones are absent."""
    choices: list[list[dict[int, int] | None]] = []
    for path, alternatives in fields:
        chosen: list[dict[int, int] | None] = [
            within
            for at, scalar, within in found
            if at == path and any(accepts(alternative, scalar) for alternative in alternatives)
        ]
        choices.append(chosen + [None] * ({"exists": False} in alternatives))
    for choice in product(*choices):
        together: dict[int, int] = {}
        for within in choice:
            if within is not None and not consistent(within, together):
                break
            together |= within or {}
        else:
            absent = {path for (path, _), within in zip(fields, choice, strict=True) if within is None}
            if not any(path in absent and consistent(within, together) for path, _, within in found):
                return True
    return False


SCALARS = ["x", "xy", "y", "", 0, 1, None, True, False]
COMPARISONS = [{"exists": True}, {"exists": False}, {"prefix": "x"}, {"anything-but": ["x"]}, {"numeric": [">", 0]}]


def some_value(random: Random, depth: int) -> Any:
    kind = random.random()
    if depth == 0 or kind < 0.3:
        return random.choice(SCALARS)
    if kind < 0.65:
        return [some_value(random, depth - 1) for _ in range(random.randrange(4))]
    return some_event(random, depth - 1)


def some_event(random: Random, depth: int) -> dict[str, Any]:
    return {key: some_value(random, depth) for key in "abc" if random.random() < 0.7}


def some_pattern(random: Random, depth: int) -> dict[str, Any]:
    pattern: dict[str, Any] = {}
    for key in random.sample("abc", random.randint(1, 3)):
        if depth == 0 or random.random() < 0.6:
            pattern[key] = random.choices(SCALARS + COMPARISONS * 3, k=random.randint(1, 4))
        else:
            pattern[key] = some_pattern(random, depth - 1)
    if depth and random.random() < 0.3:
        pattern["$or"] = [some_pattern(random, depth - 1) for _ in range(random.randint(2, 3))]
    return pattern


def unambiguous(fields: list[tuple[str, list[Any]]]) -> bool:
    """No path is there twice, or both as a field and as an object: that is for other tests."""
    paths = sorted(f"{path}." for path, _ in fields)
    return not any(later.startswith(path) for path, later in pairwise(paths))


def test_agrees_with_the_model() -> None:  # FLT-2, FLT-17 to FLT-19, FLT-23, FLT-27 to FLT-29
    matched = compared = 0
    for seed in range(20_000):
        random = Random(seed)
        pattern, event = some_pattern(random, 2), some_event(random, 4)
        combinations = expanded(pattern)
        if len(combinations) > 20 or not all(map(unambiguous, combinations)):
            continue
        found = list(leaves(event, "", {}))
        expected = any(holds(fields, found) for fields in combinations)
        assert compile_pattern(pattern)(event) == expected, (pattern, event)
        compared += 1
        matched += expected
    assert compared > 10_000
    assert compared / 10 < matched < compared * 9 / 10
