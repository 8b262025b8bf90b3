"""Log lines that a test can read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bridge.telemetry import logs


class Lines(io.StringIO):
    """A stream for log lines, without a descriptor."""

    def read_all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    """What the test configures is undone."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logs.configure("info", "json", io.StringIO())
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines(fresh_logging: None) -> Lines:
    """JSON logging at info, into memory."""
    stream = Lines()
    logs.configure("info", "json", stream)
    return stream
