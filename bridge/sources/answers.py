"""What the APIs of streams answer, read from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from bridge.errors import ServiceFault
from bridge.sources.shards import Shard

T = TypeVar("T")


class Numbers(msgspec.Struct, rename="pascal"):
    """The sequence numbers of a shard; without the last it is open."""

    starting_sequence_number: str | None = None
    ending_sequence_number: str | None = None


class Listed(msgspec.Struct, rename="pascal"):
    """A shard in a listing."""

    shard_id: str
    parent_shard_id: str | None = None
    adjacent_parent_shard_id: str | None = None
    sequence_number_range: Numbers | None = None

    @property
    def shard(self) -> Shard:
        """As readers know it."""
        parents = (self.parent_shard_id, self.adjacent_parent_shard_id)
        numbers = self.sequence_number_range or Numbers()
        return Shard(
            self.shard_id,
            tuple(parent for parent in parents if parent),  # DDB-3
            numbers.starting_sequence_number or "",
            numbers.ending_sequence_number or None,
        )


class Begun(msgspec.Struct, rename="pascal"):
    """The answer to GetShardIterator."""

    shard_iterator: str


def parsed(answer: Mapping[str, Any], kind: type[T]) -> T:
    """Raises ServiceFault for what is no such answer."""
    try:
        return msgspec.convert(answer, kind, strict=False)
    except msgspec.ValidationError as error:
        raise unreadable(error) from error


def records_in(answer: Mapping[str, Any], kind: type[T]) -> list[T]:
    """Those of an answer to GetRecords, which are JSON still (``bridge.aws.Api.call``). Raises ServiceFault."""
    try:
        return msgspec.json.decode(answer.get("Records", b"null"), type=list[kind] | None, strict=False) or []  # type: ignore[valid-type]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(error) from error


def unreadable(why: object) -> ServiceFault:
    """What came is no such answer."""
    return ServiceFault(f"the answer cannot be read: {why}", code="ResponseParserError")
