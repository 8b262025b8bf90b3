"""The running daemon says what holds its mappings, and since when: as users ask it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from bridge.snapshot import Gate
from tests.e2e.conftest import NewSite
from tests.e2e.faulty import FaultyServer
from tests.e2e.harness import Bridge, Site, say
from tests.e2e.streams import Stream, mapped, order, stream_site
from tests.servers import Server


def stands(bridge: Bridge, name: str, gate: str) -> Gate:
    """Of a runner of this mapping, once there is one at this gate."""

    def look() -> Gate | None:
        view = bridge.view(name)
        waits = (*(runner.gate for runner in view.runners), *(wait.gate for wait in view.waits))
        return next((it for it in waits if it.name == gate), None)

    return bridge.until(look)  # type: ignore[return-value]


def why(bridge: Bridge, name: str) -> tuple[str, dict[str, Any]]:
    """What `show --why` prints, and its JSON."""
    arguments = ("mappings", "show", name, "--why", "--admin", bridge.url)
    text = bridge.site.cli(*arguments).out
    (row,) = json.loads(bridge.site.cli(*arguments, "--json").out)
    return text, row


def test_of_queues(one_site: Site) -> None:
    """window, invoking, slot, visibility, paused: each as it comes to be."""
    queue, other = one_site.queue(visibility=20, dead_after=5), one_site.queue(visibility=20)
    name = one_site.mapping(
        queue, one_site.function(max_environments=1), BatchSize=10, MaximumBatchingWindowInSeconds=2
    )
    second = one_site.mapping(other)
    with one_site.running() as bridge:
        stands(bridge, name, "polling")
        began = time.time()
        sent = queue.send(say(sleep=1), say(raises=True))
        window = stands(bridge, name, "window")
        assert window.since == pytest.approx(began, abs=2)
        text, row = why(bridge, name)
        assert "window for " in text
        assert "of 2 s, 2 of 10 records" in text
        assert row["gate"]["name"] == "window"
        invoking = stands(bridge, name, "invoking")
        assert invoking.since - window.since == pytest.approx(2, abs=1.2)
        assert "2 records, request " in invoking.detail
        other.send(say())
        assert stands(bridge, second, "slot").detail == "1 of 1 environments of actor are busy"
        hidden = stands(bridge, name, "visibility")
        assert hidden.detail.startswith("2 messages failed and hidden; the first comes again in ")
        assert "attempt 1 of 5" in hidden.detail
        assert any(message in hidden.detail for message in sent)
        text, row = why(bridge, name)
        assert "visibility for " in text
        assert [wait["gate"]["name"] for wait in row["waits"]] == ["visibility"]
        assert {it["id"] for it in row["attempts"][0]["records"]} == set(sent)
        assert one_site.cli("mappings", "pause", second, "--admin", bridge.url).status == 0
        text, row = why(bridge, second)
        assert "paused for " in text
        assert row["gate"]["detail"] == "until it is resumed"


def test_of_a_fifo_group(one_site: Site) -> None:  # SQS-56
    queue = one_site.queue(visibility=20, fifo=True, dead_after=4)
    name = one_site.mapping(queue, one_site.function())
    with one_site.running() as bridge:
        (first,) = queue.send(say(raises=True, until=9), group="g")
        queue.send(say(), group="g")
        group = stands(bridge, name, "group")
        assert f"message {first} attempt 1 of 4, which failed and comes again in 1" in group.detail
        text, row = why(bridge, name)
        assert "    group g: group for " in text
        assert row["waits"][0]["what"] == "group g"
        assert f"      {first} attempt 1, " in text  # and why it failed
        assert row["waited_for"][first][0]["message"] == f"told to raise by {first}"


def test_of_asynchronous_events(one_site: Site) -> None:  # ASY-4
    one_site.config["api"] = {"listen": "127.0.0.1:0", "auth": "none"}
    code = one_site.folder / "code"
    code.mkdir()
    (code / "app.py").write_text("def handler(event, context):\n    raise KeyError('not today')\n")
    one_site.function("broken", code=code, Handler="app.handler")
    with one_site.running() as bridge:
        (started,) = bridge.said("started")
        done = one_site.cli("invoke", "broken", "--async", "--api", f"http://{started['api']}", given="{}")
        bridge.until(lambda: any(view.waits for view in bridge.state().asynchronous))
        text, row = why(bridge, "broken:async")
        (wait,) = row["waits"]
        assert wait["gate"]["name"] == "due"
        assert wait["gate"]["detail"].startswith(
            f"1 events wait for their next attempt; the first, {done.out.strip()}, is due in 5"
        )
        assert "due for " in text
        assert row["attempts"][0]["message"] == "'not today'"
        listed = json.loads(one_site.cli("mappings", "--json", "--admin", bridge.url).out)
        assert listed == []
        assert one_site.cli("mappings", "pause", "broken:async", "--admin", bridge.url).status == 2


def test_of_an_endpoint(faulty_site: Site, faulty_server: FaultyServer) -> None:
    queue = faulty_server.queue()
    name = faulty_site.mapping(queue, faulty_site.function())
    with faulty_site.running() as bridge:
        stands(bridge, name, "polling")
        began = time.time()
        queue.ask(queue.fake.refuse, "ReceiveMessage", *["ServiceUnavailable"] * 1000)
        bridge.until(lambda: not bridge.view(name).ready)  # it is news by now
        gate = bridge.view(name).gate
        assert gate
        assert gate.name == "endpoint"
        assert gate.since == pytest.approx(began, abs=10)
        text, row = why(bridge, name)
        assert "ServiceUnavailable" in text
        assert row["gate"]["name"] == "endpoint"
        queue.ask(queue.fake.allow, "ReceiveMessage")
        stands(bridge, name, "polling")


def test_of_a_stream(new_site: NewSite, ministack_server: Server) -> None:
    """retrying, ahead, and what its records' attempts were (KIN-60)."""
    site = stream_site(new_site(ministack_server))
    stream = Stream(ministack_server, shards=1)
    name = mapped(site, stream, BatchSize=1, MaximumRetryAttempts=50)
    with site.running() as bridge:
        stream.put(order(1, raises=True), *(order(n) for n in range(2, 8)))
        gate = stands(bridge, name, "retrying")
        bridge.until(lambda: (it := bridge.view(name).runners[0].blocked) and it.attempt >= 3)
        stands(bridge, name, "ahead")
        again = stands(bridge, name, "retrying")
        assert again.since == gate.since  # since it failed first
        text, row = why(bridge, name)
        (runner,) = row["runners"]
        record = runner["blocked"]["record"]
        assert f"record {record}: attempt " in text
        assert f": function ValueError: told to raise by {record}\n" in text
        assert {it["outcome"] for it in row["waited_for"][record]} == {"function"}
        numbers = [it["attempt"] for attempt in row["attempts"] for it in attempt["records"]]
        assert numbers == sorted(numbers, reverse=True)
        assert numbers[-1] == 1
        assert {it["id"] for attempt in row["attempts"] for it in attempt["records"]} == {record}
        assert {attempt["message"] for attempt in row["attempts"]} == {f"told to raise by {record}"}
