"""Configurations for tests: written to a folder with a handler beside them, and loaded as the commands do it."""

from __future__ import annotations

import sys
from collections.abc import Mapping as Dict, Sequence
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.settings import Settings, load

RUNTIME = f"python3.{sys.version_info[1]}"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:orders"
WORKER = f"functions: {{worker: {{Runtime: {RUNTIME}, Handler: app.handler, CodeUri: .}}}}\n"
"""A function that is all right."""
HOME = {"HOME": "/home/somebody"}


def mapped(options: str = "", queue: str = QUEUE) -> str:
    """A configuration with the function and a mapping `orders`, which has these options besides (in flow style)."""
    return f"{WORKER}mappings: {{orders: {{FunctionName: worker, EventSourceArn: '{queue}', {options}}}}}\n"


def write(folder: Path, text: str) -> Path:
    (folder / "app.py").write_text("def handler(event, context):\n    return event\n")
    file = folder / "bridge.yaml"
    file.write_text(text)
    return file


def settings(folder: Path, text: str, environ: Dict[str, str] | None = None, sets: Sequence[str] = ()) -> Settings:
    return load(write(folder, text), {**HOME, **(environ or {})}, sets)


def problems(folder: Path, text: str, environ: Dict[str, str] | None = None, sets: Sequence[str] = ()) -> list[str]:
    """What is wrong with it, without the folder's name."""
    with pytest.raises(ConfigError) as raised:
        settings(folder, text, environ, sets)
    return [problem.replace(f"{folder}/", "") for problem in raised.value.problems]


def problem(folder: Path, text: str, environ: Dict[str, str] | None = None, sets: Sequence[str] = ()) -> str:
    """The one thing that is wrong with it."""
    (only,) = problems(folder, text, environ, sets)
    return only


def warnings(folder: Path, text: str) -> list[str]:
    return [warning.replace(f"{folder}/", "") for warning in settings(folder, text).warnings]
