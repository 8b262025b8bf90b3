"""Enhanced fan-out: the records of a shard as Kinesis pushes them to a consumer, one subscription after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import structlog

from bridge.errors import NotFound, Rejected, RemoteError, ServiceFault, Throttled, Unreachable
from bridge.sources.answers import parsed
from bridge.sources.kinesis_records import ChildShard, Origin, WireRecord, children_of, past_the_end, records_of
from bridge.sources.shards import PositionTrimmed, PushUnavailable, ReadPage, Shard, Where
from bridge.station import countdown, held

if TYPE_CHECKING:
    from bridge.aws import Api

ANSWER_TIMEOUT = 20.0
"""For the beginning of a subscription."""
RENEWAL_PAUSE = 5.0
"""Seconds after the beginning of a subscription within which another one is refused (KIN-102)."""
MOST_ATTEMPTS = 3
"""Subscriptions that fail, none having worked, until the endpoint is taken for one that cannot push (KIN-105)."""
NEVER_KNOWN = frozenset({"InvalidAction", "NotImplemented", "UnknownOperationException", "UnsupportedOperation"})
"""Codes of endpoints that do not have the operation."""

log = structlog.get_logger()


class _Event(msgspec.Struct, rename="pascal"):
    records: list[WireRecord] = []
    continuation_sequence_number: str | None = None
    millis_behind_latest: float | None = None
    child_shards: list[ChildShard] | None = None


class Push:
    """What one consumer is pushed."""

    def __init__(self, api: Api, origin: Origin) -> None:
        self._api, self._origin = api, origin
        self._subscribed_at: dict[str, float] = {}
        self._works = False
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Push to {self._origin.arn}: {len(self._subscribed_at)} shards>"

    async def pages(self, shard: Shard, where: Where) -> AsyncGenerator[ReadPage]:
        """One subscription, to its end (KIN-100). Back-pressure is that of the connection (KIN-103)."""
        since = self._subscribed_at.get(shard.id)
        if since is not None:
            with held("subscription", countdown("subscribes again", since + RENEWAL_PAUSE)):
                await anyio.sleep_until(since + RENEWAL_PAUSE)
        query = {"ConsumerARN": self._origin.arn, "ShardId": shard.id, "StartingPosition": _starting(where)}
        begun = False
        try:
            async with aclosing(self._api.events("SubscribeToShard", query, timeout=ANSWER_TIMEOUT)) as events:
                async for event in events:
                    if not begun:
                        begun = self._works = True
                        self._subscribed_at[shard.id] = anyio.current_time()
                    if told := event.get("SubscribeToShardEvent"):
                        yield self._page(shard, told)
            if not begun:
                self._subscribed_at[shard.id] = anyio.current_time()  # it ended without a word
        except RemoteError as error:
            raise self._meant(error, shard, where, begun=begun) from error

    def _page(self, shard: Shard, told: dict[str, Any]) -> ReadPage:
        event = parsed(told, _Event)
        records = records_of(event.records, shard.id, self._origin)
        behind, passed = event.millis_behind_latest, event.continuation_sequence_number
        caught_up = not records if behind is None else behind == 0
        ended = event.child_shards or not passed or (caught_up and past_the_end(shard, records))
        if ended:
            self._subscribed_at.pop(shard.id, None)
        return ReadPage(
            records,
            None if ended else passed,
            caught_up,
            None if behind is None else behind / 1000,
            children_of(event.child_shards),
            sum([len(record.json) for record in records]),
            passed or "",
        )

    def _meant(self, error: RemoteError, shard: Shard, where: Where, *, begun: bool) -> Exception:
        if error.code == "ResourceInUseException":  # KIN-102; in the middle of it KIN-104
            if begun:
                log.warning("subscription_lost", shard=shard.id, detail=str(error))
            return Throttled(str(error), code=error.code)
        if error.code == "InvalidArgumentException" and where.kind == "AFTER_SEQUENCE_NUMBER":
            return PositionTrimmed(str(error))
        if not self._works and self._cannot(error):
            return PushUnavailable(f"{error}; records are read by GetRecords instead")
        return error

    def _cannot(self, error: RemoteError) -> bool:
        """Whether this endpoint is one that does not push (KIN-105)."""
        if error.code in NEVER_KNOWN or (isinstance(error, NotFound) and error.code != "ResourceNotFoundException"):
            return True
        self._failures += isinstance(error, ServiceFault | Unreachable)
        return self._failures >= MOST_ATTEMPTS and not isinstance(error, Rejected | Throttled)


def _starting(where: Where) -> dict[str, Any]:
    place: dict[str, Any] = {"Type": where.kind}
    if where.kind == "AFTER_SEQUENCE_NUMBER":
        place["SequenceNumber"] = where.sequence
    elif where.kind == "AT_TIMESTAMP":
        place["Timestamp"] = where.at
    return place
