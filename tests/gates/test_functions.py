"""Gates of functions: environments that are started for a batch, or ahead, in real child processes and real time."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import pytest

from bridge.aws import Credentials
from bridge.executors import code
from bridge.executors.credentials import CredentialSource
from bridge.function import Function
from bridge.invoker import Invoker
from bridge.snapshot import Gate, Snapshot
from bridge.sources.memory import MemoryQueue
from tests.conftest import missing
from tests.executors.surroundings import PATIENCE, Lines, function, running
from tests.gates.shown import Seen, check, snapshot
from tests.world import World, mapping, world

pytestmark = pytest.mark.anyio

Write = Callable[..., Function]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function of the code given, as ``app.py``."""

    def write(text: str, **settings: Any) -> Function:
        (tmp_path / "app.py").write_text(dedent(text))
        return function("app.handler", code=tmp_path, **settings)

    return write


@asynccontextmanager
async def fed(worker: Function, credentials: CredentialSource | None = None) -> AsyncIterator[World]:
    """A world in which `q` feeds this function with one message."""
    queue = MemoryQueue("q")
    async with AsyncExitStack() as stack:
        executor = await stack.enter_async_context(running(worker, credentials=credentials, output=Lines()))
        w = await stack.enter_async_context(world())
        w._invokers["worker"] = Invoker(executor, w.metrics.function_meter("worker"))
        queue.put("a")
        await w.add(mapping(queue, batch_size=1))
        yield w


def now(w: World) -> Snapshot:
    return snapshot(w.view("q"), functions=(w.invoker().view(),))


async def stands(w: World, gate: str, *, every: float = 0.005) -> Gate:
    """The runner's gate once it is this one."""
    with anyio.fail_after(PATIENCE):
        while True:
            for runner in w.view("q").runners:
                if runner.gate.name == gate:
                    return runner.gate
            await anyio.sleep(every)


SLOW = "import time\ntime.sleep(3)\ndef handler(event, context):\n    return 1\n"


@pytest.mark.gate("environment")
async def test_environment(write: Write) -> None:
    async with fed(write(SLOW)) as w:
        since = time.time()
        await stands(w, "environment")
        await anyio.sleep(0.4)
        seen = Seen(now(w), since)
    check(seen, "environment", "q", r"an environment of worker starts: 0\.[3-9] of 10 s")


@pytest.mark.gate("restarting")
async def test_restarting(write: Write) -> None:
    async with fed(write("import os\nos._exit(1)\n", timeout=PATIENCE)) as w:
        queue = MemoryQueue.named["q"]
        for _ in range(20):
            queue.put("a")
        await stands(w, "restarting")
        since = time.time()
        seen = Seen(now(w), since)
    check(seen, "restarting", "q", r"environments keep ending; one is started in [0-2]\.\d s", within=2)


class SlowChain:
    """A chain of credentials that takes its time: until it is told to go on."""

    def __init__(self) -> None:
        self.goes_on = anyio.Event()

    async def current(self) -> Credentials | None:
        await self.goes_on.wait()
        return None


@pytest.mark.gate("credentials")
async def test_credentials(write: Write) -> None:
    chain = SlowChain()
    async with fed(write("def handler(event, context):\n    return 1\n"), chain) as w:
        since = time.time()
        await stands(w, "credentials")
        seen = Seen(now(w), since)
        chain.goes_on.set()
    check(seen, "credentials", "q", "the AWS chain, for a new environment")


@pytest.mark.gate("debugger")
async def test_debugger(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        missing("node")
    (tmp_path / "app.mjs").write_text("export const handler = async () => 1;\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        worker = function("app.handler", code=tmp_path, kind="nodejs", debug=port)
        async with fed(worker) as w:
            since = time.time()
            await stands(w, "debugger")
            await anyio.sleep(0.1)
            taken = Seen(now(w), since)
            server.close()
            with anyio.fail_after(PATIENCE):
                while (await stands(w, "debugger")).detail.startswith("port"):
                    await anyio.sleep(0.01)
            waiting = Seen(now(w), time.time())
    check(taken, "debugger", "q", rf"port {port} is taken, so that no debugger can be waited for there")
    check(waiting, "debugger", "q", rf"a debugger has to connect to 127\.0\.0\.1:{port}")


@pytest.mark.gate("output")
async def test_output(write: Write) -> None:
    text = "import os\ndef handler(event, context):\n    os.write(1, b'x\\n' * 30_000)\n"
    async with fed(write(text)) as w:
        gate = await stands(w, "output", every=0)
        seen = Seen(now(w), gate.since)
        assert time.time() - gate.since < 1
    check(seen, "output", "q", "lines that the handler printed are still to be passed on")


@pytest.mark.gate("version")
async def test_new_code(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "EVERY", 0.05)
    monkeypatch.setattr(code, "QUIET", 0.1)
    async with fed(write("def handler(event, context):\n    return 1\n", reload=True)) as w:
        await MemoryQueue.named["q"].settled_all()
        await anyio.sleep(0.1)
        (tmp_path / "app.py").write_text(SLOW)
        with anyio.fail_after(PATIENCE):
            while not w.invoker().view().waits:
                await anyio.sleep(0.01)
        since = time.time()
        await anyio.sleep(0.3)
        seen = Seen(now(w), since)
    detail = (
        "the code has changed; what is there runs until the new one is ready: environment, "
        r"an environment of worker starts: 0\.\d of 10 s"
    )
    check(seen, "version", r"function worker:$LATEST", detail)


@pytest.mark.gate("version")
async def test_provisioned(write: Write) -> None:
    async with fed(write(SLOW, provisioned=2)) as w:
        since = time.time()
        with anyio.fail_after(PATIENCE):
            while not w.invoker().view().waits:
                await anyio.sleep(0.01)
        await anyio.sleep(0.2)
        seen = Seen(now(w), since)
    detail = r"2 provisioned environments are to stand ready: environment, an environment of worker starts: .* of 130 s"
    check(seen, "version", r"function worker:$LATEST", detail)
