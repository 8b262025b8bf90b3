"""What tests of a Kinesis stream in the owned loop share: import the fixtures by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clock import SKIPPING, owned_wall
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.near_streams import LocalKinesis

__all__ = ["anyio_backend", "broker", "owned_wall", "stream"]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


@pytest.fixture
def stream() -> FaultyKinesis:
    return FaultyKinesis()


@pytest.fixture
def broker(stream: FaultyKinesis) -> LocalKinesis:
    return LocalKinesis(stream)
