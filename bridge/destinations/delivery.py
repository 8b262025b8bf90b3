"""Sends reports to their destinations, tries again for a bounded time, and counts what could not be delivered."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import anyio
import structlog

from bridge.destinations import Destination, Surroundings, destination
from bridge.errors import RemoteError, ServiceFault, StateError
from bridge.faults import PASSING, persist
from bridge.pipeline.verdict import BatchReport, Report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bridge.aws import Aws
    from bridge.function import Function
    from bridge.telemetry.metrics import FunctionMeter

log = structlog.get_logger()

PATIENCE = 60.0
"""Seconds for which a report is tried. AWS tells no number."""


def _unheard(line: str | None) -> None:
    """Nobody asked what it waits for."""


class Delivery:
    """All destinations of the daemon, made when they are first needed.

    ``function`` gives a function of this bridge by name, ``accept`` takes an asynchronous event for one: name,
    qualifier, payload, request id, trace header.
    """

    def __init__(
        self,
        aws: Aws,
        function: Callable[[str], Function | None],
        accept: Callable[[str, str, bytes, str, str], Awaitable[None]],
        meter: Callable[[str], FunctionMeter | None],
    ) -> None:
        self._aws = aws
        self._function = function
        self._accept_event = accept
        self._meter = meter
        self._made: dict[tuple[str, str], tuple[Function, Destination]] = {}

    def __repr__(self) -> str:
        return f"<Delivery to {len(self._made)} destinations>"

    async def send(
        self, report: Report | BatchReport, function: Function, *, trouble: Callable[[str | None], None] = _unheard
    ) -> bool:
        """Returns when the report is there, or was given up (DST-4, DST-22, KIN-87): then it is false, counted and
        logged. A report that blocks is never given up. ``trouble`` is told in one line what it waits for, none when it
        goes on.
        """
        blocks = isinstance(report, BatchReport) and report.block

        async def once() -> None:
            try:
                await self._destination(report.target, function).send(report)
            except RemoteError as error:
                if blocks and not isinstance(error, PASSING):
                    raise ServiceFault(str(error), code=error.code) from error  # it may be mended while we wait
                raise

        def told(line: str | None) -> None:
            trouble(line)
            if line:
                log.warning("destination_waits", **_about(report, function), detail=line)

        try:
            await persist(once, trouble=told, until=None if blocks else anyio.current_time() + PATIENCE)
        except RemoteError as error:
            self._failed(report, function, str(error))
            return False
        log.debug("report_sent", function=function.name, request_id=_request(report), target=report.target)
        return True

    def _failed(self, report: Report | BatchReport, function: Function, error: str) -> None:
        meter = self._meter(function.name)
        if report.dead_letter:
            if meter:
                meter.dead_letter_error()
            log.error("dead_letter_failed", **_about(report, function), error=error)
        else:
            if meter:
                meter.delivery_failure(report.condition)
            log.error("destination_delivery_failed", **_about(report, function), error=error)

    def _destination(self, target: str, function: Function) -> Destination:
        made = self._made.get((function.name, target))
        if made is None or made[0] is not function:  # the function's settings may have changed
            surroundings = Surroundings(self._aws, function.aws, self._accept)
            made = self._made[function.name, target] = function, destination(target, surroundings)
        return made[1]

    async def _accept(self, arn: str, payload: bytes, trace: str) -> bool:
        unqualified, qualifier = ":".join(arn.split(":")[:7]), ":".join(arn.split(":")[7:])
        function = self._function(unqualified.rpartition(":")[2])
        if function is None or function.arn != unqualified:
            return False
        try:
            await self._accept_event(function.name, qualifier, payload, str(uuid.uuid4()), trace)
        except StateError as error:
            raise ServiceFault(str(error)) from error
        return True


def _request(report: Report | BatchReport) -> str:
    return report.request_id if isinstance(report, BatchReport) else report.record.id


def _about(report: Report | BatchReport, function: Function) -> dict[str, str]:
    return {
        "function": function.name,
        "request_id": _request(report),
        "target": report.target,
        "condition": report.condition,
    }
