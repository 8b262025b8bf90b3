"""The wire of Kinesis over a FaultyStream: ListShards, DescribeStreamSummary, GetShardIterator, GetRecords; and
SubscribeToShard without one."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping as Dict
from math import inf
from typing import Any, ClassVar

import anyio
import anyio.lowlevel

from tests.sources.faulty_sqs import Refused
from tests.sources.faulty_streams import ACCOUNT, REGION, Call, FaultyStream
from tests.sources.shard_model import Shard, Stored

THROUGHPUT = 2 << 20
"""Bytes a second of one shard (KIN-10)."""
TOKEN_LIFE = 300.0


class FaultyKinesis(FaultyStream):
    """A stream of Kinesis."""

    service = "kinesis"
    iterator_life = 300.0
    most_records = 10_000
    most_bytes = 10 << 20
    limited = "InvalidArgumentException"
    first_number = 49590338271490256608559692538361571095921575989136588898

    def __init__(self, name: str = "orders", shards: int = 1, **model: Any) -> None:
        self.reads = 5.0  # KIN-10
        self.ignores_filters = False
        """ListShards gives all of them, whatever it is asked for (KIN-114)."""
        self.encryption = ""
        self.subscription_life = 300.0  # KIN-100
        self.push_most = 1000
        """Records in one event of a subscription."""
        self.pushed = 0
        """Records that were sent to subscribers so far."""
        self._owners: dict[str, tuple[int, float]] = {}
        super().__init__(name, shards, **model)

    @property
    def arn(self) -> str:
        return f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{self.name}"

    @property
    def consumer_arn(self) -> str:
        return f"{self.arn}/consumer/bridge:1700000000"

    def wire_record(self, key: str, body: str, number: int, at: float, members: dict[str, Any]) -> dict[str, Any]:
        wire = {
            "ApproximateArrivalTimestamp": round(at, 3),
            "Data": b64encode(body.encode()).decode(),
            "PartitionKey": key,
            "SequenceNumber": str(number),
        }
        encryption = {"EncryptionType": self.encryption} if self.encryption else {}
        return {name: value for name, value in {**wire, **encryption, **members}.items() if value is not None}

    def weight(self, wire: dict[str, Any]) -> int:
        return len(wire["Data"]) * 3 // 4 + len(wire.get("PartitionKey", ""))

    def shard_name(self, count: int) -> str:
        return f"shardId-{count:012d}"

    def past_the_trimmed(self, shard: Shard, number: int) -> int:
        return max(number, shard.horizon)  # KIN-32

    async def _list(self, params: Dict[str, Any]) -> dict[str, Any]:
        token = params.get("NextToken")
        if token:
            assert "StreamARN" not in params, "NextToken and a stream exclude each other (KIN-12)"
            asked = json.loads(token)
            if anyio.current_time() - asked.pop("at") > TOKEN_LIFE:
                raise Refused("ExpiredNextTokenException")
        else:
            self._ours(params)
            asked = {"filter": params.get("ShardFilter", {}), "after": params.get("ExclusiveStartShardId", "")}
        size = min(params.get("MaxResults", 1000), self.shards_a_page)
        found = [shard for shard in self._filtered(asked["filter"]) if shard.id > asked["after"]]
        found = found if token else self.complete(found)
        answer: dict[str, Any] = {"Shards": [self._described(shard) for shard in found[:size]]}
        if len(found) > size:
            more = {"filter": asked["filter"], "after": found[size - 1].id, "at": anyio.current_time()}
            answer["NextToken"] = json.dumps(more)
        return answer

    def _ours(self, params: Dict[str, Any]) -> None:
        if params.get("StreamARN") != self.arn:  # KIN-28: always by its ARN
            raise Refused("ResourceNotFoundException")

    def _filtered(self, wanted: Dict[str, Any]) -> list[Shard]:
        shards = [*self.shards.values()]
        oldest = [shard for shard in shards if not any(parent in self.shards for parent in shard.parents)]
        at = wanted.get("Timestamp", 0.0)
        match None if self.ignores_filters else wanted.get("Type"):
            case "AT_LATEST":
                return [shard for shard in shards if shard.last is None]
            case "AT_TRIM_HORIZON":
                return oldest
            case "AT_TIMESTAMP":
                return [shard for shard in shards if shard.opened_at <= at < shard.closed_at] or oldest
            case "FROM_TIMESTAMP":
                return [shard for shard in shards if shard.closed_at > at]
            case "AFTER_SHARD_ID":
                return [shard for shard in shards if shard.id > wanted["ShardId"]]
            case _:
                return shards

    def _described(self, shard: Shard) -> dict[str, Any]:
        low, high = shard.hashes
        numbers = {"StartingSequenceNumber": str(shard.first)}
        if shard.last is not None:
            numbers["EndingSequenceNumber"] = str(shard.last)
        parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
        hashes = {"StartingHashKey": str(low), "EndingHashKey": str(high - 1)}
        return {"ShardId": shard.id, **parents, "HashKeyRange": hashes, "SequenceNumberRange": numbers}

    async def _summary(self, params: Dict[str, Any]) -> dict[str, Any]:
        self._ours(params)
        summary = {
            "StreamName": self.name,
            "StreamARN": self.arn,
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": round(time.time(), 3),
            "EnhancedMonitoring": [{}],
            "EncryptionType": "NONE",
            "OpenShardCount": len(self.open),
            "ConsumerCount": 0,
        }
        return {"StreamDescriptionSummary": summary}

    async def _iterator(self, params: Dict[str, Any]) -> dict[str, Any]:
        self._ours(params)
        shard = self.shard(params["ShardId"])
        self.count_against("GetShardIterator", shard.id, 5, self.throttled)  # KIN-12
        sequence = params.get("StartingSequenceNumber")
        if sequence is not None and not shard.first <= int(sequence) <= (shard.last or self.next_number(shard)):
            raise Refused("InvalidArgumentException")
        number = self.start(shard, params["ShardIteratorType"], sequence, params.get("Timestamp"))
        return {"ShardIterator": self.issue(shard, number)}

    async def _records(self, params: Dict[str, Any]) -> dict[str, Any]:
        if "StreamARN" in params:
            self._ours(params)
        shard, page, following = self.read(params)
        size = sum(record.size for record in page)
        if size > THROUGHPUT:
            self.quiet(shard, min(5.0, size / THROUGHPUT))  # KIN-11
        next_one = shard.since(page[-1].number + 1) if page else None
        answer: dict[str, Any] = {
            "Records": [dict(record.wire) for record in page],
            "NextShardIterator": following,
            "MillisBehindLatest": self._behind(shard, following, next_one),
        }
        if following is None and not self.hides_children:
            answer["ChildShards"] = self._children(shard)
        return answer

    def _behind(self, shard: Shard, following: str | None, index: int | None) -> int:
        """Milliseconds; 0: nothing follows in this shard."""
        if following is None:
            return 0
        if index is None:
            index = shard.since(int(following.split("/")[1]))
        if index == len(shard.records):
            return 0
        return max(1, int((time.time() - shard.records[index].at) * 1000))

    async def events(self, operation: str, params: Dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """SubscribeToShard. Each event is taken before the next one is made (KIN-103)."""
        name, place = params["ShardId"], params["StartingPosition"]
        self.calls.append(Call(operation, params, anyio.current_time(), name))
        self.counts[operation] += 1
        await anyio.lowlevel.checkpoint()
        self._refuse_as_scripted(operation, name)
        if params["ConsumerARN"] != self.consumer_arn:
            raise Refused("ResourceNotFoundException")
        shard = self.shard(name)
        owner, since = self._owners.get(name, (0, -inf))
        if anyio.current_time() < since + 5:  # KIN-102
            raise Refused("ResourceInUseException")
        self._owners[name] = (owner + 1, anyio.current_time())
        number = self.start(shard, place["Type"], place.get("SequenceNumber"), place.get("Timestamp"))
        until = anyio.current_time() + self.subscription_life
        while anyio.current_time() < until:
            begin = shard.since(number)
            page = shard.records[begin : begin + self.push_most]
            number = page[-1].number + 1 if page else number
            ended = shard.last is not None and shard.since(number) == len(shard.records)
            self.pushed += len(page)
            yield {"SubscribeToShardEvent": self._event(shard, page, number, ended=ended)}
            if ended:
                return
            if shard.since(number) == len(shard.records):
                changed = self._changed
                with anyio.CancelScope(deadline=min(until, anyio.current_time() + 5)):
                    await changed.wait()
            if not self.there:
                raise Refused("ResourceNotFoundException")
            if self._owners[name][0] != owner + 1:
                raise Refused("ResourceInUseException")  # KIN-104

    def steal(self, shard: str = "") -> None:
        """Somebody else subscribes to it, or to all that have subscribers."""
        for name in [shard] if shard else [*self._owners]:
            owner, _ = self._owners[name]
            self._owners[name] = (owner + 1, anyio.current_time())
        self.changed()

    def _event(self, shard: Shard, page: list[Stored], number: int, *, ended: bool) -> dict[str, Any]:
        event: dict[str, Any] = {
            "Records": [dict(record.wire) for record in page],
            "ContinuationSequenceNumber": None if ended else str(number - 1 if page else self.next_number(shard) - 1),
            "MillisBehindLatest": 0 if shard.since(number) == len(shard.records) else 1000,
        }
        if ended:
            event["ChildShards"] = self._children(shard)
        return event

    def _children(self, shard: Shard) -> list[dict[str, Any]]:
        children = [self.shards[child] for child in shard.children if child in self.shards]
        return [
            {
                "ShardId": child.id,
                "ParentShards": list(child.parents),
                "HashKeyRange": self._described(child)["HashKeyRange"],
            }
            for child in children
        ]

    operations: ClassVar = {
        "ListShards": _list,
        "DescribeStreamSummary": _summary,
        "GetShardIterator": _iterator,
        "GetRecords": _records,
    }
