"""Event source mappings: create, get, list, update, delete (spec/esm-api.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any
from uuid import uuid4

import msgspec

from bridge.api import Answer, ApiError, Call, Host, invalid
from bridge.api.book import PLACE, Entry, identity, judge, now
from bridge.api.names import named, page
from bridge.api.probe import check_source
from bridge.config.mappings import UNSUPPORTED_DESTINATION
from bridge.config.tree import Problem
from bridge.mapping import Mapping, StreamOptions
from bridge.supervisor import Supervised

PAGE = 100
"""ESM-70."""
EMPTY_REMOVES = (
    "FilterCriteria", "ScalingConfig", "ProvisionedPollerConfig", "MetricsConfig", "KMSKeyArn", "DestinationConfig",
)  # fmt: skip
"""ESM-61: given without content, there is none any more."""
ORDER = (
    "DestinationConfig", "", "EventSourceArn", "SelfManagedEventSource", "SourceAccessConfigurations",
    "StartingPosition", "BatchSize", "MaximumBatchingWindowInSeconds", "FilterCriteria", "FunctionName",
)  # fmt: skip
"""ESM-47: which problem is told when there are several; the others come before the function's."""


async def create(host: Host, call: Call) -> Answer:
    parameters = dict(call.given)
    tags = parameters.pop("Tags", {})
    uuid = str(uuid4())
    made, parameters = _checked(host, uuid, parameters)
    await check_source(host, made)
    async with host.changing:
        invoker = host.invokers.get(made.function)
        if invoker is None:
            raise invalid("Function does not exist")
        _refuse_duplicate(host, made)
        at = now()
        await host.book.keep_mapping(Entry(uuid, parameters, at, at))
        if tags:
            await host.book.keep_tags(uuid, tags)
        await host.supervisor.add(made, invoker)
        return _configuration(host, host.supervisor.find(uuid).mapping)


async def get(host: Host, call: Call) -> Answer:
    uuid = call.given["UUID"]
    supervised = _running(host, uuid)
    if supervised:
        return _configuration(host, _asked_for(host, supervised))
    return _idle(host, _entry(host, uuid))


async def list_all(host: Host, call: Call) -> Answer:
    """ESM-70 to ESM-73."""
    given = call.given
    answers = list(_all(host))
    if source := given.get("EventSourceArn"):
        answers = [it for it in answers if it.get("EventSourceArn") == source]
    if function := given.get("FunctionName"):
        said = named(host, function)
        arn = f"{said.arn}:{said.qualifier}" if said.qualifier else said.arn
        answers = [it for it in answers if it.get("FunctionArn") == arn]
    chosen, marker = page(answers, lambda it: str(it["UUID"]), given.get("Marker"), given.get("MaxItems"), PAGE)
    return {"EventSourceMappings": chosen, "NextMarker": marker}


async def update(host: Host, call: Call) -> Answer:
    given = dict(call.given)
    uuid = given.pop("UUID")
    supervised = _running(host, uuid)
    if supervised and supervised.mapping.where != PLACE:
        return await _switch(host, supervised, given)
    entry = _entry(host, uuid)
    _refuse_in_use(host, uuid, "update")
    made, parameters = _checked(host, uuid, {**entry.parameters, **given})  # ESM-60, ESM-63
    if given.keys() != {"Enabled"} or given["Enabled"]:
        await check_source(host, made)
    async with host.changing:
        if made.function not in host.invokers:
            raise invalid("Function does not exist")
        _refuse_in_use(host, uuid, "update")
        _refuse_duplicate(host, made)
        await host.book.keep_mapping(Entry(uuid, parameters, entry.created_at, now()))
        await _apply(host, made, given)
        return _configuration(host, made)


async def delete(host: Host, call: Call) -> Answer:
    uuid = call.given["UUID"]
    async with host.changing:
        supervised = _running(host, uuid)
        if supervised and supervised.mapping.where != PLACE:
            raise _configured(supervised)
        entry = _entry(host, uuid)
        if supervised and supervised.turning and supervised.state == "Updating":
            raise _in_use("delete")
        await host.book.forget_mapping(uuid)
        if supervised is None:
            await host.book.forget_positions(uuid)
            reason = _reason(entry.parameters["EventSourceArn"])
            return {**_idle(host, entry), "State": "Deleting", "StateTransitionReason": reason}
        host.supervisor.remove_soon(uuid, lambda: host.book.forget_positions(uuid))
        return _configuration(host, supervised.mapping)


# Deciding.


