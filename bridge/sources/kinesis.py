"""Amazon Kinesis Data Streams: limits, reports, and the source of a mapping."""

from __future__ import annotations

import re
from typing import Any

from bridge.mapping import SourceArn
from bridge.record import Record
from bridge.sources import Bound, Limits
from bridge.sources.kinesis_records import Origin, view
from bridge.sources.shards import StreamApi
from bridge.sources.streams import StreamSource

_NAME = "[a-zA-Z0-9_.-]{1,128}"
STREAM = re.compile(rf"stream/(?P<name>{_NAME})(?:/consumer/(?P<consumer>{_NAME})(?::\d+)?)?")
"""The resource of a stream's ARN, and of a consumer's, with its epoch or without (KIN-106)."""


class KinesisSource(StreamSource):
    """The source of one mapping of a Kinesis stream, or of a consumer of one."""

    data_key = "data"
    info_key = "KinesisBatchInfo"  # KIN-80
    info_timespec = "milliseconds"  # KIN-84

    @classmethod
    def limits(cls, mapping_source: str) -> Limits:
        stream_of(SourceArn.parse(mapping_source))
        return Limits("a Kinesis stream", Bound(1, 10_000, 100), Bound(0, 300, 0))  # KIN-1

    async def connect(self) -> StreamApi:
        from bridge.faults import persist
        from bridge.sources.kinesis_stream import KinesisStream

        mapping, around = self.mapping, self.surroundings
        arn = mapping.source_arn
        api = await persist(lambda: around.aws.api("kinesis", mapping.aws, arn.region or None), trouble=around.trouble)
        stream = KinesisStream(api, Origin.of(mapping, stream_of(arn), around))
        await persist(stream.open, trouble=around.trouble)
        return stream

    @property
    def stream_arn(self) -> str:
        return str(stream_of(self.mapping.source_arn))

    def view(self, record: Record) -> Any:
        return view(record)


def stream_of(arn: SourceArn) -> SourceArn:
    """The ARN of the stream, of a consumer's as well (KIN-106). Raises ValueError when it is neither."""
    match = STREAM.fullmatch(arn.resource)
    if not match:
        raise ValueError("expected the ARN of a stream, …:stream/NAME, or of its consumer, …:stream/NAME/consumer/NAME")
    return arn._replace(resource=f"stream/{match['name']}")
