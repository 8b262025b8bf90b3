"""One Kinesis stream behind its API: its shards, iterators and pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from bridge.errors import Rejected
from bridge.sources.answers import Begun, Listed, parsed, records_in
from bridge.sources.kinesis_push import Push
from bridge.sources.kinesis_records import ChildShard, Origin, WireRecord, children_of, past_the_end, records_of
from bridge.sources.shards import CursorExpired, PositionTrimmed, ReadPage, Shard, Where

if TYPE_CHECKING:
    from bridge.aws import Api

CALL_TIMEOUT = 20.0
"""Of a read: 10 MiB may take a while."""
MOST_RECORDS = 10_000
"""KIN-11."""
IDLE = 1.0
"""KIN-20."""
PAUSE = 0.2
"""KIN-21."""
DISCOVERY = 60.0
"""KIN-92."""
LISTINGS = 3
"""Attempts at one listing: its token may expire (KIN-12)."""


class _Summary(msgspec.Struct, rename="pascal"):
    stream_status: str | None = None
    retention_period_hours: float | None = None


class _Described(msgspec.Struct, rename="pascal"):
    stream_description_summary: _Summary = msgspec.field(default_factory=_Summary)


class _Listing(msgspec.Struct, rename="pascal"):
    shards: list[Listed] | None = None
    next_token: str | None = None


class _Page(msgspec.Struct, rename="pascal"):
    next_shard_iterator: str | None = None
    millis_behind_latest: float | None = None
    child_shards: list[ChildShard] | None = None


class KinesisStream:
    """``StreamApi`` of one stream."""

    idle, pause, discovery, most = IDLE, PAUSE, DISCOVERY, MOST_RECORDS
    filters = True  # KIN-26

    def __init__(self, api: Api, origin: Origin) -> None:
        self.what = f"the stream {_name(origin)}"
        self.retention = inf
        self.status = ""
        """As the service last said it."""
        self._api, self._origin = api, origin
        self._address = {"StreamARN": str(origin.stream)}
        self._push = Push(api, origin) if "/consumer/" in origin.arn else None

    def __repr__(self) -> str:
        return f"<KinesisStream {self._origin.stream}>"

    async def open(self) -> None:
        """Finds out whether it is there, and how long it keeps its records. Raises RemoteError."""
        try:
            answer = await self._call("DescribeStreamSummary", self._address)
        except Rejected:  # endpoints of development that know streams by their names alone
            self._address = {"StreamName": _name(self._origin)}
            answer = await self._call("DescribeStreamSummary", self._address)
        summary = parsed(answer, _Described).stream_description_summary
        self.status = summary.stream_status or ""
        self.retention = max(summary.retention_period_hours or inf, 1.0) * 3600

    async def shards(self, start: Where | None = None) -> list[Shard]:
        for _ in range(LISTINGS - 1):
            try:
                return await self._list(start)
            except Rejected as error:
                if error.code != "ExpiredNextTokenException":
                    raise
        return await self._list(start)

    async def _list(self, start: Where | None) -> list[Shard]:
        query: dict[str, Any] = dict(self._address)
        if start is not None:
            query["ShardFilter"] = _filter(start)  # KIN-26
        shards: list[Shard] = []
        while True:
            listing = parsed(await self._call("ListShards", query), _Listing)
            shards += [listed.shard for listed in listing.shards or ()]
            if not listing.next_token:
                return shards
            query = {"NextToken": listing.next_token}

    def now(self) -> float | None:
        return self._api.now()

    async def cursor(self, shard: Shard, where: Where) -> str:
        query: dict[str, Any] = {**self._address, "ShardId": shard.id, "ShardIteratorType": where.kind}
        if where.sequence:
            query["StartingSequenceNumber"] = where.sequence
        elif where.kind == "AT_TIMESTAMP":
            query["Timestamp"] = where.at
        try:
            answer = await self._call("GetShardIterator", query)
        except Rejected as error:
            if where.sequence and error.code == "InvalidArgumentException":
                raise PositionTrimmed(str(error)) from error  # of a stream that was made anew under its old name
            raise
        return parsed(answer, Begun).shard_iterator

    async def read(self, shard: Shard, cursor: str, limit: int) -> ReadPage:
        query: dict[str, Any] = {"ShardIterator": cursor, "Limit": limit}
        if "StreamARN" in self._address:
            query |= self._address  # KIN-28
        try:
            answer = await self._call("GetRecords", query)
        except Rejected as error:
            if error.code == "ExpiredIteratorException":
                raise CursorExpired(str(error)) from error
            raise
        page = parsed(answer, _Page)
        records = records_of(records_in(answer, WireRecord), shard.id, self._origin)
        behind = page.millis_behind_latest
        caught_up = not records if behind is None else behind == 0
        return ReadPage(
            records,
            None if caught_up and past_the_end(shard, records) else page.next_shard_iterator,
            caught_up,
            None if behind is None else behind / 1000,
            children_of(page.child_shards),
            sum([len(record.json) for record in records]),
        )

    def pages(self, shard: Shard, where: Where) -> AsyncGenerator[ReadPage] | None:
        return self._push.pages(shard, where) if self._push else None

    async def _call(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        return await self._api.call(operation, params, timeout=CALL_TIMEOUT)


def _name(origin: Origin) -> str:
    return origin.stream.resource.removeprefix("stream/")


def _filter(start: Where) -> dict[str, Any]:
    if start.kind == "AT_TIMESTAMP":
        return {"Type": "AT_TIMESTAMP", "Timestamp": start.at}
    return {"Type": "AT_LATEST" if start.kind == "LATEST" else "AT_TRIM_HORIZON"}
