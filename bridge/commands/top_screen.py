"""``bridge top`` on a real terminal: looks in one thread, keys and drawing in the other, and the terminal as it was
before when it ends, however it ends."""

from __future__ import annotations

import curses
import locale
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from bridge.admin.client import Client
from bridge.commands.mappings import in_ledger
from bridge.commands.mappings_shown import duration, printable
from bridge.commands.top_frame import Line, Look, Style, detail_lines, details, overview
from bridge.errors import BridgeError
from bridge.snapshot import MappingView, Snapshot

KEY_WAIT = 100
"""Milliseconds: how soon what is new is drawn."""
NOTICE_STAYS = 6.0

UP, DOWN = (curses.KEY_UP, ord("k")), (curses.KEY_DOWN, ord("j"))
ENTER = (curses.KEY_ENTER, 10, 13)
ESCAPE = (27, curses.KEY_LEFT, curses.KEY_BACKSPACE, 127)
STEPS = {
    **dict.fromkeys(UP, -1), **dict.fromkeys(DOWN, 1), curses.KEY_PPAGE: -10, curses.KEY_NPAGE: 10,
    curses.KEY_HOME: -(1 << 20), curses.KEY_END: 1 << 20, ord("g"): -(1 << 20), ord("G"): 1 << 20,
}  # fmt: skip
"""Key -> lines down."""
COLOURS: dict[Style, int] = {"ok": curses.COLOR_GREEN, "warn": curses.COLOR_YELLOW, "bad": curses.COLOR_RED}