def _checked(host: Host, uuid: str, parameters: dict[str, Any]) -> tuple[Mapping, dict[str, Any]]:
    """The mapping, and the parameters to keep. Raises ApiError for the first problem by ESM-47."""
    parameters = {key: it for key, it in parameters.items() if not (key in EMPTY_REMOVES and _is_empty(it))}
    said = named(host, parameters["FunctionName"])
    parameters["FunctionName"] = f"{said.name}:{said.qualifier}" if said.qualifier else said.name
    _check_source_rules(parameters)
    made, problems = judge(uuid, parameters, host.settings)
    if problems or made is None:
        raise invalid(_first(problems))
    return made, parameters


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_empty(item) for item in value.values())
    return value in ("", None) or value == []


def _check_source_rules(parameters: dict[str, Any]) -> None:
    """What AWS says about other kinds of source than those that run here; those are refused all the same."""
    arn = parameters.get("EventSourceArn", "")
    service = arn.split(":")[2] if arn.count(":") >= 5 else ""
    destinations = parameters.get("DestinationConfig", {})
    if destinations.get("OnSuccess") or (destinations and service == "sqs"):  # ESM-23
        raise invalid(UNSUPPORTED_DESTINATION)
    if not arn and "SelfManagedEventSource" not in parameters:  # ESM-30
        raise invalid("Unrecognized event source.")
    if not arn and not parameters.get("SourceAccessConfigurations"):  # ESM-31
        raise invalid("Required 'sourceAccessConfigurations' parameter is missing.")


def _first(problems: Sequence[Problem]) -> str:
    def rank(problem: Problem) -> int:
        key = problem.path.partition(".")[0].partition("[")[0]
        return ORDER.index(key) if key in ORDER else ORDER.index("FunctionName") - 1

    first = min(problems, key=rank)
    return first.aws or (f"{first.path}: {first.message}" if first.path else first.message)


def _refuse_duplicate(host: Host, made: Mapping) -> None:
    """ESM-11."""
    for supervised in host.supervisor.mappings:
        other = supervised.mapping
        if other.uuid != made.uuid and identity(other) == identity(made):
            what = (
                f'The event source arn (" {made.source_arn} ") and function (" {made.function} ") provided mapping'
                if made.stream
                else f'An event source mapping with SQS arn (" {made.source_arn} ") and function (" {made.function} ")'
            )
            raise ApiError(
                "ResourceConflictException",
                f"{what} already exists. Please update or delete the existing mapping with UUID {other.uuid}",
            )


def _refuse_in_use(host: Host, uuid: str, what: str) -> None:
    """ESM-54. A mapping that cannot come into its state, say because its queue is gone, may be changed."""
    supervised = _running(host, uuid)
    if supervised and supervised.turning:
        raise _in_use(what)


def _in_use(what: str) -> ApiError:
    text = f"Cannot {what} the event source mapping because it is in use."
    return ApiError("ResourceInUseException", text)


def _configured(supervised: Supervised) -> ApiError:
    mapping = supervised.mapping
    return invalid(
        f"The event source mapping {mapping.uuid} is mappings.{mapping.name} of {mapping.where}; change it there. Only"
        " Enabled can be changed here."
    )


# Doing.


async def _switch(host: Host, supervised: Supervised, given: dict[str, Any]) -> Answer:
    """A mapping of the configuration: ``Enabled`` alone pauses and resumes it."""
    mapping = supervised.mapping
    if given.keys() != {"Enabled"} or (given["Enabled"] and not mapping.enabled):
        raise _configured(supervised)
    async with host.changing:
        if given["Enabled"]:
            await host.supervisor.resume(mapping.name)
        else:
            await host.supervisor.pause(mapping.name, wait=False)
    return _configuration(host, mapping)


async def _apply(host: Host, made: Mapping, given: dict[str, Any]) -> None:
    """ESM-52."""
    supervised = _running(host, made.uuid)
    invoker = host.invokers[made.function]
    if supervised is None:
        await host.supervisor.add(made, invoker, state="Updating")
        return
    if given.get("Enabled") and supervised.paused:
        await host.supervisor.resume(made.name)
    before = supervised.mapping
    if msgspec.structs.replace(before, enabled=made.enabled) == made and given.keys() == {"Enabled"}:
        supervised.enable(made.enabled)
        return
    state = "Updating"
    if before.enabled != made.enabled:
        state = "Enabling" if made.enabled else "Disabling"
    host.supervisor.replace_soon(made, invoker, state)


# Showing.


def _running(host: Host, uuid: str) -> Supervised | None:
    return next((it for it in host.supervisor.mappings if it.mapping.uuid == uuid), None)


