"""Where reports about asynchronous events and about records of streams go: the contract that every destination keeps.
tests/contracts/destination.py is its specification."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import msgspec

from bridge.errors import Rejected
from bridge.mapping import SourceArn

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.function import AwsSettings
    from bridge.pipeline.verdict import BatchReport, Report

DESTINATIONS = {
    "sqs": "bridge.destinations.sqs:SqsDestination",
    "sns": "bridge.destinations.sns:SnsDestination",
    "events": "bridge.destinations.eventbridge:EventBridgeDestination",
    "s3": "bridge.destinations.s3:S3Destination",
    "lambda": "bridge.destinations.function:FunctionDestination",
}
"""The service in the ARN -> ``module:Class``."""

CALL_TIMEOUT = 10.0
"""Seconds for one request to a service."""


class Surroundings(msgspec.Struct, frozen=True):
    """What a destination is given besides its ARN."""

    aws: Aws
    settings: AwsSettings
    """Of the function whose reports these are."""
    accept: Callable[[str, bytes, str], Awaitable[bool]]
    """Accepts an asynchronous event for a function of this bridge: qualified or unqualified ARN, payload, trace header.
    False: it is no function of this bridge. Raises RemoteError."""


class Destination(Protocol):
    """One place for reports. May be called concurrently."""

    def __init__(self, arn: SourceArn, surroundings: Surroundings) -> None: ...

    async def send(self, report: Report | BatchReport) -> None:
        """Returns when the report is there. A record that is too large for the target goes without its payloads
        (DST-8); an event itself (``Report.dead_letter``) is never cut. Raises RemoteError, also when the target takes
        no such report; tries once.
        """
        ...


def destination(arn: str, surroundings: Surroundings) -> Destination:
    """The destination behind an ARN. Raises Rejected when DESTINATIONS has none for it."""
    try:
        parsed = SourceArn.parse(arn)
    except ValueError:
        parsed = None
    if parsed is None or parsed.service not in DESTINATIONS:
        raise Rejected(f"{arn} is no destination; known are ARNs of {', '.join(DESTINATIONS)}")
    module, _, name = DESTINATIONS[parsed.service].partition(":")
    kind: type[Destination] = getattr(import_module(module), name)
    return kind(parsed, surroundings)
