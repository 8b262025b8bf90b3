"""A mapping as the file has it, or as AWS prints it, and the checks that make a ``Mapping`` of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping as Dict
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import msgspec

from bridge.config.aws import check_aws
from bridge.config.options_mappings import MappingOptions, PollerOptions, ScalingOptions
from bridge.config.reader import Section, options_of, read, shown
from bridge.config.streams import stream_options
from bridge.config.tree import Array, Node, Scalar, Table
from bridge.function import AwsSettings
from bridge.mapping import Mapping, SourceArn
from bridge.nearest import did_you_mean
from bridge.sources import SOURCES, Bound, Limits, Source, source_class

_NAMESPACE = UUID("7a5d2f0e-3c6b-5b7e-9a51-0b8f6d4c2e19")
"""Of the ids that are derived from mappings' names. Never changes: state is kept under these ids."""

UNSUPPORTED_DESTINATION = "Unsupported DestinationConfig parameter for given event source mapping type."
"""ESM-23."""
MOST_FILTERS = 10
"""ESM-45: 5, and 10 by quota, which nobody has to ask for here."""
RESPONSE_ONLY = frozenset({
    "EventSourceMappingArn", "LastModified", "LastProcessingResult", "ResponseMetadata", "StateTransitionReason",
})  # fmt: skip
"""What AWS answers and nobody can ask for."""

_KINDS = {
    "S": "SQS", "K": "Kinesis", "D": "DynamoDB Streams", "M": "Kafka", "Q": "Amazon MQ", "O": "DocumentDB",
}  # fmt: skip
_SERVICES = {"sqs": "S", "kinesis": "K", "dynamodb": "D", "kafka": "M", "mq": "Q", "rds": "O"}
_OWNERS = {
    "AmazonManagedKafkaEventSourceConfig": "M", "BisectBatchOnFunctionError": "KDM", "DestinationConfig": "KDM",
    "DocumentDBEventSourceConfig": "O", "KMSKeyArn": "SKDMQ", "LoggingConfig": "M", "MaximumRecordAgeInSeconds": "KDM",
    "MaximumRetryAttempts": "KDM", "ParallelizationFactor": "KD", "ProvisionedPollerConfig": "SM", "Queues": "Q",
    "ScalingConfig": "S", "SelfManagedEventSource": "M", "SelfManagedKafkaEventSourceConfig": "M",
    "SourceAccessConfigurations": "MQO", "StartingPosition": "KDMO", "StartingPositionTimestamp": "KMO",
    "Tags": "SKDMQO", "Topics": "M", "TumblingWindowInSeconds": "KD",
    "arn_in_events": "K", "delete_linger": "S", "kpl_deaggregation": "K", "on_delivery_failure": "KD",
}  # fmt: skip
"""Options that not all sources have, also those that are not implemented, and whose they are (ESM-20)."""
_DATA_KEYS = frozenset({"body", "data", "dynamodb", "value"})
"""Where the payloads of records are: of each kind of source in one of them (FLT-40)."""

FUNCTION_NAME = (
    r"(?:arn:aws[a-zA-Z-]*:lambda:)?(?:(?P<region>[a-z]{2,6}(?:-[a-z]+)+-\d):)?(?:(?P<account>\d{12}):)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9_-]{1,64})(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_-]+))?"
)
"""ESM-8, without the dot in names that Lambda itself never gives."""

Qualifiers = Dict[str, Collection[str]]
"""Function -> its versions and aliases."""

_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ARN_TAIL = r"[a-z0-9-]+:[0-9]{12}:[\w.:/-]{1,1000}"


class _Target(msgspec.Struct, frozen=True):
    """The function that a mapping names."""

    name: str
    qualifier: str = ""
    region: str = ""
    account: str = ""


class Home(NamedTuple):
    """Where a function lives as far as a mapping tells: in the region and account of its ARN, else of the source's."""

    region: str
    account: str