def _entry(host: Host, uuid: str) -> Entry:
    entry = host.book.mappings.get(uuid)
    if entry is None:  # ESM-13
        raise ApiError("ResourceNotFoundException", "The resource you requested does not exist.")
    return entry


def _all(host: Host) -> Iterator[Answer]:
    """Those of the file, then those made here, by creation."""
    running = {it.mapping.uuid: _asked_for(host, it) for it in host.supervisor.mappings}
    for uuid, mapping in running.items():
        if uuid not in host.book.mappings:
            yield _configuration(host, mapping)
    for uuid, entry in host.book.mappings.items():
        yield _configuration(host, running[uuid]) if uuid in running else _idle(host, entry)


def _asked_for(host: Host, supervised: Supervised) -> Mapping:
    """The mapping; while an update drains what it was before, what it will be."""
    entry = host.book.mappings.get(supervised.mapping.uuid)
    if entry is None or not supervised.turning:
        return supervised.mapping
    made, _ = judge(entry.uuid, entry.parameters, host.settings)
    return made or supervised.mapping


def _configuration(host: Host, mapping: Mapping) -> Answer:
    """ESM-90, ESM-91; without what was not asked for."""
    supervised = _running(host, mapping.uuid)
    filters = [{"Pattern": pattern} for pattern in mapping.patterns]
    pollers = {"MinimumPollers": mapping.minimum_pollers, "MaximumPollers": mapping.maximum_pollers}
    most = mapping.maximum_concurrency
    answer = _identified(host, mapping.uuid, str(mapping.source_arn), mapping.function, mapping.qualifier)
    entry = host.book.mappings.get(mapping.uuid)
    return {
        **answer,
        "BatchSize": mapping.batch_size,
        "MaximumBatchingWindowInSeconds": int(mapping.window),
        "FilterCriteria": {"Filters": filters} if filters else None,
        "ScalingConfig": {"MaximumConcurrency": most} if most is not None else None,
        "ProvisionedPollerConfig": pollers if mapping.minimum_pollers is not None else None,
        "MetricsConfig": entry.parameters.get("MetricsConfig") if entry else None,
        "FunctionResponseTypes": ["ReportBatchItemFailures"] if mapping.partial else [],
        "LastModified": max(supervised.since if supervised else 0.0, entry.modified_at if entry else 0.0),
        "State": supervised.state if supervised else "Disabled",
        "StateTransitionReason": _reason(str(mapping.source_arn)),
        **(_of_stream(mapping.stream, supervised) if mapping.stream else {}),
    }


def _of_stream(stream: StreamOptions, supervised: Supervised | None) -> Answer:
    """ESM-91."""
    return {
        "StartingPosition": stream.starting_position,
        "StartingPositionTimestamp": stream.starting_timestamp,
        "ParallelizationFactor": stream.lanes,
        "MaximumRetryAttempts": _number(stream.retries),
        "MaximumRecordAgeInSeconds": _number(stream.max_age),
        "BisectBatchOnFunctionError": stream.bisect,
        "TumblingWindowInSeconds": int(stream.tumbling_window),
        "DestinationConfig": {"OnFailure": {"Destination": stream.on_failure} if stream.on_failure else {}},
        "LastProcessingResult": supervised.last_result if supervised else "No records processed",
    }


def _number(limit: float) -> int:
    """As AWS writes it: -1 is none."""
    return -1 if limit == inf else int(limit)


def _reason(source: str) -> str:
    """ESM-56."""
    return "USER_INITIATED" if source.split(":")[2] == "sqs" else "User action"


def _idle(host: Host, entry: Entry) -> Answer:
    """A mapping that cannot run as the configuration is now: nothing runs, and that is said."""
    parameters = entry.parameters
    name, _, qualifier = parameters["FunctionName"].partition(":")
    kept = {key: it for key, it in parameters.items() if key not in ("FunctionName", "EventSourceArn", "Enabled")}
    return {
        **_identified(host, entry.uuid, parameters["EventSourceArn"], name, qualifier),
        **kept,
        "LastModified": entry.modified_at,
        "State": "Disabled",
        "StateTransitionReason": host.book.unusable.get(entry.uuid) or _reason(parameters["EventSourceArn"]),
    }


def _identified(host: Host, uuid: str, source: str, function: str, qualifier: str) -> Answer:
    """ESM-7, ESM-9, ESM-10."""
    arn = named(host, function).arn
    return {
        "UUID": uuid,
        "EventSourceArn": source,
        "FunctionArn": f"{arn}:{qualifier}" if qualifier else arn,
        "EventSourceMappingArn": f"{arn.partition(':function:')[0]}:event-source-mapping:{uuid}",
    }
