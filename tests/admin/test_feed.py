"""The stream of snapshots over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import aiohttp
import anyio
import pytest
from structlog.testing import capture_logs

from bridge.admin import feed as feed_module, history
from bridge.admin.feed import MOST_WATCHERS
from bridge.admin.server import AdminServer
from bridge.snapshot import Snapshot
from bridge.telemetry.metrics import Metrics
from tests.admin.control import CLICKS, ORDERS, ScriptedControl, view

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "EVERY", 0.02)


@pytest.fixture
def control() -> ScriptedControl:
    return ScriptedControl(ORDERS, CLICKS)


@pytest.fixture
async def server(control: ScriptedControl) -> AsyncIterator[AdminServer]:
    async with AdminServer(control, Metrics(), "127.0.0.1", 0) as server:
        yield server


@pytest.fixture
async def client(server: AdminServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}", read_bufsize=1 << 16) as client:
        yield client


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Name and data of each event, to the end of the stream."""
    name = ""
    while line := await asyncio.wait_for(answer.content.readline(), 30):
        word, _, rest = line.decode().strip().partition(": ")
        if word == "event":
            name = rest
        elif word == "data":
            yield name, json.loads(rest)


async def test_samples_then_a_snapshot_again_and_again(client: aiohttp.ClientSession, control: ScriptedControl) -> None:
    async with client.get("/events") as answer:
        assert answer.content_type == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        stream = events(answer)
        name, samples = await anext(stream)
        assert (name, samples["every"]) == ("samples", 5.0)
        assert samples["mappings"]["orders"]["in_flight"] == [7]
        name, state = await anext(stream)
        assert name == "state"
        assert [mapping["name"] for mapping in state["snapshot"]["mappings"]] == ["orders", "clicks"]
        assert state["judged"]["orders"] == {"level": "ok", "words": "", "since": None}
        control.mappings["third"] = view("third")
        async for name, state in stream:
            assert name == "state"
            if len(state["snapshot"]["mappings"]) == 3:
                break


async def test_new_samples_are_told_and_no_old_ones(control: ScriptedControl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "EVERY", 0.01)
    async with AdminServer(control, Metrics(), "127.0.0.1", 0) as server, aiohttp.ClientSession() as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/events")
        told = [data async for name, data in _until(answer, 4) if name == "samples"]
        answer.close()
    for before, after in pairwise(told):
        assert len(after["mappings"]["orders"]["in_flight"]) == after["sequence"] - before["sequence"] > 0


async def _until(answer: aiohttp.ClientResponse, samples: int) -> AsyncIterator[tuple[str, Any]]:
    async for name, data in events(answer):
        yield name, data
        samples -= name == "samples"
        if not samples:
            return


async def test_so_many_watchers_and_the_probes_still_get_through(
    client: aiohttp.ClientSession, server: AdminServer
) -> None:
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{server.port}", connector=aiohttp.TCPConnector(limit=0)
    ) as many:
        open_ones = [await many.get("/events") for _ in range(MOST_WATCHERS)]
        async with client.get("/events") as refused:
            assert refused.status == 503
            assert refused.headers["Retry-After"] == "5"
            assert "close one" in (await refused.json())["error"]
        async with client.get("/healthz") as probe:
            assert probe.status == 200
        open_ones[0].close()
        with anyio.fail_after(10):
            while server._feed.watchers == MOST_WATCHERS:
                await anyio.sleep(0.01)
        async with client.get("/events") as answer:
            assert answer.status == 200
        for one in open_ones:
            one.close()


async def test_the_end_of_the_daemon_is_told_and_not_waited_for(control: ScriptedControl) -> None:
    with anyio.fail_after(10):
        async with AdminServer(control, Metrics(), "127.0.0.1", 0) as server, aiohttp.ClientSession() as client:
            answer = await client.get(f"http://127.0.0.1:{server.port}/events")
            stream = events(answer)
            await anext(stream)
            control.draining = True
            async for _, data in stream:
                if data.get("snapshot", {}).get("draining"):
                    break
            await server.stop()
            assert [name async for name, _ in stream][-1] == "end"
            answer.close()


async def test_a_slow_reader_gets_fewer_and_is_cut_off_in_the_end(
    control: ScriptedControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "PATIENCE", 0.3)
    monkeypatch.setattr(feed_module, "BYTES_A_SECOND", 1 << 30)
    control.mappings |= {f"m{number}": view(f"m{number}", last_error="x" * 300) for number in range(1000)}
    async with AdminServer(control, Metrics(), "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 12)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readline()
        transports = [connection.transport for connection in server._listener._runner.server.connections]  # type: ignore[union-attr]
        most = 0
        with anyio.fail_after(20):
            while server._feed.watchers:
                held = [transport.get_write_buffer_size() for transport in transports if transport]
                most = max(most, *held, 0)
                await anyio.sleep(0.005)
        writer.close()
    size = len(feed_module._event("state", control.snapshot()))
    assert size > 300_000
    assert 0 < most < 2 * size + (1 << 16)  # never more than one frame and the samples


async def test_a_bug_in_what_is_shown_ends_nothing(
    control: ScriptedControl, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = control.snapshot
    broken = anyio.Event()

    def bad() -> Snapshot:
        broken.set()
        raise RuntimeError("a bug")

    with capture_logs() as lines:
        async with client.get("/events") as answer:
            stream = events(answer)
            await anext(stream)
            monkeypatch.setattr(control, "snapshot", bad)
            await broken.wait()
            monkeypatch.setattr(control, "snapshot", good)
            control.mappings["third"] = view("third")
            async for _, state in stream:
                if len(state["snapshot"]["mappings"]) == 3:
                    break
    assert [line["event"] for line in lines][:1] == ["dashboard_failed"]
    assert "a bug" in str(lines[0]["exc_info"])
