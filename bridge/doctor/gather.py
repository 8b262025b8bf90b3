"""Gathers the facts about all mappings and functions, several at once, each within its time, by calls that change
nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping as Dict, Sequence
from math import inf
from typing import Any
from urllib.parse import urlsplit

import anyio

from bridge.aws import Aws
from bridge.doctor import streams
from bridge.doctor.facts import Case, Failed, Queue, Remote, Rival
from bridge.doctor.inquiry import CALL_TIMEOUT, Inquiry
from bridge.errors import NotFound, RemoteError, ServiceFault
from bridge.function import AwsSettings, Function
from bridge.iam import is_ours, told_by
from bridge.mapping import Mapping, SourceArn
from bridge.settings import Settings
from bridge.snapshot import Snapshot
from bridge.sources.sqs import max_receives

AT_ONCE = 16
"""Mappings that are looked at."""

Watch = Callable[[int, int], None]
"""Told how many of how many are done."""


def cases(settings: Settings, names: Sequence[str], snapshot: Snapshot | None) -> list[Case]:
    """What is to be looked at: the mappings with these names (none: all) and, of what functions need, that of functions
    which these mappings do not use if all are meant."""
    views = {view.uuid: view for view in snapshot.mappings} if snapshot else {}
    mappings = [mapping for mapping in settings.mappings.values() if not names or mapping.name in names]
    made = [
        Case(
            mapping=mapping,
            function=settings.functions[mapping.function],
            daemon=snapshot is not None,
            view=views.get(mapping.uuid),
            readers=_readers(mapping, settings),
            rivals=[],
            failed=[],
            skews={},
        )
        for mapping in mappings
    ]
    for function in settings.functions.values():
        used = any(mapping.function == function.name for mapping in mappings)
        if (used or not names) and (told_by(function) or function.lambda_arn or function.endpoint):
            made.append(Case(mapping=None, function=function, rivals=[], failed=[], skews={}))
    return made


def _readers(mapping: Mapping, settings: Settings) -> tuple[str, ...]:
    """Of a stream: an enabled mapping with a consumer of its own takes nothing from the others."""
    if not mapping.stream:
        return ()
    return tuple(
        other.name
        for other in settings.mappings.values()
        if other.name != mapping.name and other.enabled and other.source_arn == mapping.source_arn
    )


async def gather(aws: Aws, settings: Settings, found: Sequence[Case], deadline: float, watch: Watch) -> None:
    """Fills the cases. Returns after ``deadline`` seconds for each AT_ONCE of them, whatever does not answer."""
    limiter = anyio.CapacityLimiter(AT_ONCE)
    done = 0

    async def one(case: Case) -> None:
        nonlocal done
        async with limiter:
            inquiry = Inquiry(aws, case)
            with anyio.move_on_after(deadline) as scope:
                await _fill(case, settings, inquiry)
            if scope.cancelled_caught:
                detail = f"no answer within {deadline:g} s, of which the last was waited for here"
                case.failed.append(Failed("no-answer", "", inquiry.pending, detail))
        done += 1
        watch(done, len(found))

    async with anyio.create_task_group() as tasks:
        for case in found:
            tasks.start_soon(one, case, name=f"doctor {case.subject}")


async def _fill(case: Case, settings: Settings, inquiry: Inquiry) -> None:
    mapping, function = case.mapping, case.function
    if mapping is None:
        for target in told_by(function):
            await _target(function, inquiry, settings, target)
        await _remote(case, inquiry)
        await _connection(case)
        return
    if function.lambda_arn:
        await _remote(case, inquiry, quiet=True)
    await _SOURCES[mapping.source](case, mapping, settings, inquiry)
    if mapping.stream and mapping.stream.on_failure:
        await _target(function, inquiry, settings, mapping.stream.on_failure)
    await _rivals(case, mapping, inquiry)


# Queues.


async def _queue(case: Case, mapping: Mapping, _settings: Settings, inquiry: Inquiry) -> None:
    case.queue = await look_at_queue(inquiry, mapping.aws, mapping.source_arn, "source")
    if case.queue and case.queue.dlq:
        case.dlq = await look_at_queue(inquiry, mapping.aws, SourceArn.parse(case.queue.dlq), "dlq")


async def look_at_queue(inquiry: Inquiry, settings: AwsSettings, arn: SourceArn, about: Any) -> Queue | None:
    """Its attributes; none where they cannot be had."""
    address = {"QueueName": arn.resource, **({"QueueOwnerAWSAccountId": arn.account} if arn.account else {})}
    where: dict[str, Any] = {"resource": str(arn), "about": about}
    region = arn.region or None
    found = await inquiry.ask("sqs", settings, region, "GetQueueUrl", address, **where)
    if not found:
        return None
    query = {"QueueUrl": found["QueueUrl"], "AttributeNames": ["All"]}
    answer = await inquiry.ask("sqs", settings, region, "GetQueueAttributes", query, **where)
    if not answer:
        return None
    try:
        return queue_of(str(arn), answer.get("Attributes", {}))
    except ValueError as error:
        inquiry.note(ServiceFault(f"its attributes cannot be read: {error}"), about, str(arn))
        return None


def queue_of(arn: str, attributes: Dict[str, str]) -> Queue:
    """Of GetQueueAttributes."""
    waiting = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed")
    return Queue(
        arn=arn,
        fifo=attributes.get("FifoQueue") == "true" or arn.endswith(".fifo"),  # SQS-62
        visibility=int(attributes.get("VisibilityTimeout", 30)),
        retention=int(attributes.get("MessageRetentionPeriod", 345_600)),  # SQS-82
        waiting=sum(int(attributes.get(name, 0)) for name in waiting),
        in_flight=int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0)),
        max_receives=max_receives(attributes) if letters_of(attributes) else inf,
        dlq=letters_of(attributes),
        high_throughput=attributes.get("FifoThroughputLimit") == "perMessageGroupId",
    )


def letters_of(attributes: Dict[str, str]) -> str:
    """The ARN of the dead-letter queue; empty: none."""
    try:
        target = str(json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"])
        SourceArn.parse(target)
    except (KeyError, TypeError, ValueError):
        return ""
    return target


# Streams.


async def _stream(case: Case, mapping: Mapping, settings: Settings, inquiry: Inquiry) -> None:
    try:
        case.stream = await streams.look_at_stream(case, mapping, settings, inquiry)
    except RemoteError as error:
        inquiry.note(error, "source", str(mapping.source_arn))


_SOURCES = {"sqs": _queue, "kinesis": _stream, "dynamodb": _stream}


async def _rivals(case: Case, mapping: Mapping, inquiry: Inquiry) -> None:
    """Where we may ask, and the endpoint knows the operation. Both are no fault of the configuration."""
    try:
        api = await inquiry.api("lambda", mapping.aws, mapping.source_arn.region or None, "Lambda's mappings")
        query = {"EventSourceArn": str(mapping.source_arn)}
        answer = await api.call("ListEventSourceMappings", query, timeout=CALL_TIMEOUT)
    except RemoteError:
        return
    for listed in answer.get("EventSourceMappings") or ():
        if listed.get("EventSourceArn") == str(mapping.source_arn) and listed.get("State") not in (
            "Disabled",
            "Disabling",
            "Deleting",
        ):
            case.rivals.append(Rival(str(listed.get("UUID", "")), str(listed.get("FunctionArn", ""))))


# Functions and destinations.


async def _remote(case: Case, inquiry: Inquiry, *, quiet: bool = False) -> None:
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


async def _connection(case: Case) -> None:
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


async def _target(function: Function, inquiry: Inquiry, settings: Settings, target: str) -> None:
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
