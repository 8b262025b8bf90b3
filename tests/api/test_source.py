"""Sources that refuse, fail or vanish, on a scripted queue (ESM-38, ESM-39, ESM-54)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import api_site, api_url
from tests.api.lambda_client import client, refused
from tests.e2e.faulty import FaultyServer, faulty
from tests.e2e.harness import Bridge, eventually

INVALID = ("InvalidParameterValueException", 400)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty() as server:
        yield server


@pytest.fixture
def bridge(tmp_path: Path, server: FaultyServer) -> Iterator[Bridge]:
    with api_site(tmp_path, server).running() as bridge:
        yield bridge


@pytest.fixture
def api(bridge: Bridge) -> Any:
    return client(api_url(bridge))


@pytest.mark.parametrize("operation", ["GetQueueUrl", "GetQueueAttributes"])
def test_a_permission_that_is_missing(api: Any, server: FaultyServer, operation: str) -> None:  # ESM-39
    queue = server.queue(visibility=5)
    queue.ask(queue.fake.refuse, operation, "AccessDenied")
    text = f"The provided execution role does not have permissions to call {operation} on SQS"
    assert refused(api.create_event_source_mapping, FunctionName="slow", EventSourceArn=queue.arn) == (*INVALID, text)
    assert api.list_event_source_mappings()["EventSourceMappings"] == []


def test_an_endpoint_that_fails(api: Any, server: FaultyServer) -> None:
    queue = server.queue(visibility=5)
    queue.ask(queue.fake.refuse, "GetQueueAttributes", "InternalError")
    name, status, message = refused(api.create_event_source_mapping, FunctionName="slow", EventSourceArn=queue.arn)
    assert (name, status) == ("ServiceException", 500)
    assert message.startswith("The event source cannot be reached: ")


def test_a_mapping_whose_queue_vanished_can_be_changed(api: Any, bridge: Bridge, server: FaultyServer) -> None:
    """It never comes into its state, and is not in use for all that (ESM-54)."""
    queue = server.queue(visibility=5)
    each = api.create_event_source_mapping(FunctionName="slow", EventSourceArn=queue.arn)["UUID"]
    eventually(lambda: api.get_event_source_mapping(UUID=each)["State"] == "Enabled")
    api.update_event_source_mapping(UUID=each, Enabled=False)
    eventually(lambda: api.get_event_source_mapping(UUID=each)["State"] == "Disabled")
    gone = "AWS.SimpleQueueService.NonExistentQueue"
    queue.ask(queue.fake.refuse, "GetQueueAttributes", gone)
    queue.ask(queue.fake.refuse, "ReceiveMessage", *[gone] * 1000)
    name, status, message = refused(api.update_event_source_mapping, UUID=each, Enabled=True)
    assert (name, status) == INVALID
    assert message.startswith("Error occurred while ReceiveMessage. ")
    assert api.update_event_source_mapping(UUID=each, Enabled=True)["State"] == "Enabling"
    bridge.said("mapping_failed")
    assert api.get_event_source_mapping(UUID=each)["State"] == "Enabling"  # `Enabled` would mean that it polls
    assert api.update_event_source_mapping(UUID=each, Enabled=False)["State"] in ("Disabling", "Disabled")
    eventually(lambda: api.get_event_source_mapping(UUID=each)["State"] == "Disabled")
    api.delete_event_source_mapping(UUID=each)
    eventually(lambda: api.list_event_source_mappings()["EventSourceMappings"] == [])
