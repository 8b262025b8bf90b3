"""Amazon EventBridge buses as destinations."""

from __future__ import annotations

from bridge.destinations import CALL_TIMEOUT, Surroundings
from bridge.destinations.report import about_event, document
from bridge.errors import Rejected
from bridge.faults import classify
from bridge.mapping import SourceArn
from bridge.pipeline.verdict import BatchReport, Report

LIMIT = 1_048_576
"""Bytes of an entry (EVT-26): detail, source and detail type."""
ENVELOPE = 4096
"""More than source, detail type and resources take."""


class EventBridgeDestination:
    """One bus (DST-14)."""

    def __init__(self, arn: SourceArn, surroundings: Surroundings) -> None:
        self._arn, self._around = arn, surroundings

    async def send(self, report: Report | BatchReport) -> None:
        report = about_event(report, "an event bus")
        around = self._around
        api = await around.aws.api("events", around.settings, self._arn.region)
        entry = {
            "Source": "lambda",
            "Resources": [str(self._arn), report.function_arn],
            "DetailType": "Lambda Function Invocation Result - "
            + ("Success" if report.condition == "Success" else "Failure"),
            "Detail": document(report, LIMIT - ENVELOPE).decode(errors="replace"),
            "EventBusName": str(self._arn),
        }
        if report.record.trace:
            entry["TraceHeader"] = report.record.trace[:500]
        answer = await api.call("PutEvents", {"Entries": [entry]}, timeout=CALL_TIMEOUT)
        if answer.get("FailedEntryCount"):
            failed = (answer.get("Entries") or [{}])[0]
            code = str(failed.get("ErrorCode") or "")
            kind = classify(code) if code else Rejected
            raise kind(f"events PutEvents: {failed.get('ErrorMessage')} ({code})", code=code)
