"""Fixtures of the tests in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.admin import feed
from tests.admin.browser import Browser, chromium
from tests.admin.control import ScriptedControl, ScriptedDesk, served


@pytest.fixture(scope="session")
def tab() -> Iterator[Browser]:
    """One browser for all: to start one takes a second."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(tab: Browser, monkeypatch: pytest.MonkeyPatch) -> Browser:
    """It looks as a desktop does, has said nothing yet, and is told ten times a second."""
    monkeypatch.setattr(feed, "EVERY", 0.1)
    tab.look()
    tab.log()
    tab.asked()
    return tab


@pytest.fixture
def desk() -> ScriptedDesk:
    return ScriptedDesk()


@pytest.fixture
def daemon(control: ScriptedControl, desk: ScriptedDesk) -> Iterator[str]:
    """The URL of an admin server in front of the module's own ``control``."""
    with served(control, "s3cret", desk=desk) as url:
        yield url
