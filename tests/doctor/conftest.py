"""What tests of doctor and iam-policy share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.clinic import Clinic


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_keys: None) -> None:
    """No configuration and no daemon is found by accident."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BRIDGE_") and name != "BRIDGE_REQUIRE"]:
        if name != "BRIDGE_NODE_MODULES":
            monkeypatch.delenv(name)


@pytest.fixture
def clinic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Clinic]:
    """At an endpoint."""
    return lambda url: Clinic(tmp_path, capsys, url)
