"""What the tests of the border call."""

from __future__ import annotations

from typing import Any

import anyio

from bridge.aws import Api, Aws
from bridge.function import AwsSettings
from tests.servers import REGION
from tests.wire import Request, Wire

client: Any = None
"""The setting of that name, for all of these calls (fixture ``clients``)."""


def settings(**given: Any) -> AwsSettings:
    return AwsSettings(**{"client": client, **given})


def at(wire: Wire, **given: Any) -> AwsSettings:
    return settings(endpoint_url=wire.url, **given)


async def sqs(aws: Aws, wire: Wire, **given: Any) -> Api:
    return await aws.api("sqs", at(wire, **given), REGION)


async def receive(api: Api, timeout: float = 20.0) -> dict[str, Any]:
    return await api.call("ReceiveMessage", {"QueueUrl": "http://q", "WaitTimeSeconds": 20}, timeout=timeout)


def by_sdk(request: Request) -> bool:
    """Whether the SDK made it."""
    return "amz-sdk-request" in request.headers


async def until(reached: Any) -> None:
    """Waits for a state of the wire, which changes only by what the loop does."""
    with anyio.fail_after(10):
        while not reached():
            await anyio.sleep(0.001)