def mapping(
    name: str, section: Section, functions: Qualifiers, aws: AwsSettings, homes: dict[str, Home]
) -> Mapping | None:
    """The mapping of this name; None when its source is not understood. ``functions`` are those that the file has,
    ``aws`` the top-level settings. The first mapping of a function says in ``homes`` where the function lives.
    """
    source = _source(section)
    options = read(section, MappingOptions, _Refusal(section, source))
    _check_owners(section, source)
    check_aws(options.aws, section, "aws.")
    target = _target(options, section, functions)
    if source and target:
        homes.setdefault(target.name, Home(target.region or source.region, target.account or source.account))
    _check_scaling(options, section)
    minimum, maximum = _pollers(options.ProvisionedPollerConfig, section)
    patterns = _patterns(options, section)
    uuid = _uuid(name, options, section)
    enabled = _enabled(options, section)
    kind = _kind(source, section)
    limits = _limits(source, kind, section) if source and kind else None
    batching = _batching(options, limits, section) if limits else None
    if not source or not kind or not batching:
        return None
    stream = stream_options(options, source, section)
    _advise_patterns(patterns, kind.data_key, section)
    if not target:
        return None
    return Mapping(
        name=name,
        uuid=uuid,
        function=target.name,
        qualifier=target.qualifier,
        source_arn=source,
        enabled=enabled,
        batch_size=batching[0],
        window=float(batching[1]),
        patterns=patterns,
        partial=bool(options.FunctionResponseTypes),
        maximum_concurrency=options.ScalingConfig.MaximumConcurrency,
        minimum_pollers=minimum,
        maximum_pollers=maximum,
        delete_linger=options.delete_linger,
        stream=stream,
        aws=_located(options.aws.over(aws), options.aws.region, source, section),
        where=str(section.place),
    )


class _Refusal:
    """What to say about a key that is no option here: AWS's answers are passed over, its other options named."""

    def __init__(self, section: Section, source: SourceArn | None) -> None:
        self._dropped = section.report.dropped.setdefault(section.path, [])
        self._kind = _SERVICES[source.service] if source and source.service in SOURCES else ""

    def __call__(self, key: str, node: Node) -> str | None:
        if key in RESPONSE_ONLY:
            self._dropped.append(key)
            return ""
        if key == "FilterCriteriaError":
            return "AWS could not show the filters of this mapping; write them as FilterCriteria, and remove this key"
        if key not in _OWNERS:
            return None
        if not self._kind or (isinstance(node, Scalar) and node.value is None):
            return ""  # the source itself is the problem, or nothing is asked for
        return _stranger(key, self._kind) or "not implemented yet; remove it"


def _stranger(key: str, kind: str) -> str:
    """What to say about an option that a source of this kind does not have; nothing when it has."""
    if kind in _OWNERS.get(key, kind):
        return ""
    if key == "DestinationConfig" and kind == "S":  # ESM-23
        known = "what fails goes where the queue's own redrive policy says; remove it"
        return f"{UNSUPPORTED_DESTINATION.rstrip('.')}: {known}"
    owners = ", ".join(_KINDS[letter] for letter in _OWNERS[key])
    return f"no option of {_KINDS[kind]} mappings, only of: {owners}; remove it"


def _check_owners(section: Section, source: SourceArn | None) -> None:
    """Reports declared options that this source does not have; an empty block asks for nothing."""
    if not source or source.service not in SOURCES:
        return
    for key in options_of(MappingOptions):
        node = section.node(key)
        if node is None or (isinstance(node, Table) and not node.items):
            continue
        if problem := _stranger(key, _SERVICES[source.service]):
            section.problem(key, problem)
    if section.node("DestinationConfig", "OnSuccess"):  # ESM-23
        section.problem("DestinationConfig.OnSuccess", "mappings have OnFailure alone", aws=UNSUPPORTED_DESTINATION)


def _source(section: Section) -> SourceArn | None:
    node = section.node("EventSourceArn")
    if node is None:
        if section.node("SelfManagedEventSource"):
            kinds = ", ".join(SOURCES)
            section.problem(
                "SelfManagedEventSource", f"self-managed Kafka is not implemented yet; implemented are: {kinds}"
            )
        else:  # ESM-30
            section.problem(
                "", "Unrecognized event source: EventSourceArn is missing", aws="Unrecognized event source."
            )
        return None
    if not isinstance(node, Scalar):
        return None
    try:
        arn = SourceArn.parse(node.text)
    except ValueError:
        arn = None
    if not arn or not re.fullmatch(_ARN_TAIL, ":".join(arn[2:])):
        expected = "expected one such as arn:aws:sqs:eu-west-1:123456789012:my-queue"
        section.problem("EventSourceArn", f"{shown(node.text)} is no ARN of an event source; {expected}")
        return None
    return arn


