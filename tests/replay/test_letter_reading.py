"""What is known of a letter: its kind, its reason, whom it was for, and when it is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, strategies as st

from bridge.replay.letter import Attribute, Letter, Message, Origin, Reason, read
from tests.contracts.destination import FUNCTION, REQUEST
from tests.replay.test_documents import ASYNC, DEAD, EVENT, INFO, NOTIFICATION, POINTER, STREAM, TABLE

SENT = {"SentTimestamp": "1700000000000"}
WEEK = 7 * 86_400.0


def letter(body: Any, retention: float | None = WEEK, texts: Mapping[str, str] | None = None, **system: str) -> Letter:
    text = body if isinstance(body, str) else json.dumps(body)
    attributes = {name: Attribute("String", value) for name, value in (texts or {}).items()}
    return read(Message(id="m", body=text, attributes={**SENT, **system}, message_attributes=attributes), retention)


@pytest.mark.parametrize(
    ("body", "texts", "kind"),
    [
        ("text", {}, "plain"),
        (POINTER, {}, "pointer"),
        ({**POINTER, "payload": json.dumps(EVENT)}, {}, "object"),
        (ASYNC, {}, "async"),
        ("{}", DEAD, "async"),
        (NOTIFICATION, DEAD, "async"),
        (NOTIFICATION, {}, "plain"),
    ],
)
def test_kinds(body: Any, texts: Mapping[str, str], kind: str) -> None:  # REPLAY-DO-8
    assert letter(body, texts=texts).kind == kind


def test_reasons() -> None:  # REPLAY-DO-8
    assert letter(ASYNC).reason == Reason(
        condition="RetriesExhausted", error_type="ValueError", message="not today", request_id=REQUEST, attempts=3
    )
    assert letter(POINTER).reason == Reason(
        condition="RetryAttemptsExhausted", error_type="Unhandled", request_id=REQUEST, attempts=2
    )
    assert letter("{}", texts=DEAD).reason == Reason(message="not today", request_id=REQUEST)
    assert letter("text").reason is None


def test_whom_it_was_for() -> None:
    assert letter(POINTER).origin == Origin(function_arn=FUNCTION, source_arn=STREAM)
    assert letter(ASYNC).origin == Origin(function_arn=FUNCTION)
    queue = "arn:aws:sqs:eu-west-1:123456789012:orders"
    assert letter("text", DeadLetterQueueSourceArn=queue).origin == Origin(source_arn=queue)
    undelivered = {"TARGET_ARN": queue, "RULE_ARN": "arn:aws:events:eu-west-1:123456789012:rule/r", "ERROR_CODE": "X"}
    assert letter("text", texts=undelivered).origin == Origin(source_arn=queue)


@pytest.mark.parametrize("body", [POINTER, ASYNC, NOTIFICATION, "{}"], ids=["pointer", "async", "sns", "event"])
def test_what_was_moved_here_from_a_queue_was_a_message_there(body: Any) -> None:  # REPLAY-4
    """A queue of failure records may have a consumer and a dead-letter queue of its own."""
    queue = "arn:aws:sqs:eu-west-1:123456789012:records-of-failures"
    found = letter(body, texts=DEAD, DeadLetterQueueSourceArn=queue)
    assert (found.kind, found.reason, found.origin) == ("plain", None, Origin(source_arn=queue))


def test_when_it_happened() -> None:
    assert letter("text").at == 1_700_000_000
    assert letter(POINTER).at == 1573691886.021
    assert letter({**ASYNC, "timestamp": "soon"}).at == 1_700_000_000


def test_when_it_is_gone() -> None:  # REPLAY-DO-9: records of tables live for a day (DDB-1)
    assert letter("text").expires_at == 1_700_000_000 + WEEK
    assert letter("text", None).expires_at is None
    assert letter(POINTER).expires_at == 1_700_000_000 + WEEK
    info = {**INFO, "streamArn": TABLE, "approximateArrivalOfFirstRecord": "2023-11-14T22:00:00Z"}
    rest = {name: value for name, value in POINTER.items() if name != "KinesisBatchInfo"}
    table = letter({**rest, "DDBStreamBatchInfo": info})
    assert table.expires_at == 1_699_999_200 + 86_400
    assert letter({**rest, "DDBStreamBatchInfo": info}, 60.0).expires_at == 1_700_000_060
    stored = letter({**rest, "DDBStreamBatchInfo": info, "payload": json.dumps(EVENT)})
    assert stored.expires_at == 1_700_000_000 + WEEK  # its records are in it


def test_what_hinders_is_told() -> None:
    bare = {name: value for name, value in ASYNC.items() if name != "requestPayload"}
    assert "requestPayload is missing" in letter(bare).hindrance
    assert letter(ASYNC).hindrance == letter("text").hindrance == ""


def test_binary_attributes_tell_nothing() -> None:
    attributes = {name: Attribute("Binary", b"\xff") for name in DEAD}
    assert read(Message(id="m", body="{}", message_attributes=attributes), None).kind == "plain"


@given(st.text(), st.dictionaries(st.sampled_from([*DEAD]), st.text() | st.binary()))
def test_nothing_makes_it_fail(body: str, values: dict[str, Any]) -> None:
    attributes = {
        name: Attribute("String" if isinstance(value, str) else "Binary", value) for name, value in values.items()
    }
    assert read(Message(id="m", body=body, message_attributes=attributes), 1.0).message.body == body
