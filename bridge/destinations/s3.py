"""Amazon S3 buckets as destinations of failures."""

from __future__ import annotations

import time
import uuid

from bridge.destinations import CALL_TIMEOUT, Surroundings
from bridge.destinations.report import document
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import Report

LIMIT = 5 << 30
"""Bytes of one object."""


class S3Destination:
    """One bucket (DST-13). Its ARN tells no region: it is taken to be the function's."""

    def __init__(self, arn: SourceArn, surroundings: Surroundings) -> None:
        self._bucket, self._around = arn.resource, surroundings

    async def send(self, report: Report) -> None:
        around = self._around
        api = await around.aws.api("s3", around.settings)
        function = report.function_arn.split(":")[6]
        day = time.strftime("%Y/%m/%d/%Y-%m-%dT%H.%M.%S", time.gmtime(report.at))
        request = {
            "Bucket": self._bucket,
            "Key": f"aws/lambda/async/{function}/{day}-{uuid.uuid4()}",
            "Body": document(report, LIMIT),
        }
        await api.call("PutObject", request, timeout=CALL_TIMEOUT)
