"""The dashboard in a real browser, with a scripted daemon behind the real server."""

from __future__ import annotations

import re
from urllib.parse import quote

import aiohttp
import msgspec
import pytest

from bridge.admin import feed
from bridge.admin.page import dashboard
from bridge.snapshot import Blocked, Failure, FunctionView, Gate, Ran, RunnerView, WaitView
from tests.admin.browser import DESKTOP, PHONE, Browser, from_elsewhere
from tests.admin.control import CLICKS, ORDERS, STARTED, WORKER, ScriptedControl, served, view

NOW = STARTED + 100
STUCK = view(
    "stream",
    source="kinesis",
    function="enrich",
    ordered=True,
    behind=40.0,
    lag_seconds=40.0,
    gate=Gate("retrying", NOW - 30, "attempt 4 of 10"),
    runners=(
        RunnerView(
            "shardId-000000000000",
            Gate("retrying", NOW - 30, "attempt 4 of 10"),
            100,
            NOW - 40,
            Blocked("4959033827", 100, 4, 10, NOW - 30, NOW + 17, "function"),
        ),
    ),
    failures=(Failure(NOW - 5, "KeyError", "'user'", "5f0c6e2a-0000-4000-8000-00000000000b"),),
    last_error="KeyError: 'user'",
)
BROKEN = view("broken", ready=False, gate=Gate("opening", NOW - 61, "the queue does not exist"))
PAUSED = view("paused", state="Disabled", gate=Gate("paused", NOW - 3600, "until it is resumed"))
BUSY = FunctionView(
    name="enrich",
    arn="arn:aws:lambda:eu-west-1:123456789012:function:enrich",
    concurrency=3,
    busy=2,
    idle=0,
    starting=1,
    waiting={"stream": 4},
    invocations=1234,
    errors=1,
    recent=(Ran(0.012, ok=True), Ran(0.02, ok=True), Ran(1.5, ok=False)),
)
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
MARKUP = "</script><script>document.title='owned'</script><b>bold</b>"


@pytest.fixture
def control() -> ScriptedControl:
    return ScriptedControl(ORDERS, CLICKS, STUCK, BROKEN, PAUSED, functions=(WORKER, BUSY))


