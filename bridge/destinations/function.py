"""Functions as destinations: of this bridge, or of real Lambda."""

from __future__ import annotations

from typing import Any

from bridge.destinations import CALL_TIMEOUT, Surroundings
from bridge.destinations.report import about_event, document
from bridge.errors import Rejected
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import BatchReport, Report

LIMIT = 1_048_576
"""Bytes of an asynchronous event (ASY-1)."""


class FunctionDestination:
    """One function, version or alias: the record is the payload of an asynchronous invocation (DST-12)."""

    def __init__(self, arn: SourceArn, surroundings: Surroundings) -> None:
        self._arn, self._around = arn, surroundings

    async def send(self, report: Report | BatchReport) -> None:
        report = about_event(report, "a function")
        # Two such functions would tell each other for ever.
        if report.condition == "RecursiveInvocationTerminated":
            raise Rejected(
                "a chain that ran in a circle is not told to a function", code="RecursiveInvocationException"
            )
        payload = document(report, LIMIT)
        if not await self._around.accept(str(self._arn), payload, report.record.trace):
            await self._invoke(payload)

    async def _invoke(self, payload: bytes) -> None:
        around = self._around
        api = await around.aws.api("lambda", around.settings, self._arn.region)
        request: dict[str, Any] = {"FunctionName": str(self._arn), "InvocationType": "Event", "Payload": payload}
        answer = await api.call("Invoke", request, timeout=CALL_TIMEOUT)
        if answer.get("StatusCode") != 202:
            raise Rejected(f"lambda Invoke: expected status 202, got {answer.get('StatusCode')}")
