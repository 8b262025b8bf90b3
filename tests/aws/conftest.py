"""A wire, our border to it, and both clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.aws import Aws
from tests.aws import calls
from tests.wire import Answer, Wire


@pytest.fixture(params=["fast", "sdk"])
def clients(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with both."""
    monkeypatch.setattr(calls, "client", request.param)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as wire:
        wire.on("ReceiveMessage", {"Messages": []})
        wire.on("DeleteMessage", Answer(b""))
        yield wire


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    async with Aws() as aws:
        yield aws
