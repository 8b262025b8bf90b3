"""The streams of the demo: clicks of a Kinesis stream, changes of a DynamoDB table, and the rules that they show."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Self

import anyio

from bridge.aws import Api, Aws
from bridge.demo.queues import Queue
from bridge.demo.show import Rule, Sent
from bridge.errors import BridgeError
from bridge.mapping import SourceArn
from bridge.settings import Settings
from bridge.snapshot import Snapshot

CLICKS, VISITORS = 36, 9
POISON = 22
CUSTOMERS, MOVED, GONE = 12, 8, 5
SESSIONS = 10
CHANGES = {"INSERT": CUSTOMERS, "MODIFY": MOVED, "REMOVE": GONE}
IMAGES = {"INSERT": {"NewImage"}, "MODIFY": {"OldImage", "NewImage"}, "REMOVE": {"OldImage"}}
"""DDB-41, of a stream of new and old images."""


class Streams:
    """The stream, the queue that is told what was given up of it, and the table."""

    sent = Sent(records=CLICKS, writes=CUSTOMERS + MOVED + GONE + SESSIONS)
    announcement = f"{sent.records} records to the stream clicks, writing {sent.writes} times to the table people"

    def __init__(self, kinesis: Api, stream: str, attempts: int, given_up: Queue, dynamodb: Api, table: str) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._attempts = attempts
        self._given_up = given_up
        self._dynamodb = dynamodb
        self._table = table

    @classmethod
    async def open(cls, aws: Aws, settings: Settings) -> Self:
        """Raises RemoteError."""
        clicks, customers = settings.mappings["clicks"], settings.mappings["customers"]
        assert clicks.stream  # noqa: S101 (the demo's own configuration)
        told = SourceArn.parse(clicks.stream.on_failure)
        return cls(
            await aws.api("kinesis", clicks.aws, clicks.source_arn.region),
            clicks.source_arn.resource.split("/")[1],
            int(clicks.stream.retries) + 1,
            await Queue.open(await aws.api("sqs", clicks.aws, told.region), told.resource),
            await aws.api("dynamodb", customers.aws, customers.source_arn.region),
            customers.source_arn.resource.split("/")[1],
        )

    async def send(self) -> None:
        """All of it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._put_clicks)
            tasks.start_soon(self._write_items)

    async def _put_clicks(self) -> None:
        answer = await self._kinesis.call("PutRecords", {"StreamName": self._stream, "Records": clicks()}, timeout=10)
        if answer.get("FailedRecordCount"):
            raise BridgeError(f"{self._stream} refused {answer['FailedRecordCount']} records")

    async def _write_items(self) -> None:
        for operation, params in writes():
            await self._dynamodb.call(operation, {"TableName": self._table, **params}, timeout=10)

    async def at_rest(self, seen: list[dict[str, Any]], snapshot: Snapshot) -> bool:
        """Every click was handled, but for the one that was given up, and every change."""
        handled = _handled(_of(seen, "aws:kinesis"))
        return (
            len({_click(entry)["id"] for entry in handled}) == CLICKS - 1
            and len(_of(seen, "aws:dynamodb")) >= sum(CHANGES.values())
            and _filtered(snapshot) >= SESSIONS
            and not any(view.in_flight for view in snapshot.mappings if view.ordered)
            and await self._given_up.count() >= 1
        )

    async def judge(self, seen: list[dict[str, Any]], snapshot: Snapshot) -> list[Rule]:
        """Each rule that this traffic must show, with its figures."""
        documents = [json.loads(body) for body in await self._given_up.look()]
        clicks, changes = _of(seen, "aws:kinesis"), _of(seen, "aws:dynamodb")
        return [
            *_of_clicks(clicks),
            *_of_poison(clicks, self._attempts),
            _of_document(clicks, documents),
            *_of_changes(changes, _filtered(snapshot)),
        ]


def clicks() -> list[dict[str, Any]]:
    """Clicks of several visitors, as PutRecords wants them; one is poison."""
    bodies: list[dict[str, Any]] = [{"id": n, "page": f"/page-{n % 7}"} for n in range(CLICKS)]
    del bodies[POISON]["page"]
    return [
        {"Data": json.dumps(body).encode(), "PartitionKey": f"visitor-{n % VISITORS}"} for n, body in enumerate(bodies)
    ]


def writes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Operations of DynamoDB: customers come, some move, some go; between them are items that nobody asked for."""
    for n in range(max(CUSTOMERS, SESSIONS)):
        if n < CUSTOMERS:
            yield "PutItem", {"Item": {"id": {"S": f"customer-{n}"}, "city": {"S": "Oslo"}}}
        if n < SESSIONS:
            yield "PutItem", {"Item": {"id": {"S": f"session-{n}"}}}
    for n in range(MOVED):
        yield "PutItem", {"Item": {"id": {"S": f"customer-{n}"}, "city": {"S": "Bergen"}}}
    for n in range(GONE):
        yield "DeleteItem", {"Key": {"id": {"S": f"customer-{n}"}}}


def _of(seen: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    return [entry for entry in seen if entry["record"]["eventSource"] == source]


def _filtered(snapshot: Snapshot) -> int:
    return sum(view.filtered for view in snapshot.mappings if view.name == "customers")


def _handled(clicks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of invocations that ended well."""
    failed = {entry["request"] for entry in clicks if entry["outcome"] == "failed"}
    return [entry for entry in clicks if entry["request"] not in failed]


