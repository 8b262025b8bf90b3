"""A plain letter as the record of a queue's event, as it was for the function that did not take it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping as Dict
from hashlib import md5
from typing import Any

from bridge.mapping import SourceArn
from bridge.record import Record
from bridge.replay.letter import Attribute, Letter
from bridge.sources.sqs import record_json

OURS = "DeadLetterQueueSourceArn"
"""The attribute that a message has since it was moved."""


def record(letter: Letter, queue: SourceArn) -> Record:
    """The record (SQS-71). ``queue``: the one that it was in before."""
    message = letter.message
    wire: dict[str, Any] = {
        "MessageId": message.id,
        "ReceiptHandle": message.receipt,
        "Body": message.body,
        "MD5OfBody": md5(message.body.encode(errors="replace"), usedforsecurity=False).hexdigest(),
        "Attributes": {name: value for name, value in message.attributes.items() if name != OURS},
    }
    if message.message_attributes:
        wire["MessageAttributes"] = {name: _wire(it) for name, it in message.message_attributes.items()}
        wire["MD5OfMessageAttributes"] = digest(message.message_attributes)
    return Record(
        message.id,
        record_json(wire, str(queue), queue.region),
        letter.at or 0.0,
        receipt=message.receipt,
        trace=message.attributes.get("AWSTraceHeader", ""),
    )


def _wire(attribute: Attribute) -> dict[str, str]:
    if isinstance(attribute.value, bytes):
        return {"DataType": attribute.type, "BinaryValue": b64encode(attribute.value).decode()}
    return {"DataType": attribute.type, "StringValue": attribute.value}


def digest(attributes: Dict[str, Attribute]) -> str:
    """MD5OfMessageAttributes: of name, type and value of each, by name, each with its length before it; the value's
    kind is 1 for text and 2 for bytes."""
    made = md5(usedforsecurity=False)
    for name in sorted(attributes):
        it = attributes[name]
        binary = isinstance(it.value, bytes)
        value = it.value if isinstance(it.value, bytes) else it.value.encode()
        for part in (name.encode(), it.type.encode()):
            made.update(len(part).to_bytes(4) + part)
        made.update((b"\x02" if binary else b"\x01") + len(value).to_bytes(4) + value)
    return made.hexdigest()
