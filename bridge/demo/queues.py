"""The queues of the demo: orders of a standard queue, payments of a FIFO queue, and the rules that they show."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, Self

import anyio

from bridge.aws import Api, Aws
from bridge.demo.show import Rule, Sent
from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.snapshot import MappingView, Snapshot

ORDERS, HEARTBEATS, PAYMENTS = 100, 40, 60
POISON = 37
GROUPS = 6
VISIBILITY = 3
MOST_RECEIVES = 3
CLOCK_ERROR = 0.05
"""Seconds: the endpoint's clock, and ours."""


class Queue:
    """A queue as its sender sees it."""

    def __init__(self, api: Api, name: str, url: str) -> None:
        self.name = name
        self._api = api
        self._url = url

    @classmethod
    async def open(cls, api: Api, name: str) -> Queue:
        """Raises NotFound when there is none."""
        found = await api.call("GetQueueUrl", {"QueueName": name}, timeout=10)
        return cls(api, name, found["QueueUrl"])

    async def send(self, messages: list[dict[str, Any]]) -> None:
        """``messages`` as SendMessageBatch wants them, without their ids."""
        for start in range(0, len(messages), 10):
            entries = [{"Id": str(n), **message} for n, message in enumerate(messages[start : start + 10])]
            answer = await self._api.call("SendMessageBatch", {"QueueUrl": self._url, "Entries": entries}, timeout=10)
            if answer.get("Failed"):
                raise BridgeError(f"{self.name} refused {len(answer['Failed'])} messages")

    async def look(self) -> list[str]:
        """Bodies of up to ten messages, which stay in it."""
        params = {"QueueUrl": self._url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 0}
        answer = await self._api.call("ReceiveMessage", params, timeout=10)
        return [message["Body"] for message in answer.get("Messages", ())]

    async def attributes(self) -> dict[str, str]:
        """All of them."""
        params = {"QueueUrl": self._url, "AttributeNames": ["All"]}
        attributes: dict[str, str] = (await self._api.call("GetQueueAttributes", params, timeout=10))["Attributes"]
        return attributes

    async def set(self, **attributes: str) -> None:
        """Changes some."""
        await self._api.call("SetQueueAttributes", {"QueueUrl": self._url, "Attributes": attributes}, timeout=10)

    async def count(self) -> int:
        """Messages in it, hidden ones included."""
        attributes = await self.attributes()
        return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


