"""Looks at where functions run and where reports go: Lambda, URLs, and destinations of every kind."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import anyio

from bridge.doctor.facts import Case, Remote
from bridge.doctor.inquiry import CALL_TIMEOUT, Inquiry
from bridge.doctor.queues import look_at_queue
from bridge.errors import NotFound, RemoteError
from bridge.function import AwsSettings, Function
from bridge.iam import is_ours
from bridge.mapping import SourceArn
from bridge.settings import Settings


async def look_at_lambda(case: Case, inquiry: Inquiry, *, quiet: bool = False) -> None:
    """The function on Lambda. ``quiet``: somebody else tells what is wrong with it."""
    function, before = case.function, len(case.failed)
    if not function.lambda_arn:
        return
    arn = SourceArn.parse(function.lambda_arn)
    where: dict[str, Any] = {"resource": function.lambda_arn, "about": "function"}
    call = ("lambda", function.aws, arn.region)
    told = await inquiry.ask(*call, "GetFunctionConfiguration", {"FunctionName": function.lambda_arn}, **where)
    if told:
        unqualified = ":".join(function.lambda_arn.split(":")[:7])
        where["resource"] = unqualified
        bound = await inquiry.ask(*call, "GetFunctionConcurrency", {"FunctionName": unqualified}, **where)
        reserved = (bound or {}).get("ReservedConcurrentExecutions")
        case.remote = Remote(float(told.get("Timeout") or function.timeout), reserved)
    if quiet:
        del case.failed[before:]


async def look_at_url(case: Case) -> None:
    """Whether somebody listens at a function's URL. Nothing is said to him."""
    if not case.function.endpoint:
        return
    parts = urlsplit(case.function.endpoint.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with anyio.fail_after(CALL_TIMEOUT):
            stream = await anyio.connect_tcp(parts.hostname or "", port)
    except TimeoutError:
        case.refused = f"no answer within {CALL_TIMEOUT:g} s"
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        case.refused = cause.strerror or str(cause)
    else:
        await stream.aclose()


async def look_at_destination(inquiry: Inquiry, settings: Settings, function: Function, target: str) -> None:
    """Whether a destination is there."""
    arn = SourceArn.parse(target)
    if arn.service == "lambda" and is_ours(target, settings):
        return
    looked = function.aws
    where: dict[str, Any] = {"resource": target, "about": "destination"}
    match arn.service:
        case "sqs":
            await look_at_queue(inquiry, looked, arn, "destination")
        case "sns":
            await inquiry.ask("sns", looked, arn.region, "GetTopicAttributes", {"TopicArn": target}, **where)
        case "events":
            await _bus(inquiry, looked, arn)
        case "s3":
            bucket = arn.resource.partition("/")[0]
            where["resource"] = f"arn:{arn.partition}:s3:::{bucket}"
            await inquiry.ask("s3", looked, None, "HeadBucket", {"Bucket": bucket}, **where)
        case "lambda":
            named = {"FunctionName": target}
            await inquiry.ask("lambda", looked, arn.region, "GetFunctionConfiguration", named, **where)


async def _bus(inquiry: Inquiry, settings: AwsSettings, arn: SourceArn) -> None:
    try:
        api = await inquiry.api("events", settings, arn.region, str(arn))
        try:
            await api.call("DescribeEventBus", {"Name": str(arn)}, timeout=CALL_TIMEOUT)
        except NotFound:  # endpoints of development that know buses by their names alone
            named = {"Name": arn.resource.removeprefix("event-bus/")}
            await api.call("DescribeEventBus", named, timeout=CALL_TIMEOUT)
    except RemoteError as error:
        inquiry.note(error, "destination", str(arn))
