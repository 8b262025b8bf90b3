"""A dead letter says why it died: to a running daemon's users, after a kill, and without a daemon."""

from __future__ import annotations

import json

import anyio
import pytest

from bridge.attempt import Attempt
from bridge.ledger import attempts
from tests.e2e.harness import Bridge, Site, eventually, receive, say


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def known(message: str, bridge: Bridge | None = None, site: Site | None = None) -> tuple[Attempt, ...]:
    """What is known of a message, as commands find it."""

    async def ask() -> dict[str, tuple[Attempt, ...]]:
        config = str(site.file) if site else None
        return await attempts([message], config=config, admin=bridge.url if bridge else None, environ={})

    return anyio.run(ask).get(message, ())


def test_a_dead_letter_says_why_it_died(one_site: Site) -> None:
    queue = one_site.queue(visibility=1, dead_after=2)
    name = one_site.mapping(queue, one_site.function())
    with one_site.running() as bridge:
        queue.send(say(prints="looking for order 7", raises=True, until=9))
        letters = one_site.letters_of(queue)
        (letter,) = bridge.until(lambda: receive(letters))
        died = letter["MessageId"]
        before = known(died, bridge)
        assert [(it.number, it.outcome, it.error_type) for it in before] == [
            (1, "function", "ValueError"),
            (2, "function", "ValueError"),
        ]
        assert before[1].message == f"told to raise by {died}"
        assert "looking for order 7" in before[1].log_tail
        assert before[1].mapping == name
        assert 0 < before[1].duration < 5
        assert {it.request_id for it in before} == {
            line["request_id"] for line in bridge.events("handler_output", line="looking for order 7")
        }
        shown = one_site.cli("mappings", "show", name, "--why", "--admin", bridge.url).out
        assert f"      {died} attempt 2" in shown
        assert "      | looking for order 7" in shown
        (row,) = json.loads(one_site.cli("mappings", "show", name, "--why", "--json", "--admin", bridge.url).out)
        assert [it["records"] for it in row["attempts"]] == [
            [{"id": died, "attempt": 2}],
            [{"id": died, "attempt": 1}],
        ]
        letters.api.change_message_visibility(
            QueueUrl=letters.url, ReceiptHandle=letter["ReceiptHandle"], VisibilityTimeout=0
        )
        peeked = one_site.cli("replay", "--dlq", letters.arn, "--peek", env={"BRIDGE_ADMIN": bridge.url})
        assert f"1 x function ValueError: told to raise by {died}" in peeked.out
        assert "    attempt 2, " in peeked.out
        assert "      | looking for order 7" in peeked.out
        told = one_site.cli("replay", "--dlq", letters.arn, "--peek", "--json", "-c", str(one_site.file))
        assert [it["attempt"] for it in json.loads(told.out)["attempts"]] == [1, 2]
        assert bridge.metric("bridge_ledger_lost_total") == 0
        eventually(lambda: len(known(died, site=one_site)) == 2)  # on disk
        bridge.process.kill()
        bridge.wait()
    assert known(died, site=one_site) == before
    with one_site.running() as bridge:
        assert known(died, bridge) == before


def test_events_by_request_id_and_what_a_stop_cut_off(one_site: Site) -> None:
    one_site.config["shutdown_grace"] = 0.2
    one_site.config["api"] = {"listen": "127.0.0.1:0", "auth": "none"}
    code = one_site.folder / "code"
    code.mkdir()
    (code / "app.py").write_text("def handler(event, context):\n    raise KeyError('of an event')\n")
    one_site.function("broken", code=code, Handler="app.handler", EventInvokeConfig={"MaximumRetryAttempts": 0})
    queue = one_site.queue(visibility=30)
    one_site.mapping(queue, one_site.function())
    with one_site.running() as bridge:
        (slow,) = queue.send(say(sleep=4))
        (started,) = bridge.said("started")
        done = one_site.cli("invoke", "broken", "--async", "--api", f"http://{started['api']}", given="{}")
        request = done.out.strip()
        assert done.status == 0
        (attempt,) = bridge.until(lambda: known(request, bridge))
        assert (attempt.mapping, attempt.number, attempt.outcome, attempt.message) == (
            "broken:async", 1, "function", "'of an event'",
        )  # fmt: skip
        bridge.until(lambda: bridge.view(next(iter(one_site.config["mappings"]))).gate.name == "invoking")  # type: ignore[union-attr]
        bridge.stop()
    (cut,) = known(slow, site=one_site)
    assert (cut.number, cut.outcome) == (1, "cancelled")
    assert known(request, site=one_site) == (attempt,)
