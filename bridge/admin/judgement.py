"""How a mapping fares, for people who have a second: one of four levels, and a few words where something is wrong."""

from __future__ import annotations

from typing import Literal

import msgspec

from bridge.snapshot import Gate, MappingView, Snapshot

Level = Literal["ok", "off", "warn", "bad"]

BROKEN = {
    "failing": "the function fails every time",
    "endpoint": "the endpoint has trouble",
    "opening": "its source cannot be opened",
    "state": "positions cannot be written",
    "crashed": "a bug of bridge",
    "stalled": "a poller stood still",
    "restarting": "environments of its function keep ending",
    "throttled": "the function is throttled",
}
"""Gate -> what is wrong whenever it holds."""
SLOW = {
    "slot": "waits for a free environment",
    "concurrency": "its own concurrency is used up",
    "buffer": "the memory for payloads is used up",
    "pollers": "its own pollers are used up",
    "reporting": "a destination is slow",
    "environment": "its function takes long to start",
    "credentials": "its AWS keys are slow to come",
    "deletes": "its queue is slow to delete",
    "store": "the state file is slow",
    "output": "its function prints more than is passed on",
}
"""Gate -> what is wrong when it holds for long."""
LONG = 30.0
SOON = 10.0
"""Seconds that a start may take."""


class Judgement(msgspec.Struct, frozen=True):
    """``off``: it does not poll, and shall not. ``words``: empty when nothing is wrong."""

    level: Level
    words: str = ""
    since: float | None = None
    """Epoch seconds: when that began."""


def judge(view: MappingView, at: float) -> Judgement:
    """How ``view`` fares at the moment ``at``, both by the daemon's clock."""
    gate = view.gate or Gate("", at)
    held = at - gate.since
    if gate.name in ("paused", "disabled") or view.state in ("Disabled", "Deleting"):
        return Judgement("off")
    starting = view.state in ("Creating", "Enabling", "Updating") and held < SOON
    if gate.name in BROKEN and not (starting and view.last_error is None and gate.name == "opening"):
        return Judgement("bad", BROKEN[gate.name], gate.since)
    for runner in view.runners:
        if runner.blocked:
            words = f"a batch of {runner.partition} fails again and again"
            return Judgement("warn", words, runner.blocked.since)
    if gate.name in SLOW and held > LONG:
        return Judgement("warn", SLOW[gate.name], gate.since)
    if not view.ready and gate.name != "draining" and held > SOON:
        return Judgement("warn", "it does not poll", gate.since)
    return Judgement("ok")


def judged(snapshot: Snapshot) -> dict[str, Judgement]:
    """All mappings, those of asynchronous events among them, by name."""
    return {view.name: judge(view, snapshot.at) for view in (*snapshot.mappings, *snapshot.asynchronous)}
