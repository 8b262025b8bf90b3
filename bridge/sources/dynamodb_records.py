"""Changes of a table's items on their way from the API's JSON to the event. Keys and images stay the JSON that came."""

from __future__ import annotations

from math import floor
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from bridge.record import Record
from bridge.sources.answers import unreadable


class Change(msgspec.Struct, rename="pascal", omit_defaults=True):
    """The members in the event's order (DDB-40). Of an item's attributes nothing is looked at: their bytes are base64
    text already (DDB-43)."""

    approximate_creation_date_time: float | None = None
    keys: Raw | UnsetType = UNSET
    new_image: Raw | UnsetType = UNSET
    old_image: Raw | UnsetType = UNSET
    sequence_number: str | None = None
    size_bytes: int | None = None
    stream_view_type: str | None = None


class Identity(msgspec.Struct, rename="pascal"):
    """Who made the change, where that was the service itself (DDB-44)."""

    principal_id: str | None = None
    type: str | None = None


class WireRecord(msgspec.Struct, rename="camel"):
    """A record as the API gives it."""

    dynamodb: Change
    event_id: str | None = msgspec.field(name="eventID", default=None)
    event_name: str | None = None
    event_version: str | None = None
    event_source: str | None = None
    aws_region: str | None = None
    user_identity: Identity | None = None


class _Event(msgspec.Struct, rename="camel", omit_defaults=True):
    event_id: str | None = msgspec.field(name="eventID", default=None)
    event_name: str | None = None
    event_version: str | None = None
    event_source: str | None = None
    aws_region: str | None = None
    dynamodb: Change | None = None
    user_identity: dict[str, str | None] | None = None
    event_source_arn: str | None = msgspec.field(name="eventSourceARN", default=None)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_canonical = msgspec.json.Encoder(order="sorted").encode


def record_of(wire: WireRecord, arn: str) -> Record:
    """The record that the handler gets. Raises ServiceFault for what is no such record."""
    change = wire.dynamodb
    if change.sequence_number is None or change.keys is UNSET:
        raise unreadable("a record lacks its SequenceNumber or its Keys")
    arrived_at = float(change.approximate_creation_date_time or 0)  # DDB-63
    return Record(change.sequence_number, record_json(wire, arn), arrived_at, receipt=lane_key(_decode(change.keys)))


def lane_key(keys: dict[str, Any]) -> str:
    """An item's primary key as one text (DDB-46)."""
    return _canonical(keys).decode()


def record_json(wire: WireRecord, arn: str) -> bytes:
    """A record of GetRecords as one of the event: members in the order of DDB-40, absent ones left out (DDB-41)."""
    change, identity = wire.dynamodb, wire.user_identity
    created = change.approximate_creation_date_time
    changed = Change(
        None if created is None else float(floor(created)),  # DDB-42
        _given(change.keys),
        _given(change.new_image),
        _given(change.old_image),
        change.sequence_number,
        change.size_bytes,
        change.stream_view_type,
    )
    return _encode(
        _Event(
            wire.event_id,
            wire.event_name,
            wire.event_version,
            wire.event_source,
            wire.aws_region,
            changed,
            None if identity is None else {"type": identity.type, "principalId": identity.principal_id},  # DDB-44
            arn,  # DDB-45
        )
    )


def _given(image: Raw | UnsetType) -> Raw | UnsetType:
    """Nothing, where it is null."""
    if image is UNSET or (len(memoryview(image)) == len(b"null") and bytes(image) == b"null"):
        return UNSET
    return image
