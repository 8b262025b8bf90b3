"""A record of Kinesis on its way from the API's JSON to the event's. Its data stays the base64 text that came."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NoBase64
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from bridge.filtering import decode_body
from bridge.mapping import Mapping, SourceArn
from bridge.record import Record
from bridge.sources import Surroundings


class Origin(NamedTuple):
    """What all records of a mapping have in common."""

    arn: str
    """Of the event source, as the mapping has it (KIN-44)."""
    stream: SourceArn
    role: str
    """Of the function: its execution role (KIN-42)."""

    @classmethod
    def of(cls, mapping: Mapping, stream: SourceArn, surroundings: Surroundings) -> Origin:
        arn, function = mapping.source_arn, surroundings.function
        account = SourceArn.parse(function.arn).account
        role = mapping.aws.role_arn or f"arn:{arn.partition}:iam::{account}:role/{mapping.function}"
        return cls(str(arn), stream, role)


class WireRecord(msgspec.Struct, rename="pascal"):
    """A record as the API gives it."""

    sequence_number: str
    data: str
    approximate_arrival_timestamp: float = 0.0
    partition_key: str | None = None
    encryption_type: str | None = None


class _Kinesis(msgspec.Struct, rename="camel", omit_defaults=True):
    kinesis_schema_version: str | UnsetType
    partition_key: str | UnsetType
    sequence_number: str
    data: str
    approximate_arrival_timestamp: float
    encryption_type: str | UnsetType = UNSET


class _Event(msgspec.Struct, rename="camel"):
    """KIN-42: the fields in AWS's order."""

    kinesis: _Kinesis
    event_source: str
    event_version: str
    event_id: str = msgspec.field(name="eventID")
    event_name: str
    invoke_identity_arn: str
    aws_region: str
    event_source_arn: str = msgspec.field(name="eventSourceARN")


class _Identified(msgspec.Struct):
    event_id: str = msgspec.field(name="eventID")


_encode = msgspec.json.Encoder().encode


def record_of(wire: WireRecord, shard: str, origin: Origin, data: str = "", key: str | None = None) -> Record:
    """The record that the handler gets. ``data`` and ``key`` replace those of the wire where it is a part of one that
    was taken apart (KIN-45); the order of the whole still goes by the outer key (KIN-54)."""
    outer, number, arrived_at = wire.partition_key, wire.sequence_number, wire.approximate_arrival_timestamp
    if key is None:
        key = outer
    event = _Event(
        _Kinesis(
            "1.0",
            UNSET if key is None else key,  # KIN-16
            number,
            data or wire.data,
            arrived_at,
            "KMS" if wire.encryption_type == "KMS" else UNSET,  # KIN-43
        ),
        "aws:kinesis",
        "1.0",
        f"{shard}:{number}",
        "aws:kinesis:record",
        origin.role,
        origin.stream.region,
        origin.arn,
    )
    return Record(number, _encode(event), arrived_at, receipt=number if outer is None else outer)


def view(record: Record) -> dict[str, Any]:
    """What patterns are matched against: the members of ``kinesis`` stand at the top as well, with ``data`` decoded
    (FLT-41, FLT-44)."""
    event: dict[str, Any] = msgspec.json.decode(record.json)
    return {**event, **event["kinesis"], "data": decode_data(event["kinesis"]["data"])}


def decode_data(data: str) -> str | dict[str, Any] | list[Any]:
    """What filters see of base64 text: JSON decoded, else text; what is no text either is empty (KIN-40)."""
    try:
        return decode_body(b64decode(data).decode())
    except (NoBase64, UnicodeDecodeError):
        return ""
