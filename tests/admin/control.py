"""A scripted daemon: the far side of the admin interface."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping as Dict
from contextlib import contextmanager
from typing import Any

import anyio
import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bridge.admin.letters import Fate, LetterView, Looked, Place, Progress
from bridge.admin.server import AdminServer
from bridge.attempt import Attempt, FailedBatch
from bridge.errors import BridgeError
from bridge.snapshot import Failure, Forgotten, FunctionView, Gate, MappingView, RunnerView, Snapshot
from bridge.telemetry.metrics import Metrics

STARTED = 1_700_000_000.0
UUIDS = {"orders": "0a1b2c3d-0000-4000-8000-000000000001", "clicks": "0a1b2c3d-0000-4000-8000-000000000002"}


def view(name: str, **fields: Any) -> MappingView:
    """A mapping that polls, unless ``fields`` say otherwise."""
    known: dict[str, Any] = {
        "uuid": UUIDS.get(name, f"0a1b2c3d-0000-4000-8000-{abs(hash(name)) % 10**12:012}"),
        "function": "worker",
        "source_arn": f"arn:aws:sqs:eu-west-1:123456789012:{name}",
        "source": "sqs",
        "state": "Enabled",
        "ready": True,
    }
    return MappingView(name=name, **{**known, **fields})


ORDERS = view(
    "orders",
    gate=Gate("window", STARTED + 96.9, "3.1 of 5 s, 7 of 10 records"),
    in_flight=7,
    lag_seconds=3.25,
    last_error="ValueError: no such order",
    runners=(
        RunnerView("orders", Gate("window", STARTED + 96.9, "3.1 of 5 s, 7 of 10 records"), 7),
        RunnerView("orders", Gate("polling", STARTED + 90), 0),
    ),
    failures=(Failure(STARTED + 50, "ValueError", "no such order", "5f0c6e2a-0000-4000-8000-00000000000a"),),
    filtered_ids=("m-1", "m-2"),
    polled=100,
    filtered=2,
    succeeded=89,
    failed=2,
)
CLICKS = view("clicks")
FAILED = FailedBatch(
    id=int((STARTED + 50) * 1e9),
    uuid=UUIDS["orders"],
    mapping="orders",
    partition="orders",
    at=STARTED + 50,
    request_id="5f0c6e2a-0000-4000-8000-00000000000a",
    outcome="function",
    error_type="ValueError",
    message="no such order",
    duration=0.25,
    log_tail="START RequestId: 5f0c\nlooking for order 7\nEND RequestId: 5f0c\n",
    records=(("m-7", 2), ("m-8", 1)),
)
WORKER = FunctionView(
    name="worker",
    arn="arn:aws:lambda:eu-west-1:123456789012:function:worker",
    concurrency=4,
    busy=2,
    idle=1,
    starting=0,
)


class ScriptedControl:
    """Answers from what the test wrote into it, and notes what it was asked."""

    def __init__(self, *mappings: MappingView, functions: tuple[FunctionView, ...] = (WORKER,)) -> None:
        self.mappings = {view.name: view for view in mappings}
        self.functions = functions
        self.asynchronous: tuple[MappingView, ...] = ()
        self.draining = False
        self.asked: list[tuple[Any, ...]] = []
        self.backlogs: Dict[str, int | Exception | None] = {}
        self.stuck: set[str] = set()
        self.failure: BridgeError | None = None
        self.finish = anyio.Event()
        """A pause that waits returns when this is set."""
        self.finish.set()
        self.portal: BlockingPortal | None = None
        """Into the thread that serves it."""

    def snapshot(self) -> Snapshot:
        return Snapshot(
            version="0.1.0",
            pid=4242,
            started_at=STARTED,
            at=STARTED + 100,
            draining=self.draining,
            buffered_bytes=1000,
            max_buffered_bytes=268435456,
            mappings=tuple(self.mappings.values()),
            functions=self.functions,
            asynchronous=self.asynchronous,
        )

    async def pause(self, name: str, *, wait: bool) -> MappingView:
        self.asked.append(("pause", name, wait))
        paused = self._changed(name, state="Disabled", gate=Gate("paused", STARTED + 100))
        if wait:
            await self.finish.wait()
        return paused

    async def resume(self, name: str) -> MappingView:
        self.asked.append(("resume", name))
        return self._changed(name, state="Enabled", gate=None)

    async def forget(self, name: str) -> Forgotten:
        self.asked.append(("forget", name))
        if self.failure is not None:
            raise self.failure
        return Forgotten(name=name, uuid=UUIDS["clicks"], partitions=3)

    async def attempts(self, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
        self.asked.append(("attempts", *records))
        if self.failure is not None:
            raise self.failure
        return {it.record: (it,) for it in FAILED.attempts() if it.record in records}

    async def last_failed(self, name: str, most: int) -> tuple[FailedBatch, ...]:
        self.asked.append(("last_failed", name, most))
        self._changed(name)
        return (FAILED,) if name in ("orders", ORDERS.uuid) else ()

    async def backlog(self, name: str) -> int | None:
        self.asked.append(("backlog", name))
        if name in self.stuck:
            await anyio.sleep_forever()
        answer = self.backlogs.get(name)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _changed(self, name: str, **fields: Any) -> MappingView:
        if self.failure is not None:
            raise self.failure
        key = next((view.name for view in self.mappings.values() if name in (view.name, view.uuid)), None)
        if key is None:
            raise KeyError(name)
        self.mappings[key] = msgspec.structs.replace(self.mappings[key], **fields)
        return self.mappings[key]


DLQ = "arn:aws:sqs:eu-west-1:123456789012:orders-dlq"
PLACE = Place(arn=DLQ, name="orders-dlq", of=("orders",), waiting=3)
LETTERS = tuple(
    LetterView(
        id=f"m-{number}",
        kind="plain",
        body=f'{{"order": {number}}}',
        size=12,
        receives=5,
        at=STARTED + number,
        expires_at=STARTED + 90_000,
        attempts=tuple(FAILED.attempts())[:1] if number == 1 else (),
    )
    for number in range(1, 4)
)


class ScriptedDesk:
    """Dead letters that the test wrote into it."""

    def __init__(self) -> None:
        self.there: tuple[Place, ...] = (PLACE,)
        self.letters = LETTERS
        self.asked: list[tuple[Any, ...]] = []
        self.failure: BridgeError | None = None
        self.fate = "sent"
        self.gates: dict[str, threading.Event] = {}
        """A letter is sent when its gate is open; one without goes at once."""

    async def places(self) -> tuple[Place, ...]:
        self.asked.append(("places",))
        if self.failure is not None:
            raise self.failure
        return self.there

    async def known(self, place: str) -> Place:
        return {it.arn: it for it in self.there}[place]

    async def peek(self, place: str, most: int) -> Looked:
        await self.known(place)
        self.asked.append(("peek", place, most))
        if self.failure is not None:
            raise self.failure
        return Looked(letters=self.letters[:most], target="queue orders (account 123456789012, eu-west-1)")

    async def replay(
        self, place: str, ids: frozenset[str], *, dry_run: bool, stop: anyio.Event, tell: Callable[[Progress], None]
    ) -> Progress:
        self.asked.append(("replay", place, sorted(ids), dry_run))
        if self.failure is not None:
            raise self.failure
        fates: list[Fate] = []
        for letter in sorted(ids):
            while letter in self.gates and not self.gates[letter].is_set() and not stop.is_set():
                await anyio.sleep(0.005)
            if stop.is_set():
                self.asked.append(("stopped", len(fates)))
                return Progress(chosen=len(ids), fates=tuple(fates), interrupted=True, left=3 - len(fates))
            fates.append(Fate(id=letter, what="would_send" if dry_run else self.fate, new_id=f"new-{letter}"))
            tell(Progress(chosen=len(ids), fates=tuple(fates)))
        return Progress(chosen=len(ids), fates=tuple(fates), left=3 - len(fates))


@contextmanager
def served(
    control: ScriptedControl, token: str | None = None, port: int = 0, desk: ScriptedDesk | None = None
) -> Iterator[str]:
    """The real admin server in front of ``control``, in a thread of its own; gives its URL."""
    with start_blocking_portal() as portal:
        control.portal = portal
        server = AdminServer(control, Metrics(), "127.0.0.1", port, token, desk)
        with portal.wrap_async_context_manager(server):
            yield f"http://127.0.0.1:{server.port}"
