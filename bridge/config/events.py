"""What becomes of a function's asynchronous events, as the file has it, and the checks of the ARNs in it."""

from __future__ import annotations

import re

from bridge.config.options_functions import DeadLetterOptions, EventInvokeOptions
from bridge.config.reader import Section, shown
from bridge.function import EventInvoke

_PARTITION = r"arn:aws[a-z-]*"
_PLACE = r"[a-z]{2,6}(?:-[a-z]+)+-[0-9]{1,2}:[0-9]{12}"
ARNS = {
    "sqs": re.compile(rf"{_PARTITION}:sqs:{_PLACE}:[\w-]{{1,80}}(\.fifo)?"),
    "sns": re.compile(rf"{_PARTITION}:sns:{_PLACE}:[\w-]{{1,256}}(\.fifo)?"),
    "events": re.compile(rf"{_PARTITION}:events:{_PLACE}:event-bus/[\w./-]{{1,256}}"),
    "lambda": re.compile(rf"{_PARTITION}:lambda:{_PLACE}:function:[\w-]{{1,64}}(:(\$LATEST|[\w-]{{1,128}}))?"),
    "s3": re.compile(rf"{_PARTITION}:s3:::[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]"),
}
"""Service -> the form of an ARN that names a destination."""
_WORDS = {
    "sqs": "an SQS queue",
    "sns": "an SNS topic",
    "events": "an EventBridge bus",
    "lambda": "a function",
    "s3": "an S3 bucket",
}
NOTHING_GIVEN = "You must specify at least one of error handling or destination setting."
OWN_DESTINATION = "You can't specify the function as a destination for itself."


def event_invoke(options: EventInvokeOptions, arn: str, section: Section) -> EventInvoke:
    """The settings of the function with this ARN; what is wrong with them has been reported (ASY-23)."""
    key = "EventInvokeConfig"
    wants = options.DestinationConfig
    targets = {"OnSuccess": wants.OnSuccess.Destination or "", "OnFailure": wants.OnFailure.Destination or ""}
    given = ("MaximumRetryAttempts",), ("MaximumEventAgeInSeconds",), *(_destination(name) for name in targets)
    if section.node(key) and not any(section.node(key, *keys) for keys in given):
        section.problem(key, NOTHING_GIVEN)
    for name, target in targets.items():
        if problem := destination_problem(target, arn, failure=name == "OnFailure"):
            section.problem(f"{key}.DestinationConfig.{name}.Destination", problem)
    retries, age = options.MaximumRetryAttempts, options.MaximumEventAgeInSeconds
    return EventInvoke(
        retries=retries,
        max_age=None if age is None else float(age),
        on_success=targets["OnSuccess"],
        on_failure=targets["OnFailure"],
    )


def _destination(name: str) -> tuple[str, ...]:
    return "DestinationConfig", name, "Destination"


def dead_letter(options: DeadLetterOptions, section: Section) -> str:
    """The target; what is wrong with it has been reported (DST-20)."""
    target = options.TargetArn or ""
    if problem := dead_letter_problem(target):
        section.problem("DeadLetterConfig.TargetArn", problem)
    return target


def destination_problem(target: str, function_arn: str, *, failure: bool) -> str:
    """Why an event's end cannot be told to ``target``; empty when it can, or none is named (DST-1)."""
    if target and unqualified(target) == function_arn:
        return OWN_DESTINATION
    services = ("sqs", "sns", "events", "lambda", *(["s3"] if failure else []))
    return _problem(target, services, "on failure only")


def dead_letter_problem(target: str) -> str:
    """Why events cannot go to ``target``; empty when they can, or none is named (DST-20)."""
    return _problem(target, ("sqs", "sns"), "no dead-letter queue")


def discarded_problem(target: str) -> str:
    """Why ``target`` cannot be told of a stream's records that are given up; empty when it can, or none is named
    (ESM-24, KIN-86)."""
    return _problem(target, ("sqs", "sns", "s3"), "no destination of a stream's records")


def unqualified(arn: str) -> str:
    """A function's ARN without version or alias."""
    return ":".join(arn.split(":")[:7])


def _problem(target: str, services: tuple[str, ...], otherwise: str) -> str:
    """``otherwise``: what a destination of another kind is."""
    if not target:
        return ""
    service = next((name for name, form in ARNS.items() if form.fullmatch(target)), "")
    *most, last = (_WORDS[name] for name in services)
    allowed = f"{', '.join(most)} or {last}"
    if not service:
        return f"{shown(target)} is no ARN of a destination; expected that of {allowed}"
    if service not in services:
        return f"{target} is {_WORDS[service]}, {otherwise}; expected {allowed}"
    if target.endswith(".fifo"):
        return f"{target}: FIFO queues and topics are not supported here; name a standard one"
    return ""
