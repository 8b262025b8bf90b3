"""Streams are tested in virtual time: a week takes seconds, and a run is the same each time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clock import VirtualLoop, owned_wall

__all__ = ["owned_wall"]


@pytest.fixture
def anyio_backend(owned_wall: None) -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}
