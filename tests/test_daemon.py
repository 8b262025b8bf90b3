"""The daemon from inside: its order of starting and stopping, and what it says meanwhile. tests/e2e runs it from
outside."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping as Dict
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from types import TracebackType
from typing import Any, Self

import aiohttp
import anyio
import pytest
import yaml

from bridge.api import Call, mappings
from bridge.aws import Credentials
from bridge.checkpoints import Checkpoints
from bridge.daemon import Daemon
from bridge.errors import BridgeError, StateError, UsageError
from bridge.function import AwsSettings
from bridge.leash import Leash
from bridge.mapping import Mapping, SourceArn
from bridge.position import Position
from bridge.settings import Settings, load
from bridge.stores import open_store
from bridge.telemetry import logs
from tests.sources.faulty_sqs import FaultySqs
from tests.wire import Wire

pytestmark = pytest.mark.anyio

HANDLER = """
def handler(event, context):
    if event["Records"][0]["body"] == "fail":
        raise ValueError("told to")
"""


class Place:
    """A configuration in a folder, and the queue that it is about."""

    def __init__(self, folder: Path, wire: Wire, queue: FaultySqs) -> None:
        self.file, self.queue = folder / "bridge.yaml", queue
        (folder / "app.py").write_text(HANDLER)
        self.config: dict[str, Any] = {
            "aws": {"endpoint_url": wire.url, "region": "eu-west-1"},
            "state": f"sqlite:///{folder}/state.db",
            "admin": {"listen": "127.0.0.1:0"},
            "functions": {"worker": {"Runtime": "python3.11", "Handler": "app.handler", "CodeUri": "."}},
            "mappings": {"orders": {"FunctionName": "worker", "EventSourceArn": queue.arn}},
        }
        self.write()

    def write(self) -> None:
        self.file.write_text(yaml.safe_dump(self.config))

    def load(self) -> Settings:
        return load(self.file, {})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    queue = FaultySqs("orders")
    async with Wire() as wire:
        queue.serve(wire)
        yield Place(tmp_path, wire, queue)


class Scenery:
    """A stage of the test's own: it can be slow to set up, and notes when it was entered and left."""

    def __init__(self, _leash: Leash) -> None:
        self.set_up = anyio.Event()
        self.adapting = anyio.Event()
        self.notes: list[str] = []

    async def __aenter__(self) -> Self:
        self.notes.append("entered")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.notes.append("left")

    def credentials(self, settings: AwsSettings) -> Credentials:
        return Credentials("123456789012", "secret")

    async def adapt(self, settings: Settings) -> Settings:
        self.adapting.set()
        await self.set_up.wait()
        return settings


class Act:
    """A daemon under way in a task group of the test's."""

    def __init__(self, place: Place, *, signals: bool = False) -> None:
        self.status: int | None = None
        self.scenery = Scenery(Leash())
        self.daemon = Daemon(place.load(), place.load, stage=lambda _leash: self.scenery, signals=signals)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        self.status = await self.daemon.run(task_status=task_status)

    async def get(self, path: str) -> tuple[int, Dict[str, Any]]:
        assert self.daemon.admin is not None
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://127.0.0.1:{self.daemon.admin.port}{path}") as answer,
        ):
            return answer.status, json.loads(await answer.read())


@asynccontextmanager
async def running(place: Place, *, signals: bool = False) -> AsyncIterator[Act]:
    """Started; drained in the end."""
    act = Act(place, signals=signals)
    act.scenery.set_up.set()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            await tasks.start(act.run)
            yield act
            act.daemon.stop()
    assert act.status == 0


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


async def test_not_ready_until_the_mappings_poll(place: Place) -> None:
    act = Act(place)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act.run)
            await act.scenery.adapting.wait()  # the admin server is up first
            assert await act.get("/readyz") == (503, {"ready": False, "mappings": {}, "reason": "starting"})
            assert (await act.get("/healthz"))[0] == 200
            with pytest.raises(BridgeError, match="still starting"):
                await act.daemon.pause("orders", wait=False)
            place.queue.hang("ReceiveMessage")
            act.scenery.set_up.set()
            await place.queue.asked("ReceiveMessage")
            status, body = await act.get("/readyz")
            assert (status, list(body["mappings"])) == (503, ["orders"])
            act.daemon.stop()
    assert act.status == 0
    assert act.scenery.notes == ["entered", "left"]


async def test_it_works_and_stops_in_order(place: Place) -> None:
    async with running(place) as act:
        ids = [place.queue.send(body) for body in ("a", "b", "c")]
        await place.queue.gone(*ids)
        (view,) = act.daemon.snapshot().functions
        assert (view.name, view.invocations > 0, view.errors) == ("worker", True, 0)
        assert act.scenery.notes == ["entered"]
    assert sorted(place.queue.deleted) == sorted(ids)
    assert act.scenery.notes == ["entered", "left"]
    assert act.daemon.snapshot().draining
    assert act.daemon.admin is not None
    with pytest.raises(aiohttp.ClientConnectionError):
        await act.get("/healthz")


async def test_who_watches_is_told_of_the_end_and_does_not_hold_it_up(place: Place) -> None:
    said = bytearray()
    async with aiohttp.ClientSession(read_bufsize=1 << 20) as client:
        async with running(place) as act:
            assert act.daemon.admin is not None
            answer = await client.get(f"http://127.0.0.1:{act.daemon.admin.port}/events")
            said += await answer.content.readuntil(b"event: state")
        with anyio.fail_after(10):
            said += await answer.content.read()
    assert said.endswith(b"event: end\ndata: {}\n\n")


