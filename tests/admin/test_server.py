"""The admin server over real HTTP, with a scripted daemon behind it."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge import listening
from bridge.admin import server as server_module
from bridge.admin.server import MOST_BODY, MOST_CONNECTIONS, AdminServer
from bridge.attempt import Attempt, FailedBatch
from bridge.errors import Draining, StateError, UsageError
from bridge.snapshot import Gate, Snapshot
from bridge.telemetry.metrics import Metrics
from tests.admin.control import CLICKS, FAILED, ORDERS, STARTED, ScriptedControl, view

pytestmark = pytest.mark.anyio
TOKEN = "s3cret"
WHO_MAY = pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Authorization": f"Bearer {TOKEN}", "Host": "bridge.example"}, 200),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"X-Forwarded-For": "203.0.113.7"}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)


@pytest.fixture
def control() -> ScriptedControl:
    return ScriptedControl(ORDERS, CLICKS)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def server(control: ScriptedControl, metrics: Metrics) -> AsyncIterator[AdminServer]:
    async with AdminServer(control, metrics, "127.0.0.1", 0, TOKEN) as server:
        yield server


@pytest.fixture
async def client(server: AdminServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


async def get(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with client.get(path) as answer:
        assert answer.content_type == "application/json"
        return answer.status, json.loads(await answer.read())


async def post(client: aiohttp.ClientSession, path: str, **arguments: Any) -> tuple[int, Any]:
    async with client.post(path, **arguments) as answer:
        return answer.status, json.loads(await answer.read())


class TestPages:
    async def test_metrics(self, client: aiohttp.ClientSession, metrics: Metrics) -> None:
        metrics.mapping_meter("orders", "sqs", "worker").polled(10, 1000)
        metrics.function_meter("worker")
        async with client.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
        [polled] = families["bridge_esm_polled_events"].samples
        assert polled.value == 10
        assert polled.labels == {"mapping": "orders", "source": "sqs", "function": "worker"}
        # Views of the snapshot are fed by the scrape.
        states = {sample.labels["state"]: sample.value for sample in families["bridge_esm_state"].samples}
        assert {state for state, value in states.items() if value} == {"Enabled"}
        assert families["bridge_esm_in_flight_events"].samples[0].value == 7
        assert {s.labels["state"]: s.value for s in families["bridge_workers"].samples} == {
            "idle": 1,
            "busy": 2,
            "starting": 0,
        }
        assert families["bridge_buffered_bytes"].samples[0].value == 1000

    async def test_metrics_in_the_format_that_is_asked_for(self, client: aiohttp.ClientSession) -> None:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with client.get("/metrics", headers=accept) as answer:
            assert answer.content_type == "application/openmetrics-text"
            assert (await answer.text()).endswith("# EOF\n")

    async def test_many_scrapes_at_once(self, client: aiohttp.ClientSession) -> None:
        async def scrape() -> None:
            async with client.get("/metrics") as answer:
                assert b"bridge_build_info" in await answer.read()

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(scrape)

    async def test_health(self, client: aiohttp.ClientSession, control: ScriptedControl) -> None:
        control.draining = True
        status, answer = await get(client, "/healthz")
        assert (status, answer["status"]) == (200, "ok")

    async def test_readiness(self, client: aiohttp.ClientSession, control: ScriptedControl) -> None:
        assert await get(client, "/readyz") == (200, {"ready": True, "mappings": {}})
        control.mappings["orders"] = view("orders", ready=False, gate=Gate("endpoint", STARTED, "connection refused"))
        assert await get(client, "/readyz") == (
            503,
            {
                "ready": False,
                "mappings": {"orders": {"reason": "endpoint: connection refused", "since": "2023-11-14T22:13:20.000Z"}},
            },
        )
        control.mappings["orders"] = ORDERS
        control.draining = True
        assert (await get(client, "/readyz"))[0] == 503

    async def test_scale_asks_the_queues_and_keeps_the_answer(
        self, client: aiohttp.ClientSession, control: ScriptedControl
    ) -> None:
        control.backlogs = {"orders": 12, "clicks": 3}
        status, answer = await get(client, "/scale")
        assert status == 200
        assert answer["mappings"]["orders"] == {
            "lag_seconds": 3.25,
            "backlog": 12,
            "in_flight": 7,
            "busy_ratio": 0.5,
        }
        assert answer["total"]["backlog"] == 15
        control.backlogs = {"orders": 99}
        assert (await get(client, "/scale"))[1]["total"]["backlog"] == 15
        assert len(control.asked) == 2

    async def test_state_is_the_snapshot(self, client: aiohttp.ClientSession, control: ScriptedControl) -> None:
        async with client.get("/state") as answer:
            assert msgspec.json.decode(await answer.read(), type=Snapshot) == control.snapshot()

    @pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/scale", "/state"])
    async def test_anybody_may_look_but_nothing_is_kept_or_framed(
        self, client: aiohttp.ClientSession, path: str
    ) -> None:
        async with client.get(path, headers={"Host": "bridge.example", "Origin": "https://grafana.example"}) as answer:
            assert answer.status == 200
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Server"] == "bridge"
            assert "Access-Control-Allow-Origin" not in answer.headers
        async with client.head(path) as answer:
            assert answer.status == 200

    @pytest.mark.parametrize("path", ["/index.html", "/dashboard", "/mappings", "/mappings/orders/forgit"])
    async def test_an_unknown_path_lists_the_known_ones(self, client: aiohttp.ClientSession, path: str) -> None:
        async with client.get(path) as answer:
            assert answer.status == 404
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            body = json.loads(await answer.read())
        assert path in body["error"]
        assert body["paths"] == [
            "GET /",
            "GET /events",
            "GET /metrics",
            "GET /healthz",
            "GET /readyz",
            "GET /scale",
            "GET /state",
            "POST /mappings/{name}/pause",
            "POST /mappings/{name}/resume",
            "POST /mappings/{name}/forget",
            "POST /mappings/{name}/attempts",
            "POST /attempts",
        ]

    async def test_a_change_is_no_get(self, client: aiohttp.ClientSession, control: ScriptedControl) -> None:
        async with client.get("/mappings/orders/pause") as answer:
            assert answer.status == 405
            assert answer.headers["Allow"] == "POST"
            assert "error" in json.loads(await answer.read())
        assert control.asked == []


class TestChanges:
    async def test_pause_and_resume(self, client: aiohttp.ClientSession, control: ScriptedControl) -> None:
        status, paused = await post(client, "/mappings/orders/pause", json={"wait": True})
        assert status == 200
        assert (paused["name"], paused["state"], paused["gate"]["name"]) == ("orders", "Disabled", "paused")
        status, resumed = await post(client, f"/mappings/{ORDERS.uuid}/resume")
        assert (status, resumed["state"]) == (200, "Enabled")
        assert control.asked == [("pause", "orders", True), ("resume", ORDERS.uuid)]

    async def test_pause_waits_unless_told_not_to(
        self, client: aiohttp.ClientSession, control: ScriptedControl
    ) -> None:
        control.finish = anyio.Event()
        assert (await post(client, "/mappings/orders/pause", json={"wait": False}))[0] == 200
        done = anyio.Event()

        async def pause() -> None:
            assert (await post(client, "/mappings/orders/pause"))[0] == 200
            done.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pause)
            while ("pause", "orders", True) not in control.asked:
                await get(client, "/healthz")  # others are served meanwhile
            assert not done.is_set()
            control.finish.set()
        assert done.is_set()

    async def test_forget(self, client: aiohttp.ClientSession, control: ScriptedControl) -> None:
        status, answer = await post(client, "/mappings/gone/forget")
        assert (status, answer) == (200, {"name": "gone", "uuid": CLICKS.uuid, "partitions": 3})
        control.failure = UsageError('the mapping "orders" exists, and keeps its positions')
        assert await post(client, "/mappings/orders/forget") == (422, {"error": str(control.failure)})
        assert (await post(client, "/mappings/orders/forget", json={"all": True}))[0] == 400
        assert control.asked == [("forget", "gone"), ("forget", "orders")]

    async def test_an_unknown_mapping_gets_the_nearest(self, client: aiohttp.ClientSession) -> None:
        status, answer = await post(client, "/mappings/ordrs/pause")
        assert (status, answer) == (404, {"error": 'no mapping "ordrs"; did you mean "orders"?'})

    @pytest.mark.parametrize(
        ("failure", "expected"),
        [(StateError("state file /x: its disk is full; free some space"), 507), (Draining(), 409)],
    )
    async def test_what_cannot_be_done_is_said(
        self, client: aiohttp.ClientSession, control: ScriptedControl, failure: Any, expected: int
    ) -> None:
        control.failure = failure
        assert await post(client, "/mappings/orders/pause") == (expected, {"error": str(failure)})
        assert await post(client, "/mappings/orders/resume") == (expected, {"error": str(failure)})

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"json": {"wait": "yes"}}, 400),
            ({"json": {"wiat": True}}, 400),
            ({"json": []}, 400),
            ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
            ({"data": b'{"wait": false}', "headers": {"Content-Type": "text/plain"}}, 415),
            ({"data": {"wait": "false"}}, 415),
            ({"data": b"x" * (MOST_BODY + 1), "headers": {"Content-Type": "application/json"}}, 413),
        ],
    )
    async def test_a_bad_body_is_refused(
        self, client: aiohttp.ClientSession, control: ScriptedControl, arguments: dict[str, Any], expected: int
    ) -> None:
        status, answer = await post(client, "/mappings/orders/pause", **arguments)
        assert status == expected
        assert answer["error"]
        assert control.asked == []

    @pytest.mark.parametrize("change", ["pause", "resume"])
    @WHO_MAY
    async def test_who_may(
        self,
        client: aiohttp.ClientSession,
        control: ScriptedControl,
        change: str,
        headers: dict[str, str],
        expected: int,
    ) -> None:
        async with client.post(f"/mappings/orders/{change}", headers=headers) as answer:
            assert answer.status == expected
            assert ("WWW-Authenticate" in answer.headers) == (expected == 401)
            assert TOKEN not in await answer.text()
        assert bool(control.asked) == (expected == 200)

    async def test_without_a_token_other_machines_cannot_change_anything(
        self, control: ScriptedControl, metrics: Metrics
    ) -> None:
        async with (
            AdminServer(control, metrics, "127.0.0.1", 0, None) as server,
            aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client,
        ):
            status, answer = await post(client, "/mappings/orders/pause", headers={"X-Forwarded-For": "203.0.113.7"})
            assert status == 403
            assert "admin.token" in answer["error"]
        assert control.asked == []


class TestLedger:
    async def test_attempts_by_record(self, client: aiohttp.ClientSession, control: ScriptedControl) -> None:
        status, answer = await post(client, "/attempts", json={"records": ["m-7", "unknown"]})
        assert status == 200
        assert msgspec.convert(answer, dict[str, list[Attempt]]) == {"m-7": [next(FAILED.attempts())]}
        assert control.asked == [("attempts", "m-7", "unknown")]

    async def test_the_last_ones_of_a_mapping(self, client: aiohttp.ClientSession, control: ScriptedControl) -> None:
        status, answer = await post(client, f"/mappings/{ORDERS.uuid}/attempts", json={"most": 3})
        assert status == 200
        assert msgspec.convert(answer, list[FailedBatch]) == [FAILED]
        assert await post(client, "/mappings/clicks/attempts") == (200, [])
        assert control.asked == [("last_failed", ORDERS.uuid, 3), ("last_failed", "clicks", 10)]
        assert (await post(client, "/mappings/clikcs/attempts"))[0] == 404

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/attempts", {}),
            ("/attempts", {"records": ["x"] * 1001}),
            ("/attempts", {"records": "m-7"}),
            ("/mappings/orders/attempts", {"most": 0}),
            ("/mappings/orders/attempts", {"most": 101}),
        ],
    )
    async def test_questions_are_bounded(self, client: aiohttp.ClientSession, path: str, body: Any) -> None:
        assert (await post(client, path, json=body))[0] == 400

    async def test_a_store_that_cannot_be_read_is_said(
        self, client: aiohttp.ClientSession, control: ScriptedControl
    ) -> None:
        control.failure = StateError("state file /x: is damaged")
        assert await post(client, "/attempts", json={"records": []}) == (507, {"error": "state file /x: is damaged"})

    @pytest.mark.parametrize("path", ["/attempts", "/mappings/orders/attempts"])
    @WHO_MAY
    async def test_logs_of_handlers_are_not_for_everybody(
        self, client: aiohttp.ClientSession, path: str, headers: dict[str, str], expected: int
    ) -> None:
        body = {"records": ["m-7"]} if path == "/attempts" else {}
        async with client.post(path, headers=headers, json=body) as answer:
            assert answer.status == expected
            assert ("looking for order 7" in await answer.text()) == (expected == 200)
        async with client.get(path) as answer:
            assert answer.status == 405


async def talk(server: AdminServer, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for part in parts:
        writer.write(part)
    await writer.drain()
    return reader, writer


class TestBounds:
    async def test_a_port_in_use_is_one_line(self, server: AdminServer, control: ScriptedControl) -> None:
        second = AdminServer(control, Metrics(), "127.0.0.1", server.port)
        with pytest.raises(UsageError) as caught:
            await second.start()
        message = str(caught.value)
        assert message.startswith(f"admin.listen 127.0.0.1:{server.port}: the port is in use")
        assert "\n" not in message
        assert "closed" in repr(second)
        await second.stop()

    @pytest.mark.parametrize(
        ("host", "port", "part"),
        [
            ("192.0.2.1", 0, "no such address"),
            ("no-such-host.invalid", 0, "unknown"),
            ("127.0.0.1", 70000, "1 to 65535"),
        ],
    )
    async def test_an_address_that_cannot_be_is_one_line(self, host: str, port: int, part: str) -> None:
        with pytest.raises(UsageError) as caught:
            async with AdminServer(ScriptedControl(), Metrics(), host, port):
                pytest.fail("it listens")
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)

    async def test_the_port_is_free_again_after_the_stop(self, control: ScriptedControl) -> None:
        async with AdminServer(control, Metrics(), "127.0.0.1", 0) as first:
            port = first.port
            reader, writer = await talk(first, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        with anyio.fail_after(10):
            await reader.read()  # to its end: the open connection was closed
        writer.close()
        async with AdminServer(control, Metrics(), "127.0.0.1", port) as second:
            assert second.port == port

    async def test_a_stop_does_not_wait_for_a_pause_that_waits(self, control: ScriptedControl) -> None:
        control.finish = anyio.Event()
        with anyio.fail_after(30):
            async with AdminServer(control, Metrics(), "127.0.0.1", 0) as server:
                _, writer = await talk(server, b"POST /mappings/orders/pause HTTP/1.1\r\nHost: localhost\r\n\r\n")
                while not control.asked:
                    await anyio.sleep(0.001)
        writer.close()

    async def test_a_silent_or_slow_client_is_closed(
        self, control: ScriptedControl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listening, "IDLE_TIMEOUT", 0.1)
        monkeypatch.setattr(server_module, "BODY_TIMEOUT", 0.1)
        head = b"POST /mappings/orders/pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with anyio.fail_after(30):
            async with AdminServer(control, Metrics(), "127.0.0.1", 0) as server:
                for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: loc"):
                    reader, writer = await talk(server, sent)
                    assert await reader.read() == b""
                    writer.close()
                reader, writer = await talk(server, head + b"Content-Length: 20\r\n\r\n{")
                assert (await reader.readline()).startswith(b"HTTP/1.1 408")
                writer.close()
        assert control.asked == []

    async def test_connections_are_bounded(self, server: AdminServer, client: aiohttp.ClientSession) -> None:
        open_ones = [await talk(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(MOST_CONNECTIONS)]
        for reader, _ in open_ones:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await talk(server, b"")
        with anyio.fail_after(10):
            assert await reader.read() == b""
        writer.close()
        for _, writer in open_ones:
            writer.close()
            await writer.wait_closed()
        with anyio.fail_after(10):
            while True:
                try:
                    assert (await get(client, "/healthz"))[0] == 200
                    break
                except aiohttp.ClientError:
                    await anyio.sleep(0.01)

    async def test_a_client_that_reads_nothing_is_given_up_by_the_kernel(self, server: AdminServer) -> None:
        [listener] = server._listener.sockets
        limit = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert limit == listening.READER_TIMEOUT

    async def test_garbage_is_answered_but_not_logged_and_others_are_served(
        self, server: AdminServer, client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        unfinished = b"POST /mappings/orders/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{"
        for garbage in (b"\0\1\2\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"x" * 20000 + b" HTTP/1.1\r\n\r\n"):
            reader, writer = await talk(server, garbage)
            assert (await reader.readline()).startswith(b"HTTP/1.")
            writer.close()
        _, writer = await talk(server, unfinished)
        writer.transport.abort()
        assert (await get(client, "/healthz"))[0] == 200
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    async def test_a_bug_of_ours_is_logged(
        self, client: aiohttp.ClientSession, control: ScriptedControl, caplog: pytest.LogCaptureFixture
    ) -> None:
        control.backlogs = {"orders": RuntimeError("a bug")}
        async with client.get("/scale") as answer:
            assert answer.status == 500
            assert "a bug" not in await answer.text()
        assert "a bug" in caplog.text
