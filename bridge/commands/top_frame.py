"""What ``bridge top`` draws, as lines of styled text for a size: no terminal is needed to make them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping as Dict, Sequence
from typing import Literal, NamedTuple
from unicodedata import combining, east_asian_width

from bridge.admin.judgement import Judgement, judge
from bridge.commands.mappings_shown import NOTHING, Known, duration, pages, printable
from bridge.snapshot import FunctionView, MappingView, Snapshot

Style = Literal["", "title", "head", "chosen", "ok", "off", "warn", "bad", "dim"]

MARKS = {"ok": " ", "off": "=", "warn": "!", "bad": "x"}
"""Level -> what tells it where there are no colours."""
KEYS = "arrows/jk choose   Enter details   p pause   r resume   q quit"
DETAIL_KEYS = "arrows/jk scroll   Esc back   p pause   r resume   q quit"

MAPPINGS = ("", "MAPPING", "STATE", "GATE", "REC/S", "IN FLIGHT", "LAG", "FAILED", "LAST ERROR")
FUNCTIONS = ("", "FUNCTION", "BUSY", "IDLE", "STARTING", "OF", "WAITING", "INVOKED", "ERRORS", "MEDIAN")
LEAVE_FIRST = ("LAST ERROR", "STATE", "FAILED", "LAG", "STARTING", "IDLE", "MEDIAN", "INVOKED")
"""Columns that a narrow screen does without, in this order."""
SOME_ERROR = 12
"""Columns of an error that are worth showing."""
TO_THE_RIGHT = frozenset((*MAPPINGS[4:8], *FUNCTIONS[2:]))


class Line(NamedTuple):
    """One line of the screen."""

    text: str
    style: Style = ""


class Look(NamedTuple):
    """The daemon at one moment, and at the one before, for rates; what its ledger says about some mappings."""

    url: str
    snapshot: Snapshot
    before: Snapshot | None = None
    failed: Known = NOTHING

    @property
    def views(self) -> tuple[MappingView, ...]:
        """The mappings, and behind them what feeds functions from their asynchronous events."""
        return (*self.snapshot.mappings, *self.snapshot.asynchronous)

    def rate(self, view: MappingView) -> float | None:
        """Records that a mapping received a second between both; none: nobody knows."""
        seconds = self.snapshot.at - self.before.at if self.before else 0.0
        before = (*self.before.mappings, *self.before.asynchronous) if self.before else ()
        earlier = next((old for old in before if old.name == view.name), None)
        if earlier is None or seconds <= 0:
            return None
        grown = view.polled - earlier.polled
        return (grown if grown >= 0 else view.polled) / seconds


def plain(look: Look) -> str:
    """A whole frame, as wide as it is, for where there is no screen."""
    return "\n".join(line.text.rstrip() for line in (*_summary(look), *_mappings(look), *_functions(look)))


def overview(look: Look, chosen: int, size: tuple[int, int], notice: Line | None = None) -> list[Line]:
    """The frame with the mapping number ``chosen`` marked, in ``size``: lines and columns. With a ``notice`` in the
    last line, else the keys."""
    height, width = size
    top, rows, functions = _summary(look), _mappings(look, width), _functions(look, width)
    room = max(1, height - len(top) - 2)  # the head of the table, and the last line
    if len(functions) + len(rows) - 1 > room:
        functions = functions[: max(0, room - (len(rows) - 1))] if room > len(rows) else []
    body = _window(rows[1:], chosen, max(1, room - len(functions)))
    lines = [*top, rows[0], *body, *functions]
    return _fitted(lines, (height, width), notice or Line(KEYS, "dim"))


def details(look: Look, view: MappingView, first: int, size: tuple[int, int], notice: Line | None = None) -> list[Line]:
    """All about one mapping, from line number ``first`` on."""
    text = detail_lines(look, view, size[1])
    shown = [Line(line, "title" if not number else "") for number, line in enumerate(text)]
    return _fitted(shown[first:], size, notice or Line(DETAIL_KEYS, "dim"))


def detail_lines(look: Look, view: MappingView, width: int) -> list[str]:
    """All about one mapping, in lines that are not wider."""
    lines = pages(look.snapshot, (view,), why=True, failed=look.failed).splitlines()
    return [part for line in lines for part in _wrapped(line, max(20, width))]


def clip(text: str, width: int) -> str:
    """As much of ``text`` as ``width`` columns hold; an ellipsis says that there is more."""
    if text.isascii() and len(text) <= width:
        return text
    columns = fits = 0
    for number, character in enumerate(text, 1):
        columns += columns_of(character)
        if columns > width:
            return f"{text[:fits]}…" if width > 0 else ""
        if columns < width:
            fits = number
    return text


def columns_of(text: str) -> int:
    """Columns that a terminal needs."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)


