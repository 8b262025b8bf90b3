"""Amazon SQS standard queues as destinations and dead-letter queues."""

from __future__ import annotations

from typing import Any

from bridge.destinations import CALL_TIMEOUT, Surroundings
from bridge.destinations.report import attributes, body, standard, without_payloads
from bridge.errors import Rejected
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import BatchReport, Report

LIMIT = 1_048_576
"""Bytes of a message (SQS-80), its attributes included."""
ATTRIBUTES = 2048
"""More than those of a dead letter take."""


class SqsDestination:
    """One queue."""

    def __init__(self, arn: SourceArn, surroundings: Surroundings) -> None:
        self._arn, self._around = arn, surroundings
        self._url = ""

    async def send(self, report: Report | BatchReport) -> None:
        standard(self._arn)
        around = self._around
        api = await around.aws.api("sqs", around.settings, self._arn.region)
        if not self._url:
            name = {"QueueName": self._arn.resource, "QueueOwnerAWSAccountId": self._arn.account}
            self._url = str((await api.call("GetQueueUrl", name, timeout=CALL_TIMEOUT))["QueueUrl"])
        message = body(report, LIMIT - ATTRIBUTES if report.dead_letter else LIMIT)
        try:
            await api.call("SendMessage", self._request(report, message), timeout=CALL_TIMEOUT)
        except Rejected:
            bare = without_payloads(report)
            if report.dead_letter or len(message) == len(bare):
                raise
            # A queue may have a limit of its own, and which characters it takes is its own matter too (DST-8).
            await api.call("SendMessage", self._request(report, bare), timeout=CALL_TIMEOUT)

    def _request(self, report: Report | BatchReport, message: bytes) -> dict[str, Any]:
        request: dict[str, Any] = {"QueueUrl": self._url, "MessageBody": message.decode(errors="replace")}
        if isinstance(report, Report) and report.dead_letter:  # DST-21
            request["MessageAttributes"] = {
                name: {"DataType": kind, "StringValue": value} for name, (kind, value) in attributes(report).items()
            }
        if report.trace:  # DST-10
            trace = {"DataType": "String", "StringValue": report.trace}
            request["MessageSystemAttributes"] = {"AWSTraceHeader": trace}
        return request
