"""What is recognised in a dead-letter queue: every shape of the spec, what is nearly one, and everything that report.py
writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from bridge.destinations.report import attributes, batch_document, body, document, without_payloads
from bridge.invocation import Failed, FailureKind, Succeeded
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import BatchReport, Report
from bridge.record import Batch, Record
from bridge.replay.documents import PLAIN, Attributes, Found, recognised
from tests.contracts.destination import FUNCTION, REQUEST, batch_info

STREAM = "arn:aws:kinesis:us-east-2:123456789012:stream/mystream"
TABLE = "arn:aws:dynamodb:us-east-2:123456789012:table/mytable/stream/2019-11-14T00:04:06.388"
CONTEXT = {"requestId": REQUEST, "functionArn": FUNCTION, "condition": "RetryAttemptsExhausted"}
INFO = {
    "shardId": "shardId-000000000001",
    "startSequenceNumber": "49601189658422359378836298521827638475320189012309704722",
    "endSequenceNumber": "49601189658422359378836298522902373528957594348623495186",
    "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
    "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.580Z",
    "batchSize": 500,
    "streamArn": STREAM,
}
POINTER = {
    "requestContext": {**CONTEXT, "approximateInvokeCount": 2},
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    "version": "1.0",
    "timestamp": "2019-11-14T00:38:06.021Z",
    "KinesisBatchInfo": INFO,
}
"""KIN-80."""
EVENT = {"Records": [{"kinesis": {"data": "SGVsbG8="}}]}
ASYNC = {
    "version": "1.0",
    "timestamp": "2019-11-14T18:16:05.568Z",
    "requestContext": {**CONTEXT, "condition": "RetriesExhausted", "approximateInvokeCount": 3},
    "requestPayload": {"order": 17, "sum": 2.5},
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    "responsePayload": {"errorType": "ValueError", "errorMessage": "not today"},
}
"""DST-5."""
NOTIFICATION = {
    "Type": "Notification", "MessageId": "dc1e-1", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:t",
    "Message": "text", "Timestamp": "2026-01-05T10:00:00.123Z", "SignatureVersion": "1", "Signature": "s",
    "SigningCertURL": "https://cert", "UnsubscribeURL": "https://u/?Action=Unsubscribe&SubscriptionArn=arn:sub",
}  # fmt: skip
"""EVT-11."""
DEAD: Attributes = {
    "RequestID": REQUEST, "ErrorCode": "200", "ErrorMessage": "not today",
}  # fmt: skip
"""DST-21."""
UNDELIVERED: Attributes = {
    "RULE_ARN": "arn:aws:events:eu-west-1:123456789012:rule/r",
    "TARGET_ARN": "arn:aws:lambda:eu-west-1:123456789012:function:worker",
    "ERROR_CODE": "NO_PERMISSIONS",
    "ERROR_MESSAGE": "may not",
    "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
    "RETRY_ATTEMPTS": "185",
}


def told(shape: Any, **changes: Any) -> Found:
    """What is recognised of a document, with other members."""
    return recognised(json.dumps({**shape, **changes}), {})


# Records about batches of streams.


def test_a_pointer_of_kinesis() -> None:  # KIN-80, KIN-84
    found = told(POINTER)
    assert (found.kind, found.hindrance, found.function, found.source) == ("pointer", "", FUNCTION, STREAM)
    assert (found.why.condition, found.why.attempts) == ("RetryAttemptsExhausted", 2)
    assert (found.why.request_id, found.why.error_type) == (REQUEST, "Unhandled")
    pointer = found.pointer
    assert pointer
    assert (str(pointer.stream), pointer.shard, pointer.records) == (STREAM, "shardId-000000000001", 500)
    assert (pointer.first, pointer.last) == (INFO["startSequenceNumber"], INFO["endSequenceNumber"])
    assert (pointer.first_at, pointer.last_at) == (1573691884.835, 1573691885.58)


def test_a_pointer_of_dynamodb() -> None:  # DDB-62
    numbers = {"startSequenceNumber": "800000000003126276362", "endSequenceNumber": "800000000003126276362"}
    shard = "shardId-00000001573689847184-864758bb"
    info = {**INFO, **numbers, "shardId": shard, "streamArn": TABLE, "batchSize": 1}
    shape = {name: value for name, value in POINTER.items() if name != "KinesisBatchInfo"}
    whole = {**info, "approximateArrivalOfFirstRecord": "2019-11-14T00:13:19Z"}
    found = told(shape, DDBStreamBatchInfo=whole)
    assert found.pointer
    assert (found.kind, found.pointer.shard, found.pointer.records) == ("pointer", shard, 1)
    assert found.pointer.stream == SourceArn.parse(TABLE)
    assert found.pointer.first_at == 1573690399


def test_a_record_that_was_too_old_had_no_answer() -> None:  # KIN-82, KIN-83
    shape = {name: value for name, value in POINTER.items() if name != "responseContext"}
    found = told(shape, requestContext={**CONTEXT, "condition": "RecordAgeExceeded", "approximateInvokeCount": 1})
    assert (found.why.condition, found.why.error_type, found.why.attempts) == ("RecordAgeExceeded", "", 1)


def test_an_answer_that_named_records_is_told() -> None:  # KIN-82
    found = told(POINTER, responseContext={"statusCode": 200, "executedVersion": "$LATEST", "functionError": None})
    assert found.why.error_type == "batchItemFailures"


@pytest.mark.parametrize("payload", [json.dumps(EVENT), EVENT])
def test_a_stored_batch(payload: Any) -> None:  # KIN-85: text, of some emulators an object
    found = told(POINTER, payload=payload)
    assert (found.kind, found.hindrance, json.loads(found.event)) == ("object", "", EVENT)
    assert found.pointer
    assert found.pointer.records == 500


@pytest.mark.parametrize("payload", ['{"Records": [', "", "7", 7, None, {}, {"Records": None}, "{}"])
def test_a_stored_batch_without_its_event_is_left(payload: Any) -> None:
    found = told(POINTER, payload=payload)
    assert (found.kind, found.event) == ("object", b"")
    assert "payload" in found.hindrance


@pytest.mark.parametrize(
    "change",
    [
        {"shardId": ""}, {"shardId": 7}, {"shardId": "x" * 300}, {"startSequenceNumber": "-1"},
        {"startSequenceNumber": "9" * 300}, {"startSequenceNumber": "٣"}, {"endSequenceNumber": "1"},
        {"batchSize": 0}, {"batchSize": "500"}, {"streamArn": "mystream"}, {"streamArn": TABLE},
        {"streamArn": "arn:aws:kinesis:us-east-2:123456789012:firehose/x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_pointer_that_points_nowhere_is_never_taken_for_a_message(change: dict[str, Any]) -> None:
    found = told(POINTER, KinesisBatchInfo={**INFO, **change})
    assert (found.kind, found.pointer) == ("pointer", None)
    assert "does not say where its records are" in found.hindrance


def test_a_missing_member_of_the_seven() -> None:  # KIN-80
    for name in ("shardId", "startSequenceNumber", "endSequenceNumber", "batchSize", "streamArn"):
        rest = {key: value for key, value in INFO.items() if key != name}
        assert told(POINTER, KinesisBatchInfo=rest).hindrance, name
    times = {key: value for key, value in INFO.items() if not key.startswith("approximate")}
    assert told(POINTER, KinesisBatchInfo={**times, "approximateArrivalOfFirstRecord": "soon"}).pointer


def test_a_source_that_cannot_be_read_again() -> None:
    shape = {name: value for name, value in POINTER.items() if name != "KinesisBatchInfo"}
    found = told(shape, KafkaBatchInfo={"topic": "t"})
    assert found.kind == "pointer"
    assert "KafkaBatchInfo" in found.hindrance


# Records about asynchronous events.


def test_an_asynchronous_event() -> None:  # DST-5, DST-6
    found = told(ASYNC)
    assert (found.kind, found.hindrance, found.function) == ("async", "", FUNCTION)
    assert json.loads(found.event) == {"order": 17, "sum": 2.5}
    assert (found.why.condition, found.why.error_type, found.why.message) == (
        "RetriesExhausted", "ValueError", "not today",
    )  # fmt: skip
    assert (found.why.attempts, found.why.request_id) == (3, REQUEST)


def test_numbers_of_the_event_stay_as_they_were_written() -> None:
    text = json.dumps(ASYNC).replace("2.5", "2.50, " + '"big": 123456789012345678901234567890')
    assert b"2.50" in recognised(text, {}).event
    assert b"123456789012345678901234567890" in recognised(text, {}).event


def test_without_its_event_it_is_left() -> None:  # DST-8
    found = told({name: value for name, value in ASYNC.items() if name != "requestPayload"})
    assert (found.kind, found.event) == ("async", b"")
    assert "requestPayload is missing" in found.hindrance


def test_a_success_is_left() -> None:  # DST-2
    found = told(ASYNC, requestContext={**CONTEXT, "condition": "Success"})
    assert (found.kind, found.event) == ("async", b"")
    assert "succeeded" in found.hindrance


def test_an_event_that_never_ran() -> None:  # DST-7
    rest = {name: value for name, value in ASYNC.items() if not name.startswith("response")}
    found = told(rest, requestContext={**CONTEXT, "condition": "ZeroReservedConcurrency", "approximateInvokeCount": 0})
    assert (found.why.condition, found.why.error_type, found.why.attempts) == ("ZeroReservedConcurrency", "", 0)


@pytest.mark.parametrize("shape", [ASYNC, POINTER], ids=["async", "pointer"])
def test_one_that_was_cut_off_is_left_wherever_it_was_cut(shape: dict[str, Any]) -> None:
    kind = "async" if shape is ASYNC else "pointer"
    text = json.dumps(shape if shape is ASYNC else {**shape, "payload": json.dumps(EVENT)})
    text = json.dumps(ASYNC) if shape is ASYNC else text
    for end in range(text.index('"approximateInvokeCount"'), len(text)):
        found = recognised(text[:end], {})
        assert found.kind in (kind, "async")
        assert "cut off" in found.hindrance, text[:end]
        assert (found.why.request_id, found.function) == (REQUEST, FUNCTION)


# In an envelope.


@pytest.mark.parametrize("shape", [ASYNC, POINTER], ids=["async", "pointer"])
def test_a_record_that_a_topic_or_a_bus_brought(shape: dict[str, Any]) -> None:  # DST-11, DST-14
    bus = {"version": "0", "source": "lambda", "detail-type": "Lambda Function Invocation Result - Failure"}
    assert told(NOTIFICATION, Message=json.dumps(shape)) == told(shape)
    for source in ("lambda", "aws.lambda"):
        found = told(bus, source=source, detail=shape)
        assert (found.kind, found.why, found.pointer) == (told(shape).kind, told(shape).why, told(shape).pointer)
    assert told(bus, source="shop.orders", detail=shape) == PLAIN
    assert told(bus, **{"detail-type": "Order Placed"}, detail=shape) == PLAIN


# What attributes tell.


def test_a_message_of_a_functions_dead_letter_queue() -> None:  # DST-21
    found = recognised('{"order": 1}', DEAD)
    assert (found.kind, found.event, found.function) == ("event", b'{"order": 1}', "")
    assert (found.why.request_id, found.why.message, found.why.error_type) == (REQUEST, "not today", "")
    refused = recognised("[]", {**DEAD, "ErrorCode": "429"})
    assert (refused.kind, refused.why.error_type) == ("event", "429")
    bare = recognised("1", {name: DEAD[name] for name in ("RequestID", "ErrorCode")})
    assert (bare.kind, bare.why.message) == ("event", "")


def test_text_with_the_attributes_of_a_failure_is_a_message() -> None:  # EVT-12: raw delivery; INV-7
    found = recognised("no json", DEAD)
    assert (found.kind, found.event, found.why.message) == ("plain", b"", "not today")


def test_a_message_that_a_topic_could_not_deliver() -> None:  # REPLAY-3, EVT-10, EVT-11
    found = recognised(json.dumps(NOTIFICATION), {**DEAD, "ErrorCode": "403"})
    assert (found.kind, found.source, found.why.error_type) == ("notification", NOTIFICATION["TopicArn"], "403")
    assert json.loads(found.event) == {
        "Records": [
            {
                "EventVersion": "1.0",
                "EventSubscriptionArn": "arn:sub",
                "EventSource": "aws:sns",
                "Sns": {
                    "Type": "Notification", "MessageId": "dc1e-1", "TopicArn": NOTIFICATION["TopicArn"],
                    "Message": "text", "Timestamp": "2026-01-05T10:00:00.123Z", "SignatureVersion": "1",
                    "Signature": "s", "Subject": None, "SigningCertUrl": "https://cert",
                    "UnsubscribeUrl": NOTIFICATION["UnsubscribeURL"], "MessageAttributes": {},
                },
            }
        ]
    }  # fmt: skip


def test_an_event_that_a_rule_could_not_deliver() -> None:  # REPLAY-1
    found = recognised('{"detail-type": "Order Placed"}', UNDELIVERED)
    assert (found.kind, found.hindrance, json.loads(found.event)) == ("event", "", {"detail-type": "Order Placed"})
    assert (found.function, found.source) == (UNDELIVERED["TARGET_ARN"], UNDELIVERED["RULE_ARN"])
    assert (found.why.error_type, found.why.message) == ("NO_PERMISSIONS", "may not")
    assert (found.why.condition, found.why.attempts) == ("MaximumRetryAttempts", 185)
    assert "no JSON" in recognised("text", UNDELIVERED).hindrance


def test_an_event_that_was_for_a_queue_is_a_message_of_it() -> None:  # EVT-21
    queue = "arn:aws:sqs:eu-west-1:123456789012:orders"
    found = recognised("any text", {**UNDELIVERED, "TARGET_ARN": queue})
    assert (found.kind, found.target, found.hindrance) == ("plain", queue, "")


def test_a_schedule_whose_event_was_cut_off_is_left() -> None:  # REPLAY-2
    arn = "arn:aws:scheduler:eu-west-1:123456789012:schedule/default/s"
    shape = {**UNDELIVERED, "SCHEDULE_ARN": arn, "IS_PAYLOAD_TRUNCATED": "true"}
    del shape["RULE_ARN"]
    found = recognised("{}", shape)
    assert (found.source, found.kind) == (arn, "event")
    assert "cut it off" in found.hindrance
    assert not recognised("{}", {**shape, "IS_PAYLOAD_TRUNCATED": "false"}).hindrance


# Whatever else.


@pytest.mark.parametrize(
    "shape",
    [
        {}, {"version": "1.0"}, {"requestContext": CONTEXT}, {**POINTER, "version": "2.0"}, {**POINTER, "version": 1},
        {**POINTER, "requestContext": None}, {**POINTER, "requestContext": {"stage": "prod", "httpMethod": "GET"}},
        {**ASYNC, "requestContext": {**CONTEXT, "condition": 7}}, {"KinesisBatchInfo": INFO}, {"order": POINTER},
        {"Records": [POINTER]}, NOTIFICATION, {**NOTIFICATION, "Message": 7}, {**NOTIFICATION, "Type": "X"},
        {"Type": "Notification", "TopicArn": None},
    ],
    ids=lambda shape: ",".join(shape) or "empty",
)  # fmt: skip
def test_what_only_looks_like_one_is_a_message(shape: dict[str, Any]) -> None:
    assert told(shape) == PLAIN


@pytest.mark.parametrize(
    "text", ["", "text", "null", "[]", "{", "[" * 100_000, "{" * 100_000, '{"a":' * 100_000, "\x00"]
)
def test_garbage_is_a_message(text: str) -> None:
    assert recognised(text, {}) == PLAIN


@pytest.mark.parametrize("shape", [POINTER, ASYNC, NOTIFICATION], ids=["pointer", "async", "notification"])
@pytest.mark.parametrize("attributes", [{}, DEAD, UNDELIVERED], ids=["bare", "dead", "undelivered"])
def test_what_is_nested_too_deeply_makes_nothing_fail(shape: dict[str, Any], attributes: Attributes) -> None:
    for depth in (*range(900, 1100, 9), 50_000):
        deep = "[" * depth + "]" * depth
        for name in (*shape, "payload", "MessageAttributes", "detail", "other"):
            text = json.dumps({**shape, name: "DEEP"}).replace('"DEEP"', deep)
            found = recognised(text, attributes)
            assert found.kind == "plain" or found.hindrance or found.event or found.pointer


@given(st.text(), st.dictionaries(st.sampled_from([*DEAD, *UNDELIVERED]), st.text()))
def test_nothing_makes_it_fail(text: str, attributes: Attributes) -> None:
    recognised(text, attributes)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*POINTER, *ASYNC, *NOTIFICATION, "detail"), _json)))
def test_no_members_make_it_fail(members: dict[str, Any]) -> None:
    recognised(json.dumps(members), {})
    recognised(json.dumps({**POINTER, **members}), DEAD)
    recognised(json.dumps({**NOTIFICATION, **members}), DEAD)


# What report.py writes comes back.

_numbers = st.lists(st.integers(1, 10**38), min_size=1, max_size=5, unique=True).map(sorted)
_times = st.integers(1_500_000_000_000, 1_900_000_000_000)
_kinds = st.sampled_from(list[FailureKind](["function", "timeout", "exit", "oom", "throttled", "unreachable"]))
_outcomes = st.none() | st.builds(Failed, _kinds, st.just(b'{"errorType":"E","errorMessage":"m"}'), st.just(REQUEST))


@given(_numbers, _times, _outcomes | st.just(Succeeded(b"{}", REQUEST)), st.booleans(), st.booleans())
def test_what_is_written_about_a_batch_is_found(
    numbers: list[int], at: int, outcome: Any, is_table: bool, stored: bool
) -> None:  # KIN-80, KIN-85, DDB-62
    whole = at // 1000 if is_table else at / 1000
    batch = Batch(tuple(Record(str(number), b"{}", whole) for number in numbers), "shardId-000000000007", "retry")
    arn = TABLE if is_table else STREAM
    report = BatchReport(
        target="", condition="RetryAttemptsExhausted", batch=batch, function_arn=FUNCTION, mapping="m", attempts=4,
        request_id=REQUEST, at=at / 1000, outcome=outcome, info=batch_info(arn, batch), payload=b'{"Records":[{}]}',
    )  # fmt: skip
    found = recognised(batch_document(report, payload=stored).decode(), {})
    assert (found.kind, found.hindrance) == ("object" if stored else "pointer", "")
    assert found.event == (report.payload if stored else b"")
    assert (found.function, found.why.attempts, found.why.request_id) == (FUNCTION, 4, REQUEST)
    pointer = found.pointer
    assert pointer
    assert (pointer.first, pointer.last, pointer.records) == (str(numbers[0]), str(numbers[-1]), len(numbers))
    assert (str(pointer.stream), pointer.shard) == (arn, "shardId-000000000007")
    assert pointer.first_at == pytest.approx(whole, abs=0.0015)
    failed = isinstance(outcome, Failed)
    assert found.why.error_type == ("Unhandled" if failed else "batchItemFailures" if outcome else "")


@given(_json, _outcomes, st.sampled_from(["RetriesExhausted", "EventAgeExceeded", "ZeroReservedConcurrency"]))
def test_what_is_written_about_an_event_is_found(event: Any, outcome: Any, condition: Any) -> None:  # DST-5 to DST-8
    record = Record(id=REQUEST, json=json.dumps(event).encode(), arrived_at=1.0, request_id=REQUEST)
    report = Report("", condition, record, FUNCTION, 2, 1_700_000_000.0, outcome)
    found = recognised(document(report, 1 << 20).decode(), {})
    assert (found.kind, found.hindrance, found.function) == ("async", "", FUNCTION)
    assert json.loads(found.event) == event
    assert (found.why.condition, found.why.attempts, found.why.request_id) == (condition, 2, REQUEST)
    ran = outcome is not None and outcome.ran
    assert (found.why.error_type, found.why.message) == (("E", "m") if ran else ("", ""))
    assert "requestPayload is missing" in recognised(without_payloads(report).decode(), {}).hindrance


@given(_json, _outcomes)
def test_what_is_written_into_a_dead_letter_queue_is_found(event: Any, outcome: Any) -> None:  # DST-21
    record = Record(id=REQUEST, json=json.dumps(event).encode(), arrived_at=1.0, request_id=REQUEST)
    report = Report("", "RetriesExhausted", record, FUNCTION, 2, 1.0, outcome, dead_letter=True)
    found = recognised(body(report, 1 << 20).decode(), {name: text for name, (_, text) in attributes(report).items()})
    assert (found.kind, found.event) == ("event", record.json)
    assert found.why.request_id == REQUEST
    assert found.why.message == ("m" if outcome is not None else "")
