"""Fixtures that every test may use."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bridge.telemetry import logs

pytest_plugins = ["tests.servers"]


@pytest.fixture
def anyio_backend() -> str | tuple[str, dict[str, object]]:
    """The ordinary loop; modules that own the clock return ``tests.clock.SKIPPING`` instead."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _loggers_follow() -> Iterator[None]:
    """A logger that one test has used does what the next one configures."""
    configure = structlog.configure

    def uncached(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", uncached)
        yield


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    """What a test has configured, also by running a command in its own process, is undone."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    if structlog.is_configured():
        logs.configure("debug", "json", io.StringIO())
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def missing(what: str) -> None:
    """Skips for want of ``what`` on a bare machine; fails where nothing may be missing (BRIDGE_REQUIRE=all)."""
    if os.environ.get("BRIDGE_REQUIRE") == "all":
        pytest.fail(f"{what} is missing, and BRIDGE_REQUIRE=all allows no skip", pytrace=False)
    pytest.skip(f"{what} is not installed")
