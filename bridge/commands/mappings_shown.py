"""How ``bridge mappings`` shows mappings: a table, a page for each, or JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bridge.admin.views import gate, iso, row
from bridge.snapshot import Forgotten, Gate, MappingView, Snapshot

HEAD = ("NAME", "FUNCTION", "STATE", "GATE", "IN FLIGHT", "LAG", "LAST ERROR")
TO_THE_RIGHT = ("IN FLIGHT", "LAG")


def as_json(views: Sequence[MappingView], *, why: bool = False) -> str:
    """The array of interfaces.md section 1; ``why`` adds what `--why` shows to people."""
    return json.dumps([row(view) | (_why(view) if why else {}) for view in views], indent=2)


def table(snapshot: Snapshot, views: Sequence[MappingView]) -> str:
    """A line for each mapping; on a terminal no longer than that."""
    rows = [HEAD, *(_cells(snapshot, view) for view in views)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        padded = (
            cell.rjust(width) if head in TO_THE_RIGHT else cell.ljust(width)
            for head, cell, width in zip(HEAD, cells, widths, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    if sys.stdout.isatty():
        most = shutil.get_terminal_size().columns
        lines = [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
    return "\n".join(lines)


def pages(snapshot: Snapshot, views: Sequence[MappingView], *, why: bool) -> str:
    """All about each mapping."""
    return "\n\n".join("\n".join(_page(snapshot, view, why)) for view in views)


def forgotten(it: Forgotten) -> str:
    """What was dropped, for people."""
    return f"{it.name} ({it.uuid}): forgot where it stood in {it.partitions} partitions"


def forgotten_as_json(it: Forgotten) -> str:
    """The same as an array for programs."""
    return json.dumps([{"name": it.name, "uuid": it.uuid, "partitions": it.partitions}], indent=2)


def _cells(snapshot: Snapshot, view: MappingView) -> tuple[str, ...]:
    return (
        view.name,
        view.function,
        view.state,
        f"{view.gate.name} {_duration(snapshot.at - view.gate.since)}" if view.gate else "-",
        str(view.in_flight),
        "-" if view.lag_seconds is None else _duration(view.lag_seconds),
        _plain(view.last_error or "-"),
    )


def _page(snapshot: Snapshot, view: MappingView, why: bool) -> Iterator[str]:
    yield f"{view.name} ({view.uuid})"
    for label, text in (
        ("function", view.function),
        ("source", view.source_arn),
        ("state", view.state),
        ("gate", _held(snapshot, view.gate)),
        ("in flight", f"{view.in_flight} records"),
        ("lag", "unknown" if view.lag_seconds is None else _duration(view.lag_seconds)),
        ("so far", _counts(view)),
        ("last error", _plain(view.last_error or "none")),
    ):
        yield f"  {label:<11}{text}"
    if why:
        yield "  partitions" if view.runners else "  partitions none runs"
        for runner in view.runners:
            yield f"    {runner.partition}, {runner.in_flight} records: {_held(snapshot, runner.gate)}"
        yield "  failures" if view.failures else "  failures   none"
        for failure in view.failures:
            request = f" (request {failure.request_id})" if failure.request_id else ""
            yield f"    {iso(failure.at)} {_plain(failure.what)}: {_plain(failure.message)}{request}"
        yield f"  filtered   {', '.join(map(_plain, view.filtered_ids)) or 'none'}"


def _why(view: MappingView) -> dict[str, Any]:
    return {
        "runners": [
            {"partition": runner.partition, "gate": gate(runner.gate), "in_flight": runner.in_flight}
            for runner in view.runners
        ],
        "failures": [
            {"at": iso(failure.at), "what": failure.what, "message": failure.message, "request_id": failure.request_id}
            for failure in view.failures
        ],
        "filtered_ids": list(view.filtered_ids),
    }


def _held(snapshot: Snapshot, held: Gate | None) -> str:
    """What holds it, since when by the daemon's own clock, and the detail."""
    if held is None:
        return "none"
    detail = f": {_plain(held.detail)}" if held.detail else ""
    return f"{held.name} for {_duration(snapshot.at - held.since)}, since {iso(held.since)}{detail}"


def _counts(view: MappingView) -> str:
    counted = ("polled", "filtered", "succeeded", "failed")
    return ", ".join(f"{getattr(view, name)} {name}" for name in counted)


def _duration(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _plain(text: str) -> str:
    """One line that cannot steer the terminal, whatever a handler or a server wrote into it."""
    return "".join(character if character.isprintable() else " " for character in text)
