"""What answers of HTTP endpoints mean: tables and properties, without a network."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from bridge.executors.http_answers import LONGEST_PAUSE, Reply, dialect_of, is_error_object, judge, retry_after

NOW = 1_767_607_200.0  # Mon, 05 Jan 2026 10:00:00 GMT


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/2015-03-31/functions/function/invocations", "lambda"),
        ("/2015-03-31/functions/my-function/invocations", "lambda"),
        ("/2015-03-31/functions/arn%3Aaws/invocations/", "lambda"),
        ("/2015-03-31/functions/function/invocations/more", "plain"),
        ("/prefix/2015-03-31/functions/function/invocations", "plain"),
        ("/2015-03-31/functions/a/b/invocations", "plain"),
        ("/", "plain"),
        ("", "plain"),
    ],
)
def test_dialects(path: str, dialect: str) -> None:  # INV-1
    assert dialect_of(path) == dialect


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("20", 20.0),
        ("21", LONGEST_PAUSE),
        ("9" * 5000, LONGEST_PAUSE),
        ("Mon, 05 Jan 2026 10:00:05 GMT", 5.0),
        ("Mon, 05 Jan 2026 10:59:00 GMT", LONGEST_PAUSE),
        ("Mon, 05 Jan 2026 09:00:00 GMT", 0.0),
        ("Mon, 05 Jan 2026 10:00:05", 5.0),
        ("", 0.0),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("٣", 0.0),
        ("soon", 0.0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    assert retry_after(Reply(429, b"", retry_after=text), NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_bounded(text: str) -> None:
    assert 0.0 <= retry_after(Reply(429, b"", retry_after=text), NOW) <= LONGEST_PAUSE


@given(st.dictionaries(st.text(max_size=5), st.integers()), st.text(), st.one_of(st.none(), st.text()))
def test_error_objects_are_known_whatever_else_they_hold(
    others: dict[str, int], error_type: str, message: str | None
) -> None:  # INV-21
    document = {**others, "errorType": error_type, "errorMessage": message, "stackTrace": [["a"]]}
    assert is_error_object(json.dumps(document).encode())


REPLIES = st.builds(
    Reply,
    st.integers(200, 999),
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"", b"{}", b'{"errorType": "x", "errorMessage": "y"}', b"Task timed out after 3.00 seconds"]),
    ),
    st.sampled_from(["", "Unhandled"]),
    st.sampled_from(["", "$LATEST", "7"]),
    st.text(max_size=5),
)


@given(REPLIES, st.sampled_from(["lambda", "plain"]))
def test_every_reply_means_something(reply: Reply, dialect: str) -> None:
    """An answer only ever comes of a 2xx without an error, an error that ran only of what is none."""
    finding = judge(reply, "lambda" if dialect == "lambda" else "plain")
    assert finding.kind != "answer" or (200 <= reply.status < 300 and not reply.function_error)
    assert not (reply.function_error and finding.kind != "error")
    assert finding.kind != "answer" or finding.body in (reply.body, b"null")
    assert finding.kind != "status" or str(reply.status) in finding.text
    if dialect == "plain" and not reply.function_error and 200 <= reply.status < 300:
        assert finding.kind == "answer", "a web server's 2xx is an answer, whatever it looks like"
