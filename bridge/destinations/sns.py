"""Amazon SNS standard topics as destinations and dead-letter topics."""

from __future__ import annotations

from typing import Any

from bridge.destinations import CALL_TIMEOUT, Surroundings
from bridge.destinations.report import attributes, body, standard
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import BatchReport, Report

LIMIT = 262_144
"""Bytes of a message, its attributes included."""
ATTRIBUTES = 2048


class SnsDestination:
    """One topic (DST-11)."""

    def __init__(self, arn: SourceArn, surroundings: Surroundings) -> None:
        self._arn, self._around = arn, surroundings

    async def send(self, report: Report | BatchReport) -> None:
        standard(self._arn)
        around = self._around
        api = await around.aws.api("sns", around.settings, self._arn.region)
        message = body(report, LIMIT - ATTRIBUTES if report.dead_letter else LIMIT)
        request: dict[str, Any] = {"TopicArn": str(self._arn), "Message": message.decode(errors="replace")}
        if isinstance(report, Report) and report.dead_letter:  # DST-21
            request["MessageAttributes"] = {
                name: {"DataType": kind, "StringValue": value} for name, (kind, value) in attributes(report).items()
            }
        await api.call("Publish", request, timeout=CALL_TIMEOUT)
