"""The stream of a DynamoDB table through its API: shards by pages, iterators, records in the event's shape."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from math import floor
from typing import Any, NamedTuple

import anyio
import msgspec

from bridge.aws import Api
from bridge.errors import NotFound, Rejected, RemoteError
from bridge.sources.answers import Begun, Listed, parsed, records_in
from bridge.sources.dynamodb_records import WireRecord, record_of
from bridge.sources.shards import CursorExpired, PositionTrimmed, ReadPage, Shard, Where

CALL_TIMEOUT = 10.0
PAGE_PAUSE = 0.15
"""Seconds between two pages of shards: all mappings of an account share 10 a second (DDB-2)."""
COARSEST_TIME = 60.0
"""To how many seconds creation times are rounded down: one on AWS (DDB-42), sixty in Amazon's local version."""


class _Description(msgspec.Struct, rename="pascal"):
    stream_status: str | None = None
    shards: list[Listed] | None = None
    last_evaluated_shard_id: str | None = None


class _Described(msgspec.Struct, rename="pascal"):
    stream_description: _Description = msgspec.field(default_factory=_Description)


class _Page(msgspec.Struct, rename="pascal"):
    next_shard_iterator: str | None = None


class Cursor(NamedTuple):
    """Where a shard is read on."""

    iterator: str
    since: float | None = None
    """Epoch seconds: where reading was to begin, as long as nothing was read."""
    skips: bool = False
    """Records that were created before ``since`` are not for us: the service could not, or cannot any more, begin there
    (DDB-26)."""
    empty: bool = False
    """The read before gave nothing."""


class TableStream:
    """``StreamApi`` of one table's stream.

    ``idle``: seconds from one read of a shard to the next where nothing waits (DDB-21).
    """

    pause = 0.2
    discovery = 30.0
    most = 1000  # DDB-5
    retention = 86_400.0  # DDB-1
    filters = False

    def __init__(self, api: Api, arn: str, *, idle: float = 0.25) -> None:
        self.what = f"stream {arn.rpartition(':')[2]}"
        self.idle = idle
        self.status = ""
        """As the service last said it (DDB-10)."""
        self._api = api
        self._arn = arn
        self._takes_times = True

    def __repr__(self) -> str:
        return f"<TableStream {self._arn} {self.status or 'not asked yet'}>"

    def now(self) -> float | None:
        return self._api.now()

    async def shards(self, start: Where | None = None) -> list[Shard]:  # noqa: ARG002 - there is nothing to leave out by
        """DDB-2."""
        found: dict[str, Shard] = {}
        params = {"StreamArn": self._arn}
        while True:
            description = parsed(await self._call("DescribeStream", params), _Described).stream_description
            self.status = description.stream_status or ""
            found |= {listed.shard_id: listed.shard for listed in description.shards or ()}
            following = description.last_evaluated_shard_id
            if not following or following == params.get("ExclusiveStartShardId"):
                return list(found.values())
            params = {"StreamArn": self._arn, "ExclusiveStartShardId": following}
            await anyio.sleep(PAGE_PAUSE)

    async def cursor(self, shard: Shard, where: Where) -> Cursor:
        if where.kind == "AT_TIMESTAMP":
            return await self._since(shard, where.at or 0.0)
        if where.sequence:
            return Cursor(await self._iterator(shard, where.kind, SequenceNumber=where.sequence))
        since = where.at if where.kind == "LATEST" else None
        return Cursor(await self._iterator(shard, where.kind), since)

    async def _since(self, shard: Shard, at: float) -> Cursor:
        """From a time on: by the service, or by leaving out what is older where it cannot (DDB-7, DDB-26)."""
        begin = float(floor(at))  # DDB-42: creation times are rounded down
        if self._takes_times:
            try:
                return Cursor(await self._iterator(shard, "AT_TIMESTAMP", Timestamp=begin), begin)
            except Rejected as error:
                if error.code not in ("ValidationException", "ParamValidationError"):  # of the service, of an older SDK
                    raise
                self._takes_times = False
        return await self._from_the_horizon(shard, begin)

    async def _from_the_horizon(self, shard: Shard, since: float) -> Cursor:
        return Cursor(await self._iterator(shard, "TRIM_HORIZON"), since, skips=True)

    async def _iterator(self, shard: Shard, kind: str, **place: Any) -> str:
        where = {"StreamArn": self._arn, "ShardId": shard.id, "ShardIteratorType": kind}
        return parsed(await self._call("GetShardIterator", {**where, **place}), Begun).shard_iterator

    def pages(self, shard: Shard, where: Where) -> None:  # noqa: ARG002 - nothing is pushed
        return None

    async def read(self, shard: Shard, cursor: Cursor, limit: int) -> ReadPage:
        params = {"ShardIterator": cursor.iterator, "Limit": limit}
        try:
            answer = await self._call("GetRecords", params)
        except NotFound as error:
            # DDB-28: an iterator may die with its server, and then say this. Whether the shard itself is gone shows
            # when another one is asked for.
            raise CursorExpired(str(error)) from error
        except PositionTrimmed:
            if cursor.since is None:
                raise
            # DDB-26, DDB-28: nothing of a time's own was read yet, so that nothing is lost by going on behind the gap.
            return ReadPage(cursor=await self._from_the_horizon(shard, cursor.since), caught_up=False)
        return self._page(answer, cursor)

    def _page(self, answer: Dict[str, Any], cursor: Cursor) -> ReadPage:
        came = records_in(answer, WireRecord)
        records = tuple([record_of(wire, self._arn) for wire in came])
        passed, since, skips = "", cursor.since, cursor.skips
        if since is not None and records:
            passed = records[-1].id
            if skips:
                begin = since - since % COARSEST_TIME
                records = tuple(record for record in records if record.arrived_at >= begin)
            if records:
                since, skips = None, False
        following = parsed(answer, _Page).next_shard_iterator
        return ReadPage(
            records=records,
            cursor=Cursor(following, since, skips, empty=not came) if following else None,  # DDB-6
            caught_up=not came and cursor.empty,  # TW-42: one empty answer says nothing about what follows
            size=sum(len(record.json) for record in records),
            passed=passed,
        )

    async def _call(self, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        """The service's words for a place in a shard that is no more become ours."""
        try:
            return await self._api.call(operation, params, timeout=CALL_TIMEOUT)
        except RemoteError as error:
            match error.code:
                case "ExpiredIteratorException":
                    raise CursorExpired(str(error)) from error
                case "TrimmedDataAccessException":
                    raise PositionTrimmed(str(error)) from error
            raise
