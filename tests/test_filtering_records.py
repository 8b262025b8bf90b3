"""Filters over records: how bodies are decoded, and that a pattern about the body must be of the body's kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from bridge.filtering import InvalidPattern, compile_filter, decode_body

PLAIN, JSON_OBJECT, JSON_ARRAY = "ERR 5", {"status": "ok", "n": 5}, [{"status": "no"}, {"status": "ok"}]

AGREEMENT: list[tuple[Any, dict[str, Any], bool]] = [
    # the table of FLT-31: body, pattern, whether the record passes
    (PLAIN, {"body": [{"prefix": "ERR"}]}, True),
    (PLAIN, {"body": ["other"]}, False),
    (PLAIN, {"eventSource": ["aws:sqs"]}, True),
    (PLAIN, {"eventSource": ["aws:sns"]}, False),
    (PLAIN, {"body": {"status": ["ok"]}}, False),
    (PLAIN, {"body": {"status": [{"exists": False}]}}, False),
    (PLAIN, {"body.status": [{"exists": False}]}, False),
    (JSON_OBJECT, {"body": [{"prefix": ""}]}, False),
    (JSON_OBJECT, {"body": [{"exists": False}]}, False),
    (JSON_OBJECT, {"eventSource": ["aws:sqs"]}, True),
    (JSON_OBJECT, {"body": {"status": ["ok"]}}, True),
    (JSON_OBJECT, {"body.status": ["ok"]}, True),
    (JSON_OBJECT, {"body": {"status": ["no"]}}, False),
    (JSON_OBJECT, {"body": {"absent": [{"exists": False}]}}, True),
    (JSON_OBJECT, {"body": {"n": [{"numeric": [">", 4]}]}}, True),  # FLT-35
    (JSON_OBJECT, {"body": {"n": ["5"]}}, False),
    (JSON_ARRAY, {"body": {"status": ["ok"]}}, True),
    (JSON_ARRAY, {"body": ["ok"]}, False),
    ([], {"body": {"status": [{"exists": False}]}}, True),
    (["ok"], {"body": ["ok"]}, False),
    # FLT-44: all that the function would get
    (PLAIN, {"attributes": {"ApproximateReceiveCount": ["1"]}, "body": ["ERR 5"]}, True),
    (JSON_OBJECT, {"messageAttributes": {"kind": {"stringValue": ["new"]}}}, True),
    (JSON_OBJECT, {"awsRegion": ["eu-west-1"], "eventSourceARN": [{"suffix": ":orders"}]}, True),
    # each branch of an $or agrees for itself
    (PLAIN, {"$or": [{"body": {"status": [{"exists": False}]}}, {"awsRegion": ["eu-west-1"]}]}, True),
    (PLAIN, {"$or": [{"body": {"status": [{"exists": False}]}}, {"awsRegion": ["nowhere"]}]}, False),
    (PLAIN, {"$or": [{"body": {"status": ["ok"]}}, {"body": ["ERR 5"]}]}, True),
    (JSON_OBJECT, {"$or": [{"body": {"status": ["ok"]}}, {"body": ["ERR 5"]}]}, True),
    (JSON_OBJECT, {"$or": [{"body": ["ERR 5"]}, {"awsRegion": ["nowhere"]}]}, False),
    (PLAIN, {"body": ["ERR 5"], "$or": [{"body": {"status": [{"exists": False}]}}, {"x": ["y"]}]}, False),
]


@pytest.mark.parametrize(("body", "pattern", "passes"), AGREEMENT)
def test_body_and_pattern_must_be_of_one_kind(body: Any, pattern: dict[str, Any], passes: bool) -> None:  # FLT-31, 32
    record = {
        "messageId": "7f0c8a52-0c0e-4d9c-9d3e-6d2d9a5f3a11",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {"kind": {"stringValue": "new", "dataType": "String"}},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:orders",
        "awsRegion": "eu-west-1",
    }
    assert compile_filter([json.dumps(pattern)], "body")(record) is passes
    assert compile_filter(['{"x": ["y"]}', json.dumps(pattern)], "body")(record) is passes


def test_without_patterns_everything_passes() -> None:  # FLT-1
    assert compile_filter([], "body")({"body": "x"}) is True


def test_a_filter_refuses_what_a_pattern_refuses() -> None:  # FLT-3, FLT-32
    for text in ('{"body": "ping"}', "", "null", '{"body": []}'):
        with pytest.raises(InvalidPattern):
            compile_filter(['{"body": ["fine"]}', text], "body")


def test_a_record_without_data_matches_no_pattern_about_it() -> None:
    assert not compile_filter(['{"value": [{"exists": false}]}'], "value")({"topic": "t"})
    assert not compile_filter(['{"value": {"a": [{"exists": false}]}}'], "value")({"topic": "t"})


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ('{"a": [1, "x", null, true]}', {"a": [1, "x", None, True]}),
        ("[]", []),
        (' \t\r\n[1.5, "é"] \n', [1.5, "é"]),
        ('{"a": 1, "a": 2}', {"a": 2}),  # FLT-7
        ('{"a": 1e999, "b": -1e999, "c": 1.5}', {"a": float("inf"), "b": float("-inf"), "c": 1.5}),
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ('["\\ud83d\\ude80"]', ["\U0001f680"]),
    ],
)
def test_bodies_that_are_json(text: str, decoded: Any) -> None:  # FLT-34
    assert decode_body(text) == decoded


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "ping", "123", "true", "null", '"x"', "{", '{"a": 1} x', "{'a': 1}", "[NaN]", "[Infinity]", "[1,]"),
        *('["\\ud800"]', '["\ud800"]', '["\x01"]', "[01]", "[1.]", "[+1]", "\ufeff{}", "\u00a0{}"),
        *("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, '{"a": ' + "1" * 5000 + "}"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_bodies_that_are_plain(text: str) -> None:  # FLT-34
    assert decode_body(text) is text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


@given(value=json_values)
def test_bodies_round_trip(value: Any) -> None:
    decoded = decode_body(json.dumps(value))
    assert decoded == (value if isinstance(value, dict | list) else json.dumps(value))