def _kind(source: SourceArn | None, section: Section) -> type[Source] | None:
    """The class that knows this source."""
    if not source:
        return None
    if source.service in SOURCES:
        return source_class(source.service)
    known = source.service in _SERVICES
    reason = (
        f"event sources of {source.service} are not implemented yet"
        if known
        else f"{source.service} is no event source"
    )
    section.problem("EventSourceArn", f"unsupported ARN: {source}: {reason}; implemented are: {', '.join(SOURCES)}")
    return None


def _limits(source: SourceArn, kind: type[Source], section: Section) -> Limits | None:
    """The ranges of this very source."""
    try:
        return kind.limits(str(source))
    except ValueError as error:
        section.problem("EventSourceArn", f"{shown(str(source))}: {error}")
        return None


def _target(options: MappingOptions, section: Section, functions: Qualifiers) -> _Target | None:
    """The function that FunctionName or FunctionArn names."""
    keys = [key for key in ("FunctionName", "FunctionArn") if getattr(options, key) is not None]
    if not keys and not section.node("FunctionName") and not section.node("FunctionArn"):
        section.problem("", f"FunctionName is missing; give the name of a function of this file{_listed(functions)}")
    targets = [target for key in keys if (target := _one_target(getattr(options, key), key, section, functions))]
    if len(targets) == 2 and targets[0].name != targets[1].name:
        section.problem(
            "FunctionArn", f"names another function than FunctionName {options.FunctionName}; keep one of the two"
        )
    return targets[0] if targets else None


def _one_target(text: str, key: str, section: Section, functions: Qualifiers) -> _Target | None:
    if text in functions:
        return _Target(text)
    match = re.fullmatch(FUNCTION_NAME, text)
    if not match:
        section.problem(key, f"{shown(text)} is no function; expected a name, NAME:ALIAS or an ARN of a function")
        return None
    target = _Target(**{key: value or "" for key, value in match.groupdict().items()})
    if target.name not in functions:  # ESM-12
        near = did_you_mean(target.name, functions) or _listed(functions)
        section.problem(
            key,
            f"Function does not exist: {shown(target.name)} is not among the functions of this file{near}",
            aws="Function does not exist",
        )
        return None
    known = ("$LATEST", *functions[target.name])
    if target.qualifier and target.qualifier not in known:
        near = did_you_mean(target.qualifier, known) or _listed(known)
        section.problem(
            key,
            f"Function does not exist: {target.name} has no version or alias {shown(target.qualifier)}{near}",
            aws="Function does not exist",
        )
    return target


def _listed(functions: Collection[str]) -> str:
    return f"; known are: {', '.join(functions)}" if functions else ""


def _batching(options: MappingOptions, limits: Limits, section: Section) -> tuple[int, int]:
    """Batch size and window, by the ranges of the source and together (ESM-34..36)."""
    size = _bounded(options.BatchSize, "BatchSize", limits.batch_size, limits.what, section)
    window = _bounded(
        options.MaximumBatchingWindowInSeconds, "MaximumBatchingWindowInSeconds", limits.window, limits.what, section
    )
    if limits.batch_size.most >= size > limits.windowless and window == 0:
        rule = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        section.problem("BatchSize", f"{rule}: {size} needs MaximumBatchingWindowInSeconds of at least 1", aws=rule)
    return size, window


def _bounded(value: int | None, key: str, bound: Bound, what: str, section: Section) -> int:
    if value is None:
        return int(bound.default)
    if value > bound.most == 0:
        rule = "Batching window is not supported for FIFO queues"
        section.problem(key, f"{what} takes no batching window ({rule}); remove it", aws=rule)
    elif value > bound.most:
        rule = f"Maximum batch size must be between {bound.least:.0f} and {bound.most:.0f} inclusive"
        section.problem(
            key,
            f"{value} is more than {bound.most:.0f}, the most that {what} allows",
            aws=rule if key == "BatchSize" else "",
        )
    elif value < bound.least:
        section.problem(key, f"{value} is less than {bound.least:.0f}, the least that {what} allows")
    return value


