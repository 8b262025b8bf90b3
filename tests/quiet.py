"""For tests that run commands in their own process: what a command does to logging is undone."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from bridge.telemetry import logs


@contextmanager
def logging_restored() -> Iterator[None]:
    """Afterwards other tests see what they log."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        logs.configure("debug", "json", io.StringIO())
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
