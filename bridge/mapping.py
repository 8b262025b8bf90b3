"""Mapping: one event source mapping, checked."""

from __future__ import annotations

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
    aws: AwsSettings = AwsSettings()
    where: str = ""
    """``FILE:LINE`` where it is configured."""

    @property
    def source(self) -> str:
        """The kind of source, a key of ``SOURCES``: ``sqs``."""
        return self.source_arn.service
