"""Mapping: one event source mapping, checked."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import msgspec

from bridge.function import AwsSettings


class SourceArn(NamedTuple):
    """The parts of an EventSourceArn: ``arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE``."""

    partition: str
    service: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> SourceArn:
        """Raises ValueError when ``text`` is no ARN."""
        prefix, *parts = text.split(":", 5)
        if prefix != "arn" or len(parts) != 5 or not all((parts[0], parts[1], parts[4])):
            raise ValueError(text)
        return cls(*parts)

    def __str__(self) -> str:
        return ":".join(("arn", *self))


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What mappings of sharded sources have besides (KIN-1)."""

    starting_position: str = "TRIM_HORIZON"
    """``TRIM_HORIZON``, ``LATEST`` or ``AT_TIMESTAMP``; counts where nothing is stored."""
    starting_timestamp: float | None = None
    """Epoch seconds, with ``AT_TIMESTAMP``."""
    lanes: int = 1
    """``ParallelizationFactor`` (KIN-50)."""
    retries: float = inf
    """``MaximumRetryAttempts``; inf where AWS writes -1 (KIN-62)."""
    max_age: float = inf
    """``MaximumRecordAgeInSeconds``; inf where AWS writes -1 (KIN-66)."""
    bisect: bool = False
    """``BisectBatchOnFunctionError`` (KIN-63)."""
    tumbling_window: float = 0.0
    """``TumblingWindowInSeconds``; 0: none (TW-1)."""
    on_failure: str = ""
    """ARN; empty: nobody is told what was given up."""
    block: bool = False
    """``on_delivery_failure: block``: what cannot be reported is not given up (KIN-87)."""
    deaggregate: bool = False
    """``kpl_deaggregation``: records of the Kinesis Producer Library are taken apart (KIN-45)."""
    names_stream: bool = False
    """``arn_in_events: stream``: events name the stream, not its consumer (KIN-44)."""


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """One event source mapping: AWS's options under their own meaning (seconds, counts), and ours."""

    name: str
    uuid: str
    function: str
    """The name of the function in the configuration."""
    qualifier: str = ""
    """Version, alias or ``$LATEST``, where FunctionName names one: part of the mapping's identity (ESM-10, ESM-11)."""
    source_arn: SourceArn
    enabled: bool = True
    batch_size: int = 10
    window: float = 0.0
    """``MaximumBatchingWindowInSeconds``."""
    patterns: tuple[str, ...] = ()
    """Filter patterns as JSON text; a record passes if any matches (FLT-1)."""
    partial: bool = False
    """``ReportBatchItemFailures`` (SQS-40)."""
    maximum_concurrency: int | None = None
    minimum_pollers: int | None = None
    """Both given: provisioned mode (SQS-18)."""
    maximum_pollers: int | None = None
    delete_linger: float = 0.0
    """Seconds a delete may wait for others to share its request; 0: never wait for more."""
    stream: StreamOptions | None = None
    """Of sharded sources; none of all others."""
    aws: AwsSettings = AwsSettings()
    where: str = ""
    """``FILE:LINE`` where it is configured."""

    @property
    def arn_in_events(self) -> str:
        """What handlers are told the source is (KIN-44)."""
        arn = str(self.source_arn)
        return arn.partition("/consumer/")[0] if self.stream and self.stream.names_stream else arn

    @property
    def source(self) -> str:
        """The kind of source, a key of ``SOURCES``: ``sqs``."""
        return self.source_arn.service
