"""What AWS calls need in IAM: the action behind an operation, and what a configuration needs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping as Dict
from typing import Any, Literal, NamedTuple

from bridge.function import AwsSettings, Function
from bridge.mapping import Mapping, SourceArn
from bridge.settings import Settings

Task = Literal["run", "doctor", "replay"]

PREFIXES = {"dynamodbstreams": "dynamodb"}
"""Service -> what stands before its actions, where it is not its name."""
ACTIONS = {
    "lambda Invoke": "lambda:InvokeFunction",
    "s3 HeadBucket": "s3:ListBucket",
}
"""``service operation`` -> the action, where it is not the operation's name."""

SQS_LOOK = ("GetQueueUrl", "GetQueueAttributes")
SQS_RUN = (*SQS_LOOK, "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility")
SQS_SEND = ("GetQueueUrl", "SendMessage")
SQS_MOVE = ("StartMessageMoveTask", "ListMessageMoveTasks", "CancelMessageMoveTask")
"""What `replay --native` asks of AWS, besides what AWS does then with the same rights."""
KINESIS_LOOK = ("DescribeStreamSummary", "ListShards")
KINESIS_READ = ("GetShardIterator", "GetRecords")
TABLE_READ = ("DescribeStream", "GetShardIterator", "GetRecords")


class Identity(NamedTuple):
    """Who calls. ``role`` empty: the profile itself."""

    profile: str
    role: str = ""


class Need(NamedTuple):
    """One thing that somebody has to be allowed."""

    identity: Identity
    task: Task
    action: str
    resource: str


def action(service: str, operation: str) -> str:
    """As IAM names it; batches of SQS are allowed as their single ones are."""
    known = ACTIONS.get(f"{service} {operation}")
    bare = operation.removesuffix("Batch") if service == "sqs" else operation
    return known or f"{PREFIXES.get(service, service)}:{bare}"


def identity(settings: AwsSettings) -> Identity:
    """Who calls with these settings."""
    return Identity(settings.profile or "", settings.role_arn or "")


def needs(settings: Settings, letters: Dict[str, str]) -> list[Need]:
    """All that running, doctor and replay need, sorted, each once. ``letters``: the ARN of a queue -> that of its
    dead-letter queue, as far as they are known."""
    found = {
        *(need for mapping in settings.mappings.values() for need in _of_mapping(mapping, settings, letters)),
        *(need for function in settings.functions.values() for need in _of_function(function, settings)),
    }
    roles = {
        Need(Identity(need.identity.profile), need.task, "sts:AssumeRole", need.identity.role)
        for need in found
        if need.identity.role
    }
    return sorted(found | roles)


def _of_mapping(mapping: Mapping, settings: Settings, letters: Dict[str, str]) -> Iterator[Need]:
    who = identity(mapping.aws)
    yield from _SOURCES[mapping.source](mapping, who, letters)
    yield Need(who, "doctor", "lambda:ListEventSourceMappings", "*")  # IAM knows no resource for it
    if mapping.stream and mapping.stream.on_failure:
        function = settings.functions[mapping.function]
        yield from _told(mapping.stream.on_failure, function, settings)
        yield from _letters_of(mapping.stream.on_failure, identity(function.aws))


def _queue(mapping: Mapping, who: Identity, letters: Dict[str, str]) -> Iterator[Need]:
    queue = str(mapping.source_arn)
    yield from _each(who, "run", "sqs", SQS_RUN, queue)
    yield from _each(who, "doctor", "sqs", SQS_LOOK, queue)
    yield from _each(who, "replay", "sqs", (*SQS_SEND, "GetQueueAttributes"), queue)
    if dlq := letters.get(queue):
        yield from _each(who, "doctor", "sqs", SQS_LOOK, dlq)
        yield from _letters_of(dlq, who)
        yield from _each(who, "replay", "sqs", SQS_MOVE, dlq)


def _letters_of(dlq: str, who: Identity) -> Iterator[Need]:
    """What replaying from there takes."""
    if dlq.split(":")[2] == "sqs":
        more = ("ListDeadLetterSourceQueues",)
        yield from _each(who, "replay", "sqs", (*SQS_RUN, *more), dlq)
    elif dlq.split(":")[2] == "s3":
        bucket = dlq.partition("/")[0]
        yield from _each(who, "replay", "s3", ("ListBucket",), bucket)
        yield from _each(who, "replay", "s3", ("GetObject", "DeleteObject"), f"{bucket}/aws/lambda/*")


def _stream(mapping: Mapping, who: Identity, _: Dict[str, str]) -> Iterator[Need]:
    arn = mapping.source_arn
    resource, _slash, consumer = arn.resource.partition("/consumer/")
    stream = str(arn._replace(resource=resource))
    yield from _each(who, "run", "kinesis", KINESIS_LOOK, stream)
    yield from _each(who, "doctor", "kinesis", KINESIS_LOOK, stream)
    yield from _each(who, "replay", "kinesis", KINESIS_READ, stream)
    yield from _each(who, "doctor", "kinesis", KINESIS_READ, stream)
    if consumer:
        registered = str(arn) if ":" in consumer else f"{arn}:*"  # its epoch, which the configuration may leave out
        yield from _each(who, "run", "kinesis", ("SubscribeToShard",), registered)
        yield from _each(who, "doctor", "kinesis", ("DescribeStreamConsumer",), registered)
    else:
        yield from _each(who, "run", "kinesis", KINESIS_READ, stream)


