"""AWS's JSON documents about asynchronous events (DST-5) and about records of streams (KIN-80), and what a dead letter
says besides the event (DST-21)."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from bridge.errors import Rejected
from bridge.invocation import Failed, Succeeded
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import BatchReport, Report

LONGEST_MESSAGE = 1024
"""Bytes of the error message in a dead letter."""
STATUS = {"throttled": 429, "reserved_zero": 429, "unreachable": 500}
"""``Failed.kind`` of what did not run -> HTTP status; of what ran it is 200 (DST-21)."""


def document(report: Report | BatchReport, limit: int) -> bytes:
    """The record about an event, at most ``limit`` bytes; without its payloads if it would be more (DST-8). Raises
    Rejected when even that is too much. That about a batch of a stream has no payload (KIN-80)."""
    if isinstance(report, BatchReport):
        return fitting(batch_document(report), limit)
    whole = msgspec.json.encode(_record(report, payloads=True))
    if len(whole) <= limit:
        return whole
    return fitting(without_payloads(report), limit)


def without_payloads(report: Report | BatchReport) -> bytes:
    """The record about an event that is too large for the target (DST-8)."""
    if isinstance(report, BatchReport):
        return batch_document(report)
    return msgspec.json.encode(_record(report, payloads=False))


def batch_document(report: BatchReport, *, payload: bool = False) -> bytes:
    """The record about records of a stream (KIN-80); with ``payload`` the event goes along, as text (KIN-85)."""
    record: dict[str, Any] = {
        "requestContext": {
            "requestId": report.request_id,
            "functionArn": report.function_arn,
            "condition": report.condition,
            "approximateInvokeCount": report.attempts,
        }
    }
    if report.outcome:  # KIN-82
        failure = "Unhandled" if isinstance(report.outcome, Failed) else None
        record["responseContext"] = {
            "statusCode": 200, "executedVersion": report.outcome.version, "functionError": failure,
        }  # fmt: skip
    record |= {"version": "1.0", "timestamp": timestamp(report.at), **report.info}
    if payload:
        record["payload"] = report.payload.decode()
    return msgspec.json.encode(record)


def fitting(body: bytes, limit: int) -> bytes:
    """The body. Raises Rejected when it is larger than the target allows."""
    if len(body) > limit:
        raise Rejected(f"{len(body)} bytes are more than {limit}, the most that the target takes", code="TooLarge")
    return body


def body(report: Report | BatchReport, limit: int) -> bytes:
    """What the target gets: the event itself in a dead letter, else the record about it. Raises Rejected."""
    if isinstance(report, Report) and report.dead_letter:
        return fitting(report.record.json, limit)
    return document(report, limit)


def standard(arn: SourceArn) -> None:
    """Raises Rejected for a FIFO queue or topic: they are no destinations (KIN-86)."""
    if arn.resource.endswith(".fifo"):
        raise Rejected(f"{arn} is FIFO; only standard queues and topics are destinations", code="FifoDestination")


def about_event(report: Report | BatchReport, target: str) -> Report:
    """The report. Raises Rejected when it is about records of a stream, for a target that takes none such."""
    if isinstance(report, BatchReport):
        raise Rejected(f"{target} takes no records of streams; queues, topics and buckets do", code="NoDestination")
    return report


def attributes(report: Report) -> dict[str, tuple[str, str]]:
    """The message attributes of a dead letter: name -> data type and value. None are empty, which SQS would refuse."""
    outcome = report.outcome
    status = 200
    message = ""
    if isinstance(outcome, Failed):
        status = STATUS.get(outcome.kind, 200)
        message = _message(outcome.error)
    elif report.condition != "Success" and not report.attempts:
        status = 429 if report.condition == "EventAgeExceeded" else 400  # INV-41
    found = {"RequestID": ("String", report.record.id), "ErrorCode": ("Number", str(status))}
    return {**found, "ErrorMessage": ("String", message)} if message else found


def timestamp(at: float) -> str:
    """ISO 8601 UTC with milliseconds and ``Z``."""
    milliseconds = int(at * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(milliseconds // 1000))}.{milliseconds % 1000:03}Z"


def _record(report: Report, *, payloads: bool) -> dict[str, Any]:
    """Members in AWS's order; what does not apply is absent (DST-7)."""
    outcome = report.outcome
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": timestamp(report.at),
        "requestContext": {
            "requestId": report.record.id,
            "functionArn": report.function_arn,
            "condition": report.condition,
            "approximateInvokeCount": report.attempts,
        },
    }
    if payloads:
        record["requestPayload"] = _json(report.record.json)
    if isinstance(outcome, Succeeded):
        record["responseContext"] = {"statusCode": 200, "executedVersion": outcome.version}
        answer = outcome.payload
    elif isinstance(outcome, Failed) and outcome.ran:
        record["responseContext"] = {
            "statusCode": 200, "executedVersion": outcome.version, "functionError": "Unhandled",
        }  # fmt: skip
        answer = outcome.error
    else:
        return record
    if payloads:
        record["responsePayload"] = _json(answer)
    return record


def _json(text: bytes) -> msgspec.Raw:
    """The text as a JSON value: numbers and escapes as they stand there, without the white space. What is no JSON is
    a string."""
    try:
        value = msgspec.json.format(text or b"null", indent=-1)
        value.decode()  # what stands in its strings has not been looked at
        return msgspec.Raw(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(text.decode(errors="replace")))


def _message(error: bytes) -> str:
    """The first kilobyte of the error message, without the type; whole characters."""
    try:
        found = msgspec.json.decode(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    message = found.get("errorMessage") if isinstance(found, dict) else None
    if not isinstance(message, str):
        return ""
    return message.encode(errors="replace")[:LONGEST_MESSAGE].decode(errors="ignore")
