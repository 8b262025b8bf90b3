"""Ten thousand callers at once: each gets its answer or a documented error, memory is bounded, and nothing is lost."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import pytest

from tests.api.conftest import api_site, api_url
from tests.api.lambda_client import client
from tests.api.test_misuse import resident
from tests.conftest import missing

CALLERS = 10_000
EVENTS = 10
"""One caller in so many hands over an event."""
PATH = "/2015-03-31/functions/worker/invocations"
MOST_MORE = 150 << 20
"""Bytes of memory that they may cost."""


@pytest.mark.anyio
async def test_ten_thousand_at_once(tmp_path: Path) -> None:
    """All are connected before the first of them says what it wants."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < CALLERS + 500:
        missing(f"{CALLERS} file descriptors (ulimit -n)")
    site = api_site(tmp_path, None)
    with site.running() as bridge:
        address = urlsplit(api_url(bridge))
        assert address.hostname
        before = resident(bridge)
        answers: Counter[tuple[str, bytes]] = Counter()
        connected, go = 0, asyncio.Event()

        async def call(number: int) -> None:
            nonlocal connected
            kind = "RequestResponse" if number % EVENTS else "Event"
            body = b'"%s"' % (b"x" * 20_000)
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Amz-Invocation-Type: {kind}\r\n"
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            connected += 1
            if connected == CALLERS:
                go.set()
            await go.wait()
            try:
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                answers[kind, (await reader.readline())[9:12]] += 1
                await reader.read()
            finally:
                writer.close()
                with suppress(OSError):  # all that matters has been read
                    await writer.wait_closed()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(CALLERS):
                    tasks.start_soon(call, number)
        assert sum(answers.values()) == CALLERS
        assert answers.keys() <= {
            ("RequestResponse", b"200"), ("RequestResponse", b"429"), ("Event", b"202"), ("Event", b"429"),
        }, answers  # fmt: skip
        assert answers["RequestResponse", b"200"] > 0
        assert answers["Event", b"202"] > 0
        assert resident(bridge) - before < MOST_MORE

        def events_left() -> int:
            return sum(it.events for it in bridge.state().functions)

        await anyio.to_thread.run_sync(lambda: bridge.until(lambda: not events_left()))
        assert bridge.metric("bridge_async_events_received_total", function="worker") == answers["Event", b"202"]
        ran = bridge.metric("bridge_invocations_total", function="worker", outcome="success")
        assert ran == answers["Event", b"202"] + answers["RequestResponse", b"200"]  # ASY-1: nothing is lost
        assert client(api_url(bridge)).invoke(FunctionName="worker")["StatusCode"] == 200
