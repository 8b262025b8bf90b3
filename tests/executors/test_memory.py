"""MemorySize is a limit."""

from __future__ import annotations

import os

import anyio
import pytest
import structlog

from bridge.executors import memory
from bridge.executors.memory import enforced, excess
from bridge.invocation import Failed
from bridge.invoker import ERROR_TYPES
from tests.conftest import missing
from tests.contracts.executor import answer, error, invocation
from tests.executors.surroundings import PATIENCE, Lines, Write, alive, appears, gone, running

pytestmark = pytest.mark.anyio

EATER = """
    import os, subprocess, sys, time
    kept = []
    def eat(mib):
        kept.append(b"x" * (mib << 20))
    def handler(event, context):
        print(os.getpid(), file=open("pid", "w"))
        if event["where"] == "below":
            code = f"kept = b'x' * ({event['mib']} << 20); import time; time.sleep({event['seconds']})"
            subprocess.run([sys.executable, "-c", code])
        else:
            eat(event["mib"])
            time.sleep(event["seconds"])
        return "fed"
"""


@pytest.fixture(autouse=True)
def linux() -> None:
    if not enforced():
        missing("/proc")


@pytest.mark.parametrize("where", ["itself", "below"])
async def test_what_uses_more_is_killed_as_out_of_memory(write: Write, where: str) -> None:  # INV-24
    worker = write(EATER, memory=128, timeout=PATIENCE)
    async with running(worker, output=Lines()) as executor:
        outcome = await executor.invoke(invocation({"mib": 200, "seconds": 60, "where": where}))
        assert isinstance(outcome, Failed)
        assert (outcome.kind, outcome.ran, ERROR_TYPES[outcome.kind]) == ("oom", True, "oom")
        assert error(outcome) == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {outcome.request_id} Error: Runtime exited with error: signal: killed",
        }
        report = outcome.log_tail.decode().splitlines()[-1]
        assert "\tStatus: error\tError Type: Runtime.ExitError\t" in report
        used = int(report.partition("Max Memory Used: ")[2].split()[0])
        assert 128 <= used < 400  # it may be seen while it still grows
        await gone(int(await appears(worker.code / "pid")))
        again = await executor.invoke(invocation({"mib": 10, "seconds": 0.5, "where": where}))
        assert answer(again) == "fed"


async def test_what_init_uses_counts_too(write: Write) -> None:
    code = "import time\nkept = b'x' * (300 << 20)\ntime.sleep(60)\ndef handler(event, context): pass\n"
    async with running(write(code, memory=128, timeout=PATIENCE), output=Lines()) as executor:
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "oom"


async def test_shared_memory_counts_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks share what they do not write to: four processes with the same 60 MiB use less than 128 MiB."""
    code = """
        import os, time
        kept = bytearray(os.urandom(1) * (60 << 20))
        def handler(event, context):
            children = []
            for _ in range(3):
                pid = os.fork()
                if not pid:
                    time.sleep(1)
                    os._exit(0)
                children.append(pid)
            for pid in children:
                os.waitpid(pid, 0)
            return "together"
    """
    monkeypatch.setattr(memory, "LOOK_EVERY", 0.05)
    async with running(write(code, memory=128, timeout=PATIENCE), output=Lines()) as executor:
        assert answer(await executor.invoke(invocation())) == "together"


async def test_while_all_wait_nobody_looks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LOOK_EVERY", 0.01)
    async with running(write("def handler(event, context): pass", memory=128), output=Lines()) as executor:
        await executor.invoke(invocation())
        with anyio.fail_after(PATIENCE):
            while executor._memory._timer is not None:
                await anyio.sleep(0.01)


async def test_where_it_is_not_enforced_it_says_so(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PAGE", 0)
    with structlog.testing.capture_logs() as logs:
        async with running(write("def handler(event, context): return 1", memory=1), output=Lines()) as executor:
            assert answer(await executor.invoke(invocation())) == 1
    assert "memory_not_enforced" in [line["event"] for line in logs]


async def test_a_process_that_is_gone_uses_nothing(write: Write) -> None:
    async with running(write("import os\ndef handler(event, context): return os.getpid()")) as executor:
        pid = answer(await executor.invoke(invocation()))
        assert alive(pid)
        assert excess(pid, 1 << 20)
    await gone(pid)
    assert excess(pid, 0) is None
    assert excess(os.getpid(), 1 << 40) is None
