"""A wire and our border to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.aws import Aws
from tests.wire import Answer, Wire


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
