"""What the API of Kinesis tells, read from its JSON, and records on their way from there to the event. Their data stays
the base64 text that came."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from bridge.filtering import decode_body
from bridge.mapping import Mapping, SourceArn
from bridge.record import Record
from bridge.sources import Surroundings
from bridge.sources.kinesis_aggregates import parts
from bridge.sources.shards import Shard


class Origin(NamedTuple):
    """What all records of a mapping have in common."""

    arn: str
    """Of the event source, as the mapping has it."""
    stream: SourceArn
    role: str
    """Of the function: its execution role (KIN-42)."""
    deaggregate: bool = False
    """Records of the Producer Library are taken apart (KIN-45)."""
    named: str = ""
    """The ARN in the events, unless that is ``arn`` (KIN-44)."""

    @classmethod
    def of(cls, mapping: Mapping, stream: SourceArn, surroundings: Surroundings) -> Origin:
        arn, function = mapping.source_arn, surroundings.function
        account = SourceArn.parse(function.arn).account
        role = mapping.aws.role_arn or f"arn:{arn.partition}:iam::{account}:role/{mapping.function}"
        return cls(str(arn), stream, role, bool(mapping.stream and mapping.stream.deaggregate), mapping.arn_in_events)


class ChildShard(msgspec.Struct, rename="pascal"):
    """As it is announced at its parent's end (KIN-92)."""

    shard_id: str
    parent_shards: list[str] = []


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


def record_of(wire: WireRecord, shard: str, origin: Origin, data: str | None = None, key: str | None = None) -> Record:
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
            wire.data if data is None else data,
            arrived_at,
            "KMS" if wire.encryption_type == "KMS" else UNSET,  # KIN-43
        ),
        "aws:kinesis",
        "1.0",
        f"{shard}:{number}",
        "aws:kinesis:record",
        origin.role,
        origin.stream.region,
        origin.named or origin.arn,
    )
    return Record(number, _encode(event), arrived_at, receipt=number if outer is None else outer)


def records_of(wires: Sequence[WireRecord], shard: str, origin: Origin) -> tuple[Record, ...]:
    """A page's records, those of the Producer Library taken apart where that is asked for (KIN-45)."""
    if not origin.deaggregate:
        return tuple([record_of(wire, shard, origin) for wire in wires])
    made: list[Record] = []
    for wire in wires:
        found = parts(wire.data)
        made += [record_of(wire, shard, origin, part.data, part.key) for part in found]
        if not found:
            made.append(record_of(wire, shard, origin))
    return tuple(made)


def view(record: Record) -> dict[str, Any]:
    """What patterns are matched against: the members of ``kinesis`` stand at the top as well, with ``data`` decoded
    (FLT-41, FLT-44)."""
    event: dict[str, Any] = msgspec.json.decode(record.json)
    return {**event, **event["kinesis"], "data": decode_data(event["kinesis"]["data"])}


def decode_data(data: str) -> str | dict[str, Any] | list[Any]:
    """What filters see of base64 text: JSON decoded, else text; what is no text either is empty (KIN-40)."""
    try:
        return decode_body(b64decode(data).decode())
    except ValueError:
        return ""


def past_the_end(shard: Shard, records: Sequence[Record]) -> bool:
    """KIN-112: whether a shard that was listed as closed before it was read is at its end with these records, which
    were its newest. For endpoints that give iterators for ever."""
    if shard.last is None:
        return False
    return not records or (shard.last.isdecimal() and int(records[-1].id) >= int(shard.last))


def children_of(children: Sequence[ChildShard] | None) -> tuple[Shard, ...]:
    """Announced ones as they are known to the lineage."""
    return tuple(Shard(child.shard_id, tuple(child.parent_shards)) for child in children or ())