def _click(entry: dict[str, Any]) -> dict[str, Any]:
    click: dict[str, Any] = json.loads(b64decode(entry["record"]["kinesis"]["data"]))
    return click


def _place(entry: dict[str, Any]) -> tuple[str, int]:
    """Shard and sequence number."""
    shard, _, number = entry["record"]["eventID"].partition(":")
    return shard, int(number)


def _of_clicks(seen: list[dict[str, Any]]) -> Iterator[Rule]:
    batches: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for entry in seen:
        batches[entry["request"]].append(_place(entry))
    shards = {shard for shard, _ in map(_place, seen)}
    yield Rule(
        "KIN-36",
        len(shards) > 1
        and all(len({shard for shard, _ in batch}) == 1 and batch == sorted(batch) for batch in batches.values()),
        f"{len(batches)} batches from {len(shards)} shards: each of one shard, in the order of its sequence numbers",
    )


def _of_poison(seen: list[dict[str, Any]], attempts: int) -> Iterator[Rule]:
    tries = [entry for entry in seen if entry["outcome"] == "failed"]
    sizes = [entry["batch"] for entry in tries]
    alone = sizes.count(1)
    falling = sizes[: len(sizes) - alone + 1]
    halved = all(after in (before // 2, before - before // 2) for before, after in pairwise(falling))
    yield Rule(
        "KIN-63",
        len(falling) > 2 and falling[-1] == 1 and halved,
        f"a poison record among {max(sizes, default=0)} was cornered in {len(falling)} invocations: it failed in "
        f"batches of {', '.join(map(str, falling))}",
    )
    yield Rule(
        "KIN-64",
        alone == attempts,
        f"splitting used up none of its attempts: alone it was tried {alone} times (MaximumRetryAttempts "
        f"{attempts - 1})",
    )
    handled = _handled(seen)
    done = {_click(entry)["id"] for entry in handled}
    shard, number = max(map(_place, tries), default=("", 0))
    last = max((entry["at"] for entry in tries), default=0)
    behind = {place[1] for entry in handled if (place := _place(entry))[0] == shard and place[1] > number}
    yield Rule(
        "KIN-68",
        len(done) == CLICKS - 1 and bool(behind) and all(
            entry["at"] >= last for entry in handled if _place(entry)[0] == shard and _place(entry)[1] > number
        ),
        f"then its shard went on: {len(behind)} records behind it were handled, and {len(done)} of {CLICKS} in all",
    )  # fmt: skip


def _of_document(seen: list[dict[str, Any]], documents: list[dict[str, Any]]) -> Rule:
    numbers = {entry["record"]["kinesis"]["sequenceNumber"] for entry in seen if entry["outcome"] == "failed"}
    infos = [document["KinesisBatchInfo"] for document in documents]
    told = [
        f"batchSize {info['batchSize']} in {info['shardId']}, "
        f"approximateInvokeCount {document['requestContext']['approximateInvokeCount']}"
        for info, document in zip(infos, documents, strict=True)
    ]
    return Rule(
        "KIN-80",
        [(it["batchSize"], {it["startSequenceNumber"], it["endSequenceNumber"]}) for it in infos] == [(1, numbers)],
        f"documents in the queue clicks-given-up: {len(documents)}, which says where the record is and what was tried: "
        f"{'; '.join(told)}",
    )


def _of_changes(seen: list[dict[str, Any]], filtered: int) -> Iterator[Rule]:
    kinds = Counter(entry["record"]["eventName"] for entry in seen)
    images = all(
        entry["record"]["dynamodb"].keys() & {"OldImage", "NewImage"} == IMAGES[entry["record"]["eventName"]]
        for entry in seen
    )
    yield Rule(
        "DDB-41",
        kinds == CHANGES and images,
        f"{', '.join(f'{count} {kind}' for kind, count in kinds.items())}: each with the images that it has",
    )
    items: dict[str, list[str]] = defaultdict(list)
    for entry in seen:
        items[entry["record"]["dynamodb"]["Keys"]["id"]["S"]].append(entry["record"]["eventName"])
    several = [names for names in items.values() if len(names) > 1]
    yield Rule(
        "DDB-46",
        bool(several) and all(names == list(CHANGES)[: len(names)] for names in items.values()),
        f"{len(several)} items changed more than once: the changes of each came in their order",
    )
    yield Rule(
        "DDB-50",
        filtered == SESSIONS and all(key.startswith("customer-") for key in items),
        f"{filtered} changes did not match the filter on dynamodb.Keys, and no handler saw them",
    )
