"""The documents about asynchronous events, byte by byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.destinations.report import attributes, document, timestamp
from bridge.errors import Rejected
from bridge.invocation import Failed, FailureKind, Succeeded
from tests.contracts.destination import REQUEST, SUCCESS, failure, report

LIMIT = 1 << 20


def members(told: Any) -> list[str]:
    return list(json.loads(document(told, LIMIT)))


def test_a_success() -> None:  # DST-5
    assert document(report(""), LIMIT) == SUCCESS


def test_a_failure() -> None:  # DST-5
    error = b'{"errorMessage": "a \\"b\\" <c> & \\u2028 \xc3\xa9", "errorType": "E", "requestId": "", "stackTrace": []}'
    told = failure("", b"[1, 2]", outcome=Failed("function", error, REQUEST, version="7"))
    assert document(told, LIMIT).endswith(
        b'"condition":"RetriesExhausted","approximateInvokeCount":3},"requestPayload":[1,2],'
        b'"responseContext":{"statusCode":200,"executedVersion":"7","functionError":"Unhandled"},'
        b'"responsePayload":{"errorMessage":"a \\"b\\" <c> & \\u2028 \xc3\xa9","errorType":"E","requestId":"",'
        b'"stackTrace":[]}}'
    )


@pytest.mark.parametrize("kind", ["throttled", "reserved_zero", "unreachable"])
def test_what_did_not_run_has_no_response(kind: FailureKind) -> None:  # DST-7
    told = failure("", outcome=Failed(kind, b"{}", REQUEST), attempts=0, condition="ZeroReservedConcurrency")
    assert members(told) == ["version", "timestamp", "requestContext", "requestPayload"]
    assert members(failure("", outcome=None)) == ["version", "timestamp", "requestContext", "requestPayload"]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [(b"null", None), (b"", None), (b'"x"', "x"), (b"no json", "no json"), (b"{", "{"), (b"\xff", "\ufffd")],
)
def test_any_answer_makes_a_document(answer: bytes, shown: object) -> None:
    told = report("", outcome=Succeeded(answer, REQUEST))
    assert json.loads(document(told, LIMIT))["responsePayload"] == shown


def test_numbers_stay_as_they_were_written() -> None:
    told = report("", b"[1.0, 1e400, 123456789012345678901234567890, -0]")
    assert b'"requestPayload":[1.0,1e400,123456789012345678901234567890,-0],' in document(told, LIMIT)


def test_without_payloads_when_too_large() -> None:  # DST-8
    assert list(json.loads(document(report(""), len(SUCCESS) - 1))) == [
        "version", "timestamp", "requestContext", "responseContext",
    ]  # fmt: skip
    with pytest.raises(Rejected, match="more than 100, the most"):
        document(report(""), 100)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_573_755_365.568, "2019-11-14T18:16:05.568Z"),
        (1_573_755_365.9999, "2019-11-14T18:16:05.999Z"),
    ],
)
def test_times(at: float, text: str) -> None:  # DST-5
    assert timestamp(at) == text


@pytest.mark.parametrize(
    ("kind", "error", "code", "message"),
    [
        ("function", b'{"errorMessage": "no", "errorType": "E"}', "200", "no"),
        ("timeout", b'{"errorMessage": "late"}', "200", "late"),
        ("throttled", b'{"errorMessage": "Rate Exceeded."}', "429", "Rate Exceeded."),
        ("unreachable", b'{"errorMessage": "gone"}', "500", "gone"),
        ("function", b'{"errorMessage": 7}', "200", None),
        ("function", b"no json", "200", None),
        ("function", b'{"errorMessage": ""}', "200", None),  # SQS takes no empty attribute
    ],
)
def test_attributes_of_a_dead_letter(kind: FailureKind, error: bytes, code: str, message: str | None) -> None:  # DST-21
    found = attributes(failure("", outcome=Failed(kind, error, REQUEST), dead_letter=True))
    expected = {"RequestID": ("String", REQUEST), "ErrorCode": ("Number", code)}
    assert found == (expected | {"ErrorMessage": ("String", message)} if message else expected)
