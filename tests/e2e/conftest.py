"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.faulty import FaultyServer, faulty
from tests.e2e.harness import Site
from tests.servers import Server


@pytest.fixture
def site(tmp_path: Path, sqs_server: Server) -> Site:
    """A place for one daemon, on each of two unrelated servers."""
    return Site(tmp_path, sqs_server)


@pytest.fixture
def one_site(tmp_path: Path, roto_server: Server) -> Site:
    """A place for one daemon, for what has nothing to do with the server: on the one that starts fastest."""
    return Site(tmp_path, roto_server)


@pytest.fixture
def faulty_server() -> Iterator[FaultyServer]:
    with faulty() as server:
        yield server


@pytest.fixture
def faulty_site(tmp_path: Path, faulty_server: FaultyServer) -> Site:
    """A place for one daemon, on a server that does as it is told."""
    return Site(tmp_path, faulty_server)
