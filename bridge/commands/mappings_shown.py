"""How ``bridge mappings`` shows mappings: a table, a page for each, or JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping as Dict, Sequence
from typing import Any, NamedTuple

from bridge.admin.views import blocked, gate, row
from bridge.attempt import Attempt, FailedBatch
from bridge.snapshot import Forgotten, Gate, MappingView, Snapshot, WaitView, iso

HEAD = ("NAME", "FUNCTION", "STATE", "GATE", "IN FLIGHT", "LAG", "LAST ERROR")
TO_THE_RIGHT = ("IN FLIGHT", "LAG")
PLATFORM = ("START RequestId:", "END RequestId:", "REPORT RequestId:")
"""Lines of a log that are Lambda's, not the handler's."""
NOTHING: Dict[str, Any] = {}


class Failed(NamedTuple):
    """What the failure ledger knows of one mapping."""

    batches: Sequence[FailedBatch] = ()
    """The last ones, the newest first."""
    attempts: Dict[str, Sequence[Attempt]] = {}
    """At the records that something waits for."""


Known = Dict[str, Failed | str]
"""By mapping; text: why it is not shown."""
LOG_LINES = 10
"""Of each failed attempt."""
NAMED_RECORDS = 3


def as_json(snapshot: Snapshot, views: Sequence[MappingView], *, why: bool = False, failed: Known = NOTHING) -> str:
    """The array of interfaces.md section 1; ``why`` adds what `--why` shows to people."""
    rows = (row(view) | (_why(snapshot, view, failed.get(view.name, Failed())) if why else {}) for view in views)
    return json.dumps(list(rows), indent=2)


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


def pages(snapshot: Snapshot, views: Sequence[MappingView], *, why: bool, failed: Known = NOTHING) -> str:
    """All about each mapping."""
    return "\n\n".join(
        "\n".join((*_page(snapshot, view), *(_reasons(snapshot, view, failed.get(view.name, Failed())) if why else ())))
        for view in views
    )


def forgotten(it: Forgotten) -> str:
    """What was dropped, for people."""
    return f"{it.name} ({it.uuid}): forgot where it stood in {it.partitions} partitions"


def forgotten_as_json(it: Forgotten) -> str:
    """The same as an array for programs."""
    return json.dumps([{"name": it.name, "uuid": it.uuid, "partitions": it.partitions}], indent=2)


def _cells(snapshot: Snapshot, view: MappingView) -> tuple[str, ...]:
    return (
        printable(view.name),
        view.function,
        view.state,
        f"{view.gate.name} {duration(snapshot.at - view.gate.since)}" if view.gate else "-",
        str(view.in_flight),
        "-" if view.lag_seconds is None else duration(view.lag_seconds),
        printable(view.last_error or "-"),
    )


def _page(snapshot: Snapshot, view: MappingView) -> Iterator[str]:
    yield f"{printable(view.name)} ({view.uuid})"
    for label, text in (
        ("function", view.function),
        ("source", view.source_arn),
        ("state", view.state),
        ("gate", _held(snapshot, view.gate)),
        ("in flight", f"{view.in_flight} records"),
        ("lag", "unknown" if view.lag_seconds is None else duration(view.lag_seconds)),
        ("so far", _counts(view)),
        ("last error", view.last_error or "none"),
    ):
        yield f"  {label:<11}{printable(text)}"


def _reasons(snapshot: Snapshot, view: MappingView, failed: Failed | str) -> Iterator[str]:
    yield "  partitions" if view.runners else "  partitions none runs"
    for runner in view.runners:
        yield f"    {printable(runner.partition)}, {runner.in_flight} records: {_held(snapshot, runner.gate)}"
        if runner.blocked:
            since = duration(snapshot.at - runner.blocked.since)
            yield f"      blocked for {since} by {printable(runner.blocked.line())}"
            yield from _last(failed, runner.blocked.record)
    for wait in _waits(snapshot, view):
        yield f"    {printable(wait.what)}: {_held(snapshot, wait.gate)}"
        yield from _last(failed, wait.record)
    yield "  failures" if view.failures else "  failures   none"
    for failure in view.failures:
        request = f" (request {failure.request_id})" if failure.request_id else ""
        yield f"    {iso(failure.at)} {printable(failure.what)}: {printable(failure.message)}{request}"
    if isinstance(failed, str):
        yield f"  attempts   not shown: {printable(failed)}"
    else:
        yield "  attempts" if failed.batches else "  attempts   none"
        for batch in failed.batches:
            yield from _attempt(batch)
    yield f"  filtered   {', '.join(map(printable, view.filtered_ids)) or 'none'}"


def _waits(snapshot: Snapshot, view: MappingView) -> Iterator[WaitView]:
    """What waits at its source, and what of its function is being made ready."""
    yield from view.waits
    for function in snapshot.functions:
        if function.name == view.function:
            yield from (WaitView(f"function {wait.what}", wait.gate) for wait in function.waits)


def _last(failed: Failed | str, record: str) -> Iterator[str]:
    """How the last attempt ended at the record that something waits for."""
    known = () if isinstance(failed, str) else failed.attempts.get(record, ())
    if known:
        last = known[-1]
        yield f"      {printable(record)} attempt {last.number}, {iso(last.at)}: {printable(ending(last))}"


def ending(it: Attempt | FailedBatch) -> str:
    """How an attempt ended, in a line."""
    return f"{it.outcome} {it.error_type}".rstrip() + (f": {it.message}" if it.message else "")


def _attempt(batch: FailedBatch) -> Iterator[str]:
    """One failed invocation of the ledger: why, for which records, and what the handler said last."""
    records = [f"{record} attempt {number}" for record, number in batch.records[:NAMED_RECORDS]]
    if len(batch.records) > NAMED_RECORDS:
        records.append(f"{len(batch.records) - NAMED_RECORDS} more")
    request = f", request {batch.request_id}" if batch.request_id else ""
    yield f"    {iso(batch.at)} {printable(ending(batch))} ({batch.duration:.3g} s{request})"
    yield f"      {printable(', '.join(records))}"
    for line in last_words(batch.log_tail):
        yield f"      | {printable(line)}"


def last_words(log_tail: str) -> list[str]:
    """What a handler itself printed last."""
    return [line for line in log_tail.splitlines() if line and not line.startswith(PLATFORM)][-LOG_LINES:]


def _why(snapshot: Snapshot, view: MappingView, failed: Failed | str) -> dict[str, Any]:
    return {
        "runners": [
            {
                "partition": runner.partition,
                "gate": gate(runner.gate),
                "in_flight": runner.in_flight,
                "blocked": blocked(runner.blocked) if runner.blocked else None,
            }
            for runner in view.runners
        ],
        "waits": [{"what": wait.what, "gate": gate(wait.gate)} for wait in _waits(snapshot, view)],
        "failures": [
            {"at": iso(failure.at), "what": failure.what, "message": failure.message, "request_id": failure.request_id}
            for failure in view.failures
        ],
        "attempts": None if isinstance(failed, str) else [_ledger_row(batch) for batch in failed.batches],
        "waited_for": None
        if isinstance(failed, str)
        else {
            record: [{"attempt": it.number, **_told(it)} for it in known] for record, known in failed.attempts.items()
        },
        "filtered_ids": list(view.filtered_ids),
    }


def _ledger_row(batch: FailedBatch) -> dict[str, Any]:
    return _told(batch) | {"records": [{"id": record, "attempt": number} for record, number in batch.records]}


def _told(it: Attempt | FailedBatch) -> dict[str, Any]:
    """What a program is told about a failed attempt."""
    return {
        "at": iso(it.at),
        "partition": it.partition,
        "request_id": it.request_id,
        "outcome": it.outcome,
        "error_type": it.error_type,
        "message": it.message,
        "duration": it.duration,
        "log_tail": it.log_tail,
    }


def _held(snapshot: Snapshot, held: Gate | None) -> str:
    """What holds it, since when by the daemon's own clock, and the detail."""
    if held is None:
        return "none"
    detail = f": {printable(held.detail)}" if held.detail else ""
    return f"{held.name} for {duration(snapshot.at - held.since)}, since {iso(held.since)}{detail}"


def _counts(view: MappingView) -> str:
    counted = ("polled", "filtered", "succeeded", "failed")
    return ", ".join(f"{getattr(view, name)} {name}" for name in counted)


def duration(seconds: float) -> str:
    """For people."""
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def printable(text: str) -> str:
    """One line that cannot steer the terminal, whatever a handler or a server wrote into it."""
    return "".join(character if character.isprintable() else " " for character in text)
