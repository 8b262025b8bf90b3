"""The failure ledger and dead letters on the dashboard, in a real browser."""

from __future__ import annotations

import threading

import msgspec
import pytest

from bridge.errors import StateError
from tests.admin.browser import Browser, from_elsewhere
from tests.admin.control import CLICKS, DLQ, FAILED, ORDERS, PLACE, ScriptedControl, ScriptedDesk

MARKUP = "</script><script>document.title='owned'</script><b>bold</b>"


@pytest.fixture
def control() -> ScriptedControl:
    return ScriptedControl(ORDERS, CLICKS)


class TestLedger:
    def test_attempts_are_shown_when_somebody_asks(
        self, browser: Browser, daemon: str, control: ScriptedControl
    ) -> None:
        browser.open(f"{daemon}/#/mapping/orders")
        button = browser.button("Show failed attempts")
        assert ("last_failed", "orders", 20) not in control.asked
        button.click()
        browser.shows("What it said last")
        text = browser.text("main")
        for part in ("ValueError function", "no such order", "250 ms", "attempt 2", FAILED.request_id):
            assert part in text, part
        assert FAILED.log_tail.splitlines()[-1] not in text
        browser.find("summary").click()
        browser.shows(FAILED.log_tail.splitlines()[-1])
        assert browser.violations() == []


class TestLetters:
    """Looking at dead letters, trying, replaying."""

    def look(self, browser: Browser, daemon: str) -> None:
        browser.open(f"{daemon}/#/letters")
        browser.shows("orders-dlq")
        browser.driver.find_element("link text", "orders-dlq").click()
        browser.button("Look").click()
        browser.shows("Choose all")

    def choose(self, browser: Browser, *ids: str) -> None:
        for letter in ids:
            browser.find(f"input[aria-label='Choose letter {letter}']").click()

    def test_bodies_are_shown_after_a_click_and_kept_nowhere(
        self, browser: Browser, daemon: str, desk: ScriptedDesk
    ) -> None:
        desk.letters = (msgspec.structs.replace(desk.letters[0], body=MARKUP, size=99_999), *desk.letters[1:])
        self.look(browser, daemon)
        text = browser.text("main")
        for part in ("m-1", "received 5 times", "ValueError no such order", "1 failed attempt in the ledger",
                     "expires in 1 d", "not told", "to queue orders (account 123456789012, eu-west-1)"):  # fmt: skip
            assert part in text, part
        assert MARKUP not in browser.run("return document.documentElement.outerHTML.replaceAll('&lt;', '<')")
        browser.button("Show the body of letter 1").click()
        browser.shows(MARKUP, "tr.more pre")
        browser.shows("of 99,999 characters")
        assert browser.violations() == []
        browser.button("Hide the body of letter 1").click()
        browser.wait(lambda: MARKUP not in browser.text("main"))
        stores = (
            "return [localStorage.length, sessionStorage.length, document.cookie, await caches.keys()].flat().join('')"
        )
        assert browser.run(f"return (async () => {{ {stores} }})()") == "00"
        browser.driver.find_element("link text", "Functions").click()
        browser.shows("worker", "main")
        assert browser.run("return JSON.stringify(S.look)") == "null"
        assert browser.log() == []

    def test_a_dry_run_and_then_a_replay_of_what_was_chosen(
        self, browser: Browser, daemon: str, desk: ScriptedDesk
    ) -> None:
        self.look(browser, daemon)
        self.choose(browser, "m-1", "m-3")
        browser.button("Try dry").click()
        browser.shows("Dry run, nothing was changed: 2 would be sent.")
        assert desk.asked[-1] == ("replay", DLQ, ["m-1", "m-3"], True)
        gate = desk.gates["m-3"] = threading.Event()
        browser.button("Replay…").click()
        browser.shows("Replay 2 letters?", "dialog")
        browser.shows("To queue orders (account 123456789012, eu-west-1).", "dialog")
        assert len([asked for asked in desk.asked if asked[0] == "replay"]) == 1
        browser.button("Replay", "dialog").click()
        browser.shows("1 of 2 letters")
        browser.shows("new-m-1")
        assert browser.run("return document.querySelector('.run progress').value") == 1
        gate.set()
        browser.shows("Replay ended: 2 sent. 1 letter left.")
        assert "Replay ended" in browser.run("return document.getElementById('say').textContent")
        assert desk.asked[-1] == ("replay", DLQ, ["m-1", "m-3"], False)

    def test_it_can_be_stopped(self, browser: Browser, daemon: str, desk: ScriptedDesk) -> None:
        desk.gates["m-2"] = threading.Event()
        self.look(browser, daemon)
        browser.find(".all input").click()
        browser.button("Replay…").click()
        browser.button("Replay", "dialog").click()
        browser.shows("1 of 3 letters")
        browser.button("Stop").click()
        browser.shows("Replay stopped: 1 sent. 2 letters left.")
        assert ("stopped", 1) in desk.asked

    def test_failures_are_told_letter_by_letter(self, browser: Browser, daemon: str, desk: ScriptedDesk) -> None:
        desk.fate = "failed"
        self.look(browser, daemon)
        self.choose(browser, "m-2")
        browser.button("Replay…").click()
        browser.button("Replay", "dialog").click()
        browser.shows("Replay ended: 1 failed.")
        desk.failure = StateError("the journal is in use by process 17")
        browser.button("Try dry").click()
        browser.shows("the journal is in use by process 17")

    def test_from_elsewhere_nothing_is_asked_before_somebody_gives_the_token(
        self, browser: Browser, daemon: str, desk: ScriptedDesk
    ) -> None:
        with from_elsewhere(browser):
            browser.open(f"{daemon}/#/letters")
            browser.shows("From another machine this needs the token.")
            assert desk.asked == []
            browser.button("Find dead-letter queues").click()
            browser.find("dialog input").send_keys("s3cret\ue007")
            browser.shows("orders-dlq")

    def test_empty_places_and_those_that_cannot_be_asked(
        self, browser: Browser, daemon: str, desk: ScriptedDesk
    ) -> None:
        desk.there = ()
        browser.open(f"{daemon}/#/letters")
        browser.shows("No dead-letter queues")
        desk.there = (msgspec.structs.replace(PLACE, waiting=None, trouble="access denied"),)
        desk.letters = ()
        browser.open(f"{daemon}/#/letters")
        browser.shows("access denied")
        browser.driver.find_element("link text", "orders-dlq").click()
        browser.button("Look").click()
        browser.shows("Nothing is there")
