"""Hands records to a function once more, by the rules of their mapping: its filter, its batch size, its reading of the
answer. Nothing is tried a second time, and what follows a failure in a shard is not started."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping as Dict, Sequence
from contextlib import suppress
from math import inf
from time import time
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from bridge.errors import BridgeError
from bridge.executors.failures import parse_error
from bridge.flow import Filter
from bridge.invocation import Failed, Outcome, Succeeded
from bridge.mapping import Mapping
from bridge.pipeline.batcher import PAYLOAD_LIMIT, Batcher
from bridge.pipeline.decide import decide
from bridge.pipeline.verdict import Now
from bridge.record import Batch, Record
from bridge.sources import Source, Surroundings, source_class

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.function import Function

SHOWN = 200
"""Characters of an error message in a reason."""

Invoke = Callable[[bytes, str], Awaitable[Outcome]]
"""An event and its trace header."""


class Terms:
    """The rules of one mapping for one function. ``known`` false: there is no such mapping in the configuration; then
    no filter applies, and a failure that the answer names counts whatever the mapping would say about it."""

    def __init__(self, mapping: Mapping, function: Function, aws: Aws, *, known: bool = True) -> None:
        from bridge.telemetry.metrics import Metrics

        meter = Metrics().mapping_meter(mapping.name, mapping.source, function.name)
        kind = source_class(mapping.source)
        self.mapping, self.function, self.known = mapping, function, known
        self.source: Source = kind(mapping, Surroundings(aws, meter, function.timeout, _ignored, function))
        self._cautious: Source = kind(
            msgspec.structs.replace(mapping, partial=True),
            Surroundings(aws, meter, function.timeout, _ignored, function),
        )
        self._filter = Filter(mapping, self.source.view, self.source.data_key)

    def __repr__(self) -> str:
        return f"<Terms of {self.mapping.name}{'' if self.known else ', which is not known'}>"

    def kept(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those that the mapping's filter lets through."""
        return self._filter.split(records)[0]

    def done(self, batch: Batch, outcome: Outcome) -> tuple[Record, ...]:
        """Those that the function took, as the mapping would judge it (KIN-71 to KIN-77, SQS-40 to SQS-48)."""
        source = self.source
        if not self.known and isinstance(outcome, Succeeded) and names_failures(outcome.payload):
            source = self._cautious
        return decide(batch, outcome, source.policy(batch), Now(0.0, time())).done


def _ignored(_line: str | None) -> None:
    """A source that is never opened waits for nothing."""