class TestPolicy:
    """What the browser may do, and what it does."""

    def test_nothing_but_what_stands_in_the_page(self) -> None:
        policy = dashboard().headers["Content-Security-Policy"]
        parts = dict(part.split(" ", 1) for part in policy.split("; "))
        assert "unsafe" not in policy
        assert "*" not in policy
        assert parts["default-src"] == "'none'"
        assert re.fullmatch("'sha256-[A-Za-z0-9+/=]{44}'", parts["script-src"])
        assert re.fullmatch("'sha256-[A-Za-z0-9+/=]{44}'", parts["style-src"])
        assert parts["require-trusted-types-for"] == "'script'"

    def test_the_page_names_no_other_host_and_makes_no_markup(self) -> None:
        page = dashboard().body.decode()
        assert set(re.findall("https?://[^'\" ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
        assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval\\(|new Function", page)
        assert not re.search("localStorage|sessionStorage|indexedDB|document.cookie", page)

    @pytest.mark.anyio
    async def test_it_is_not_kept_and_not_framed(self, daemon: str) -> None:
        async with aiohttp.ClientSession() as client, client.get(f"{daemon}/") as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]

    def test_it_asks_its_own_daemon_alone_and_breaks_no_rule(self, browser: Browser, daemon: str) -> None:
        browser.open(daemon)
        browser.shows("orders")
        assert {address for address in browser.asked() if address.startswith("http")} == {
            f"{daemon}/",
            f"{daemon}/events",
        }
        assert browser.log() == []

    def test_names_and_messages_are_text_whatever_they_say(
        self, browser: Browser, daemon: str, control: ScriptedControl
    ) -> None:
        failure = Failure(NOW, MARKUP, MARKUP, MARKUP)
        gate = Gate("failing", STARTED, MARKUP)
        runner = RunnerView(MARKUP, gate, 1, NOW, Blocked(MARKUP, 1, 2, None, NOW, NOW, MARKUP))
        control.mappings = {HOSTILE: view(HOSTILE, function=MARKUP, source_arn=MARKUP, gate=gate, failures=(failure,),
                                          last_error=MARKUP, runners=(runner,), filtered_ids=(MARKUP,))}  # fmt: skip
        control.functions = (msgspec.structs.replace(BUSY, name=MARKUP),)
        for path in ("", "#/functions", f"#/mapping/{quote(HOSTILE, safe='')}"):
            browser.open(f"{daemon}/{path}")
            browser.shows(MARKUP)
            assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
            assert "owned" not in browser.run("return document.title").replace(HOSTILE, "")
        assert HOSTILE in browser.text("h1")
        assert browser.log() == []


class TestShown:
    """What a person reads."""

    def test_each_mapping_with_rate_lag_in_flight_failures_state_and_gate(self, browser: Browser, daemon: str) -> None:
        browser.open(daemon)
        browser.shows("orders")
        row = browser.text("tbody tr:nth-child(1)")
        for part in ("sqs → worker", "Enabled", "window for 3.1 s", "3.1 of 5 s, 7 of 10 records", "3.3 s", "7",
                     "2 in all", "ValueError: no such order"):  # fmt: skip
            assert part in row
        assert "Needs attention" in browser.run(
            "return [...document.querySelectorAll('section')].map(it => it.ariaLabel)"
        )
        attention = browser.text("section")
        assert attention.index("broken: its source cannot be opened") < attention.index(
            "stream: a batch of shardId-000000000000"
        )
        assert browser.run("return document.title") == "(2) Mappings · bridge"
        assert browser.run("return document.querySelector('.tile progress').position") == 1000 / 268435456

    def test_it_is_live(self, browser: Browser, daemon: str, control: ScriptedControl) -> None:
        browser.open(daemon)
        browser.shows("orders")
        control.mappings["new"] = view("new", in_flight=77)
        browser.shows("77", "tbody tr:last-child")
        control.mappings = {"orders": ORDERS}
        browser.wait(lambda: "clicks" not in browser.text("tbody"))

    def test_a_mapping_with_shards_attempts_and_failures(self, browser: Browser, daemon: str) -> None:
        browser.open(f"{daemon}/#/mapping/stream")
        browser.shows("stream", "h1")
        text = browser.text("main")
        for part in ("Shards", "shardId-000000000000", "retrying for 30 s", "attempt 4 of 10 after function",
                     "record 4959033827", "and 99 more", "next try in 17 s", "KeyError", "'user'",
                     "5f0c6e2a-0000-4000-8000-00000000000b", "Behind the tip", "40 s"):  # fmt: skip
            assert part in text, part

    def test_functions_with_environments_and_durations(self, browser: Browser, daemon: str) -> None:
        browser.open(f"{daemon}/#/functions")
        browser.shows("enrich", "main")
        card = browser.text("main li:nth-child(2)")
        for part in ("2 busy, 0 idle, 1 starting, of 3 environments at most", "Waiting batches", "1,234", "20 ms",
                     "1.5 s", "1 failed", "Fed by stream"):  # fmt: skip
            assert part in card, part
        assert browser.run("return document.querySelectorAll('main li:nth-child(2) .boxes i.busy').length") == 2

    def test_what_else_waits_and_asynchronous_events(
        self, browser: Browser, daemon: str, control: ScriptedControl
    ) -> None:
        wait = WaitView("shardId-7", Gate("parent", NOW - 12, "waits for shardId-3"))
        start = WaitView("version 3", Gate("starting", NOW - 4, "2 of 5 environments"))
        control.mappings["stream"] = msgspec.structs.replace(STUCK, waits=(wait,))
        control.functions = (WORKER, msgspec.structs.replace(BUSY, waits=(start,), events=9))
        control.asynchronous = (
            view("enrich:async", function="enrich", source="async", gate=Gate("retrying", NOW - 3)),
        )
        browser.open(f"{daemon}/#/mapping/stream")
        for part in ("Also waiting", "shardId-7", "parent for 12 s", "waits for shardId-3", "function version 3"):
            browser.shows(part, "main")
        browser.open(f"{daemon}/#/functions")
        browser.shows("version 3: starting for 4 s")
        browser.find("a[href='#/mapping/enrich%3Aasync']").click()
        browser.shows("retrying for 3 s", "main")
        assert "Pause" not in browser.text("main")

    def test_nothing_there_yet(self, browser: Browser, daemon: str, control: ScriptedControl) -> None:
        control.mappings, control.functions = {}, ()
        browser.open(daemon)
        browser.shows("No mappings yet")
        browser.open(f"{daemon}/#/functions")
        browser.shows("No functions")
        browser.open(f"{daemon}/#/mapping/gone")
        browser.shows("There is no such mapping")
        browser.open(f"{daemon}/#/no/such/place")
        browser.shows("leads nowhere")

    def test_hundreds_of_mappings(self, browser: Browser, daemon: str, control: ScriptedControl) -> None:
        control.mappings = {f"m{number}": view(f"m{number}", in_flight=number) for number in range(300)}
        browser.open(daemon)
        browser.wait(lambda: browser.run("return document.querySelectorAll('tbody tr').length") == 300)
        del control.mappings["m0"], control.mappings["m150"]
        browser.wait(lambda: browser.run("return document.querySelectorAll('tbody tr').length") == 298)
        names = browser.run("return [...document.querySelectorAll('tbody .name')].map(it => it.textContent)")
        assert names == list(control.mappings)
        assert browser.log() == []

    def test_draining_is_said(self, browser: Browser, daemon: str, control: ScriptedControl) -> None:
        control.draining = True
        browser.open(daemon)
        browser.shows("The daemon is stopping.")

    def test_finding_one_of_many_while_it_is_live(
        self, browser: Browser, daemon: str, control: ScriptedControl
    ) -> None:
        control.mappings |= {f"m{number}": view(f"m{number}") for number in range(10)}
        browser.open(daemon)
        field = browser.find("input[type=search]")
        field.send_keys("m7")
        browser.wait(lambda: browser.run("return document.querySelectorAll('tbody tr').length") == 1)
        control.mappings["m7"] = view("m7", in_flight=4711)
        browser.shows("4,711", "tbody")
        assert browser.run("return document.activeElement.type") == "search"  # drawing anew takes no focus away
        field.send_keys("x")
        browser.shows("No mapping matches “m7x”.")


class TestGone:
    def test_it_says_so_and_comes_again_by_itself(self, browser: Browser, control: ScriptedControl) -> None:
        with served(control) as url:
            browser.open(url)
            browser.shows("Live")
        browser.shows("The daemon does not answer.")
        browser.shows("Not connected")
        assert "orders" in browser.text("tbody")  # what was known is still shown, and from when
        assert "What you see is how it was at" in browser.text("main")
        control.mappings["back"] = view("back")
        with served(control, port=int(url.rpartition(":")[2])):
            browser.shows("back", "tbody")
            browser.shows("Live")
            assert "does not answer" not in browser.text("main")

    def test_one_page_too_many_is_told_so(
        self, browser: Browser, control: ScriptedControl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed, "MOST_WATCHERS", 0)
        with served(control) as url:
            browser.open(url)
            browser.shows("The daemon is there, but lets no more pages watch.")
            monkeypatch.setattr(feed, "MOST_WATCHERS", 1)
            browser.button("Try now").click()
            browser.shows("orders", "tbody")


class TestChanges:
    def test_pause_and_resume_by_keyboard_alone(self, browser: Browser, daemon: str, control: ScriptedControl) -> None:
        browser.open(daemon)
        browser.button("Pause orders").send_keys("\ue007")  # Enter
        browser.shows("Pause orders?", "dialog")
        assert "7 records in flight will finish first" in browser.text("dialog")
        assert browser.violations() == []
        browser.driver.switch_to.active_element.send_keys("\ue00c")  # Escape
        browser.wait(lambda: not browser.run("return document.querySelector('dialog').open"))
        assert control.asked == []
        browser.button("Pause orders").send_keys("\ue007")
        browser.button("Pause", "dialog").send_keys("\ue007")
        browser.shows("orders is paused until it is resumed.")
        assert control.asked == [("pause", "orders", False)]
        browser.button("Resume orders").click()
        browser.shows("orders is resumed.")
        assert control.asked[-1] == ("resume", "orders")

    def test_from_elsewhere_it_needs_the_token(self, browser: Browser, daemon: str, control: ScriptedControl) -> None:
        with from_elsewhere(browser):
            browser.open(daemon)
            browser.button("Resume paused").click()
            browser.shows("This needs the token", "dialog")
            browser.find("dialog input").send_keys("wrong")
            browser.button("Go on", "dialog").click()
            browser.shows("the token is wrong", "dialog")
            assert control.asked == []
            browser.find("dialog input").send_keys("s3cret\ue007")
            browser.shows("paused is resumed.")
            assert control.asked == [("resume", "paused")]
            browser.button("Pause orders").click()  # it is remembered as long as the page is open
            browser.button("Pause", "dialog").click()
            browser.shows("orders is paused")

    def test_what_cannot_be_done_is_said(self, browser: Browser, daemon: str, control: ScriptedControl) -> None:
        browser.open(daemon)
        browser.shows("paused", "tbody")
        del control.mappings["paused"]
        browser.run("return resume({name: 'pausd'})")
        browser.shows('no mapping "pausd"')
        assert browser.run("return document.querySelector('[role=alert]') !== null")


VIEWS = (("", "orders"), ("#/mapping/stream", "Shards"), ("#/functions", "enrich"), ("#/letters", "orders-dlq"))


@pytest.mark.parametrize(("colours", "size"), [("light", DESKTOP), ("dark", PHONE)])
def test_everybody_can_read_and_use_it(
    browser: Browser, daemon: str, control: ScriptedControl, colours: str, size: tuple[int, int]
) -> None:
    for path, wait in VIEWS:
        browser.look(size, colours)
        browser.open(f"{daemon}/{path}")
        browser.shows(wait, "main")
        assert browser.violations() == [], path
        for other in (size, PHONE, (320, 640)):
            browser.look(other, colours)
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), (other, path)
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background)[:3])) < 60) == (colours == "dark")


def test_a_new_view_is_announced_by_its_heading_and_nothing_moves_for_who_does_not_want_it(
    browser: Browser, daemon: str
) -> None:
    browser.open(daemon)
    browser.shows("orders", "tbody")
    assert browser.run("return document.getAnimations().length") == 1
    reduced = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": reduced})
    assert browser.run("return document.getAnimations().length") == 0
    browser.driver.find_element("link text", "orders").click()
    browser.shows("orders", "h1")
    assert browser.run("return document.activeElement.id") == "title"
    assert browser.run("return document.title") == "(2) orders · bridge"
