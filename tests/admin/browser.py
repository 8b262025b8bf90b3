"""A real Chromium without a screen, and what tests do with a page in it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.servers import node_modules, require

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")

DEADLINE = 20.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-proxy-server",
)  # fmt: skip
DESKTOP = (1280, 900)
PHONE = (390, 844)


class Browser:
    """One tab. Looks are ``light`` or ``dark``."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def look(self, size: tuple[int, int] = DESKTOP, colours: str = "light") -> None:
        """The size of its window in CSS pixels, and what its user prefers."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": colours}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url: str) -> None:
        """Loads a page anew, also when only its fragment differs."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a function's body in the page."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str = "body") -> str:
        """What a person reads there; empty when there is no such element."""
        found = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return str(found)

    def find(self, selector: str) -> WebElement:
        """The first such element, waited for."""
        return self.wait(lambda: next(iter(self.driver.find_elements("css selector", selector)), None))

    def button(self, name: str, inside: str = "body") -> WebElement:
        """The button that is called so, hidden words included, waited for."""
        script = """
            return [...document.querySelectorAll(arguments[0])].find(
                it => it.textContent.replace(/\\s+/g, ' ').trim() === arguments[1])
        """
        found: WebElement = self.wait(lambda: self.run(script, f"{inside} button", name))
        return found

    def wait(self, condition: Callable[[], T | None]) -> T:
        """The first true value of ``condition``."""
        from selenium.common.exceptions import StaleElementReferenceException

        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                if found := condition():
                    return found
            except StaleElementReferenceException:
                continue
            assert time.monotonic() < deadline, f"it does not come; the page says: {self.text()[:2000]}"
            time.sleep(0.02)

    def shows(self, text: str, selector: str = "body") -> None:
        """Waits until a person can read ``text``."""
        self.wait(lambda: text in self.text(selector))

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page as it stands."""
        script = node_modules() / "axe-core" / "axe.min.js"
        require(script.exists(), "axe-core")
        if not self.run("return Boolean(window.axe)"):
            self.driver.execute_script(script.read_text())
        found = self.driver.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then(it => arguments[0](it.violations))"
        )
        return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found]

    def log(self) -> list[str]:
        """Errors and warnings of the console since it was last asked: breaches of the policy are among them."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def asked(self) -> list[str]:
        """The address of every request since it was last asked."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))  # type: ignore[no-untyped-call]
        return [it["params"]["request"]["url"] for it in events if it["method"] == "Network.requestWillBeSent"]


@contextmanager
def from_elsewhere(browser: Browser) -> Iterator[None]:
    """Its requests look like those of another machine."""
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"X-Forwarded-For": "203.0.113.7"}})
    try:
        yield
    finally:
        browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own that is gone afterwards."""
    require(importlib.util.find_spec("selenium"), "selenium")
    binary = require(shutil.which("chromium"), "chromium")
    program = require(shutil.which("chromedriver"), "chromedriver")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    with tempfile.TemporaryDirectory() as folder:
        options = ChromeOptions()
        options.binary_location = binary
        options.page_load_strategy = "eager"
        for flag in (*FLAGS, f"--user-data-dir={Path(folder) / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = Chrome(options, ChromeService(program))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
