"""Sample events: what each source hands to a handler. The templates in events/ are complete events of one record; here
they get the bodies that are asked for, and ids of their own.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from copy import deepcopy
from hashlib import md5
from math import isinf
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from bridge.errors import UsageError
from bridge.nearest import did_you_mean

TEMPLATES = Path(__file__).parent / "events"
MOMENT = 1_767_607_200_123
"""When the first record of every sample happened, in epoch milliseconds."""


def sample_event(source: str, bodies: Sequence[str | bytes | None] = (None,), seed: int | str = 0) -> dict[str, Any]:
    """An event of ``source`` (a key of SHAPES) with a record for each body; None stands for an example.

    All that is invented in it follows from ``seed``; ids and sequence numbers are unique, and the latter ascend. Raises
    UsageError when the source is unknown, carries one event at a time, or cannot carry such a body.
    """
    if source not in SHAPES:
        near = did_you_mean(source, SHAPES) or f"; known are: {', '.join(SHAPES)}"
        raise UsageError(f'no sample event for "{source}"{near}')
    shape = SHAPES[source]
    if not shape.records and len(bodies) != 1:
        raise UsageError(f"{source} events come one at a time, not {len(bodies)} in one")
    event: dict[str, Any] = json.loads((TEMPLATES / f"{source}.json").read_bytes())
    random = Random(f"{source} {seed}".encode(errors="surrogateescape"))  # noqa: S311 (samples, no secrets)
    start = random.randrange(1_000_000)
    items = [_Item(source, index, start + index, body, random) for index, body in enumerate(bodies)]
    if not shape.records:
        shape.fill(event, items[0])
        return event
    holder = event
    for step in shape.records[:-1]:
        holder = holder[step]
    (template,) = holder[shape.records[-1]]
    holder[shape.records[-1]] = [_filled(template, item, shape.fill) for item in items]
    return event


class _Item:
    """One record to be made."""

    def __init__(self, source: str, index: int, offset: int, body: str | bytes | None, random: Random) -> None:
        self.index = index
        self.offset = offset
        self.milliseconds = MOMENT + 7 * index
        self.random = random
        self.given = body is not None
        example = json.dumps({"id": index + 1, "kind": "order"})
        body = example if body is None else body
        self.body = body.encode() if isinstance(body, str) else body
        self._source = source

    @property
    def base64(self) -> str:
        return b64encode(self.body).decode()

    @property
    def md5(self) -> str:
        return md5(self.body, usedforsecurity=False).hexdigest()

    @property
    def seconds(self) -> time.struct_time:
        return time.gmtime(self.milliseconds // 1000)

    @property
    def timestamp(self) -> str:
        """ISO 8601 with milliseconds, UTC."""
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', self.seconds)}.{self.milliseconds % 1000:03}Z"

    def text(self) -> str:
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            byte = f"byte 0x{self.body[error.start]:02x} at position {error.start}"
            raise UsageError(f"a body of {self._source} is UTF-8 text, and this is none: {byte}") from None

    def json_object(self) -> dict[str, Any]:
        text = self.text()
        try:
            value = json.loads(text, parse_float=_finite, parse_constant=_finite)
            json.dumps(value, ensure_ascii=False).encode()  # no half of a surrogate pair
        except ValueError as error:
            raise UsageError(f"a body of {self._source} is a JSON object: {error}") from None
        if not isinstance(value, dict):
            raise UsageError(f"a body of {self._source} is a JSON object, not {text[:40]}")
        return value

    def base64_noise(self, size: int) -> str:
        return b64encode(self.random.randbytes(size)).decode()

    def hex(self, digits: int) -> str:
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def uuid(self) -> str:
        text = self.hex(32)
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def after(self, first: int) -> int:
        """A sequence number: above ``first`` and those of the records before."""
        return first + 1_000_000 * self.index + self.random.randrange(1_000_000)


def _finite(text: str) -> float:
    if text in ("NaN", "Infinity", "-Infinity") or isinf(number := float(text)):
        raise ValueError(f"{text} is no JSON number")
    return number


def _filled(template: dict[str, Any], item: _Item, fill: Callable[[dict[str, Any], _Item], None]) -> dict[str, Any]:
    record = deepcopy(template)
    fill(record, item)
    return record


def _sqs(record: dict[str, Any], item: _Item) -> None:  # SQS-71
    record["messageId"] = item.uuid()
    record["receiptHandle"] = "AQEB" + item.base64_noise(96)
    record["body"] = item.text()
    record["attributes"]["SentTimestamp"] = str(item.milliseconds)
    record["attributes"]["ApproximateFirstReceiveTimestamp"] = str(item.milliseconds + 17)
    record["md5OfBody"] = item.md5


def _kinesis(record: dict[str, Any], item: _Item) -> None:  # KIN-42
    data = record["kinesis"]
    shard = record["eventID"].partition(":")[0]
    data["partitionKey"] = str(item.index + 1)
    data["sequenceNumber"] = str(item.after(int(data["sequenceNumber"])))
    data["data"] = item.base64
    data["approximateArrivalTimestamp"] = item.milliseconds / 1000
    record["eventID"] = f"{shard}:{data['sequenceNumber']}"


def _dynamodb(record: dict[str, Any], item: _Item) -> None:  # DDB-40 to DDB-43
    image = {name: _attribute(value) for name, value in item.json_object().items()}
    key = next((name for name in ("id", *image) if image.get(name, {}).keys() & {"S", "N"}), None)
    if key is None:
        raise UsageError("a dynamodb item needs an attribute that is a string or a number: its key")
    change = record["dynamodb"]
    change["ApproximateCreationDateTime"] = float(item.milliseconds // 1000)
    change["Keys"] = {key: image[key]}
    change["NewImage"] = image
    change["SequenceNumber"] = str(item.after(int(change["SequenceNumber"])))
    change["SizeBytes"] = _size(change["Keys"]) + _size(image)
    record["eventID"] = item.hex(32)


def _attribute(value: Any) -> dict[str, Any]:
    """A JSON value in DynamoDB's own JSON."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int():
            return {"N": str(value)}
        case float():
            from decimal import Decimal

            return {"N": f"{Decimal(repr(value)).normalize():f}"}
        case list():
            return {"L": [_attribute(element) for element in value]}
        case _:
            return {"M": {name: _attribute(member) for name, member in value.items()}}