def _check_scaling(options: MappingOptions, section: Section) -> None:
    if options.ScalingConfig != ScalingOptions() and options.ProvisionedPollerConfig != PollerOptions():  # ESM-40
        section.problem("ProvisionedPollerConfig", "excludes ScalingConfig.MaximumConcurrency; keep one of the two")
    if len(options.FunctionResponseTypes) > 1:
        section.problem("FunctionResponseTypes", "has more than 1 entry, the most that is allowed")


def _pollers(options: PollerOptions, section: Section) -> tuple[int | None, int | None]:
    """Both numbers in provisioned mode (ESM-42), none otherwise."""
    if options == PollerOptions():
        return None, None
    minimum, maximum = options.MinimumPollers or 2, options.MaximumPollers or 200
    if minimum > maximum:
        section.problem("ProvisionedPollerConfig.MinimumPollers", f"{minimum} is more than MaximumPollers, {maximum}")
    return minimum, maximum


def _patterns(options: MappingOptions, section: Section) -> tuple[str, ...]:
    """The patterns as JSON text; each has been compiled once, so that a bad one is found here."""
    filters, node = options.FilterCriteria.Filters, section.node("FilterCriteria", "Filters")
    if len(filters) > MOST_FILTERS:
        section.problem(
            "FilterCriteria.Filters", f"{len(filters)} filters are more than {MOST_FILTERS}, the most that is allowed"
        )
    if not isinstance(node, Array) or len(node.items) != len(filters):
        return ()
    return tuple(
        _pattern(item.Pattern, f"FilterCriteria.Filters[{index}]", section) for index, item in enumerate(filters)
    )


def _pattern(pattern: str | Dict[str, Any] | None, keys: str, section: Section) -> str:
    import json

    from bridge.filtering import InvalidPattern, compile_pattern

    if pattern is None:  # FLT-8
        section.problem(
            keys, "Invalid filter pattern definition: Pattern is missing", aws="Invalid filter pattern definition."
        )
        return ""
    try:
        text = pattern if isinstance(pattern, str) else json.dumps(pattern, ensure_ascii=False, allow_nan=False)
        compile_pattern(text)
    except (InvalidPattern, ValueError) as error:  # FLT-3
        section.problem(
            f"{keys}.Pattern",
            f"Invalid filter pattern definition: {error}",
            aws="Invalid filter pattern definition.",
        )
        return ""
    return text


def _advise_patterns(patterns: tuple[str, ...], data_key: str, section: Section) -> None:
    """A pattern copied from another kind of source matches nothing here (FLT-40)."""
    for index, pattern in enumerate(patterns):
        keys = msgspec.json.decode(pattern) if pattern else {}
        for key in sorted(_DATA_KEYS.intersection(keys) - {data_key}):
            text = f"the payload of these records is `{data_key}`; they have no `{key}`"
            section.warn(f"FilterCriteria.Filters[{index}].Pattern", text)


def _uuid(name: str, options: MappingOptions, section: Section) -> str:
    if options.UUID is None:
        return str(uuid5(_NAMESPACE, name))
    if not re.fullmatch(_UUID, options.UUID.lower()):
        section.problem("UUID", f"{shown(options.UUID)} is no UUID; expected one such as {uuid5(_NAMESPACE, name)}")
    return options.UUID.lower()


def _enabled(options: MappingOptions, section: Section) -> bool:
    """Enabled, or what a pasted State says."""
    if options.State is None:
        return options.Enabled is not False
    by_state = options.State not in ("Disabling", "Disabled")
    if options.Enabled not in (None, by_state):
        section.problem("State", f"{options.State} contradicts Enabled: {shown(options.Enabled)}; keep one of the two")
    return by_state


def _located(aws: AwsSettings, own_region: str | None, source: SourceArn, section: Section) -> AwsSettings:
    """The settings with the region of the source: the ARN's, unless the mapping's own block insists on another."""
    if own_region and own_region != source.region:
        section.warn("aws.region", f"the source is asked for in {own_region}, but EventSourceArn says {source.region}")
    return msgspec.structs.replace(aws, region=own_region or source.region)
