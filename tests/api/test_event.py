"""Asynchronous invocation as far as the API has a part in it: what it hands over, and when it says 202."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import anyio
import anyio.to_thread
import pytest

from bridge.api.book import Book, EventInvokeConfig
from bridge.api.server import ApiServer
from bridge.checkpoints import Checkpoints
from bridge.errors import StateError, Throttled
from bridge.function import EventInvoke
from bridge.invoker import Invoker
from bridge.stores import open_store
from bridge.telemetry.metrics import Metrics
from tests.world import ScriptedExecutor, function

if TYPE_CHECKING:
    from bridge.api import Host

pytestmark = pytest.mark.anyio
PATH = "/2015-03-31/functions/{}/invocations"


class Disk:
    """A queue that takes its time."""

    def __init__(self) -> None:
        self.accepted: list[tuple[str, str, bytes, str]] = []
        self.configured: list[tuple[str, str, EventInvoke | None]] = []
        self.asked, self.ready = anyio.Event(), anyio.Event()
        self.failure: Exception | None = None
        self.trace = ""

    async def accept(self, function: str, qualifier: str, payload: bytes, request_id: str, *, trace: str = "") -> None:
        self.trace = trace
        self.asked.set()
        await self.ready.wait()
        if self.failure:
            raise self.failure
        self.accepted.append((function, qualifier, payload, request_id))

    def configure(self, function: str, qualifier: str, settings: EventInvoke | None) -> None:
        self.configured.append((function, qualifier, settings))


class Daemon:
    """What the API needs of one."""

    def __init__(self, book: Book) -> None:
        self.queue, self.book = Disk(), book
        metrics = Metrics()
        executor = ScriptedExecutor(function(), lambda event: event)
        self.invokers = {"worker": Invoker(executor, metrics.function_meter("worker"))}


@asynccontextmanager
async def served(keys: dict[str, str] | None = None) -> AsyncIterator[tuple[Daemon, str]]:
    async with open_store("memory:") as store:
        daemon = Daemon(Book(store, Checkpoints(store)))
        async with ApiServer(cast("Host", daemon), "127.0.0.1", 0, keys) as server:
            yield daemon, f"http://{server.address}"


async def test_202_comes_only_when_it_is_on_disk() -> None:  # ASY-1, ASY-2, INV-4
    answers: list[Any] = []

    async def post(url: str) -> None:
        async with aiohttp.ClientSession() as client:
            headers = {"X-Amz-Invocation-Type": "Event", "X-Amzn-Trace-Id": "Root=1-2-3"}
            async with client.post(url + PATH.format("worker:$LATEST"), data=b'{"a": 1}', headers=headers) as answer:
                answers.append((answer.status, await answer.read(), answer.headers))

    async with served() as (daemon, url), anyio.create_task_group() as tasks:
        tasks.start_soon(post, url)
        await daemon.queue.asked.wait()
        assert not answers
        daemon.queue.ready.set()
    [(status, body, headers)] = answers
    assert (status, body) == (202, b"")
    assert "X-Amz-Executed-Version" not in headers
    assert daemon.queue.accepted == [("worker", "$LATEST", b'{"a": 1}', headers["x-amzn-RequestId"])]
    assert daemon.queue.trace == "Root=1-2-3"


@pytest.mark.parametrize(
    ("failure", "status", "name"),
    [(StateError("its disk is full"), 500, "ServiceException"), (Throttled("full"), 429, "TooManyRequestsException")],
)
async def test_what_was_not_accepted_is_told(failure: Exception, status: int, name: str) -> None:
    async with served() as (daemon, url), aiohttp.ClientSession() as client:
        daemon.queue.ready.set()
        daemon.queue.failure = failure
        async with client.post(url + PATH.format("worker"), headers={"X-Amz-Invocation-Type": "Event"}) as answer:
            assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, name)


async def test_invoke_async_of_old() -> None:  # INV-15
    async with served() as (daemon, url), aiohttp.ClientSession() as client:
        daemon.queue.ready.set()
        async with client.post(f"{url}/2014-11-13/functions/worker/invoke-async/", data=b"[1]") as answer:
            assert answer.status == 202
        assert daemon.queue.accepted[0][2] == b"[1]"


async def test_settings_reach_the_queue() -> None:  # ASY-20, ASY-22
    async with served() as (daemon, url), aiohttp.ClientSession() as client:
        path = f"{url}/2019-09-25/functions/worker/event-invoke-config"
        async with client.put(path, json={"MaximumRetryAttempts": 0}) as answer:
            assert answer.status == 200
        assert daemon.queue.configured == [("worker", "", EventInvoke(retries=0))]
        async with client.delete(path) as answer:
            assert answer.status == 204
        assert daemon.queue.configured[1:] == [("worker", "", None)]
        daemon.book.event_invoke["worker:$LATEST"] = EventInvokeConfig(maximum_event_age=60, on_failure="arn")
        daemon.book.configure(daemon.queue)
        assert daemon.queue.configured[2:] == [("worker", "", EventInvoke(max_age=60.0, on_failure="arn"))]


# bridge invoke --async


async def command(*arguments: str, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BRIDGE_"))} | environ
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-m", "bridge", "invoke", *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=env,
        )
    )


async def test_the_command_prints_the_request_id() -> None:
    async with served({"AKIDEXAMPLE": "secret"}) as (daemon, url):
        daemon.queue.ready.set()
        keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
        done = await command("worker", "--async", "-e", "-", "--api", url, given='{"n": 1}', **keys)
        assert (done.returncode, done.stderr) == (0, "")
        [(name, _, payload, request_id)] = daemon.queue.accepted
        assert (name, payload, done.stdout) == ("worker", b'{"n": 1}', f"{request_id}\n")
        done = await command("worker", "--async", "--api", url)
        assert done.returncode == 1
        assert "Missing Authentication Token" in done.stderr
        done = await command("nope", "--async", "--api", url, **keys)
        assert done.returncode == 1
        assert "nope: Function not found: arn:aws:lambda:" in done.stderr
        assert len(done.stderr.splitlines()) == 1


async def test_the_command_misused() -> None:
    assert "--api goes with --async" in (await command("worker", "--api", "x")).stderr
    assert "is no address of an API" in (await command("worker", "--async", "--api", "ftp://x")).stderr
    done = await command("worker", "--async", "--api", "http://127.0.0.1:9")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "does not answer" in done.stderr
