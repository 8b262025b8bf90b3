"""Hands records to a function once more, by the rules of their mapping: its filter, its batch size, its reading of the
answer. Nothing is tried a second time, and what follows a failure in a shard is not started."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping as Dict, Sequence
from contextlib import suppress
from math import inf
from time import time
from typing import TYPE_CHECKING, Any

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


class Handed(msgspec.Struct, frozen=True):
    """How far it came."""

    read: int = 0
    """Records that were there."""
    matched: int = 0
    """Of them those that were for the function."""
    done: int = 0
    """Of them those that the function took."""
    failure: str = ""
    """Why it took no more, in one line; empty: it took all of them."""


class TooLarge(BridgeError):
    """A record does not fit into an event."""


async def hand_over(
    pages: AsyncIterable[Sequence[Record]],
    partition: str,
    terms: Terms,
    invoke: Invoke,
    *,
    most: int,
    belongs: Callable[[Record], bool] | None = None,
    extra: Dict[str, bytes] | None = None,
) -> Handed:
    """Gives the records in their order to the function, at most ``most`` in one event, until one of them fails.
    ``belongs`` leaves out others' records (KIN-50), ``extra`` are further members of the event. Raises what ``pages``
    raises."""
    batcher = Batcher(partition, most, inf, limit=PAYLOAD_LIMIT - _weight(extra or {}))
    read = matched = done = 0
    failure = ""

    async def run(batches: Sequence[Batch]) -> None:
        nonlocal done, failure
        for batch in batches:
            if failure:
                return
            taken, failure = await _attempt(batch, terms, invoke, extra or {})
            done += taken

    async for page in pages:
        read += len(page)
        kept = terms.kept(page if belongs is None else [record for record in page if belongs(record)])
        matched += len(kept)
        batcher.add(kept, 0.0)
        await run(batcher.take(0.0))
        if failure:
            break
    await run(batcher.flush())
    return Handed(read, matched, done, failure)


async def _attempt(batch: Batch, terms: Terms, invoke: Invoke, extra: Dict[str, bytes]) -> tuple[int, str]:
    """How many records were taken, and why not all."""
    event = terms.source.event(batch, extra)
    if len(event) > PAYLOAD_LIMIT:  # KIN-38
        return 0, f"record {batch.records[0].id} has {len(event)} bytes as an event; the most is {PAYLOAD_LIMIT}"
    outcome = await invoke(event, terms.source.trace(batch))
    done = terms.done(batch, outcome)
    if len(done) == len(batch.records):
        return len(done), ""
    if isinstance(outcome, Failed):
        return 0, told(outcome)
    rest = [record.id for record in batch.records if record not in done]
    return len(done), f"the answer names record {rest[0]}" if done or len(rest) < len(batch.records) else answered(
        outcome
    )


def answered(outcome: Succeeded) -> str:
    """Why an answer without an error is none of success."""
    if names_failures(outcome.payload):
        return "the answer names failed records (batchItemFailures)"
    return "the answer cannot be read as ReportBatchItemFailures asks for, so that all of the batch counts as failed"


def told(outcome: Failed) -> str:
    """How an invocation failed, in one line."""
    error = parse_error(outcome.error)
    message = " ".join(error.errorMessage.split())
    shown = message if len(message) <= SHOWN else f"{message[:SHOWN]}…"
    return ": ".join(part for part in (error.errorType or outcome.kind, shown) if part)


def _weight(extra: Dict[str, bytes]) -> int:
    return sum(len(msgspec.json.encode(name)) + len(value) + 2 for name, value in extra.items())


def stored(event: bytes) -> tuple[tuple[Record, ...], dict[str, bytes]]:
    """The records of a stored event of a stream, and its other members (KIN-85). Raises ValueError."""
    members: dict[str, Any] = msgspec.json.decode(event, type=dict[str, msgspec.Raw])
    records = msgspec.json.decode(members.pop("Records"), type=list[msgspec.Raw])
    return tuple(_stored(bytes(raw)) for raw in records), {name: bytes(value) for name, value in members.items()}


class _Place(msgspec.Struct):
    sequenceNumber: str = ""  # noqa: N815
    SequenceNumber: str = ""


class _Stored(msgspec.Struct):
    kinesis: _Place | None = None
    dynamodb: _Place | None = None


def _stored(raw: bytes) -> Record:
    found = msgspec.json.decode(raw, type=_Stored)
    number = found.kinesis.sequenceNumber if found.kinesis else found.dynamodb.SequenceNumber if found.dynamodb else ""
    if not number:
        raise ValueError("a record in it has no sequence number")
    return Record(number, raw, 0.0)
