"""Whatever a runtime or a web server says about an error, it becomes a failure with a type and a message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies as st

from bridge.executors.failures import Failures, parse_error
from bridge.executors.http_answers import Reply, dialect_of, judge
from bridge.flow import failure_of
from bridge.invocation import Failed, Invocation
from tests.executors.surroundings import function

DEEP = b'{"errorType":"E","a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["errorType", "errorMessage", "stackTrace", "requestId", "cause", ""]), VALUES, max_size=5
)
ERRORS = st.one_of(
    st.binary(max_size=80),
    OBJECTS.map(lambda error: json.dumps(error).encode()),
    OBJECTS.map(lambda error: json.dumps(error, ensure_ascii=False).encode("latin-1", errors="replace")),
    st.sampled_from([DEEP, b'{"errorType":"\xff"}', b'{"errorMessage":"\\ud800"}', b'"errorType"']),
)
INVOCATION = Invocation(b"{}", "8f1b2f04-0000-4000-8000-000000000000", "orders")


@settings(max_examples=300, deadline=None)
@given(error=ERRORS)
def test_any_error_object_is_a_failure(error: bytes) -> None:  # RT-5
    told = parse_error(error)
    assert isinstance(told.errorType, str)
    assert isinstance(told.errorMessage, str)
    failed = Failures(function("handler.ok")).posted(INVOCATION, error)
    assert isinstance(failed, Failed)
    remembered = failure_of(failed)
    assert len(remembered.what) <= 80
    assert len(remembered.message) <= 300


@settings(max_examples=300, deadline=None)
@given(
    error=ERRORS,
    status=st.integers(100, 999),
    function_error=st.sampled_from(["", "Unhandled", "Handled", "\x00"]),
    after=st.text(max_size=30) | st.sampled_from(["-1", "1e999", "Wed, 21 Oct 2199 07:28:00 GMT"]),
    path=st.sampled_from(["/", "/2015-03-31/functions/function/invocations"]),
)
def test_any_answer_of_a_web_server_is_judged(
    error: bytes, status: int, function_error: str, after: str, path: str
) -> None:
    finding = judge(Reply(status, error, function_error, retry_after=after), dialect_of(path))
    assert finding.kind in ("answer", "error", "timeout", "busy", "status")


def test_the_deepest_error_object() -> None:
    assert parse_error(DEEP).errorType == ""


@pytest.mark.parametrize("path", ["/", "/2015-03-31/functions/function/invocations"])
def test_the_deepest_answer(path: str) -> None:
    assert judge(Reply(200, DEEP), dialect_of(path)).kind == "answer"
