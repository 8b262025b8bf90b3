"""Looks at a stream: how long it keeps records, its shards and consumers, and by reads that consume nothing how old the
oldest record is that the mapping has not handled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from anyio.to_thread import run_sync

from bridge.doctor.facts import Case, Stream
from bridge.doctor.inquiry import CALL_TIMEOUT, Inquiry
from bridge.errors import NotFound, Rejected, RemoteError, StateError
from bridge.filtering import compile_filter
from bridge.mapping import Mapping, StreamOptions
from bridge.record import Record
from bridge.settings import Settings
from bridge.sources import kinesis_records, source_class
from bridge.sources.dynamodb_stream import TableStream
from bridge.sources.kinesis import stream_of
from bridge.sources.kinesis_records import Origin
from bridge.sources.kinesis_stream import KinesisStream
from bridge.sources.shards import CursorExpired, PositionTrimmed, ReadPage, Shard, StreamApi, Where
from bridge.stores.sqlite import positions_of

MOST_SHARDS = 8
"""That are read."""
SAMPLE = 100
"""Records of a shard that a filter is tried on."""
EMPTY_READS = 3
"""An empty page that is not caught up says nothing (KIN-13)."""


class Sample(NamedTuple):
    """What reading some shards gave."""

    age: float | None
    lost: float | None
    seen: int
    matched: int


async def look_at_stream(case: Case, mapping: Mapping, settings: Settings, inquiry: Inquiry) -> Stream:
    """Raises RemoteError when the stream cannot be described."""
    arn = mapping.source_arn
    service = "kinesis" if mapping.source == "kinesis" else "dynamodbstreams"
    stream = stream_of(arn) if service == "kinesis" else arn
    api = await inquiry.api(service, mapping.aws, arn.region or None, str(stream))
    source: KinesisStream | TableStream
    if service == "kinesis":
        source = KinesisStream(api, Origin(str(stream), stream, ""))
        await source.open()
    else:
        source = TableStream(api, str(arn))
    shards = await source.shards()
    found = Stream(
        retention=source.retention,
        status=source.status,
        shards=sum(shard.last is None for shard in shards),
    )
    case.stream = found  # the rest may be denied, or take too long
    if service == "kinesis":
        found = await _consumer(found, mapping, inquiry)
        case.stream = found
    if case.view is None:
        sample = await _read(mapping, settings, source, shards, inquiry)
        found = msgspec.structs.replace(
            found, age=sample.age, lost=sample.lost, seen=sample.seen, matched=sample.matched
        )
    return found


async def _consumer(found: Stream, mapping: Mapping, inquiry: Inquiry) -> Stream:
    """With the state of the registered consumer that is named (KIN-106)."""
    stream = stream_of(mapping.source_arn)
    _, _, consumer = mapping.source_arn.resource.partition("/consumer/")
    if not consumer:
        return found
    named = {"StreamARN": str(stream), "ConsumerName": consumer.partition(":")[0]}
    api = await inquiry.api("kinesis", mapping.aws, stream.region or None, str(mapping.source_arn))
    try:
        answer = await api.call("DescribeStreamConsumer", named, timeout=CALL_TIMEOUT)
    except RemoteError as error:
        inquiry.note(error, "source", str(mapping.source_arn))
        return found
    status = str(answer.get("ConsumerDescription", {}).get("ConsumerStatus", "ACTIVE"))
    return msgspec.structs.replace(found, consumer=status)


async def _read(
    mapping: Mapping, settings: Settings, source: StreamApi, shards: Sequence[Shard], inquiry: Inquiry
) -> Sample:
    """One read at the mapping's place in each of a few shards."""
    stored = await run_sync(_stored, mapping, settings.state, abandon_on_cancel=True)
    places = _places(mapping, stored, shards)[:MOST_SHARDS]
    accept = _filter(mapping)
    limit = SAMPLE if mapping.patterns else 1
    ages: list[float] = []
    lost: list[float] = []
    seen = matched = 0
    for shard, where in places:
        try:
            page = await _page(source, shard, where, limit)
        except RemoteError as error:
            inquiry.note(error, "source", str(mapping.source_arn))
            break  # it would be the same for the next one
        if page is None:
            lost += [0.0] if stored else []
            continue
        if stored and (age := _age(page)) is not None:
            ages.append(age)  # of a mapping that has never run nothing is overdue
        if where.at is not None and where.kind == "AFTER_SEQUENCE_NUMBER" and page.records:
            gap = time.time() - where.at - source.retention
            lost += [gap] if gap > 0 else []  # KIN-32: it is answered from the oldest record on
        seen += len(page.records)
        matched += sum(accept(record) for record in page.records)
    return Sample(max(ages, default=None), max(lost, default=None), seen, matched)


async def _page(source: StreamApi, shard: Shard, where: Where, limit: int) -> ReadPage | None:
    """None: what was there has been trimmed, perhaps with its shard (DDB-27)."""
    try:
        page = await source.read(shard, await source.cursor(shard, where), limit)
        for _ in range(EMPTY_READS - 1):
            if page.records or page.caught_up or page.cursor is None:
                break
            page = await source.read(shard, page.cursor, limit)
    except (PositionTrimmed, NotFound):
        return None
    except CursorExpired as error:
        raise Rejected(str(error)) from error
    return page


def _age(page: ReadPage) -> float | None:
    if page.records:
        return max(0.0, time.time() - page.records[0].arrived_at)
    return 0.0 if page.caught_up else page.lag


def _stored(mapping: Mapping, state: str) -> dict[str, Where | None]:
    """Where the mapping stands in each shard, none where that is finished, of a daemon that does not run; nothing
    where that cannot be read."""
    try:
        positions = positions_of(state, mapping.uuid, str(mapping.source_arn))
        return {shard: None if it.ended else Where.parse(it.position) for shard, it in positions.items()}
    except StateError:
        return {}


def _places(mapping: Mapping, stored: dict[str, Where | None], shards: Sequence[Shard]) -> list[tuple[Shard, Where]]:
    """Where it would read on, of open shards first."""
    options = mapping.stream or StreamOptions()
    listed = sorted(shards, key=lambda shard: shard.last is not None)
    if stored:
        return [(shard, where) for shard in listed if (where := stored.get(shard.id))]
    if options.starting_position == "LATEST":
        return []  # whatever is there now is none of it
    at = options.starting_timestamp
    start = Where("TRIM_HORIZON") if at is None else Where("AT_TIMESTAMP", at=at)
    return [(shard, start) for shard in listed]


def _filter(mapping: Mapping) -> Callable[[Record], bool]:
    """Whether a record passes, seen as the mapping's source shows it to patterns."""
    kind = source_class(mapping.source)
    accept = compile_filter(mapping.patterns, kind.data_key)
    view = kinesis_records.view if mapping.source == "kinesis" else _as_it_is
    return lambda record: accept(view(record))


def _as_it_is(record: Record) -> Any:
    return msgspec.json.decode(record.json)  # DDB-51
