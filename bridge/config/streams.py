"""What mappings of streams have besides: where they start and what becomes of records that fail, with the checks."""

from __future__ import annotations

import time
from math import inf

from bridge.config.events import discarded_problem
from bridge.config.options_mappings import MappingOptions
from bridge.config.reader import Section, shown
from bridge.mapping import SourceArn, StreamOptions

STREAMS = frozenset({"kinesis", "dynamodb"})
"""The services whose sources these are."""
YOUNGEST_LIMIT = 60
"""ESM-44."""
START_MISSING = (
    "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be"
    " null."
)
"""ESM-32."""


def stream_options(options: MappingOptions, source: SourceArn, section: Section) -> StreamOptions | None:
    """Those of a stream; none for other sources. What is wrong with them has been reported."""
    if source.service not in STREAMS:
        return None
    retries, age = options.MaximumRetryAttempts, options.MaximumRecordAgeInSeconds
    _check_start(options, source, section)
    _check_failures(options, section)
    _check_named(source, section)
    if options.TumblingWindowInSeconds and (options.ParallelizationFactor or 1) > 1:  # TW-2
        section.problem(
            "ParallelizationFactor",
            f"{options.ParallelizationFactor} excludes TumblingWindowInSeconds; remove one of the two",
        )
    return StreamOptions(
        starting_position=options.StartingPosition or "TRIM_HORIZON",
        starting_timestamp=_timestamp(options.StartingPositionTimestamp, section),
        lanes=options.ParallelizationFactor or 1,
        retries=inf if retries in (None, -1) else float(retries),
        max_age=inf if age in (None, -1) else float(age),
        bisect=bool(options.BisectBatchOnFunctionError),
        tumbling_window=float(options.TumblingWindowInSeconds or 0),
        on_failure=options.DestinationConfig.OnFailure.Destination or "",
        block=options.on_delivery_failure == "block",
        deaggregate=options.kpl_deaggregation,
        names_stream=options.arn_in_events == "stream",
    )


def _check_named(source: SourceArn, section: Section) -> None:
    """KIN-44."""
    if section.node("arn_in_events") and source.service == "kinesis" and "/consumer/" not in source.resource:
        text = (
            f"has a meaning only where EventSourceArn is a consumer's, …:stream/NAME/consumer/NAME, not with {source}"
        )
        section.problem("arn_in_events", text)


def _check_start(options: MappingOptions, source: SourceArn, section: Section) -> None:
    start, at = options.StartingPosition, section.node("StartingPositionTimestamp")
    if not section.node("StartingPosition"):  # ESM-32
        known = "TRIM_HORIZON or LATEST" + (" or AT_TIMESTAMP" if source.service == "kinesis" else "")
        section.problem("StartingPosition", f"is missing; a stream needs it: {known}", aws=START_MISSING)
    elif source.service == "dynamodb" and start == "AT_TIMESTAMP":  # DDB-7, ESM-33
        text = "the stream of a table starts at TRIM_HORIZON or LATEST, at no time"
        section.problem("StartingPosition", text, aws=f"Unsupported starting position for arn type: {source}")
    elif start == "AT_TIMESTAMP" and not at:
        section.problem("StartingPosition", "AT_TIMESTAMP needs StartingPositionTimestamp")
    elif at and start in ("TRIM_HORIZON", "LATEST"):
        section.problem("StartingPositionTimestamp", f"has a meaning only with AT_TIMESTAMP, not with {start}")


def _timestamp(given: float | str | None, section: Section) -> float | None:
    """Epoch seconds."""
    if given is None:
        return None
    at = _epoch(given) if isinstance(given, str) else given
    if at is None or not at >= 0:
        expected = "expected epoch seconds, or a time with its offset such as 2026-01-15T09:30:00Z"
        section.problem("StartingPositionTimestamp", f"{shown(given)} is no time; {expected}")
    elif at > time.time():
        section.problem("StartingPositionTimestamp", f"{shown(given)} is in the future")
    return at


def _epoch(text: str) -> float | None:
    """Of a time in ISO 8601 as the AWS CLI prints it; none for others."""
    from datetime import datetime

    try:
        at = datetime.fromisoformat(text)
        return at.timestamp() if at.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _check_failures(options: MappingOptions, section: Section) -> None:
    age = options.MaximumRecordAgeInSeconds
    if age is not None and 0 <= age < YOUNGEST_LIMIT:  # KIN-1
        text = f"{age} is less than {YOUNGEST_LIMIT}, the least that a stream allows (-1: no limit)"
        section.problem("MaximumRecordAgeInSeconds", text)
    target = options.DestinationConfig.OnFailure.Destination or ""
    if problem := discarded_problem(target):
        section.problem("DestinationConfig.OnFailure.Destination", problem)
    if options.on_delivery_failure == "block" and not target:
        section.problem("on_delivery_failure", "has a meaning only with DestinationConfig.OnFailure.Destination")
    bounded = age not in (None, -1) or options.MaximumRetryAttempts not in (None, -1)
    if not bounded:  # KIN-60
        section.warn(
            "",
            "neither MaximumRetryAttempts nor MaximumRecordAgeInSeconds is limited: a record that always fails stops"
            " its shard until the stream drops it",
        )
    elif not target:  # KIN-68
        section.warn("", "what is given up is lost: DestinationConfig.OnFailure names nobody to tell")
