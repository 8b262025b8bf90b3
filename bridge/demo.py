"""``bridge demo``: the real daemon on an embedded endpoint, 200 messages, and the rules that could be seen at work."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import anyio
import msgspec

from bridge.aws import Api, Aws
from bridge.daemon import Daemon
from bridge.errors import BridgeError
from bridge.leash import Leash
from bridge.local import LocalEndpoint
from bridge.settings import Settings, load
from bridge.snapshot import MappingView, Snapshot

CONFIG = Path(__file__).parent / "samples" / "demo.yaml"
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
ORDERS, HEARTBEATS, PAYMENTS = 100, 40, 60
GROUPS = 6
VISIBILITY = 3
MOST_RECEIVES = 3
LIMIT = 45.0
"""Seconds for the traffic to come to rest."""
CLOCK_ERROR = 0.05
"""Seconds: the endpoint's clock, and ours."""


class Rule(NamedTuple):
    """One rule, and what of it was seen."""

    rule: str
    seen: bool
    text: str


class DemoEndpoint(LocalEndpoint):
    """The embedded endpoint, with visibility and redrive quick enough to watch."""

    async def adapt(self, settings: Settings) -> Settings:
        adapted = await super().adapt(settings)
        async with Aws(credentials=self.credentials) as aws:
            for mapping in adapted.mappings.values():
                arn = mapping.source_arn
                queue = await Queue.open(await aws.api("sqs", mapping.aws, arn.region), arn.resource)
                redrive = json.loads((await queue.attributes())["RedrivePolicy"])
                redrive["maxReceiveCount"] = str(MOST_RECEIVES)
                await queue.set(VisibilityTimeout=str(VISIBILITY), RedrivePolicy=json.dumps(redrive))
        return adapted


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


def orders() -> list[dict[str, Any]]:
    """Orders, one of them poison and some that fail once, with messages between them that nobody asked for."""
    bodies = [{"kind": "order", "id": n, "quantity": 1 + n % 5, "flaky": n % 12 == 0} for n in range(ORDERS)]
    bodies[37] = {"kind": "order", "id": 37, "quantity": 0}
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


async def demo(*, keep: bool, as_json: bool) -> int:
    """0 when every rule was seen, 1 when not, 130 when interrupted."""
    with TemporaryDirectory(prefix="bridge-demo-") as folder:
        journal = Path(folder) / "journal.jsonl"
        journal.touch(mode=0o600)

        def read() -> Settings:
            return load(CONFIG, {"JOURNAL": str(journal), "RUNTIME": RUNTIME}, local=True)

        stages: list[DemoEndpoint] = []

        def stage(leash: Leash) -> DemoEndpoint:
            leash.hold_folder(Path(folder))
            stages.append(DemoEndpoint(leash))
            return stages[0]

        daemon = Daemon(read(), read, stage=stage)
        rules: list[Rule] = []
        async with anyio.create_task_group() as tasks:
            tell("starting the embedded endpoint and the daemon …")
            ended = anyio.Event()
            await tasks.start(run_daemon, daemon, ended, tasks.cancel_scope)
            began = time.monotonic()
            async with until(daemon.stopping):
                await traffic(daemon, stages[0])
                rules = judge(entries(journal), daemon.snapshot())
                report(rules, time.monotonic() - began, as_json=as_json)
                if keep:
                    stay(daemon, stages[0])
                    await ended.wait()
            daemon.stop()
            await ended.wait()
    if not rules:
        return 130
    return 0 if all(rule.seen for rule in rules) else 1


