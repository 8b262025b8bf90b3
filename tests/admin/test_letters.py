"""Dead letters over the admin server's HTTP, with a scripted desk behind it."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from bridge.admin.letters import MOST_CHOSEN, MOST_PEEKED
from bridge.admin.server import AdminServer
from bridge.errors import RemoteError, StateError, UsageError
from bridge.telemetry.metrics import Metrics
from tests.admin.control import DLQ, ScriptedControl, ScriptedDesk

pytestmark = pytest.mark.anyio
TOKEN = "s3cret"
MINE = {"X-Bridge": "test"}


@pytest.fixture
def desk() -> ScriptedDesk:
    return ScriptedDesk()


@pytest.fixture
async def server(desk: ScriptedDesk) -> AsyncIterator[AdminServer]:
    async with AdminServer(ScriptedControl(), Metrics(), "127.0.0.1", 0, TOKEN, desk) as server:
        yield server


@pytest.fixture
async def client(server: AdminServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}", headers=MINE) as client:
        yield client


async def post(client: aiohttp.ClientSession, path: str, body: Any, **arguments: Any) -> tuple[int, Any]:
    async with client.post(path, json=body, **arguments) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json()


async def run(client: aiohttp.ClientSession, **body: Any) -> list[dict[str, Any]]:
    """All lines of a replay."""
    async with client.post("/letters/replay", json={"place": DLQ, **body}) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.content_type == "application/x-ndjson"
        return [json.loads(line) async for line in answer.content]


async def test_places(client: aiohttp.ClientSession) -> None:
    status, [place] = await post(client, "/letters", {})
    assert status == 200
    assert (place["arn"], place["of"], place["waiting"]) == (DLQ, ["orders"], 3)


async def test_peek(client: aiohttp.ClientSession, desk: ScriptedDesk) -> None:
    status, looked = await post(client, "/letters/peek", {"place": DLQ, "most": 2})
    assert status == 200
    assert [(it["id"], it["body"]) for it in looked["letters"]] == [("m-1", '{"order": 1}'), ("m-2", '{"order": 2}')]
    assert looked["letters"][0]["attempts"][0]["error_type"] == "ValueError"
    assert desk.asked == [("peek", DLQ, 2)]


async def test_a_replay_tells_its_progress_and_its_end(client: aiohttp.ClientSession, desk: ScriptedDesk) -> None:
    gate = desk.gates["m-2"] = threading.Event()
    async with client.post("/letters/replay", json={"place": DLQ, "ids": ["m-1", "m-2"], "dry_run": False}) as answer:
        told = []
        async for line in answer.content:
            told.append(json.loads(line))
            if told[-1].get("progress"):
                assert [fate["id"] for fate in told[-1]["progress"]["fates"]] == ["m-1"]
                gate.set()
    assert told[-1]["summary"]["left"] == 1
    assert [fate["new_id"] for fate in told[-1]["summary"]["fates"]] == ["new-m-1", "new-m-2"]
    assert desk.asked == [("replay", DLQ, ["m-1", "m-2"], False)]


async def test_it_is_dry_unless_told_otherwise(client: aiohttp.ClientSession, desk: ScriptedDesk) -> None:
    assert (await run(client, ids=["m-1"]))[-1]["summary"]["fates"][0]["what"] == "would_send"
    assert desk.asked == [("replay", DLQ, ["m-1"], True)]


async def test_stop_ends_it_and_the_end_is_told(client: aiohttp.ClientSession, desk: ScriptedDesk) -> None:
    desk.gates["m-2"] = threading.Event()
    async with client.post("/letters/replay", json={"place": DLQ, "ids": ["m-1", "m-2"]}) as answer:
        await answer.content.readline()
        assert await post(client, "/letters/stop", {"place": DLQ}) == (200, {"stopped": True})
        last = [json.loads(line) async for line in answer.content][-1]
    assert last["summary"]["interrupted"] is True
    assert await post(client, "/letters/stop", {"place": DLQ}) == (200, {"stopped": False})


async def test_who_goes_away_stops_it(client: aiohttp.ClientSession, desk: ScriptedDesk) -> None:
    desk.gates["m-1"] = threading.Event()
    answer = await client.post("/letters/replay", json={"place": DLQ, "ids": ["m-1"]})
    await answer.content.readline()
    answer.close()
    with anyio.fail_after(10):
        while ("stopped", 0) not in desk.asked:
            await anyio.sleep(0.01)


async def test_a_drain_stops_it_and_waits_for_it(desk: ScriptedDesk) -> None:
    desk.gates["m-1"] = threading.Event()
    async with (
        AdminServer(ScriptedControl(), Metrics(), "127.0.0.1", 0, TOKEN, desk) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}", headers=MINE) as client,
        client.post("/letters/replay", json={"place": DLQ, "ids": ["m-1"]}) as answer,
    ):
        await answer.content.readline()
        with anyio.fail_after(10):
            await server.drain()
        assert ("stopped", 0) in desk.asked
        assert json.loads((await answer.content.read()).splitlines()[-1])["summary"]["interrupted"] is True


async def test_one_at_a_time(client: aiohttp.ClientSession, desk: ScriptedDesk) -> None:
    gate = desk.gates["m-1"] = threading.Event()
    async with client.post("/letters/replay", json={"place": DLQ, "ids": ["m-1"]}) as answer:
        await answer.content.readline()
        status, refused = await post(client, "/letters/replay", {"place": DLQ, "ids": ["m-2"]})
        assert (status, "already" in refused["error"]) == (409, True)
        gate.set()
        await answer.content.read()
    assert "summary" in (await run(client, ids=["m-2"]))[-1]


async def test_what_cannot_be_done_is_said(client: aiohttp.ClientSession, desk: ScriptedDesk) -> None:
    elsewhere = f"{DLQ}-x"
    for path, body in (("peek", {}), ("replay", {"ids": ["m-1"]})):
        status, answer = await post(client, f"/letters/{path}", {"place": elsewhere, **body})
        assert (status, answer) == (404, {"error": f"no letters of this daemon lie at {elsewhere}"})
    desk.failure = StateError("the journal is in use")
    assert await post(client, "/letters/peek", {"place": DLQ}) == (422, {"error": "the journal is in use"})
    assert (await run(client, ids=["m-1"]))[-1] == {"error": "the journal is in use"}
    desk.failure = UsageError("give another queue")
    assert (await post(client, "/letters", {}))[0] == 422
    desk.failure = RemoteError("no answer")
    assert (await post(client, "/letters", {}))[0] == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/letters/peek", {}),
        ("/letters/peek", {"place": DLQ, "most": 0}),
        ("/letters/peek", {"place": DLQ, "most": MOST_PEEKED + 1}),
        ("/letters/replay", {"place": DLQ}),
        ("/letters/replay", {"place": DLQ, "ids": []}),
        ("/letters/replay", {"place": DLQ, "ids": ["x"] * (MOST_CHOSEN + 1)}),
        ("/letters/replay", {"place": DLQ, "ids": ["m-1"], "dry": False}),
    ],
)
async def test_a_bad_body_is_refused(
    client: aiohttp.ClientSession, desk: ScriptedDesk, path: str, body: dict[str, Any]
) -> None:
    assert (await post(client, path, body))[0] == 400
    assert desk.asked == []


@pytest.mark.parametrize("path", ["/letters", "/letters/peek", "/letters/replay", "/letters/stop"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Forwarded-For": "203.0.113.7"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"X-Bridge": None}, 403),
    ],
)
async def test_who_may(
    server: AdminServer, desk: ScriptedDesk, path: str, headers: dict[str, str | None], status: int
) -> None:
    given = {name: value for name, value in (MINE | headers).items() if value is not None}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
        body = {"place": DLQ, **({"ids": ["m-1"]} if path.endswith("replay") else {})}
        async with client.post(path, json={} if path == "/letters" else body, headers=given) as answer:
            assert answer.status == status
        async with client.get(path) as answer:
            assert answer.status == 405
    assert desk.asked == []


async def test_a_form_of_another_site_gets_nowhere(server: AdminServer, desk: ScriptedDesk) -> None:
    """What a browser can send without being asked: no header of ours, no JSON."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
        async with client.post("/letters/replay", data={"place": DLQ, "ids": "m-1"}) as answer:
            assert answer.status == 403
        async with client.post("/letters/replay", data={"place": DLQ, "ids": "m-1"}, headers=MINE) as answer:
            assert answer.status == 415
    assert desk.asked == []
