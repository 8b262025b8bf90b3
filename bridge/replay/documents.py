"""What a dead letter is, told from its body and its message attributes: the records that Lambda writes about failures,
and what the dead-letter queues of Lambda, EventBridge and SNS hold. Pure; whatever is not recognised is plain."""

from __future__ import annotations

import re
from collections.abc import Mapping as Dict
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from bridge.mapping import SourceArn
from bridge.sources import dynamodb, kinesis

Kind = Literal["plain", "pointer", "object", "async", "event", "notification"]
"""``plain``: a message. ``pointer``: the record about a batch of a stream, which says where it lies (KIN-80, DDB-62).
``object``: the same with the batch in it (KIN-85). ``async``: the record about an asynchronous event, with the event in
it (DST-5). ``event``: an asynchronous event itself, of a function's dead-letter queue (DST-21) or of EventBridge's.
``notification``: what SNS could not deliver to a subscriber (EVT-11)."""

Attributes = Dict[str, str]
"""Name of a message attribute -> its text; binary ones are left out."""

LONGEST_WORD = 256
LONGEST_TEXT = 1024
"""Characters that are kept of a name, and of an error message (DST-21)."""


class Pointer(msgspec.Struct, frozen=True):
    """Where the records of a batch are. Times in epoch seconds, none where they cannot be read."""

    stream: SourceArn
    shard: str
    first: str
    """Sequence numbers of the first and the last record."""
    last: str
    records: int
    """How many there were: ``batchSize``."""
    first_at: float | None = None
    last_at: float | None = None

    def __str__(self) -> str:
        return f"{self.records} records of {self.stream}, {self.shard}, {self.first} to {self.last}"


class Why(msgspec.Struct, frozen=True):
    """Why it failed, as far as it is told."""

    condition: str = ""
    """AWS's word: ``RetryAttemptsExhausted``, ``EventAgeExceeded`` …"""
    error_type: str = ""
    message: str = ""
    request_id: str = ""
    """Of the last attempt."""
    attempts: int | None = None


class Found(msgspec.Struct, frozen=True):
    """What was recognised."""

    kind: Kind = "plain"
    why: Why = Why()
    function: str = ""
    """ARN of whom it was for, perhaps qualified."""
    source: str = ""
    """ARN of what sent it there: stream, rule, schedule or topic."""
    target: str = ""
    """ARN of the queue that it should have reached; empty: none, or it is not told."""
    pointer: Pointer | None = None
    event: bytes = b""
    """What the function is to be given: all of an asynchronous event, all of a batch that was stored (JSON text)."""
    at: float | None = None
    """Epoch seconds: when it failed; none: it is not told."""
    hindrance: str = ""
    """Why it cannot be replayed, in one line; empty: it can."""


PLAIN = Found()


def recognised(body: str, attributes: Attributes) -> Found:
    """What this is. Never raises.

    ========================================================================  ======================================
    record with ``KinesisBatchInfo`` or ``DDBStreamBatchInfo`` (KIN-80)       ``pointer``; ``object`` with ``payload``
    record with a condition, no such member (DST-5)                           ``async``
    either of them inside an SNS notification or an EventBridge event         the same (DST-11, DST-14)
    ``RULE_ARN`` or ``SCHEDULE_ARN`` with ``TARGET_ARN`` and ``ERROR_CODE``   ``event``; ``plain`` if it was for a queue
    ``RequestID`` with ``ErrorCode``, the body a notification                 ``notification``
    ``RequestID`` with ``ErrorCode``, the body any other JSON (DST-21)        ``event``
    anything else                                                             ``plain``
    ========================================================================  ======================================
    """
    members = _object(body)
    record = (_record(members) or _record(_unwrapped(members))) if members is not None else _torn(body)
    if record:
        return record
    if "TARGET_ARN" in attributes and "ERROR_CODE" in attributes:
        return _undelivered(body, attributes)
    if "RequestID" in attributes and "ErrorCode" in attributes:
        return _dead(body, members, attributes)
    return PLAIN


# Records about failures.


class _Context(msgspec.Struct):
    condition: str
    functionArn: str  # noqa: N815
    requestId: str = ""  # noqa: N815
    approximateInvokeCount: int | None = None  # noqa: N815


class _Response(msgspec.Struct):
    functionError: str | None = None  # noqa: N815


class _Error(msgspec.Struct):
    errorType: str = ""  # noqa: N815
    errorMessage: str = ""  # noqa: N815


class _Info(msgspec.Struct):
    shardId: str  # noqa: N815
    startSequenceNumber: str  # noqa: N815
    endSequenceNumber: str  # noqa: N815
    batchSize: int  # noqa: N815
    streamArn: str  # noqa: N815
    approximateArrivalOfFirstRecord: str = ""  # noqa: N815
    approximateArrivalOfLastRecord: str = ""  # noqa: N815


Members = dict[str, msgspec.Raw]


class _Service(NamedTuple):
    name: str
    resource: re.Pattern[str]


