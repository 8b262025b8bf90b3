"""Fixtures of the executors' tests."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from bridge.function import Function
from tests.executors.interpreters import interpreters
from tests.executors.surroundings import Write, function


@pytest.fixture(params=interpreters())
def python(request: pytest.FixtureRequest) -> str:
    """Each interpreter that is here."""
    version: str = request.param
    return interpreters()[version]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function of the code given, as ``app.py``."""

    def write(code: str, **settings: Any) -> Function:
        tmp_path.joinpath("app.py").write_text(dedent(code))
        return function("app.handler", code=tmp_path, **settings)

    return write