def names_failures(answer: bytes) -> bool:
    """Whether an answer reports failed records at all."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = msgspec.json.decode(answer)
        return (
            isinstance(told, dict)
            and isinstance(told.get("batchItemFailures"), list)
            and told["batchItemFailures"] != []
        )
    return False


class Attempt(NamedTuple):
    """How one invocation went."""

    done: tuple[Record, ...]
    """Those that the function took."""
    failure: str = ""
    """Why it did not take all of them: the same for the same cause."""
    detail: str = ""
    request_id: str = ""
    lost: bool = False
    """Nobody knows whether the function had them."""


class Handed(msgspec.Struct, frozen=True):
    """How far it came."""

    read: int = 0
    """Records that were there."""
    matched: int = 0
    """Of them those that were for the function."""
    done: int = 0
    """Of them those that the function took."""
    last: Attempt = Attempt(())
    """The last invocation. It failed, or all of the records were taken."""


async def hand_over(
    pages: AsyncIterable[Sequence[Record]],
    partition: str,
    terms: Terms,
    invoke: Invoke,
    *,
    most: int,
    extra: Dict[str, bytes] | None = None,
) -> Handed:
    """Gives the records in their order to the function, at most ``most`` in one event, until one of them fails.
    ``extra`` are further members of the event. Raises what ``pages`` raises before a record was taken."""
    more = extra or {}
    batcher = Batcher(partition, most, inf, limit=PAYLOAD_LIMIT - _weight(more))
    read = matched = done = 0
    last = Attempt(())

    async def run(batches: Sequence[Batch]) -> None:
        nonlocal done, last
        for batch in batches:
            if not last.failure:
                last = await attempt(batch, terms, invoke, more)
                done += len(last.done)

    try:
        async for page in pages:
            read += len(page)
            kept = terms.kept(page)
            matched += len(kept)
            batcher.add(kept, 0.0)
            await run(batcher.take(0.0))
            if last.failure:
                break
    except BridgeError as error:
        if not done:
            raise
        return Handed(read, matched, done, Attempt((), str(error)))
    await run(batcher.flush())
    return Handed(read, matched, done, last)


async def attempt(batch: Batch, terms: Terms, invoke: Invoke, extra: Dict[str, bytes]) -> Attempt:
    """One invocation for these records."""
    event = terms.source.event(batch, extra)
    if len(event) > PAYLOAD_LIMIT:  # KIN-38
        detail = f"as an event it has {len(event)} bytes; the most is {PAYLOAD_LIMIT}"
        return Attempt((), "too large for an event of a function", detail)
    outcome = await invoke(event, terms.source.trace(batch))
    done = terms.done(batch, outcome)
    if len(done) == len(batch.records):
        return Attempt(done, request_id=outcome.request_id)
    if isinstance(outcome, Failed):
        return failed(outcome)
    if not names_failures(outcome.payload):
        return Attempt(done, UNREADABLE, request_id=outcome.request_id)
    first = next(record.id for record in batch.records if record not in done)
    return Attempt(done, REPORTED, f"the first is {first}", outcome.request_id)


UNREADABLE = "the function's answer is none that ReportBatchItemFailures knows, so that all of it counts as failed"
REPORTED = "the function's answer names records that failed"


def failed(outcome: Failed) -> Attempt:
    """What is told of a failed invocation."""
    error = parse_error(outcome.error)
    message = " ".join(error.errorMessage.split())
    what = error.errorType or outcome.kind
    reason = f"the function failed: {what}" if outcome.ran else f"the function was not run: {what}"
    detail = message if len(message) <= SHOWN else f"{message[:SHOWN]}…"
    return Attempt((), reason, detail, outcome.request_id, lost=what == "Function.ConnectionLost")


def _weight(extra: Dict[str, bytes]) -> int:
    return sum(len(msgspec.json.encode(name)) + len(value) + 2 for name, value in extra.items())


def stored(event: bytes, service: str) -> tuple[tuple[Record, ...], dict[str, bytes]]:
    """The records of a stored event of a stream of this service, and its other members (KIN-85). Raises ValueError."""
    kind = _KINDS[service]
    try:
        members: dict[str, msgspec.Raw] = msgspec.json.decode(event, type=dict[str, msgspec.Raw])
        raws = msgspec.json.decode(members.pop("Records"), type=list[msgspec.Raw])
        ids = [msgspec.json.decode(raw, type=kind).id for raw in raws]
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    records = tuple(Record(number, bytes(raw), 0.0) for number, raw in zip(ids, raws, strict=True))
    return records, {name: bytes(value) for name, value in members.items()}


class _KinesisData(msgspec.Struct):
    sequenceNumber: Annotated[str, msgspec.Meta(min_length=1)]  # noqa: N815
    data: str


class _Kinesis(msgspec.Struct):
    kinesis: _KinesisData

    @property
    def id(self) -> str:
        return self.kinesis.sequenceNumber


class _Change(msgspec.Struct):
    SequenceNumber: Annotated[str, msgspec.Meta(min_length=1)]


class _DynamoDB(msgspec.Struct):
    dynamodb: _Change

    @property
    def id(self) -> str:
        return self.dynamodb.SequenceNumber


_KINDS: dict[str, type[_Kinesis] | type[_DynamoDB]] = {"kinesis": _Kinesis, "dynamodb": _DynamoDB}
"""Service -> what a record must have, for its filter and for its answer."""
