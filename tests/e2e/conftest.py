"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.faulty import FaultyServer, faulty
from tests.e2e.harness import Endpoint, Site
from tests.servers import Server

NewSite = Callable[..., Site]


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[NewSite]:
    """Makes places for daemons: a folder each, and what runs there ends with the test."""
    sites: list[Site] = []

    def make(server: Endpoint | None = None, name: str = "site") -> Site:
        sites.append(Site(tmp_path / name, server))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(new_site: NewSite, sqs_server: Server) -> Site:
    """A place for one daemon, on each of two unrelated servers."""
    return new_site(sqs_server)


@pytest.fixture
def one_site(new_site: NewSite, roto_server: Server) -> Site:
    """A place for one daemon, for what has nothing to do with the server: on the one that starts fastest."""
    return new_site(roto_server)


@pytest.fixture
def faulty_server() -> Iterator[FaultyServer]:
    with faulty() as server:
        yield server


@pytest.fixture
def faulty_site(new_site: NewSite, faulty_server: FaultyServer) -> Site:
    """A place for one daemon, on a server that does as it is told."""
    return new_site(faulty_server)
