"""Fixtures that every test may use."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.servers"]


@pytest.fixture
def anyio_backend() -> str | tuple[str, dict[str, object]]:
    """The ordinary loop; modules that own the clock return ``tests.clock.SKIPPING`` instead."""
    return "asyncio"


def missing(what: str) -> None:
    """Skips for want of ``what`` on a bare machine; fails where nothing may be missing (BRIDGE_REQUIRE=all)."""
    if os.environ.get("BRIDGE_REQUIRE") == "all":
        pytest.fail(f"{what} is missing, and BRIDGE_REQUIRE=all allows no skip", pytrace=False)
    pytest.skip(f"{what} is not installed")