def watch(client: Client, snapshot: Snapshot, interval: float) -> int:
    """Shows the daemon until somebody ends it; the exit status. A signal that ends it puts the terminal right first."""
    locale.setlocale(locale.LC_ALL, "")
    os.environ.setdefault("ESCDELAY", "25")
    for name in ("LINES", "COLUMNS"):  # with them the size would stay what they say, whatever the terminal does
        os.environ.pop(name, None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    looks = Looks(client, snapshot, interval)
    looks.start()
    return curses.wrapper(lambda window: Screen(window, client, looks).run())


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


class Looks(threading.Thread):
    """Asks the daemon again and again. What it found last, and since when there is no answer."""

    def __init__(self, client: Client, snapshot: Snapshot, interval: float) -> None:
        super().__init__(name="looks", daemon=True)
        self.look = Look(client.url, snapshot)
        self.lost: tuple[float, str] | None = None
        """Monotonic time, and why."""
        self.number = 0
        """Of the look."""
        self.wanted = ""
        """The mapping of which the ledger is asked."""
        self._client = client
        self._interval = interval
        self._soon = threading.Event()

    def run(self) -> None:
        while True:
            self._soon.wait(self._interval)
            self._soon.clear()
            try:
                snapshot = self._client.snapshot()
            except BridgeError as error:
                since = self.lost[0] if self.lost else time.monotonic()
                self.lost = since, str(error)
            else:
                before = self.look.snapshot
                earlier = before if before.pid == snapshot.pid else None
                look = Look(self._client.url, snapshot, earlier)
                failed = {it.name: in_ledger(self._client, it) for it in look.views if it.name == self.wanted}
                self.look = look._replace(failed=failed)
                self.lost = None
            self.number += 1

    def again(self) -> None:
        """Does not wait for the end of the interval."""
        self._soon.set()


class Screen:
    """What is chosen, what is asked, and what is drawn."""

    def __init__(self, window: curses.window, client: Client, looks: Looks) -> None:
        self._window = window
        self._client = client
        self._looks = looks
        self._chosen = ""
        """Name of a mapping: it stays chosen when others come and go."""
        self._open = False
        """Its details are shown."""
        self._first = 0
        """Line of the details that stands at the top."""
        self._asked: tuple[str, MappingView] | None = None
        """A change that waits for a yes."""
        self._notice: tuple[float, Line] | None = None
        self._styles = _styles()
        window.timeout(KEY_WAIT)
        window.keypad(True)

    def run(self) -> int:
        """Until ``q``."""
        drawn: tuple[object, ...] = ()
        while True:
            state = (self._looks.number, self._window.getmaxyx(), self._notice, self._lost_for())
            if state != drawn:
                self._draw()
                drawn = state
            key = self._window.getch()
            if key == -1:
                self._forget_notice()
                continue
            if key == curses.KEY_RESIZE:
                curses.update_lines_cols()
            elif not self._act(key):
                return 0
            drawn = ()

    # Keys.

    def _act(self, key: int) -> bool:
        """Whether to go on."""
        if self._asked:
            change, view = self._asked
            self._asked, self._notice = None, None
            if key in (ord("y"), ord("Y")):
                self._change(change, view)
            return True
        if key == ord("q"):
            return False
        if key in ESCAPE:
            self._open = False
        elif key in STEPS:
            self._move(STEPS[key])
        elif chosen := self._view():
            self._act_on(chosen, key)
        self._looks.wanted = chosen.name if self._open and (chosen := self._view()) else ""
        return True

    def _act_on(self, view: MappingView, key: int) -> None:
        if key in ENTER:
            self._open, self._first = not self._open, 0
            self._looks.again()
        elif key in (ord("p"), ord("r")) and view in self._looks.look.snapshot.asynchronous:
            self._say(Line("asynchronous events of a function cannot be paused", "warn"))
        elif key == ord("p"):
            self._asked = ("pause", view)
        elif key == ord("r"):
            self._asked = ("resume", view)

    def _move(self, lines: int) -> None:
        if self._open:
            self._first += lines
            return
        mappings = self._looks.look.views
        if mappings:
            self._chosen = mappings[max(0, min(self._number() + lines, len(mappings) - 1))].name

    def _number(self) -> int:
        for number, view in enumerate(self._looks.look.views):
            if view.name == self._chosen:
                return number
        return 0

    def _view(self) -> MappingView | None:
        mappings = self._looks.look.views
        return mappings[self._number()] if mappings else None

    def _change(self, change: str, view: MappingView) -> None:
        """In a thread of its own: a daemon that hangs must not hang the screen."""
        work: Callable[[], MappingView] = (
            (lambda: self._client.resume(view.name))
            if change == "resume"
            else lambda: self._client.pause(view.name, wait=False)
        )

        def run() -> None:
            try:
                done = work()
            except BridgeError as error:
                self._say(Line(printable(f"{view.name}: {error}"), "bad"))
            else:
                self._say(Line(printable(f"{done.name} is {'paused' if change == 'pause' else 'resumed'}"), "ok"))
            self._looks.again()

        threading.Thread(target=run, name=change, daemon=True).start()

    def _say(self, line: Line) -> None:
        self._notice = time.monotonic(), line

    def _forget_notice(self) -> None:
        if self._notice and time.monotonic() - self._notice[0] > NOTICE_STAYS:
            self._notice = None

    # Drawing.

    def _draw(self) -> None:
        size = self._window.getmaxyx()
        view, look = self._view(), self._looks.look
        if self._open and view:
            most = len(detail_lines(look, view, size[1])) - size[0] + 1
            self._first = max(0, min(self._first, most))
            lines = details(look, view, self._first, size, self._last_line())
        else:
            lines = overview(look, self._number(), size, self._last_line())
        self._window.erase()
        for number, line in enumerate(lines):
            self._put(number, line, size[1])
        self._window.refresh()

    def _put(self, number: int, line: Line, width: int) -> None:
        text = line.text + " " * (width - len(line.text)) if line.style == "chosen" else line.text
        encoding = self._window.encoding  # of the terminal, which may not know each character
        try:
            text = text.encode(encoding, "replace").decode(encoding)
            self._window.insstr(number, 0, text, self._styles.get(line.style, 0))
        except curses.error:
            curses.update_lines_cols()  # it became smaller meanwhile: the next frame fits

    def _last_line(self) -> Line | None:
        """What must be said now."""
        if self._asked:
            change, view = self._asked
            what = "until it is resumed, also after a restart" if change == "pause" else "from now on it receives again"
            return Line(f"{change} {printable(view.name)}, {what}? y/n", "chosen")
        if self._notice:
            return self._notice[1]
        if lost := self._looks.lost:
            return Line(
                f"no answer for {duration(time.monotonic() - lost[0])}, trying again: {printable(lost[1])}", "bad"
            )
        return None

    def _lost_for(self) -> int | None:
        return int(time.monotonic() - self._looks.lost[0]) if self._looks.lost else None


def _styles() -> dict[Style, int]:
    """Attributes of the terminal; without colours where it has none, or NO_COLOR is set."""
    if curses.tigetstr("civis"):
        curses.curs_set(0)
    styles: dict[Style, int] = {
        "title": curses.A_BOLD, "head": curses.A_BOLD | curses.A_UNDERLINE, "chosen": curses.A_REVERSE,
        "dim": curses.A_DIM, "bad": curses.A_BOLD, "off": curses.A_DIM,
    }  # fmt: skip
    if curses.has_colors():
        curses.use_default_colors()  # what the terminal itself uses, in place of white on black
    if curses.has_colors() and not os.environ.get("NO_COLOR"):
        for number, (style, colour) in enumerate(COLOURS.items(), 1):
            curses.init_pair(number, colour, -1)
            styles[style] = styles.get(style, 0) | curses.color_pair(number)
    styles["ok"] = 0  # what is well needs no colour
    return styles
