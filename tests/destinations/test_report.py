"""The documents about asynchronous events, byte by byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.destinations.report import attributes, batch_document, document, timestamp
from bridge.errors import Rejected
from bridge.invocation import Failed, FailureKind, Succeeded
from bridge.record import Batch, Record, Span, Window
from tests.contracts.destination import DISCARDED, REQUEST, SHARD, SUCCESS, batch_info, discarded, failure, report

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


TABLE = "arn:aws:dynamodb:us-east-2:123456789012:table/mytable/stream/2019-11-14T00:04:06.388"


def test_a_discarded_batch_of_kinesis() -> None:  # KIN-80, KIN-84
    assert document(discarded(""), LIMIT) == DISCARDED


def test_a_discarded_batch_of_dynamodb() -> None:  # DDB-62
    one = Record("800000000003126276362", b"{}", 1573690399.0)
    batch = Batch((one,), "shardId-00000001573689847184-864758bb", "retry")
    told = discarded("", info=batch_info(TABLE, batch), attempts=1, at=1573690429.7171)
    assert document(told, LIMIT).endswith(
        b'"version":"1.0","timestamp":"2019-11-14T00:13:49.717Z",'
        b'"DDBStreamBatchInfo":{"shardId":"shardId-00000001573689847184-864758bb",'
        b'"startSequenceNumber":"800000000003126276362","endSequenceNumber":"800000000003126276362",'
        b'"approximateArrivalOfFirstRecord":"2019-11-14T00:13:19Z",'
        b'"approximateArrivalOfLastRecord":"2019-11-14T00:13:19Z","batchSize":1,'
        b'"streamArn":"arn:aws:dynamodb:us-east-2:123456789012:table/mytable/stream/2019-11-14T00:04:06.388"}}'
    )


def test_a_reported_failure_has_no_function_error() -> None:  # KIN-82
    told = discarded("", outcome=Succeeded(b"{}", REQUEST, version="7"))
    assert b'"responseContext":{"statusCode":200,"executedVersion":"7","functionError":null},' in document(told, LIMIT)


def test_what_was_too_old_has_no_response_at_all() -> None:  # KIN-81, KIN-82, KIN-83
    told = discarded("", outcome=None, condition="RecordAgeExceeded", attempts=1)
    assert members(told) == ["requestContext", "version", "timestamp", "KinesisBatchInfo"]
    context = json.loads(document(told, LIMIT))["requestContext"]
    assert context["condition"] == "RecordAgeExceeded"
    assert context["approximateInvokeCount"] == 1
    assert context["requestId"] == REQUEST


def test_the_event_goes_along_as_text() -> None:  # KIN-85, DDB-63
    event = '{"Records":[{"a":"\\"\\u00e9é"}]}'.encode()
    told = discarded("", payload=event)
    record = json.loads(batch_document(told, payload=True))
    assert record.pop("payload").encode() == event
    assert record == json.loads(DISCARDED)


def test_a_window_is_told_by_what_it_gathered() -> None:  # TW-46
    first, last = Record("5", b"", 1573691884.835), Record("9", b"", 1573691885.580)
    final = Batch((), SHARD, "final", window=Window(1573691880, 1573691940), closes=Span(first, last, 500))
    info = batch_info("arn:aws:kinesis:us-east-2:123456789012:stream/mystream", final)["KinesisBatchInfo"]
    assert (info["startSequenceNumber"], info["endSequenceNumber"], info["batchSize"]) == ("5", "9", 500)


def test_a_lane_is_told_as_its_shard() -> None:  # KIN-80
    batch = Batch((Record("5", b"", 1573691884.835),), f"{SHARD}#3", "retry")
    for arn in ("arn:aws:kinesis:us-east-2:123456789012:stream/mystream", TABLE):
        (info,) = batch_info(arn, batch).values()
        assert info["shardId"] == SHARD


@pytest.mark.parametrize("milliseconds", [0, 1, 21, 580, 835, 987, 999])
def test_arrivals_keep_their_milliseconds(milliseconds: int) -> None:  # KIN-84
    batch = Batch((Record("5", b"", 1545084650 + milliseconds / 1000),), SHARD, "retry")
    info = batch_info("arn:aws:kinesis:us-east-2:123456789012:stream/mystream", batch)["KinesisBatchInfo"]
    assert info["approximateArrivalOfFirstRecord"] == f"2018-12-17T22:10:50.{milliseconds:03}Z"
