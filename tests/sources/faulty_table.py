"""The wire of DynamoDB Streams over a FaultyStream: DescribeStream, GetShardIterator, GetRecords."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping as Dict
from math import inf
from typing import Any, ClassVar

from tests.sources.faulty_sqs import Refused
from tests.sources.faulty_streams import ACCOUNT, REGION, FaultyStream
from tests.sources.shard_model import Shard

LABEL = "2024-06-10T19:26:16.525"
DAY = 86_400.0


class FaultyTable(FaultyStream):
    """The stream of a table whose items have the key ``id`` (a string). Shards live a day after their end (DDB-1)."""

    service = "dynamodbstreams"
    iterator_life = 900.0
    most_records = 1000
    most_bytes = 1 << 20
    limited = "LimitExceededException"
    throttled = "ThrottlingException"
    first_number = 10**24

    def __init__(self, name: str = "orders", shards: int = 1, *, retention: float = DAY, **model: Any) -> None:
        self.reads = inf
        self.status = "ENABLED"
        self.view = "NEW_AND_OLD_IMAGES"
        self.local = False
        """It is like Amazon's version for one's own machine: knows no AT_TIMESTAMP, and creation times of whole minutes
        (DDB-28)."""
        self._images: dict[str, dict[str, Any]] = {}
        super().__init__(name, shards, retention=retention, **model)

    @property
    def arn(self) -> str:
        return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{self.name}/stream/{LABEL}"

    def disable(self) -> None:
        """It gets nothing more, and can be read on (DDB-10)."""
        self.status = "DISABLED"
        for shard in self.open:
            self.close(shard)

    def remove(self, key: str, *, expired: bool = False) -> str:
        """Deletes an item; ``expired``: by its time to live."""
        members: dict[str, Any] = {"eventName": "REMOVE"}
        if expired:
            members["userIdentity"] = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
        return self.put(key, **members)

    def text(self, number: int) -> str:
        return f"{number:021d}"  # DDB-9: small ones have leading zeros

    def wire_record(self, key: str, body: str, number: int, at: float, members: dict[str, Any]) -> dict[str, Any]:
        """``members`` replace those of the record, ``dynamodb`` its own members one by one."""
        old = self._images.get(key)
        name = members.get("eventName") or ("MODIFY" if old else "INSERT")
        keys = {"id": {"S": key}}
        new = None if name == "REMOVE" else {**keys, "body": {"S": body}}
        self._images[key] = new or {}
        images = {"NewImage": new if "NEW" in self.view else None, "OldImage": old if "OLD" in self.view else None}
        change: dict[str, Any] = {
            "ApproximateCreationDateTime": float(int(at) - int(at) % (60 if self.local else 1)),
            "Keys": keys,
            **{image: value for image, value in images.items() if value},
            "SequenceNumber": self.text(number),
            "SizeBytes": len(json.dumps(images)),
            "StreamViewType": self.view,
            **members.pop("dynamodb", {}),
        }
        return {
            "eventID": f"{number:032x}"[-32:],
            "eventName": name,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": REGION,
            "dynamodb": {member: value for member, value in change.items() if value is not None},
            **members,
        }

    def weight(self, wire: dict[str, Any]) -> int:
        return int(wire["dynamodb"]["SizeBytes"])

    def shard_name(self, count: int) -> str:
        return f"shardId-{int(time.time() * 1000):020d}-{count:08x}"

    def past_the_trimmed(self, shard: Shard, number: int) -> int:
        if number < shard.horizon:
            raise Refused("TrimmedDataAccessException")  # DDB-1
        return number

    async def _describe(self, params: Dict[str, Any]) -> dict[str, Any]:
        self.count_against("DescribeStream", "", 10, self.throttled)  # DDB-2
        self._ours(params)
        size = params.get("Limit", self.shards_a_page)
        if not 1 <= size <= 100:
            raise Refused("ValidationException")
        shards = [*self.shards.values()]
        if wanted := params.get("ShardFilter"):
            assert wanted["Type"] == "CHILD_SHARDS"
            shards = [shard for shard in shards if wanted["ShardId"] in shard.parents]
        after = params.get("ExclusiveStartShardId")
        shards = shards if after else self.complete(shards)
        names = [shard.id for shard in shards]
        begin = names.index(after) + 1 if after in names else 0
        size = min(size, self.shards_a_page)
        page = shards[begin : begin + size]
        description = {
            "StreamArn": self.arn,
            "StreamLabel": LABEL,
            "StreamStatus": self.status,
            "StreamViewType": self.view,
            "CreationRequestDateTime": 1718047576.525,
            "TableName": self.name,
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "Shards": [self._described(shard) for shard in page],
        }
        if begin + size < len(shards):
            description["LastEvaluatedShardId"] = page[-1].id
        return {"StreamDescription": description}

    def _ours(self, params: Dict[str, Any]) -> None:
        if params["StreamArn"] != self.arn:
            raise Refused("ResourceNotFoundException")

    def _described(self, shard: Shard) -> dict[str, Any]:
        numbers = {"StartingSequenceNumber": self.text(shard.first)}
        if shard.last is not None:
            numbers["EndingSequenceNumber"] = self.text(shard.last)
        parent = {"ParentShardId": shard.parents[0]} if shard.parents else {}
        return {"ShardId": shard.id, "SequenceNumberRange": numbers, **parent}

    async def _iterator(self, params: Dict[str, Any]) -> dict[str, Any]:
        self._ours(params)
        if self.local and params["ShardIteratorType"] == "AT_TIMESTAMP":
            raise Refused("ValidationException")
        shard = self.shard(params["ShardId"])
        number = self.start(shard, params["ShardIteratorType"], params.get("SequenceNumber"), params.get("Timestamp"))
        return {"ShardIterator": self.issue(shard, self.past_the_trimmed(shard, number))}

    async def _records(self, params: Dict[str, Any]) -> dict[str, Any]:
        assert params.keys() <= {"ShardIterator", "Limit"}  # DDB-5: there is no stream's ARN
        _, page, following = self.read(params)
        answer: dict[str, Any] = {"Records": [dict(record.wire) for record in page]}
        if following is not None:  # DDB-6; Kinesis writes null instead
            answer["NextShardIterator"] = following
        return answer

    operations: ClassVar = {
        "DescribeStream": _describe,
        "GetShardIterator": _iterator,
        "GetRecords": _records,
    }
