"""Amazon S3 buckets as destinations of failures."""

from __future__ import annotations

import time
import uuid
from typing import Any

from bridge.destinations import CALL_TIMEOUT, Surroundings
from bridge.destinations.report import batch_document, document
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import BatchReport, Report

LIMIT = 5 << 30
"""Bytes of one object."""


class S3Destination:
    """One bucket (DST-13). Its ARN tells no region: it is taken to be the function's."""

    def __init__(self, arn: SourceArn, surroundings: Surroundings) -> None:
        self._bucket, self._around = arn.resource, surroundings

    async def send(self, report: Report | BatchReport) -> None:
        around = self._around
        api = await around.aws.api("s3", around.settings)
        if isinstance(report, BatchReport):
            folder, body = _shard_folder(report), batch_document(report, payload=True)
        else:
            folder, body = f"async/{report.function_arn.split(':')[6]}", document(report, LIMIT)
        day = time.strftime("%Y/%m/%d/%Y-%m-%dT%H.%M.%S", time.gmtime(report.at))
        request = {"Bucket": self._bucket, "Key": f"aws/lambda/{folder}/{day}-{uuid.uuid4()}", "Body": body}
        await api.call("PutObject", request, timeout=CALL_TIMEOUT)


def _shard_folder(report: BatchReport) -> str:
    """KIN-85."""
    info: dict[str, Any]
    (info,) = report.info.values()
    return f"{report.mapping}/{info['shardId']}"
