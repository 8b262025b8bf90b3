"""A dead letter: a message that ended in a dead-letter queue or a failure destination, and what is known about it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping as Dict
from typing import Any, Literal

import msgspec

from bridge.filtering import decode_body
from bridge.replay.documents import PLAIN, Attributes, Found, recognised

Kind = Literal["plain", "pointer", "async", "object"]
"""``plain``: a message as somebody sent it to a queue. ``pointer``: a record that names records of a shard. ``async``:
a record about an asynchronous event, or that event with its error in attributes. ``object``: a record with the records
of a shard in it, as they are in buckets."""
TABLE_RETENTION = 86_400.0
"""Seconds for which streams of tables keep their records (DDB-1)."""


class Attribute(msgspec.Struct, frozen=True):
    """One message attribute."""

    type: str
    """``String``, ``Number`` or ``Binary``, with a custom label behind a dot if there is one."""
    value: str | bytes
    """Bytes of a Binary, else text."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What lies there, as it was received."""

    id: str
    """The same over all receives."""
    body: str
    attributes: Dict[str, str] = {}
    """System attributes: ``SentTimestamp``, ``MessageGroupId``, ``AWSTraceHeader``, ``DeadLetterQueueSourceArn``…"""
    message_attributes: Dict[str, Attribute] = {}
    receipt: str = ""
    """Of the latest receive when this was made; the shelf knows newer ones."""

    @property
    def group(self) -> str:
        """The message group, also of a fair queue; empty: none."""
        return self.attributes.get("MessageGroupId", "")

    @property
    def sequence(self) -> int:
        """The place in a FIFO queue; 0: none."""
        return _whole(self.attributes.get("SequenceNumber")) or 0

    @property
    def sent_at(self) -> float | None:
        """Epoch seconds. A FIFO dead-letter queue sets a new time, a standard one keeps the original's."""
        sent = _whole(self.attributes.get("SentTimestamp"))
        return None if sent is None else sent / 1000

    @property
    def receives(self) -> int:
        """How often it was received, in the source and in the dead-letter queue."""
        return _whole(self.attributes.get("ApproximateReceiveCount")) or 0

    @property
    def source_arn(self) -> str:
        """The queue that it was moved from; empty: it did not say."""
        return self.attributes.get("DeadLetterQueueSourceArn", "")


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why it is dead, as far as anybody told. Empty: not told."""

    condition: str = ""
    """``RetriesExhausted``, ``EventAgeExceeded``, …"""
    error_type: str = ""
    message: str = ""
    request_id: str = ""
    attempts: int | None = None


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Whom it was meant for. Empty: not told."""

    function_arn: str = ""
    source_arn: str = ""
    """The queue or stream that it came from."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A message, read."""

    message: Message
    kind: Kind = "plain"
    reason: Reason | None = None
    origin: Origin = Origin()
    at: float | None = None
    """Epoch seconds: when it was sent, or of a record about a failure when that happened."""
    expires_at: float | None = None
    """Epoch seconds: when the queue drops it, or a table's stream the records that it points to."""
    document: Found = PLAIN
    """What was recognised, in full."""

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def keys(self) -> tuple[str, ...]:
        """Under which the ledger of failed attempts may know of it: its own id, that of its first record, that of its
        last request."""
        first = self.document.pointer.first if self.document.pointer else ""
        return tuple(filter(None, (self.id, first, self.reason.request_id if self.reason else "")))

    @property
    def hindrance(self) -> str:
        """Why it cannot be replayed whatever the target, in one line; empty: it can."""
        return self.document.hindrance


def read(message: Message, retention: float | None) -> Letter:
    """What the message is. ``retention``: seconds for which the queue keeps a message. Pure; never raises: what is not
    recognised is plain, and so is what was moved here from a queue, whatever it says: there it was a message
    (REPLAY-4)."""
    found = PLAIN if message.source_arn else recognised(message.body, _texts(message))
    sent = message.sent_at
    return Letter(
        message=message,
        kind=_KINDS[found.kind],
        reason=None if found.why == PLAIN.why else Reason(**msgspec.structs.asdict(found.why)),
        origin=Origin(function_arn=found.function, source_arn=message.source_arn or found.target or found.source),
        at=sent if found.at is None else found.at,
        expires_at=_expiry(None if sent is None or retention is None else sent + retention, found),
        document=found,
    )


_KINDS: dict[str, Kind] = {
    "plain": "plain", "pointer": "pointer", "object": "object",
    "async": "async", "event": "async", "notification": "async",
}  # fmt: skip


def _texts(message: Message) -> Attributes:
    return {name: it.value for name, it in message.message_attributes.items() if isinstance(it.value, str)}


def _expiry(dropped_at: float | None, found: Found) -> float | None:
    pointer = found.pointer
    if pointer is None or found.event or pointer.first_at is None or pointer.stream.service != "dynamodb":
        return dropped_at
    trimmed_at = pointer.first_at + TABLE_RETENTION
    return trimmed_at if dropped_at is None else min(dropped_at, trimmed_at)


def view(letter: Letter, arn: str) -> dict[str, Any]:
    """What patterns are matched against: the record as a mapping's filter sees it, with the body decoded. ``arn`` is
    the queue where it lies."""
    message = letter.message
    return {
        "messageId": message.id,
        "receiptHandle": message.receipt,
        "body": decode_body(message.body),
        "attributes": dict(message.attributes),
        "messageAttributes": {name: _attribute(value) for name, value in message.message_attributes.items()},
        "eventSource": "aws:sqs",
        "eventSourceARN": message.source_arn or arn,
        "awsRegion": (message.source_arn or arn).split(":")[3],
    }


def _attribute(attribute: Attribute) -> dict[str, Any]:
    """In the shape of a record's (SQS-73)."""
    if isinstance(attribute.value, bytes):
        given = {"binaryValue": b64encode(attribute.value).decode()}
    else:
        given = {"stringValue": attribute.value}
    return {**given, "stringListValues": [], "binaryListValues": [], "dataType": attribute.type}


def _whole(text: str | None) -> int | None:
    """The number; none where there is none, whatever a server or somebody's editor wrote."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 40 else None


def message(received: Dict[str, Any]) -> Message:
    """A message of ReceiveMessage's answer, whose blobs are base64 text. Raises KeyError, TypeError or ValueError for
    what is none."""
    return Message(
        id=received["MessageId"],
        body=received["Body"],
        attributes=received.get("Attributes") or {},
        message_attributes={
            name: Attribute(value["DataType"], _value(value))
            for name, value in (received.get("MessageAttributes") or {}).items()
        },
        receipt=received["ReceiptHandle"],
    )


def _value(attribute: Dict[str, Any]) -> str | bytes:
    if attribute["DataType"].startswith("Binary"):
        return b64decode(attribute["BinaryValue"], validate=True)
    text: str = attribute["StringValue"]
    return text