async def run_daemon(
    daemon: Daemon, ended: anyio.Event, scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    """When it ends, for whatever reason, the demo ends."""
    await daemon.run(task_status=task_status)
    ended.set()
    scope.cancel()


@asynccontextmanager
async def until(event: anyio.Event) -> AsyncIterator[None]:
    """Ends its body when ``event`` is set."""
    async with anyio.create_task_group() as tasks:

        async def end() -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(end)
        yield
        tasks.cancel_scope.cancel()


async def traffic(daemon: Daemon, endpoint: LocalEndpoint) -> None:
    """Sends everything and waits until it has come to rest."""
    mapping = daemon.settings.mappings["orders"]
    async with Aws(credentials=endpoint.credentials) as aws:
        api = await aws.api("sqs", mapping.aws, mapping.source_arn.region)
        standard = await Queue.open(api, "orders")
        fifo = await Queue.open(api, "payments.fifo")
        letters = await Queue.open(api, "orders-dlq")
        tell(f"sending {ORDERS + HEARTBEATS} messages to orders and {PAYMENTS} to payments.fifo …")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(standard.send, orders())
            tasks.start_soon(fifo.send, payments())
        live = Live(daemon)
        with anyio.move_on_after(LIMIT):
            while await letters.count() < 1 or await standard.count() + await fifo.count() > 0:
                live.show()
                await anyio.sleep(0.25)
        live.end()


class Live:
    """What happens, on stderr: redrawn in place on a terminal, else a line whenever the figures changed."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._began = time.monotonic()
        self._last = ""
        self._drawn = 0
        self._terminal = sys.stderr.isatty()

    def show(self) -> None:
        width = shutil.get_terminal_size().columns - 1 if self._terminal else None
        lines = [self._line(view)[:width] for view in self._daemon.snapshot().mappings]
        text = "\n".join(lines)
        if self._terminal:
            self._erase()
            tell(text)
            self._drawn = len(lines)
        elif text != self._last:
            tell(f"{time.monotonic() - self._began:5.1f} s  " + " | ".join(lines))
        self._last = text

    def end(self) -> None:
        self.show()

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}A\x1b[J")

    def _line(self, view: MappingView) -> str:
        gate = f", {view.gate.name}" if view.gate and self._terminal else ""
        return (
            f"{view.name}: {view.polled} received, {view.filtered} filtered out, {view.succeeded} done, "
            f"{view.failed} failed, {view.in_flight} in flight{gate}"
        )


def entries(journal: Path) -> list[dict[str, Any]]:
    """What the handlers wrote down."""
    return [json.loads(line) for line in journal.read_text().splitlines()]


def judge(seen: list[dict[str, Any]], snapshot: Snapshot) -> list[Rule]:
    """Each rule that this traffic must show, with its figures."""
    views = {view.name: view for view in snapshot.mappings}
    return [
        *_of_orders([e for e in seen if not e["group"]], views["orders"]),
        *_of_payments([e for e in seen if e["group"]]),
    ]


def _of_orders(seen: list[dict[str, Any]], view: MappingView) -> Iterator[Rule]:
    done = {entry["message"] for entry in seen if entry["outcome"] == "done"}
    batches = Counter(entry["request"] for entry in seen)
    poison = [entry for entry in seen if entry["body"]["id"] == 37]
    yield Rule(
        "SQS-1",
        len(done) == ORDERS - 1,
        f"{len(done)} of {ORDERS} orders were handled in {len(batches)} batches and deleted",
    )
    yield Rule(
        "SQS-5",
        1 < max(batches.values()) <= 10,
        f"a window of 1 s and BatchSize 10 gave batches of up to {max(batches.values())} records",
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


def report(rules: list[Rule], seconds: float, *, as_json: bool) -> None:
    """The summary, on stdout."""
    total = ORDERS + HEARTBEATS + PAYMENTS
    if as_json:
        summary = {"messages": total, "seconds": round(seconds, 1), "rules": [rule._asdict() for rule in rules]}
        print(msgspec.json.encode(summary).decode(), flush=True)
        return
    print(f"\n{total} messages in {seconds:.1f} s. What AWS's rules made of them:\n")
    for rule in rules:
        print(f"  {'ok  ' if rule.seen else 'MISS'}  {rule.rule:<7} {rule.text}")
    print("\nThe numbers are those of the project's tests/spec. Next: bridge run --local -c bridge.yaml", flush=True)


def stay(daemon: Daemon, endpoint: LocalEndpoint) -> None:
    """How to look around while it is kept."""
    for line in endpoint.export_lines(daemon.settings.mappings.values()):
        tell(line)
    if daemon.admin:
        tell(f"export BRIDGE_ADMIN=http://127.0.0.1:{daemon.admin.port}")
    tell("running until Ctrl-C; try: bridge mappings show --why")


def tell(line: str) -> None:
    """For people."""
    print(line, file=sys.stderr, flush=True)