async def test_a_crash_in_one_mapping_is_not_the_daemons(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a source raises, its mapping is started again, and the admin pages say why."""
    place.queue.refuse("GetQueueAttributes", "InvalidParameterValue")
    async with running(place) as act:
        await until(lambda: act.daemon.snapshot().mappings[0].last_error)
        assert "InvalidParameterValue" in (act.daemon.snapshot().mappings[0].last_error or "")
        await until(lambda: act.daemon.snapshot().mappings[0].ready)
        message = place.queue.send("after")
        await place.queue.gone(message)


async def test_state_that_cannot_be_opened_starts_nothing(place: Place) -> None:
    place.config["state"] = f"sqlite:///{place.file}/state.db"
    place.write()
    act = Act(place)
    with pytest.RaisesGroup(StateError):
        await act.daemon.run()
    assert act.scenery.notes == []
    assert place.queue.calls == []


@pytest.mark.usefixtures("own_signals")
async def test_signals_of_the_process(place: Place) -> None:
    """SIGHUP reads the file again; SIGTERM drains, also while a reload waits."""
    async with running(place, signals=True) as act:
        await until(lambda: act.daemon.snapshot().mappings[0].ready)
        place.config["mappings"]["more"] = {"FunctionName": "worker", "EventSourceArn": f"{place.queue.arn}-2"}
        place.write()
        os.kill(os.getpid(), SIGHUP)
        await until(lambda: [view.name for view in act.daemon.snapshot().mappings] == ["orders", "more"])
        act.scenery.set_up = anyio.Event()
        act.scenery.adapting = anyio.Event()
        os.kill(os.getpid(), SIGHUP)
        await act.scenery.adapting.wait()
        os.kill(os.getpid(), SIGTERM)
        await until(lambda: act.daemon.snapshot().draining)


@pytest.fixture
def own_signals() -> Iterator[None]:
    """The daemon keeps them for the rest of its process, which here is the test's."""
    before = {number: signal.getsignal(number) for number in (SIGHUP, SIGINT, SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


STREAM = SourceArn.parse("arn:aws:kinesis:eu-west-1:123456789012:stream/clicks")


def streaming(name: str, uuid: str = "") -> Mapping:
    return Mapping(name=name, uuid=uuid or f"uuid-of-{name}", function="worker", source_arn=STREAM)


async def leave_positions(place: Place, *mappings: Mapping) -> None:
    """What mappings of an earlier configuration left in the state file."""
    async with open_store(place.config["state"]) as store, Checkpoints(store).running() as checkpoints:
        for mapping in mappings:
            await checkpoints.of(mapping).load()
            await checkpoints.of(mapping).move({"s-1": Position(position="1"), "s-2": Position(position="1")})


async def test_positions_of_a_mapping_that_is_gone_can_be_forgotten(place: Place) -> None:
    twins = [streaming("twin", "uuid-1"), streaming("twin", "uuid-2")]
    await leave_positions(place, streaming("clicks"), streaming("orders", "uuid-0"), *twins)
    async with running(place) as act:
        daemon = act.daemon
        for name, complaint in (
            ("orders", 'the mapping "orders" exists, and keeps its positions; an earlier one of this name .* uuid-0'),
            (daemon.supervisor.find("orders").mapping.uuid, "exists"),
            ("clisk", 'no positions are stored for a mapping "clisk"; did you mean "clicks"'),
            ("twin", "several mappings were called .*: uuid-1 and uuid-2"),
        ):
            with pytest.raises(UsageError, match=complaint):
                await daemon.forget(name)
        forgotten = await daemon.forget("clicks")
        assert (forgotten.name, forgotten.uuid, forgotten.partitions) == ("clicks", "uuid-of-clicks", 2)
        with pytest.raises(UsageError, match="no positions are stored"):
            await daemon.forget("clicks")
        assert (await daemon.forget("UUID-1")).uuid == "uuid-1"
        assert (await daemon.forget("twin")).uuid == "uuid-2"
        assert await daemon.store.positioned() == {"uuid-0": 2}


async def test_a_mapping_deleted_through_the_api_leaves_no_positions(place: Place) -> None:  # TW-54
    place.queue.attributes["VisibilityTimeout"] = "30"
    place.config["mappings"] = {}
    place.write()
    async with running(place) as act:
        given = {"FunctionName": "worker", "EventSourceArn": place.queue.arn}
        uuid = (await mappings.create(act.daemon, Call(given, "r")))["UUID"]
        await act.daemon._checkpoints.of(streaming("x", uuid)).move({"s": Position(position="1")})
        await until(lambda: act.daemon.supervisor.find(uuid).ready)
        await mappings.delete(act.daemon, Call({"UUID": uuid}, "r"))
        await until(lambda: not act.daemon.supervisor.mappings)
        with anyio.fail_after(20):
            while await act.daemon.store.documents("deleted"):
                await anyio.sleep(0.01)
        assert await act.daemon.store.positioned() == {}


async def test_a_delete_that_was_cut_short_is_finished_at_the_next_start(place: Place) -> None:
    await leave_positions(place, streaming("clicks"), streaming("views"))
    async with open_store(place.config["state"]) as store:
        await store.keep("deleted", "uuid-of-clicks", b"")
    async with running(place) as act:
        assert await act.daemon.store.positioned() == {"uuid-of-views": 2}
        assert await act.daemon.store.documents("deleted") == {}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logs.configure("warning", "json")
