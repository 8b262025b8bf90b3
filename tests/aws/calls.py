"""What the tests of the border call."""

from __future__ import annotations

from typing import Any

import anyio

from bridge.aws import Api, Aws
from bridge.function import AwsSettings
from tests.servers import REGION
from tests.wire import Wire


def at(wire: Wire, **settings: Any) -> AwsSettings:
    return AwsSettings(endpoint_url=wire.url, **settings)


async def sqs(aws: Aws, wire: Wire, **settings: Any) -> Api:
    return await aws.api("sqs", at(wire, **settings), REGION)


async def receive(api: Api, timeout: float = 20.0) -> dict[str, Any]:
    return await api.call("ReceiveMessage", {"QueueUrl": "http://q", "WaitTimeSeconds": 20}, timeout=timeout)


async def until(reached: Any) -> None:
    """Waits for a state of the wire, which changes only by what the loop does."""
    with anyio.fail_after(10):
        while not reached():
            await anyio.sleep(0.001)
