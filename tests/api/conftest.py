"""A daemon with its API, for all tests of this folder that need no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.lambda_client import client
from tests.e2e.harness import Bridge, Endpoint, Site
from tests.servers import Queue, Server

HANDLERS = Path(__file__).parent / "handlers"


def api_site(folder: Path, server: Endpoint | None) -> Site:
    """A site whose daemon serves the API, with three functions."""
    site = Site(folder, server)
    site.config["api"] = {"listen": "127.0.0.1:0"}
    for name, options in FUNCTIONS.items():
        site.function(name, code=HANDLERS, **{"Handler": "app.handler", "Timeout": 5, **options})
    return site


FUNCTIONS: dict[str, dict[str, Any]] = {
    "worker": {"max_environments": 4},
    "narrow": {"ReservedConcurrentExecutions": 1},
    "slow": {"Timeout": 1},
}


def api_url(bridge: Bridge) -> str:
    (started,) = bridge.said("started")
    return f"http://{started['api']}"


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory, roto_server: Server) -> Iterator[tuple[Site, Bridge]]:
    """The daemon, and a mapping of its configuration, `filed`."""
    site = api_site(tmp_path_factory.mktemp("api"), roto_server)
    site.mapping(roto_server.queue(VisibilityTimeout="5"), "worker", name="filed")
    with site.running() as bridge:
        yield site, bridge


@pytest.fixture(scope="package")
def api(stage: tuple[Site, Bridge]) -> Any:
    """boto3's Lambda client for it."""
    return client(api_url(stage[1]))


@pytest.fixture
def queue(roto_server: Server) -> Queue:
    """A queue that suits the functions."""
    return roto_server.queue(VisibilityTimeout="5")