def _table(mapping: Mapping, who: Identity, _: Dict[str, str]) -> Iterator[Need]:
    tasks: tuple[Task, ...] = ("run", "doctor", "replay")
    for task in tasks:
        yield from _each(who, task, "dynamodbstreams", TABLE_READ, str(mapping.source_arn))


_SOURCES: Dict[str, Callable[[Mapping, Identity, Dict[str, str]], Iterator[Need]]] = {
    "sqs": _queue,
    "kinesis": _stream,
    "dynamodb": _table,
}


def _of_function(function: Function, settings: Settings) -> Iterator[Need]:
    who = identity(function.aws)
    for target in told_by(function):
        yield from _told(target, function, settings)
        yield from _letters_of(target, who)
    if function.lambda_arn:
        yield from _each(who, "run", "lambda", ("Invoke",), function.lambda_arn)
        yield from _each(who, "replay", "lambda", ("Invoke",), function.lambda_arn)
        unqualified = ":".join(function.lambda_arn.split(":")[:7])
        yield from _each(who, "doctor", "lambda", ("GetFunctionConfiguration",), function.lambda_arn)
        yield from _each(who, "doctor", "lambda", ("GetFunctionConcurrency",), unqualified)


def told_by(function: Function) -> tuple[str, ...]:
    """The ARNs that a function's asynchronous events are reported to, each once."""
    ends = function.event_invoke
    return tuple(dict.fromkeys(it for it in (ends.on_success, ends.on_failure, function.dead_letter) if it))


def is_ours(target: str, settings: Settings) -> bool:
    """Whether it is a function of this configuration, which is told without a call."""
    unqualified = ":".join(target.split(":")[:7])
    return any(function.arn == unqualified for function in settings.functions.values())


def _told(target: str, function: Function, settings: Settings) -> Iterator[Need]:
    """What telling a destination takes, and looking whether it is there."""
    who, arn = identity(function.aws), SourceArn.parse(target)
    match arn.service:
        case "sqs":
            yield from _each(who, "run", "sqs", SQS_SEND, target)
            yield from _each(who, "doctor", "sqs", SQS_LOOK, target)
        case "sns":
            yield from _each(who, "run", "sns", ("Publish",), target)
            yield from _each(who, "doctor", "sns", ("GetTopicAttributes",), target)
        case "events":
            yield from _each(who, "run", "events", ("PutEvents",), target)
            yield from _each(who, "doctor", "events", ("DescribeEventBus",), target)
        case "s3":
            bucket = target.partition("/")[0]
            yield from _each(who, "run", "s3", ("PutObject",), f"{bucket}/aws/lambda/*")
            yield from _each(who, "doctor", "s3", ("HeadBucket",), bucket)
        case "lambda" if not is_ours(target, settings):
            yield from _each(who, "run", "lambda", ("Invoke",), target)
            yield from _each(who, "doctor", "lambda", ("GetFunctionConfiguration",), target)


def _each(who: Identity, task: Task, service: str, operations: Iterable[str], resource: str) -> Iterator[Need]:
    for operation in operations:
        yield Need(who, task, action(service, operation), resource)


def policy(needed: Iterable[Need]) -> dict[str, Any]:
    """The IAM policy that allows exactly that: a statement for each set of actions, with all resources that share it,
    sorted, so that the same configuration always gives the same text."""
    actions: dict[tuple[str, str], set[str]] = {}
    for need in needed:
        service = need.action.partition(":")[0]
        actions.setdefault((service, need.resource), set()).add(need.action)
    statements: dict[tuple[str, ...], set[str]] = {}
    for (_, resource), allowed in actions.items():
        statements.setdefault(tuple(sorted(allowed)), set()).add(resource)
    numbers: dict[str, int] = {}
    made: dict[tuple[str, int], dict[str, Any]] = {}
    for together in sorted(statements):
        name = _SIDS[together[0].partition(":")[0]]
        numbers[name] = number = numbers.get(name, 0) + 1
        made[name, number] = {
            "Sid": f"{name}{number}",
            "Effect": "Allow",
            "Action": list(together),
            "Resource": sorted(statements[together]),
        }
    return {"Version": "2012-10-17", "Statement": [made[key] for key in sorted(made)]}


_SIDS = {
    "sqs": "BridgeQueues", "kinesis": "BridgeStreams", "dynamodb": "BridgeTables", "sns": "BridgeTopics",
    "events": "BridgeBuses", "s3": "BridgeBuckets", "lambda": "BridgeFunctions", "sts": "BridgeRoles",
}  # fmt: skip
