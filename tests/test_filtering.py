"""Patterns as a whole: structure, depth, arrays, `$or`, dots; and the answers recorded on AWS."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import json5
import pytest
from hypothesis import given, strategies as st

from bridge.filtering import InvalidPattern, compile_filter, compile_pattern

RECORDED = Path(__file__).parents[2] / "shared" / "spec" / "event_patterns"
CASES = sorted(RECORDED.glob("*.json5"))


def test_the_recorded_cases_are_there() -> None:
    if not RECORDED.is_dir():
        pytest.skip("the answers recorded on AWS are not part of the project")
    assert len(CASES) == 91


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_agrees_with_aws(case: Path) -> None:
    recorded = json5.loads(case.read_text())
    for pattern in (recorded["EventPattern"], json.dumps(recorded["EventPattern"])):
        if case.stem.endswith("_EXC"):
            with pytest.raises(InvalidPattern):
                compile_pattern(pattern)
        else:
            assert compile_pattern(pattern)(recorded["Event"]) is not case.stem.endswith("_NEG")


# Structure


def test_all_fields_must_match_and_others_are_ignored() -> None:  # FLT-2, FLT-16
    matches = compile_pattern('{"a": ["x"], "b": {"c": [1, 2], "d": [true]}}')
    assert matches({"a": "x", "b": {"c": 2, "d": True, "e": None}, "f": []})
    assert not matches({"a": "x", "b": {"c": 2, "d": False}})
    assert not matches({"a": "x", "b": {"c": 2}})
    assert not matches({"A": "x", "b": {"c": 2, "d": True}})
    assert not matches({"a": "x", "b": "c"})
    assert not matches({})


REFUSED: list[tuple[Any, str, str]] = [
    # pattern, reason, place
    ("null", "Filter is not an object", ""),  # FLT-3
    ("[]", "Filter is not an object", ""),
    ('"x"', "Filter is not an object", ""),
    (None, "Filter is not an object", ""),
    ([{"a": ["x"]}], "Filter is not an object", ""),
    ('{"eventSource": "aws:sqs"}', '"eventSource" must be an object or an array', "eventSource"),
    ('{"a": {"b": null}}', '"b" must be an object or an array', "a.b"),
    ('{"eventSource": []}', "Empty arrays are not allowed", "eventSource"),
    ('{"body": {"status": []}}', "Empty arrays are not allowed", "body.status"),  # FLT-4
    ("{}", "Empty objects are not allowed", ""),  # FLT-9
    ('{"a": {"b": {}}}', "Empty objects are not allowed", "a.b"),
    ('{"a": {"b": [["x"]]}}', "Match value must be String, number, true, false, or null", "a.b"),
    ('{"$or": [{"a": ["x"]}, {}]}', "Empty objects are not allowed", "$or[1]"),  # FLT-28
    ('{"a": {"$or": [{"b": ["x"]}, {"c": "x"}]}}', '"c" must be an object or an array', "a.$or[1].c"),
    ('{"$or": [{"a": ["x"]}]}', "Unrecognized match type a", "$or"),
    ('{"$or": [{"a": ["x"]}, {"prefix": ["x"]}]}', "Unrecognized match type a", "$or"),
    ('{"$or": [{"a": ["x"]}, "x"]}', "Unrecognized match type a", "$or"),
    ('{"$or": []}', "Empty arrays are not allowed", "$or"),
    (
        '{"$or": [{"a": ["x"]}, {"b": {"numeric": ["x"]}}]}',
        "numeric is Ruler reserved fieldName which cannot be used inside $or.",
        "$or[1].b",
    ),
    ({"a": {5: ["x"]}}, "field names are strings, not int", "a"),
    ({"a": ("x",)}, '"a" must be an object or an array', "a"),
    ('{"a": ["' + "x" * 4096 + '"]}', "the pattern has 4107 characters, more than 4096", ""),  # FLT-6
]


@pytest.mark.parametrize(("pattern", "reason", "place"), REFUSED, ids=[str(case[0])[:60] for case in REFUSED])
def test_refused(pattern: Any, reason: str, place: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        compile_pattern(pattern)
    assert (caught.value.reason, caught.value.place) == (reason, place)
    assert str(caught.value) == (f"{place}: {reason}" if place else reason)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "bare", "{", '{"a": ["x"]', '{"a": ["x"]} {}', "{'a': ['x']}", '{"a": [NaN]}', '{"a": [Infinity]}'),
        *('{"a": [1e999]}', '{"a": ["\\ud800"]}', '{"a": ["x"],}', '{"a": ["\n"]}', "\ud800"),
        '{"a": [' + "1" * 4000 + "1]}",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_not_json_is_refused(text: str) -> None:  # FLT-3, FLT-8
    with pytest.raises(InvalidPattern):
        compile_pattern(text)


def test_length() -> None:  # FLT-6: characters, not bytes; a dict has none
    text = '{"a": ["' + "é" * (4096 - 11) + '"]}'
    assert len(text) == 4096
    assert compile_pattern(text)({"a": "é" * (4096 - 11)})
    assert compile_pattern({"a": ["x" * 5000]})({"a": "x" * 5000})


def test_the_last_of_duplicate_keys_wins() -> None:  # FLT-7
    matches = compile_pattern('{"a": {"b": ["x"]}, "a": {"c": ["y"]}}')
    assert matches({"a": {"c": "y"}})
    assert not matches({"a": {"b": "x"}})


# Depth


def test_depth_of_patterns_is_bounded() -> None:
    def nested(levels: int) -> Any:
        pattern: Any = ["x"]
        for _ in range(levels):
            pattern = {"a": pattern}
        return pattern

    def event(levels: int) -> Any:
        value: Any = "x"
        for level in range(levels):
            value = {"a": [value] if level % 2 else value}
        return value

    assert compile_pattern(nested(100))(event(100))
    assert compile_pattern(json.dumps(nested(100)))(event(100))
    assert not compile_pattern(nested(100))(event(99))
    in_or: dict[str, Any] = {"a": ["x"]}
    for _ in range(101):
        in_or = {"$or": [in_or, {"b": ["y"]}]}
    for pattern in (
        nested(101),
        nested(100_000),
        '{"a":' * 600 + '["x"]' + "}" * 600,
        '{"a":' * 800,
        "[" * 4096,
        {".".join("a" * 101): ["x"]},
        in_or,
    ):
        with pytest.raises(InvalidPattern):
            compile_pattern(pattern)
    itself: dict[str, Any] = {}
    itself["a"] = itself
    with pytest.raises(InvalidPattern, match="nested deeper than 100 levels"):
        compile_pattern(itself)
    bomb: dict[str, Any] = {"a": ["x"]}
    for _ in range(50):
        bomb = {"a": bomb, "b": bomb}
    with pytest.raises(InvalidPattern, match="more than 10000 fields"):
        compile_pattern(bomb)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: [{"a": [value]}]])
def test_deep_events_do_no_harm(wrap: Any) -> None:
    value: Any = "x"
    for _ in range(100_000):
        value = wrap(value)
    for pattern in ({"a": ["x"]}, {"a": {"a": [{"exists": False}]}}, {"a": {"b": ["x"]}}, {"a.a.a": ["x"], "b": ["y"]}):
        assert compile_pattern(pattern)({"a": value}) in (True, False)
    if isinstance(value, list) and isinstance(value[0], list):
        assert compile_pattern({"a": ["x"]})({"a": value})


# Arrays (FLT-29)

ARRAYS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"a": ["x"]}, {"a": ["y", "x"]}, True),  # (a)
    ({"a": ["x"]}, {"a": ["y"]}, False),
    ({"items": {"id": ["a"]}}, {"items": [{"id": "b"}, {"id": "a"}]}, True),  # (b)
    ({"items": {"id": ["a"]}}, {"items": [1, "a", None, {"x": "a"}]}, False),
    ({"items": {"id": ["a"], "n": [1]}}, {"items": [{"id": "a", "n": 1}, {"id": "b", "n": 2}]}, True),  # (c)
    ({"items": {"id": ["a"], "n": [2]}}, {"items": [{"id": "a", "n": 1}, {"id": "b", "n": 2}]}, False),
    ({"items": {"id": ["a"], "in": {"n": [2]}}}, {"items": [{"id": "a"}, {"in": {"n": 2}}]}, False),
    ({"a": {"x": [1]}, "b": {"y": [2]}}, {"a": [{}, {"x": 1}], "b": [{"y": 2}, {}]}, True),  # two arrays are two
    ({"a": {"b": {"x": [1], "y": [2]}}}, {"a": [{"b": [{"x": 1}, {"y": 2}]}, {"b": [{"x": 1, "y": 2}]}]}, True),
    ({"a": {"b": {"x": [1], "y": [2]}}}, {"a": [{"b": [{"x": 1}]}, {"b": [{"y": 2}]}]}, False),
    ({"a": {"b": {"x": [1]}, "c": [3]}}, {"a": [{"b": [{}, {"x": 1}], "c": [4, 3]}]}, True),
    ({"a": {"b": {"x": [1]}, "c": [3]}}, {"a": [{"b": [{"x": 1}]}, {"c": 3}]}, False),
    ({"items": {"id": ["a"], "n": [1]}, "items.m": [2]}, {"items": [{"id": "a", "n": 1, "m": 2}]}, True),
    ({"items": {"id": ["a"]}, "items.m": [2]}, {"items": [{"id": "a"}, {"m": 2}]}, False),
    ({"$or": [{"i": {"x": [1]}}, {"i": {"x": [2]}}], "i": {"y": [3]}}, {"i": [{"x": 2, "y": 3}]}, True),
    ({"$or": [{"i": {"x": [1]}}, {"i": {"x": [2]}}], "i": {"y": [3]}}, {"i": [{"x": 2}, {"y": 3}]}, False),
    ({"i": {"$or": [{"x": [1]}, {"y": [2]}], "z": [3]}}, {"i": [{"x": 1}, {"y": 2, "z": 3}]}, True),
    ({"i": {"$or": [{"x": [1]}, {"y": [2]}], "z": [3]}}, {"i": [{"x": 1}, {"y": 2}, {"z": 3}]}, False),
    ({"a": ["x"]}, {"a": [["y"], [["z"], ["x"]]]}, True),  # (d)
    ({"a": {"b": [1], "c": [2]}}, {"a": [[{"b": 1, "c": 2}], [{"b": 1}]]}, True),
    ({"a": {"b": [1], "c": [2]}}, {"a": [[{"b": 1}], [{"c": 2}]]}, False),
    ({"a": {"b": [1]}}, {"a": '{"b": 1}'}, False),  # (f)
    # Absence: no element has the leaf; with a field beside it, the element that matches does not have it.
    ({"i": {"x": [{"exists": False}]}}, {"i": [{"y": 1}, {"z": 1}]}, True),
    ({"i": {"x": [{"exists": False}]}}, {"i": [{"y": 1}, {"x": 1}]}, False),
    ({"i": {"x": [{"exists": False}]}}, {"i": [{"y": 1}, {"x": {"z": 1}}]}, True),
    ({"i": {"x": [{"exists": False}]}}, {"i": []}, True),
    ({"i": {"x": [{"exists": False}]}}, {}, True),
    ({"i": {"id": ["a"], "x": [{"exists": False}]}}, {"i": [{"id": "a"}, {"id": "b", "x": 1}]}, True),
    ({"i": {"id": ["b"], "x": [{"exists": False}]}}, {"i": [{"id": "a"}, {"id": "b", "x": 1}]}, False),
    ({"i": {"x": [{"exists": False}, 5]}}, {"i": [{"y": 1}, {"x": 6}]}, False),
    ({"i": {"x": [{"exists": False}, 5]}}, {"i": [{"y": 1}, {"x": 6}, {"x": 5}]}, True),
    ({"i": {"x": [{"exists": True}]}}, {"i": [{"y": 1}, {"x": 1}]}, True),
    ({"a": {"b": {"c": [{"exists": False}]}}}, {"a": "leaf"}, True),  # FLT-19: a parent is no object
]


@pytest.mark.parametrize(("pattern", "event", "expected"), ARRAYS)
def test_arrays(pattern: dict[str, Any], event: dict[str, Any], expected: bool) -> None:  # FLT-29
    assert compile_pattern(pattern)(event) is expected


# `$or` (FLT-28)


def test_or_is_anded_with_its_siblings() -> None:
    matches = compile_pattern({"source": ["s"], "$or": [{"a": ["x"], "b": ["y"]}, {"c": ["z"]}]})
    assert matches({"source": "s", "a": "x", "b": "y"})
    assert matches({"source": "s", "c": "z"})
    assert not matches({"source": "s", "a": "x"})
    assert not matches({"source": "t", "c": "z"})
    assert not matches({"source": "s"})


def test_or_nests_and_repeats() -> None:
    matches = compile_pattern(
        {
            "$or": [{"a": [1]}, {"b": [2], "$or": [{"c": [3]}, {"d": [4]}]}],
            "detail": {"$or": [{"e": [5]}, {"f": {"$or": [{"g": [6]}, {"h": [7]}]}}]},
        }
    )
    assert matches({"a": 1, "detail": {"e": 5}})
    assert matches({"b": 2, "d": 4, "detail": {"f": {"h": 7}}})
    assert not matches({"b": 2, "detail": {"e": 5}})
    assert not matches({"a": 1, "detail": {"f": {}}})


def test_or_on_a_field_that_stands_outside_too() -> None:
    matches = compile_pattern({"a": [{"prefix": "x"}], "$or": [{"a": [{"suffix": "y"}]}, {"b": [1]}]})
    assert matches({"a": "xy"})
    assert matches({"a": "xz", "b": 1})
    assert not matches({"a": "zy"})
    assert not matches({"a": "xz"})
    assert matches({"a": ["xz", "zy"]})  # each is matched by some element (FLT-29 a)
    on_object = compile_pattern({"a": [{"exists": False}], "$or": [{"a": {"b": [1]}}, {"c": [1]}]})
    assert on_object({"a": {"b": 1}})
    assert not on_object({"a": {"b": 2}})
    assert on_object({"a": {"b": 2}, "c": 1})


def test_or_as_a_field() -> None:
    assert compile_pattern({"$or": ["x"]})({"$or": "x"})
    assert compile_pattern({"$or": {"a": ["x"]}})({"$or": {"a": "x"}})
    assert compile_pattern({"$or": [{"prefix": "x"}, {"suffix": "y"}]})({"$or": "ay"})
    assert compile_pattern({"$or": [{"exists": False}]})({})
    assert not compile_pattern({"$or": [{"prefix": "x"}, {"suffix": "y"}]})({"prefix": "x"})


def test_or_may_not_explode() -> None:
    def alternatives(count: int) -> dict[str, Any]:
        return {f"k{index}": {"$or": [{"a": ["x"]}, {"b": ["y"]}]} for index in range(count)}

    assert compile_pattern(alternatives(9))({f"k{index}": {"b": "y"} for index in range(9)})
    for pattern in (alternatives(10), json.dumps(alternatives(60)), {"$or": [alternatives(8) for _ in range(4)]}):
        with pytest.raises(InvalidPattern, match="Rule is too complex"):
            compile_pattern(pattern)


# Dots (FLT-29 e)

DOTS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"a.b": ["x"]}, {"a": {"b": "x"}}, True),
    ({"a": {"b": ["x"]}}, {"a.b": "x"}, True),
    ({"a.b": ["x"]}, {"a.b": "x"}, True),
    ({"a": {"b.c": ["x"]}}, {"a.b": {"c": "x"}}, True),
    ({"a.b.c": ["x"]}, {"a": {"b.c": "x"}}, True),
    ({"a.b": ["x"]}, {"a": {"b": "y"}, "a.b": "x"}, True),
    ({"a.b": ["x"]}, {"a": {"b": "x"}, "a.b": "y"}, True),
    ({"a": {"b": ["x"], "c": [1]}}, {"a": {"b": "x"}, "a.c": 1}, True),
    ({"a": {"b": ["x"], "c": [1]}}, {"a": {"b": "x"}, "a.d": 1}, False),
    ({"a": {"b": {"c": [1], "d": [2]}}}, {"a": {"b": {"c": 1}}, "a.b": {"d": 2}}, True),
    ({"a": {"b": {"c": [1], "d": [2]}}}, {"a.b": {"c": 3, "d": 2}, "a.b.c": 1}, True),
    ({"a.b": ["x"]}, {"a": "leaf", "a.b": "x"}, True),
    ({"a.b": [{"exists": False}]}, {"a.b": "x"}, False),
    ({"a.b": [{"exists": False}]}, {"a": {"c": 1}, "c.b": 1}, True),
    ({"a.b": ["x"]}, {"a": [{"b": "y"}, {"b": "x"}]}, True),
    ({".a": ["x"]}, {"": {"a": "x"}}, True),
    ({"": ["x"]}, {"": "x"}, True),
]


@pytest.mark.parametrize(("pattern", "event", "expected"), DOTS)
def test_dots(pattern: dict[str, Any], event: dict[str, Any], expected: bool) -> None:
    before = json.dumps(event)
    assert compile_pattern(pattern)(event) is expected
    assert json.dumps(event) == before


# Properties


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
json_objects = st.dictionaries(st.text(max_size=3), json_values, max_size=4)
words = st.sampled_from(["a", "$or", "prefix", "numeric", "exists", "anything-but", "wildcard", "cidr", "x.y", "="])
near_patterns = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "*", "a*", "\\", "<", "10.0.0.0/8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def compiled(pattern: Any) -> Callable[[dict[str, Any]], bool] | None:
    try:
        return compile_pattern(pattern)
    except InvalidPattern:
        return None


@given(pattern=st.dictionaries(words, near_patterns, max_size=3) | json_values, event=json_objects)
def test_compiles_or_says_why_and_never_raises_afterwards(pattern: Any, event: dict[str, Any]) -> None:
    for form in (pattern, json.dumps(pattern)):
        matches = compiled(form)
        assert matches is None or matches(event) in (True, False)


@given(text=st.text(alphabet=st.sampled_from('{}[]",:$orae\\u1.*- '), max_size=30) | st.text())
def test_any_text_compiles_or_is_refused(text: str) -> None:
    matches = compiled(text)
    assert matches is None or matches({}) in (True, False)


def own_leaves(event: dict[str, Any]) -> dict[str, Any]:
    """The pattern of all leaves outside arrays."""
    pattern = {}
    for key, value in event.items():
        below = own_leaves(value) if isinstance(value, dict) else None if isinstance(value, list) else [value]
        if below:
            pattern[key] = below
    return pattern


@given(event=json_objects)
def test_an_event_matches_its_own_leaves(event: dict[str, Any]) -> None:
    pattern = own_leaves(event)
    assert compile_pattern({"here": [True], **pattern})({"here": True, **event})


KNOWN = {"prefix", "suffix", "equals-ignore-case", "wildcard", "numeric", "anything-but", "exists", "cidr"}


@given(name=st.text(max_size=12).filter(lambda name: name not in KNOWN), operand=json_values)
def test_unknown_operators_are_refused(name: str, operand: Any) -> None:  # FLT-4
    with pytest.raises(InvalidPattern, match=r"^a: Unrecognized match type"):
        compile_pattern({"a": [{name: operand}]})


small_patterns = st.dictionaries(
    st.sampled_from(["a", "b"]), st.lists(st.sampled_from(["x", "y", 1, None]), min_size=1, max_size=2), min_size=1
)
small_events = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", 1, None, "z"]))


@given(one=small_patterns, other=small_patterns, record=small_events)
def test_patterns_are_ored(one: dict[str, Any], other: dict[str, Any], record: dict[str, Any]) -> None:  # FLT-1
    either = compile_pattern(one)(record) or compile_pattern(other)(record)
    assert compile_filter([json.dumps(one), json.dumps(other)], "body")(record) == either
    assert compile_pattern({"$or": [one, other]})(record) == either


def test_imports_little() -> None:
    heavy = "asyncio", "anyio", "aiohttp", "aiobotocore", "structlog", "dataclasses", "prometheus_client", "json5"
    code = f"import sys, bridge.filtering; print(*(name for name in {heavy} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
