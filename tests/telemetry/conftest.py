"""Log lines that a test can read."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from bridge.telemetry import logs


class Lines(io.StringIO):
    """A stream for log lines, without a descriptor."""

    def read_all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def lines() -> Lines:
    """JSON logging at info, into memory."""
    stream = Lines()
    logs.configure("info", "json", stream)
    return stream
