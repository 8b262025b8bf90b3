"""`bridge top` against a real admin server with a scripted daemon behind it: its frames, and it in a real terminal."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.commands import main
from bridge.commands.top_frame import Line, Look, clip, columns_of, detail_lines, details, overview, plain
from bridge.errors import StateError
from bridge.snapshot import Gate, Ran, Snapshot
from tests.admin.control import CLICKS, ORDERS, STARTED, WORKER, ScriptedControl, served, view
from tests.servers import require

BROKEN = view(
    "broken", ready=False, gate=Gate("opening", STARTED + 39, "no such queue"), last_error="NotFound: no such queue"
)
TOKEN = "s3cret"
DEADLINE = 20.0


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration and no daemon is found by accident."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def control() -> ScriptedControl:
    return ScriptedControl(ORDERS, CLICKS, BROKEN)


def later(snapshot: Snapshot, seconds: float, polled: int) -> Snapshot:
    """The same daemon, after the first mapping received so many more."""
    first, *others = snapshot.mappings
    first = msgspec.structs.replace(first, polled=first.polled + polled)
    return msgspec.structs.replace(snapshot, at=snapshot.at + seconds, mappings=(first, *others))


class TestFrame:
    def test_what_it_says(self, control: ScriptedControl) -> None:
        before = control.snapshot()
        functions = (msgspec.structs.replace(WORKER, waiting={"orders": 2}, recent=(Ran(0.25, ok=True),)),)
        now = msgspec.structs.replace(later(before, 2, 50), functions=functions)
        assert plain(Look("http://x", now, before)).splitlines() == [
            "bridge 0.1.0 at http://x, up 1.7 min",
            "2 of 3 mappings poll   25.0 records/s   7 in flight   0.0 of 256 MiB of payloads held",
            "x broken: its source cannot be opened, for 1.1 min",
            "",
            "   MAPPING  STATE    GATE             REC/S  IN FLIGHT    LAG  FAILED  LAST ERROR",
            "   orders   Enabled  window 5.1 s      25.0          7  3.2 s       2  ValueError: no such order",
            "   clicks   Enabled  -                  0.0          0      -       0  -",
            "x  broken   Enabled  opening 1.1 min    0.0          0      -       0  NotFound: no such queue",
            "",
            "   FUNCTION  BUSY  IDLE  STARTING  OF  WAITING  INVOKED  ERRORS  MEDIAN",
            "   worker       2     1         0   4        2        0       0  250 ms",
        ]

    def test_a_rate_that_nobody_knows_is_no_zero(self, control: ScriptedControl) -> None:
        now = control.snapshot()
        assert Look("", now).rate(now.mappings[0]) is None
        assert Look("", now, now).rate(now.mappings[0]) is None
        reset = later(now, 2, -90)  # its counters began anew
        assert Look("", reset, now).rate(reset.mappings[0]) == 5

    def test_asynchronous_events_stand_behind_the_mappings(self, control: ScriptedControl) -> None:
        control.asynchronous = (view("worker:async", source="async", gate=Gate("retrying", STARTED + 90)),)
        frame = plain(Look("", control.snapshot()))
        assert "worker:async  Enabled  retrying 10.0 s" in frame
        look = Look("", control.snapshot())
        assert detail_lines(look, look.views[-1], 80)[0].startswith("worker:async")

    def test_no_mappings_and_a_stop(self) -> None:
        control = ScriptedControl(functions=())
        control.draining = True
        frame = plain(Look("", control.snapshot()))
        assert "no mappings yet" in frame
        assert "draining" in frame
        assert len(overview(Look("", control.snapshot()), 0, (10, 80))) == 10

    @pytest.mark.parametrize("size", [(1, 1), (2, 10), (3, 300), (8, 40), (24, 80), (60, 200)])
    def test_it_fits_every_size(self, control: ScriptedControl, size: tuple[int, int]) -> None:
        control.mappings["wide"] = view("wide", last_error="世界" * 100)
        look = Look("http://127.0.0.1:9464", control.snapshot())
        for lines in (overview(look, 3, size), details(look, look.snapshot.mappings[3], 0, size)):
            assert len(lines) <= max(size[0], 1)
            assert all(columns_of(line.text) <= size[1] for line in lines)
            assert columns_of(lines[-1].text) < max(size[1], 2)

    def test_a_narrow_screen_keeps_what_matters(self, control: ScriptedControl) -> None:
        lines = overview(Look("", control.snapshot()), 0, (24, 60))
        head = next(line.text for line in lines if line.style == "head")
        assert head.split() == ["MAPPING", "GATE", "REC/S", "IN", "FLIGHT", "LAG", "FAILED"]

    def test_the_chosen_one_of_many_is_always_there(self) -> None:
        look = Look("", ScriptedControl(*(view(f"m{number:02}") for number in range(50))).snapshot())
        for chosen in range(50):
            lines = overview(look, chosen, (12, 80))
            [marked] = [line.text for line in lines if line.style == "chosen"]
            assert f"m{chosen:02}" in marked

    def test_details_name_gate_and_failures_in_lines_that_fit(self, control: ScriptedControl) -> None:
        look = Look("", control.snapshot())
        lines = detail_lines(look, ORDERS, 40)
        assert all(len(line) <= 40 for line in lines)
        text = " ".join(" ".join(lines).split())
        for part in ("window for 3.1 s", "3.1 of 5 s, 7 of 10 records", "ValueError: no such order", "m-1, m-2"):
            assert part in text
        assert details(look, ORDERS, 2, (5, 40))[0] == Line(lines[2])

    def test_names_cannot_steer_the_terminal(self) -> None:
        look = Look("", ScriptedControl(view("\x1b[2Jx\r\n\x07", last_error="\x1b]0;owned\x07")).snapshot())
        for lines in (overview(look, 0, (24, 80)), details(look, look.snapshot.mappings[0], 0, (24, 80))):
            assert all(line.text.isprintable() for line in lines)

    def test_clipping_counts_columns(self) -> None:
        assert clip("abc", 3) == "abc"
        assert clip("abcd", 3) == "ab…"
        assert clip("世界", 4) == "世界"
        assert clip("世界!", 4) == "世…"
        assert clip("e\u0301e\u0301e\u0301", 3) == "e\u0301e\u0301e\u0301"
        assert clip("abc", 0) == ""


class TestWithoutATerminal:
    def test_one_frame(self, control: ScriptedControl, capsys: pytest.CaptureFixture[str]) -> None:
        with served(control) as url:
            assert main(["top", "--admin", url, "--interval", "0.1"]) == 0
            first, err = capsys.readouterr()
            assert main(["top", "--once", "--admin", url, "--interval", "0.1"]) == 0
        assert first == capsys.readouterr().out
        assert err == ""
        assert f"at {url}" in first
        assert "orders" in first
        assert "\x1b" not in first

    def test_no_daemon_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["top", "--admin", "http://127.0.0.1:1"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("bridge: no daemon answers at http://127.0.0.1:1")

    @pytest.mark.parametrize("interval", ["0", "-1", "nan", "often", "1e9"])
    def test_an_interval_that_cannot_be(self, interval: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["top", f"--interval={interval}"]) == 2
        assert capsys.readouterr().err == f"bridge: --interval {interval}: expected seconds from 0.1 to 3600\n"


class Terminal:
    """A shell in a tmux of its own."""

    def __init__(self, tmux: str, folder: Path, environ: dict[str, str]) -> None:
        self._tmux = [tmux, "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._environ = {
            **os.environ,
            **environ,
            "PS1": "$ ",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self("new-session", "-d", "-x", "110", "-y", "30", "sh")

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], env=self._environ, capture_output=True, text=True, timeout=DEADLINE, check=True
        )
        return done.stdout

    @property
    def screen(self) -> str:
        return self("capture-pane", "-p")

    def keys(self, *keys: str) -> None:
        self("send-keys", *keys)

    def type(self, line: str) -> None:
        self("send-keys", "-l", line)
        self.keys("Enter")

    def wait(self, condition: Callable[[str], object]) -> str:
        """The first screen that is so."""
        deadline = time.monotonic() + DEADLINE
        while not condition(screen := self.screen):
            assert time.monotonic() < deadline, screen
            time.sleep(0.02)
        return screen

    def shows(self, *texts: str) -> str:
        return self.wait(lambda screen: all(text in screen for text in texts))


@pytest.fixture
def daemon(control: ScriptedControl) -> Iterator[str]:
    with served(control, TOKEN) as url:
        yield url


@pytest.fixture
def terminal(tmp_path: Path, daemon: str) -> Iterator[Terminal]:
    tmux = require(shutil.which("tmux"), "tmux")
    terminal = Terminal(tmux, tmp_path, {"BRIDGE_ADMIN": daemon, "LC_ALL": "C.UTF-8", "COLUMNS": "80", "LINES": "24"})
    try:
        yield terminal
    finally:
        terminal("kill-server")


START = "stty -g >before; bridge top --interval 0.1; echo ended $?; stty -g | cmp - before && echo restored"


class TestInATerminal:
    def test_it_is_live_and_resizes(self, terminal: Terminal, control: ScriptedControl) -> None:
        terminal.type(START)
        terminal.shows("orders", "window", "q quit")
        control.mappings["new"] = view("new", in_flight=4711, last_error="E: a long story")
        terminal.shows("4711", "a long story")
        terminal("resize-window", "-x", "50", "-y", "12")
        screen = terminal.wait(lambda screen: "4711" in screen and "a long story" not in screen)
        assert len(screen.splitlines()) == 12
        assert screen.splitlines()[-1].startswith("arrows/jk choose")
        terminal("resize-window", "-x", "120", "-y", "40")
        terminal.wait(lambda screen: "a long story" in screen and len(screen.splitlines()) == 40)
        terminal("resize-window", "-x", "8", "-y", "2")
        terminal.wait(lambda screen: len(screen.splitlines()) <= 2)
        terminal("resize-window", "-x", "110", "-y", "30")
        terminal.shows("a long story")
        terminal.keys("q")
        screen = terminal.shows("ended 0", "restored")
        assert "MAPPING" not in screen  # the screen is as it was before

    def test_details_pause_and_resume(self, terminal: Terminal, control: ScriptedControl) -> None:
        terminal.type(START)
        terminal.shows("q quit")
        terminal.keys("Down", "Up", "Enter")
        terminal.shows("gate       window for 3.1 s", "3.1 of 5 s, 7 of 10 records", "no such order", "Esc back")
        terminal.wait(lambda _: ("last_failed", "orders", 10) in control.asked)
        terminal.keys("Escape")
        terminal.shows("REC/S")
        terminal.keys("p")
        terminal.shows("pause orders, until it is resumed, also after a restart? y/n")
        terminal.keys("n")
        terminal.shows("q quit")
        assert not [asked for asked in control.asked if asked[0] == "pause"]
        terminal.keys("p", "y")
        terminal.shows("orders is paused", "paused")
        assert ("pause", "orders", False) in control.asked
        terminal.keys("r")
        terminal.shows("resume orders")
        terminal.keys("y")
        terminal.shows("orders is resumed")
        control.failure = StateError("state file /x: its disk is full; free some space")
        control.asynchronous = (view("worker:async", source="async"),)
        terminal.shows("worker:async")
        terminal.keys("G", "p")
        terminal.shows("asynchronous events of a function cannot be paused")
        terminal.keys("g", "j", "p", "y")
        terminal.shows("clicks: state file /x: its disk is full")
        terminal.keys("q")
        terminal.shows("ended 0", "restored")

    def test_the_daemon_goes_and_comes_again(self, terminal: Terminal, control: ScriptedControl) -> None:
        with served(control) as url:
            terminal.type(f"bridge top --interval 0.1 --admin {url}; echo ended $?")
            terminal.shows("orders")
        terminal.shows("no answer for", "trying again: no daemon answers", "orders")
        control.mappings["back"] = view("back")
        with served(control, port=int(url.rpartition(":")[2])):
            screen = terminal.shows("back")
            assert "no answer" not in screen
            terminal.keys("C-c")
            terminal.shows("ended 130")

    @pytest.mark.parametrize(("signal", "status"), [("TERM", 143), ("HUP", 129), ("INT", 130)])
    def test_a_signal_leaves_the_terminal_as_it_was(self, terminal: Terminal, signal: str, status: int) -> None:
        terminal.type(START.replace("bridge top --interval 0.1", "sh -c 'echo $$ >pid; exec bridge top'"))
        terminal.shows("q quit")
        os.kill(int(Path("pid").read_text()), {"TERM": 15, "HUP": 1, "INT": 2}[signal])
        screen = terminal.shows(f"ended {status}", "restored")
        assert "MAPPING" not in screen

    def test_a_terminal_that_cannot_place_text_gets_one_frame(self, terminal: Terminal) -> None:
        terminal.type("TERM=dumb bridge top --interval 0.1; echo ended $?")
        terminal.shows("orders", "FUNCTION", "ended 0")

    def test_it_is_put_aside_and_taken_up_again(self, terminal: Terminal) -> None:
        terminal.type("set -m; bridge top --interval 0.1; echo aside")
        terminal.shows("q quit")
        terminal.keys("C-z")
        terminal.wait(lambda screen: "q quit" not in screen)
        terminal.type("fg")
        terminal.shows("orders", "q quit")
        terminal.keys("q")
        terminal.wait(lambda screen: "q quit" not in screen)

    def test_without_colours_and_unicode(self, terminal: Terminal, control: ScriptedControl) -> None:
        control.mappings["世界"] = view("世界")
        terminal.type(
            "NO_COLOR=1 PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 LC_ALL=POSIX bridge top --interval 0.1; echo ended $?"
        )
        terminal.shows("orders", "??")
        assert not re.search("\x1b\\[[0-9;]*[34][0-7]", terminal("capture-pane", "-p", "-e"))
        terminal.keys("q")
        terminal.shows("ended 0")