_SERVICES = {
    "KinesisBatchInfo": _Service("kinesis", kinesis.STREAM),
    "DDBStreamBatchInfo": _Service("dynamodb", dynamodb.STREAM),
}
_SUCCEEDED = "the record says that the event succeeded: there is nothing to be done again"
_BARE = "its requestPayload is missing: it was too large for the record (DST-8), or somebody removed it"
_CUT = "the record was cut off, so that not all of what it is about is there"


def _record(members: Members | None) -> Found | None:
    """None: it is no such record."""
    if not members or _as(members.get("version"), str) != "1.0":
        return None
    context = _as(members.get("requestContext"), _Context)
    if context is None:
        return None
    why = Why(
        condition=context.condition[:LONGEST_WORD],
        request_id=context.requestId[:LONGEST_WORD],
        attempts=context.approximateInvokeCount,
        **_error(members),
    )
    batch = next((name for name in members if name.endswith("BatchInfo")), None)
    at = _epoch(_as(members.get("timestamp"), str) or "")
    found = Found("pointer" if batch else "async", why, context.functionArn, at=at)
    return _of_batch(batch, members, found) if batch else _of_event(members, found)


def _error(members: Members) -> dict[str, str]:
    """What a failed answer was. That of a batch is not told; no word about the function means that its answer named
    records that failed (KIN-82)."""
    response = _as(members.get("responseContext"), _Response)
    if response is None:
        return {}
    answer = _as(members.get("responsePayload"), _Error) if response.functionError else None
    if answer and (answer.errorType or answer.errorMessage):
        return {"error_type": answer.errorType[:LONGEST_WORD], "message": answer.errorMessage[:LONGEST_TEXT]}
    if response.functionError:
        return {"error_type": response.functionError[:LONGEST_WORD]}
    is_reported = b'"functionError"' in bytes(members["responseContext"])
    return {"error_type": "batchItemFailures"} if is_reported else {}


def _of_event(members: Members, found: Found) -> Found:
    if found.why.condition == "Success":
        return msgspec.structs.replace(found, hindrance=_SUCCEEDED)
    if "requestPayload" not in members:
        return msgspec.structs.replace(found, hindrance=_BARE)
    return msgspec.structs.replace(found, event=bytes(members["requestPayload"]))


def _of_batch(name: str, members: Members, found: Found) -> Found:
    info = _as(members[name], _Info)
    pointer = _pointer(name, info) if info else None
    source = info.streamArn if info else ""
    found = msgspec.structs.replace(found, pointer=pointer, source=source)
    if pointer is None:
        known = name in _SERVICES
        what = "does not say where its records are" if known else "is about a source whose records cannot be read again"
        return msgspec.structs.replace(found, hindrance=f"its {name} {what}")
    if "payload" not in members:
        return found
    event = _payload(members["payload"])
    hindrance = "" if event else "its payload is no event with Records"
    return msgspec.structs.replace(found, kind="object", event=event or b"", hindrance=hindrance)


def _pointer(name: str, info: _Info) -> Pointer | None:
    service = _SERVICES.get(name)
    try:
        stream = SourceArn.parse(info.streamArn)
    except ValueError:
        return None
    if service is None or stream.service != service.name or not service.resource.fullmatch(stream.resource):
        return None
    numbers = info.startSequenceNumber, info.endSequenceNumber
    if not all(_is_number(number) for number in numbers) or int(numbers[0]) > int(numbers[1]):
        return None
    if not info.shardId or len(info.shardId) > LONGEST_WORD or info.batchSize < 1:
        return None
    times = _epoch(info.approximateArrivalOfFirstRecord), _epoch(info.approximateArrivalOfLastRecord)
    return Pointer(stream, info.shardId, *numbers, info.batchSize, *times)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= LONGEST_WORD


def _payload(raw: msgspec.Raw) -> bytes | None:
    """The event in a stored record: JSON text in a string; of some emulators the event itself (KIN-85). None: there is
    no event with records in it."""
    text = _as(raw, str)
    event = bytes(raw) if text is None else text.encode(errors="replace")
    return event if _as(event, _Records) is not None else None


class _Records(msgspec.Struct):
    Records: list[msgspec.Raw]


_BEGINNING = re.compile(
    r'\s*\{(?:\s*"version"\s*:\s*"1\.0"\s*,\s*"timestamp"\s*:\s*"[^"]{0,40}"\s*,)?\s*"requestContext"\s*:\s*\{'
    r'\s*"requestId"\s*:\s*"([^"]{0,256})"\s*,\s*"functionArn"\s*:\s*"([^"]{0,256})"\s*,\s*"condition"\s*:\s*"(\w{1,64})"'
)
"""How records begin, as Lambda writes them."""


def _torn(body: str) -> Found | None:
    """A record whose end is missing, which is no JSON any more."""
    begins = _BEGINNING.match(body)
    if not begins:
        return None
    request_id, function, condition = begins.groups()
    kind: Kind = "pointer" if "BatchInfo" in body[:4096] else "async"
    return Found(kind, Why(condition=condition, request_id=request_id), function, hindrance=_CUT)


