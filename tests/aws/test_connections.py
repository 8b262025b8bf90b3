"""Clients and their connections: few, used again, made anew when asked, and closed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anyio
import anyio.abc
import pytest

from bridge.aws import Api, Aws
from bridge.errors import (
    RemoteError,
)
from tests.aws.calls import at, receive, settings, sqs, until
from tests.servers import REGION
from tests.wire import DROPPED, GARBAGE, NEVER, Request, Wire, cut, error

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys", "clients")]


def test_the_module_is_cheap_to_import() -> None:
    heavy = "{'asyncio', 'anyio', 'aiohttp', 'aiobotocore', 'botocore', 'structlog', 'prometheus_client'}"
    code = f"import sys, bridge.aws; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


async def test_fifty_long_polls_do_not_hold_up_a_delete(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    arrival = anyio.Event()

    async def poll(request: Request) -> dict[str, Any]:
        await arrival.wait()
        return {"Messages": []}

    wire.on("ReceiveMessage", poll)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(receive, api)
            await wire.received("ReceiveMessage", 50)
            assert await api.call("DeleteMessage", {"QueueUrl": "q", "ReceiptHandle": "r"}, timeout=5) == {}
            arrival.set()


async def test_connections_are_used_again_and_closed_at_the_end(wire: Wire) -> None:
    async with Aws() as aws:
        api = await sqs(aws, wire)
        async with anyio.create_task_group() as tasks:

            async def work() -> None:
                for _ in range(20):
                    await receive(api)

            for _ in range(5):
                tasks.start_soon(work)
        assert len(wire.requests) == 100
        assert wire.connected <= 5
    await until(lambda: wire.connections == 0)


async def test_no_connection_is_left_behind_by_faults(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    for answer in [NEVER, DROPPED, cut({"Messages": []}), NEVER, GARBAGE, error("x", status=500)] * 3:
        wire.once("ReceiveMessage", answer)
        with pytest.raises(RemoteError):
            await receive(api, timeout=0.2)
    await until(lambda: wire.connections <= 1)


async def test_one_client_for_each_service_region_endpoint_and_identity(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    assert await sqs(aws, wire, region="us-west-2", account_id="1") is api
    others = [
        await aws.api("sqs", at(wire), "us-west-2"),
        await aws.api("sns", at(wire), REGION),
        await aws.api("sqs", settings(endpoint_url=wire.url + "/other"), REGION),
        await sqs(aws, wire, role_arn="arn:aws:iam::210987654321:role/bridge"),
    ]
    assert len({id(one) for one in [api, *others]}) == 5
    assert {(place.service, place.region) for place in aws.describe()} >= {("sqs", REGION), ("sqs", "us-west-2")}


async def test_opening_at_the_same_time_makes_one_client(aws: Aws, wire: Wire) -> None:
    apis: list[Api] = []

    async def open_it() -> None:
        apis.append(await sqs(aws, wire))
        await receive(apis[-1])

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(open_it)
    assert len({id(api) for api in apis}) == 1
    assert len(aws.describe()) == 1


async def test_renewal_takes_new_connections_and_lets_calls_in_flight_end(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    arrival = anyio.Event()
    answers: list[dict[str, Any]] = []

    async def slow(request: Request) -> dict[str, Any]:
        await arrival.wait()
        return {"Messages": [{"Body": "late"}]}

    async def work() -> None:
        answers.append(await receive(api))

    wire.once("ReceiveMessage", slow)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await wire.received("ReceiveMessage")
            await aws.renew("sqs", at(wire), REGION)
            await receive(api)
            assert [request.connection for request in wire.requests] == [1, 2]
            arrival.set()
    assert answers == [{"Messages": [{"Body": "late"}]}]
    await until(lambda: wire.connections == 1)
    await receive(api)
    assert wire.requests[-1].connection == 2


async def test_renewal_needs_no_endpoint(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    await wire.down()
    await aws.renew("sqs", at(wire), REGION)
    await aws.renew("sqs", at(wire), REGION)
    await wire.up()
    assert await receive(api) == {"Messages": []}