class Queues:
    """Both of them, and the dead-letter queue of the first."""

    sent = Sent(messages=ORDERS + HEARTBEATS + PAYMENTS)
    announcement = f"{ORDERS + HEARTBEATS} messages to orders and {PAYMENTS} to payments.fifo"

    def __init__(self, standard: Queue, fifo: Queue, letters: Queue) -> None:
        self._standard = standard
        self._fifo = fifo
        self._letters = letters

    @classmethod
    async def open(cls, aws: Aws, settings: Settings) -> Self:
        """Raises RemoteError."""
        mapping = settings.mappings["orders"]
        api = await aws.api("sqs", mapping.aws, mapping.source_arn.region)
        return cls(*[await Queue.open(api, name) for name in ("orders", "payments.fifo", "orders-dlq")])

    async def send(self) -> None:
        """All of it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._standard.send, orders())
            tasks.start_soon(self._fifo.send, payments())

    async def at_rest(self, _seen: list[dict[str, Any]], _snapshot: Snapshot) -> bool:
        """The queues are empty, and the poison message has left them."""
        return await self._letters.count() >= 1 and await self._standard.count() + await self._fifo.count() == 0

    async def judge(self, seen: list[dict[str, Any]], snapshot: Snapshot) -> list[Rule]:
        """Each rule that this traffic must show, with its figures."""
        (view,) = [view for view in snapshot.mappings if view.name == "orders"]
        messages = [_of_message(entry) for entry in seen if entry["record"]["eventSource"] == "aws:sqs"]
        return [
            *_of_orders([e for e in messages if not e["group"]], view),
            *_of_payments([e for e in messages if e["group"]]),
        ]


def orders() -> list[dict[str, Any]]:
    """Orders, one of them poison and some that fail once, with messages between them that nobody asked for."""
    bodies = [{"kind": "order", "id": n, "quantity": 1 + n % 5, "flaky": n % 12 == 0} for n in range(ORDERS)]
    bodies[POISON] = {"kind": "order", "id": POISON, "quantity": 0}
    for n in range(HEARTBEATS):
        bodies.insert(n * 3, {"kind": "heartbeat", "id": n})
    return [{"MessageBody": json.dumps(body)} for body in bodies]


def payments() -> list[dict[str, Any]]:
    """Payments of several customers, each customer's in order; some fail once."""
    bodies = [
        {"customer": f"customer-{n % GROUPS}", "number": n // GROUPS, "flaky": n % 17 == 3} for n in range(PAYMENTS)
    ]
    return [
        {"MessageBody": json.dumps(body), "MessageGroupId": body["customer"], "MessageDeduplicationId": f"payment-{n}"}
        for n, body in enumerate(bodies)
    ]


def _of_message(entry: dict[str, Any]) -> dict[str, Any]:
    record, attributes = entry["record"], entry["record"]["attributes"]
    return {
        **entry,
        "message": record["messageId"],
        "first_received": int(attributes["ApproximateFirstReceiveTimestamp"]) / 1000,
        "receives": int(attributes["ApproximateReceiveCount"]),
        "group": attributes.get("MessageGroupId"),
        "body": json.loads(record["body"]),
    }


def _of_orders(seen: list[dict[str, Any]], view: MappingView) -> Iterator[Rule]:
    done = {entry["message"] for entry in seen if entry["outcome"] == "done"}
    batches = Counter(entry["request"] for entry in seen)
    poison = [entry for entry in seen if entry["body"]["id"] == POISON]
    yield Rule(
        "SQS-1",
        len(done) == ORDERS - 1,
        f"{len(done)} of {ORDERS} orders were handled in {len(batches)} batches and deleted",
    )
    yield Rule(
        "SQS-5",
        1 < max(batches.values(), default=0) <= 10,
        f"a window of 1 s and BatchSize 10 gave batches of up to {max(batches.values(), default=0)} records",
    )
    yield Rule(
        "SQS-65",
        view.filtered == HEARTBEATS and not any(entry["body"]["kind"] != "order" for entry in seen),
        f"{view.filtered} messages did not match the filter: deleted, and no handler saw them",
    )
    retried = {entry["message"] for entry in seen if entry["outcome"] == "failed"} & done
    yield Rule(
        "SQS-40",
        bool(retried) and sum(entry["message"] in done and entry["outcome"] == "done" for entry in seen) == len(done),
        f"{len(retried)} orders were reported in batchItemFailures: they alone came back, and then succeeded",
    )
    waits = [entry["at"] - entry["first_received"] for entry in seen if entry["receives"] == 2]
    yield Rule(
        "SQS-25",
        bool(waits) and min(waits) > VISIBILITY - CLOCK_ERROR,
        f"failed messages came back once their visibility timeout of {VISIBILITY} s was over: "
        f"{min(waits, default=0):.1f} s after the receive at the earliest",
    )
    yield Rule(
        "SQS-37",
        [entry["receives"] for entry in poison] == list(range(1, MOST_RECEIVES + 1)),
        f"the poison message was tried {len(poison)} times (maxReceiveCount {MOST_RECEIVES}), then moved to orders-dlq",
    )


def _of_payments(seen: list[dict[str, Any]]) -> Iterator[Rule]:
    order: dict[str, list[int]] = defaultdict(list)
    for entry in seen:
        if entry["outcome"] == "done":
            order[entry["group"]].append(entry["body"]["number"])
    sorted_groups = [group for group, numbers in order.items() if numbers == list(range(PAYMENTS // GROUPS))]
    failed = {entry["message"] for entry in seen if entry["outcome"] == "failed" and entry["body"]["flaky"]}
    yield Rule(
        "SQS-55",
        len(sorted_groups) == GROUPS,
        f"{PAYMENTS} payments of {GROUPS} message groups: {len(sorted_groups)} groups in their order",
    )
    yield Rule(
        "SQS-56",
        bool(failed) and len(sorted_groups) == GROUPS,
        f"{len(failed)} payments failed once, and no later one of their group overtook them",
    )