# What lies around a record.


class _Notification(NamedTuple):
    """EVT-11."""

    topic: str
    message: str


def _unwrapped(members: Members | None) -> Members | None:
    """The members of what SNS or EventBridge brought along."""
    if not members:
        return None
    if "TopicArn" in members:
        notification = _notification(members)
        return _object(notification.message) if notification else None
    return _as(members.get("detail"), Members) if _is_result(members) else None


def _is_result(members: Members) -> bool:
    """DST-14."""
    what, source = (_as(members.get(name), str) or "" for name in ("detail-type", "source"))
    return source in ("lambda", "aws.lambda") and what.startswith("Lambda Function Invocation Result")


def _notification(members: Members) -> _Notification | None:
    if _as(members.get("Type"), str) != "Notification":
        return None
    topic, text = _as(members.get("TopicArn"), str), _as(members.get("Message"), str)
    return _Notification(topic, text) if topic is not None and text is not None else None


# What attributes tell.


def _undelivered(body: str, attributes: Attributes) -> Found:
    """What a rule of EventBridge, or a schedule, could not hand to its target (REPLAY-1, REPLAY-2)."""
    target = _text(attributes, "TARGET_ARN")
    why = Why(
        condition=_text(attributes, "EXHAUSTED_RETRY_CONDITION"),
        error_type=_text(attributes, "ERROR_CODE"),
        message=_text(attributes, "ERROR_MESSAGE", LONGEST_TEXT),
        attempts=_count(attributes, "RETRY_ATTEMPTS"),
    )
    source = _text(attributes, "RULE_ARN") or _text(attributes, "SCHEDULE_ARN")
    cut = _text(attributes, "IS_PAYLOAD_TRUNCATED").lower() == "true"
    hindrance = "EventBridge cut it off (IS_PAYLOAD_TRUNCATED), so that it is not all there" if cut else ""
    service = _service(target)
    if service == "sqs":
        return Found(why=why, source=source, target=target, hindrance=hindrance)
    if not hindrance and _as(body.encode(errors="replace"), msgspec.Raw) is None:
        hindrance = "it is no JSON, which every event of a function is (INV-7)"
    return Found(
        "event",
        why,
        function=target if service == "lambda" else "",
        source=source,
        event=body.encode(errors="replace"),
        hindrance=hindrance,
    )


def _service(arn: str) -> str:
    try:
        return SourceArn.parse(arn).service
    except ValueError:
        return ""


def _dead(body: str, members: Members | None, attributes: Attributes) -> Found:
    """What an asynchronous function (DST-21), or the subscriber of a topic (REPLAY-3), never took. Both say it by the
    same names."""
    code = _text(attributes, "ErrorCode")
    why = Why(
        error_type="" if code == "200" else code,  # DST-21: the function itself failed
        message=_text(attributes, "ErrorMessage", LONGEST_TEXT),
        request_id=_text(attributes, "RequestID"),
    )
    if notification := _notification(members or {}):
        event = _sns_event(body)
        hindrance = "" if event else "its notification cannot be read"
        return Found("notification", why, source=notification.topic, event=event, hindrance=hindrance)
    event = body.encode(errors="replace")
    if _as(event, msgspec.Raw) is None:  # INV-7: no function was ever given that
        return Found(why=why)
    return Found("event", why, event=event)


def _sns_event(body: str) -> bytes:
    """The event of a function that subscribes to the topic (EVT-10): the same members, two of them otherwise written,
    and those that are left out in a queue. Empty: it cannot be made."""
    told: dict[str, Any] | None = _as(body.encode(errors="replace"), dict[str, Any])
    if told is None:
        return b""
    link = str(told.get("UnsubscribeURL", ""))
    sns = {
        **{name: value for name, value in told.items() if not name.endswith("URL")},
        "Subject": told.get("Subject"),
        "SigningCertUrl": told.get("SigningCertURL", ""),
        "UnsubscribeUrl": link,
        "MessageAttributes": told.get("MessageAttributes") or {},
    }
    subscription = link.partition("SubscriptionArn=")[2].partition("&")[0]
    record = {"EventVersion": "1.0", "EventSubscriptionArn": subscription, "EventSource": "aws:sns", "Sns": sns}
    try:
        return msgspec.json.encode({"Records": [record]})
    except RecursionError:
        return b""


# Reading without a fuss.


def _object(text: str) -> Members | None:
    return _as(text.encode(errors="replace"), Members) if text.lstrip()[:1] == "{" else None


def _as(raw: msgspec.Raw | bytes | None, kind: Any) -> Any:
    """The value, if it is of this type; else none."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _text(attributes: Attributes, name: str, longest: int = LONGEST_WORD) -> str:
    return attributes.get(name, "")[:longest]


def _count(attributes: Attributes, name: str) -> int | None:
    text = _text(attributes, name)
    return int(text) if _is_number(text) else None


def _epoch(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
