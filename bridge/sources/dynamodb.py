"""Amazon DynamoDB Streams: limits, reports, and the source of a mapping."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bridge.mapping import SourceArn
from bridge.record import Record
from bridge.sources import Bound, Limits
from bridge.sources.shards import StreamApi
from bridge.sources.streams import StreamSource

STREAM = re.compile(r"table/[a-zA-Z0-9_.-]{1,255}/stream/[\w:.-]{1,100}")
"""The resource of the ARN of a table's stream."""


class DynamoDBSource(StreamSource):
    """The source of one mapping of a table's stream."""

    data_key = "dynamodb"
    info_key = "DDBStreamBatchInfo"  # DDB-62
    info_timespec = "seconds"  # its records know no others (KIN-84)

    @classmethod
    def limits(cls, mapping_source: str) -> Limits:
        if not STREAM.fullmatch(SourceArn.parse(mapping_source).resource):
            raise ValueError("expected the ARN of a table's stream, …:table/NAME/stream/LABEL")
        return Limits("a DynamoDB stream", Bound(1, 10_000, 100), Bound(0, 300, 0))  # DDB-64

    async def connect(self) -> StreamApi:
        from bridge.faults import persist
        from bridge.sources.dynamodb_stream import TableStream

        mapping, around = self.mapping, self.surroundings
        arn = mapping.source_arn
        api = await persist(
            lambda: around.aws.api("dynamodbstreams", mapping.aws, arn.region or None), trouble=around.trouble
        )
        return TableStream(api, str(arn))

    def view(self, record: Record) -> Any:
        """As the function gets it: attribute values keep their types (DDB-51)."""
        return msgspec.json.decode(record.json)
