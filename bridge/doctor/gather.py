"""Gathers the facts about all mappings and functions, several at once, each within its time, by calls that change
nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from bridge.aws import Aws
from bridge.doctor import streams
from bridge.doctor.facts import Case, Failed, Rival
from bridge.doctor.inquiry import CALL_TIMEOUT, Inquiry
from bridge.doctor.places import look_at_destination, look_at_lambda, look_at_url
from bridge.doctor.queues import look_at_queue
from bridge.errors import RemoteError
from bridge.iam import told_by
from bridge.mapping import Mapping, SourceArn
from bridge.settings import Settings
from bridge.snapshot import Snapshot

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
            view=views.get(mapping.uuid),
            readers=_readers(mapping, settings),
            grace=settings.shutdown_grace,
        )
        for mapping in mappings
    ]
    for function in settings.functions.values():
        used = any(mapping.function == function.name for mapping in mappings)
        if (used or not names) and (told_by(function) or function.lambda_arn or function.endpoint):
            made.append(Case(mapping=None, function=function))
    return made


def _readers(mapping: Mapping, settings: Settings) -> tuple[str, ...]:
    """Of a stream those with a consumer of their own are none: they take nothing from the others."""
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
                case.failed.append(Failed("no-answer", "", inquiry.pending, f"no answer within {deadline:g} s"))
        done += 1
        watch(done, len(found))

    async with anyio.create_task_group() as tasks:
        for case in found:
            tasks.start_soon(one, case, name=f"doctor {case.subject}")


async def _fill(case: Case, settings: Settings, inquiry: Inquiry) -> None:
    mapping, function = case.mapping, case.function
    if mapping is None:
        for target in told_by(function):
            await look_at_destination(inquiry, settings, function, target)
        await look_at_lambda(case, inquiry)
        await look_at_url(case)
        return
    if function.lambda_arn:
        await look_at_lambda(case, inquiry, quiet=True)
    await _SOURCES[mapping.source](case, mapping, settings, inquiry)
    if mapping.stream and mapping.stream.on_failure:
        await look_at_destination(inquiry, settings, function, mapping.stream.on_failure)
    await _rivals(case, mapping, inquiry)


async def _queue(case: Case, mapping: Mapping, _settings: Settings, inquiry: Inquiry) -> None:
    case.queue = await look_at_queue(inquiry, mapping.aws, mapping.source_arn, "source")
    if case.queue and case.queue.dlq:
        case.dlq = await look_at_queue(inquiry, mapping.aws, SourceArn.parse(case.queue.dlq), "dlq")


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
