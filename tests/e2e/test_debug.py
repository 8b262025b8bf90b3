"""A function that is debugged: its messages stay hidden for as long as it takes."""

from __future__ import annotations

import time
from importlib.util import find_spec

import anyio

from tests.conftest import missing
from tests.debuggers import debugpy, free_port
from tests.e2e.harness import HANDLERS, Site, say

HELD = 6.0
"""Seconds: three times the visibility timeout, six times the function's."""


def test_messages_stay_hidden_while_a_debugger_is_awaited(one_site: Site) -> None:  # SQS-29
    if find_spec("debugpy") is None:
        missing("debugpy")
    port = free_port()
    queue = one_site.queue(visibility=2, dead_after=1)
    one_site.function(debug=port, Timeout=1)
    one_site.mapping(queue, name="orders", BatchSize=1)
    (sent,) = queue.send(say())
    with one_site.start() as bridge:
        bridge.said("debugger_awaited", function="actor", address=f"127.0.0.1:{port}")
        deadline = time.monotonic() + HELD
        while time.monotonic() < deadline:
            assert queue.counts() == (0, 1)
            time.sleep(0.25)
        assert not one_site.journal.invocations()
        anyio.run(attach, port)
        bridge.empties(queue)
    (run,) = one_site.journal.invocations()
    assert (run.ids, run.counts, run.well) == ([sent], [1], True)
    assert one_site.letters_of(queue).counts() == (0, 0)


async def attach(port: int) -> None:
    async with debugpy(port) as debugger:
        await debugger.attach(str(HANDLERS / "actor.py"), line=1)


def test_it_is_told_at_the_start_that_the_debugger_is_missing(one_site: Site) -> None:
    bare = one_site.folder / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    one_site.function(debug=5678, python=str(bare))
    done = one_site.cli("invoke", "actor", "-c", str(one_site.write()))
    assert (done.status, done.out) == (2, "")
    assert done.lines[-1].endswith(f"install it ({bare} -m pip install debugpy), or remove this")