def _size(value: Any) -> int:
    """Bytes of names and values, about as DynamoDB counts them."""
    match value:
        case dict():
            return sum(len(name.encode()) * (name not in _TYPES) + _size(member) for name, member in value.items())
        case list():
            return sum(map(_size, value))
        case str():
            return len(value.encode())
        case _:
            return 1


_TYPES = frozenset(("S", "N", "BOOL", "NULL", "L", "M"))


def _kafka(record: dict[str, Any], item: _Item) -> None:  # KAF-21, KAF-23
    record["offset"] = item.offset
    record["timestamp"] = item.milliseconds
    record["key"] = b64encode(str(item.index + 1).encode()).decode()
    record["value"] = item.base64


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _rabbitmq(record: dict[str, Any], item: _Item) -> None:  # RMQ-21, RMQ-23
    at = item.seconds
    record["basicProperties"] |= {
        "contentType": _content_type(item.body),
        "messageId": item.uuid(),
        "timestamp": f"{MONTHS[at.tm_mon - 1]} {at.tm_mday}, {at.tm_year}, {at.tm_hour % 12 or 12}"
        f":{at.tm_min:02}:{at.tm_sec:02} {'AM' if at.tm_hour < 12 else 'PM'}",
        "bodySize": len(item.body),
    }
    record["data"] = item.base64


def _content_type(body: bytes) -> str:
    try:
        json.loads(body.decode())
    except UnicodeDecodeError:
        return "application/octet-stream"
    except (ValueError, RecursionError):
        return "text/plain"
    return "application/json"


def _s3(record: dict[str, Any], item: _Item) -> None:  # EVT-1, EVT-2
    stored = record["s3"]["object"]
    record["eventTime"] = item.timestamp
    record["responseElements"] = {"x-amz-request-id": item.hex(16).upper(), "x-amz-id-2": item.base64_noise(48)}
    stored["key"] = f"in/my+order+{item.index + 1}.json"
    stored["size"] = len(item.body)
    stored["eTag"] = item.md5
    stored["versionId"] = item.hex(32)
    stored["sequencer"] = f"{item.after(int(stored['sequencer'], 16)):018X}"


def _sns(record: dict[str, Any], item: _Item) -> None:  # EVT-10
    message = record["Sns"]
    message["MessageId"] = item.uuid()
    message["Message"] = item.text()
    message["Timestamp"] = item.timestamp
    message["Signature"] = item.base64_noise(256)


def _eventbridge(event: dict[str, Any], item: _Item) -> None:  # EVT-20
    event["id"] = item.uuid()
    event["detail"] = item.json_object()


def _schedule(event: dict[str, Any], item: _Item) -> None:  # EVT-22
    if item.given:
        raise UsageError("a schedule event carries no body")
    event["id"] = item.uuid()


class Shape(NamedTuple):
    """How the events of one source are made."""

    fill: Callable[[dict[str, Any], _Item], None]
    """Gives a copy of the template its body and ids."""
    records: tuple[str, ...]
    """Where in the event its list of records is; nowhere: the event itself is the only one."""
    body: str
    """What the body is there, for help texts."""


SHAPES = {
    "sqs": Shape(_sqs, ("Records",), "the message"),
    "kinesis": Shape(_kinesis, ("Records",), "the data, any bytes"),
    "dynamodb": Shape(_dynamodb, ("Records",), "the new item, a JSON object"),
    "kafka": Shape(_kafka, ("records", "orders-0"), "the value, any bytes"),
    "rabbitmq": Shape(_rabbitmq, ("rmqMessagesByQueue", "orders::/"), "the message, any bytes"),
    "s3": Shape(_s3, ("Records",), "the content of the object, of which the event has size and eTag"),
    "sns": Shape(_sns, ("Records",), "the message"),
    "eventbridge": Shape(_eventbridge, (), "the detail, a JSON object"),
    "schedule": Shape(_schedule, (), "none"),
}
"""The sources, by the words of the command line."""
