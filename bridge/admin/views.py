"""What the snapshot looks like from outside: one function per view, all of them pure."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from typing import Any

from bridge.snapshot import Blocked, Gate, MappingView, Snapshot, iso


def readiness(snapshot: Snapshot) -> dict[str, Any]:
    """The answer of `/readyz`: ``ready`` is false as long as one mapping that should poll does not, and before all of
    them are known, and on shutdown. ``blocked`` names the record that each stuck partition waits for: its mapping polls
    all the same, so that alone makes nothing unready."""
    waiting = {
        view.name: {"reason": _reason(view), "since": iso(view.gate.since if view.gate else snapshot.started_at)}
        for view in snapshot.mappings
        if not view.ready
    }
    stage = "draining" if snapshot.draining else "starting" if snapshot.starting else ""
    answer: dict[str, Any] = {"ready": not waiting and not stage, "mappings": waiting}
    if stuck := {view.name: rows for view in snapshot.mappings if (rows := stuck_partitions(view))}:
        answer["blocked"] = stuck
    if stage:
        answer["reason"] = stage
    return answer


def row(view: MappingView) -> dict[str, Any]:
    """One element of `bridge mappings --json`."""
    return {
        "name": view.name,
        "uuid": view.uuid,
        "function": view.function,
        "source_arn": view.source_arn,
        "state": view.state,
        "gate": gate(view.gate),
        "in_flight": view.in_flight,
        "lag_seconds": view.lag_seconds,
        "last_error": view.last_error,
    }


def gate(shown: Gate | None) -> dict[str, str] | None:
    """A gate for programs."""
    return None if shown is None else {"name": shown.name, "since": iso(shown.since), "detail": shown.detail}


def stuck_partitions(view: MappingView) -> list[dict[str, Any]]:
    """The partitions whose first batch fails again and again."""
    return [{"partition": runner.partition, **blocked(runner.blocked)} for runner in view.runners if runner.blocked]


def blocked(shown: Blocked) -> dict[str, Any]:
    """What blocks a partition, for programs."""
    return {
        "record": shown.record,
        "records": shown.records,
        "attempt": shown.attempt,
        "attempts": shown.attempts,
        "since": iso(shown.since),
        "next_at": None if shown.next_at is None else iso(shown.next_at),
        "why": shown.why,
    }


def scale(snapshot: Snapshot, backlogs: Dict[str, int | None]) -> dict[str, Any]:
    """The answer of `/scale`. A figure that nobody knows is null, never 0: a scaler must not take it for idleness."""
    functions = {function.name: function for function in snapshot.functions}
    mappings = {}
    for view in snapshot.mappings:
        function = functions.get(view.function)
        mappings[view.name] = {
            "lag_seconds": view.lag_seconds,
            "backlog": backlogs.get(view.name),
            "in_flight": view.in_flight,
            "busy_ratio": _ratio(function.busy, function.concurrency) if function else 0.0,
        }
    used = [functions[name] for name in {view.function for view in snapshot.mappings} if name in functions]
    lags = [view.lag_seconds for view in snapshot.mappings if view.lag_seconds is not None]
    known = [backlog for name in mappings if (backlog := backlogs.get(name)) is not None]
    total = {
        "lag_seconds": max(lags, default=None),
        "backlog": sum(known) if known or not mappings else None,
        "in_flight": sum(view.in_flight for view in snapshot.mappings),
        "busy_ratio": _ratio(sum(function.busy for function in used), sum(function.concurrency for function in used)),
    }
    return {"mappings": mappings, "total": total}


def _reason(view: MappingView) -> str:
    if view.gate is None:
        return view.state
    return f"{view.gate.name}: {view.gate.detail}" if view.gate.detail else view.gate.name


def _ratio(busy: int, concurrency: int) -> float:
    return round(busy / concurrency, 3) if concurrency else 0.0
