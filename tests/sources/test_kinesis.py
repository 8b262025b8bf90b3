"""The Kinesis source with the clock owned, on a stream in the test's own loop."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clock import SKIPPING, owned_wall
from tests.contracts.stream import StreamContract
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.near_streams import LocalKinesis

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("owned_wall")]
__all__ = ["owned_wall"]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return SKIPPING


class TestKinesisInTheOwnLoop(StreamContract):
    @pytest.fixture
    def broker(self) -> LocalKinesis:
        return LocalKinesis(FaultyKinesis(shards=2))