def _summary(look: Look) -> list[Line]:
    it = look.snapshot
    polling = sum(view.state == "Enabled" and view.ready for view in it.mappings)
    rates = [rate for view in it.mappings if (rate := look.rate(view)) is not None]
    stage = ", draining" if it.draining else ", starting" if it.starting else ""
    held = f"{it.buffered_bytes / 2**20:.1f} of {it.max_buffered_bytes / 2**20:.0f} MiB of payloads held"
    lines = [
        Line(f"bridge {it.version} at {look.url}, up {duration(it.at - it.started_at)}{stage}", "title"),
        Line(
            f"{polling} of {len(it.mappings)} mappings poll   {_number(sum(rates) if rates else None)} records/s   "
            f"{sum(view.in_flight for view in it.mappings)} in flight   {held}"
        ),
    ]
    for view in look.views:
        found = judge(view, it.at)
        if found.words:
            lines.append(Line(f"{MARKS[found.level]} {printable(view.name)}: {_sentence(found, it.at)}", found.level))
    return [*lines[:5], *([Line(f"  {len(lines) - 5} more", "warn")] if len(lines) > 5 else []), Line("")]


def _sentence(found: Judgement, at: float) -> str:
    return found.words + (f", for {duration(at - found.since)}" if found.since is not None else "")


def _mappings(look: Look, width: int | None = None) -> list[Line]:
    at = look.snapshot.at
    judgements = [judge(view, at) for view in look.views]
    rows = [
        (
            MARKS[found.level],
            printable(view.name),
            view.state,
            f"{view.gate.name} {duration(at - view.gate.since)}" if view.gate else "-",
            _number(look.rate(view)),
            str(view.in_flight),
            "-" if view.lag_seconds is None else duration(view.lag_seconds),
            str(view.failed),
            printable(view.last_error or "-"),
        )
        for view, found in zip(look.views, judgements, strict=True)
    ]
    if not rows:
        return [Line("no mappings yet", "dim")]
    return _table(MAPPINGS, rows, [found.level for found in judgements], width)


def _functions(look: Look, width: int | None = None) -> list[Line]:
    if not look.snapshot.functions:
        return []
    rows = [_function(it) for it in look.snapshot.functions]
    waits: list[Style] = ["warn" if any(it.waiting.values()) else "" for it in look.snapshot.functions]
    return [Line(""), *_table(FUNCTIONS, rows, waits, width)]


def _function(it: FunctionView) -> tuple[str, ...]:
    seconds = sorted(ran.seconds for ran in it.recent)
    counts = (it.busy, it.idle, it.starting, it.concurrency, sum(it.waiting.values()), it.invocations, it.errors)
    median = f"{seconds[len(seconds) // 2] * 1000:.0f} ms" if seconds else "-"
    return " ", printable(it.name), *map(str, counts), median


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[Style], width: int | None
) -> list[Line]:
    columns = {name: (name, *cells) for name, *cells in zip(head, *rows, strict=True)}
    for name in LEAVE_FIRST:
        if width is None or _width(columns) <= width:
            break
        columns.pop(name, None)
    head, *rows = zip(*columns.values(), strict=True)
    widths = [max(map(columns_of, column)) for column in columns.values()]
    texts = []
    for cells in (head, *rows):
        padded = (_padded(cell, width, name) for cell, width, name in zip(cells, widths, head, strict=True))
        texts.append("  ".join(padded))
    first, *others = texts
    return [Line(first, "head"), *(Line(text, style) for text, style in zip(others, styles, strict=True))]


def _width(columns: Dict[str, Sequence[str]]) -> int:
    """Of a table; an error may be cut short."""
    widths = {name: max(map(columns_of, cells)) for name, cells in columns.items()}
    if "LAST ERROR" in widths:
        widths["LAST ERROR"] = min(widths["LAST ERROR"], SOME_ERROR)
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _padded(cell: str, width: int, column: str) -> str:
    space = " " * (width - columns_of(cell))
    return space + cell if column in TO_THE_RIGHT else cell + space


def _window(rows: Sequence[Line], chosen: int, room: int) -> Iterator[Line]:
    """So many rows that the chosen one is among them; it is marked."""
    first = max(0, min(chosen - room // 2, len(rows) - room))
    for number, row in enumerate(rows[first : first + room], first):
        yield Line(row.text, "chosen") if number == chosen else row


def _fitted(lines: Sequence[Line], size: tuple[int, int], last: Line) -> list[Line]:
    height, width = size
    shown = [Line(clip(line.text.rstrip(), width), line.style) for line in lines[: max(0, height - 1)]]
    shown += [Line("")] * (height - 1 - len(shown))
    return [*shown, Line(clip(last.text, width - 1), last.style)]  # the last column of the last line scrolls


def _wrapped(line: str, width: int) -> Iterator[str]:
    """Parts of a line; what follows the first is set in like it."""
    inset = " " * (len(line) - len(line.lstrip()) + 4)
    while columns_of(line) > width:
        cut = line.rfind(" ", len(line) - len(line.lstrip()) + 1, width)
        cut = cut if cut > 0 else width
        yield line[:cut]
        line = inset[: width // 2] + line[cut:].lstrip()
    yield line


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
