"""What a scene of a daemon's inside looks like from outside: through `/state` of a real admin server, in the text of
`bridge mappings show --why`, and in its JSON."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import NamedTuple
from urllib.request import urlopen

import anyio
import msgspec
import pytest

from bridge.commands import main
from bridge.gates import GATES, GateName
from bridge.snapshot import FunctionView, Gate, MappingView, Snapshot, iso
from tests.admin.control import ScriptedControl, served
from tests.clock import SkippingLoop, wall


class Seen(NamedTuple):
    """A daemon at one moment, and since when the gate should be said to hold, epoch seconds."""

    snapshot: Snapshot
    since: float


Scene = Callable[[], Awaitable[Seen]]


def snapshot(
    *views: MappingView, functions: tuple[FunctionView, ...] = (), asynchronous: tuple[MappingView, ...] = ()
) -> Snapshot:
    """A daemon with these mappings."""
    now = time.time()
    return Snapshot(
        version="0.1.0",
        pid=4242,
        started_at=now,
        at=now,
        draining=False,
        buffered_bytes=0,
        max_buffered_bytes=1,
        mappings=views,
        functions=functions,
        asynchronous=asynchronous,
    )


def play(scene: Scene, loop: type[SkippingLoop] = SkippingLoop) -> Seen:
    """Plays a scene in a loop that skips its sleeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", wall)
        return anyio.run(scene, backend_options={"loop_factory": loop})


def check(seen: Seen, gate: GateName, what: str, detail: str, *, within: float = 0.3) -> None:
    """``gate`` holds ``what``: the ``mapping``, a runner (by its partition) or something that waits. ``detail`` is a
    regular expression for the whole of it; ``since`` may be off by ``within`` seconds."""
    control = ScriptedControl()
    control.snapshot = lambda: seen.snapshot  # type: ignore[method-assign]
    with served(control) as url:
        with urlopen(f"{url}/state") as answer:
            state = msgspec.json.decode(answer.read(), type=Snapshot)
        (view,) = state.mappings or state.asynchronous
        control.mappings = {view.name: view}
        text = _said("mappings", "show", view.name, "--why", "--admin", url)
        (row,) = json.loads(_said("mappings", "show", view.name, "--why", "--json", "--admin", url))
    held = [it for name, it in _gates(state, view) if name == what]
    (found,) = [it for it in held if it.name == gate][:1] or pytest.fail(f"{what} is held by {held}")
    assert gate in GATES
    assert re.fullmatch(detail, found.detail), found.detail
    assert found.since == pytest.approx(seen.since, abs=within)
    label = "gate       " if what == "mapping" else f"{re.escape(what)}(, \\d+ records)?: "
    line = f"{label}{gate} for [0-9.]+ (s|min|h|d), since {iso(found.since)}: {detail}"
    assert re.search(f"^ *{line}$", text, re.MULTILINE), text
    told = {"name": gate, "since": iso(found.since), "detail": found.detail}
    assert told in _rows(row, what), row


def _gates(state: Snapshot, view: MappingView) -> Iterator[tuple[str, Gate]]:
    if view.gate:
        yield "mapping", view.gate
    yield from ((runner.partition, runner.gate) for runner in view.runners)
    yield from ((wait.what, wait.gate) for wait in view.waits)
    yield from ((f"function {wait.what}", wait.gate) for function in state.functions for wait in function.waits)


def _rows(row: dict[str, object], what: str) -> list[object]:
    if what == "mapping":
        return [row["gate"]]
    runners, waits = row["runners"], row["waits"]
    assert isinstance(runners, list)
    assert isinstance(waits, list)
    return [
        *(it["gate"] for it in runners if it["partition"] == what),
        *(it["gate"] for it in waits if it["what"] == what),
    ]


def _said(*arguments: str) -> str:
    out = StringIO()
    with redirect_stdout(out):
        assert main(arguments) == 0
    return out.getvalue()
