"""What comes back from the wire is the answer or an error of ours, in time."""

from __future__ import annotations

import functools
import random
from typing import Any

import anyio
import anyio.abc
import pytest

from bridge.aws import Api, Aws
from bridge.errors import (
    AccessDenied,
    NotFound,
    OverLimit,
    Rejected,
    RemoteError,
    ServiceFault,
    Throttled,
    Unreachable,
)
from bridge.faults import persist
from bridge.telemetry.metrics import Metrics
from tests.aws.calls import receive, settings, sqs
from tests.servers import REGION
from tests.wire import DROPPED, GARBAGE, NEVER, Answer, Wire, cut, error

DEEP = b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys", "clients")]


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (
            error("com.amazonaws.sqs#QueueDoesNotExist", query_code="AWS.SimpleQueueService.NonExistentQueue"),
            NotFound,
            "AWS.SimpleQueueService.NonExistentQueue",
        ),
        (error("com.amazonaws.sqs#QueueDoesNotExist"), NotFound, "QueueDoesNotExist"),
        (error("com.amazonaws.sqs#OverLimit", status=403), OverLimit, "OverLimit"),
        (error("com.amazonaws.sqs#RequestThrottled"), Throttled, "RequestThrottled"),
        (error("ThrottlingException"), Throttled, "ThrottlingException"),
        (error("com.amazon.coral.service#AccessDeniedException"), AccessDenied, "AccessDeniedException"),
        (error("com.amazonaws.sqs#ReceiptHandleIsInvalid"), Rejected, "ReceiptHandleIsInvalid"),
        (error("InternalFailure", status=500), ServiceFault, "InternalFailure"),
        (error("", status=503), ServiceFault, "503"),
        (Answer("<html>bad gateway</html>", 502), ServiceFault, "502"),
        (Answer("", 429), Throttled, "429"),
        (Answer("not here", 404), NotFound, "404"),
        (Answer("[]", 400), ServiceFault, "ResponseParserError"),
        (Answer("null", 500), ServiceFault, "ResponseParserError"),
        (GARBAGE, ServiceFault, "ResponseParserError"),
        (Answer("[]"), ServiceFault, "ResponseParserError"),
        (Answer("null"), ServiceFault, "ResponseParserError"),
        (Answer(b'{"Messages": "\xff"}'), ServiceFault, "ResponseParserError"),
        (Answer(DEEP), ServiceFault, "ResponseParserError"),
        (Answer(DEEP, 500), ServiceFault, None),
        (DROPPED, Unreachable, "ConnectionClosedError"),
        (cut({"Messages": []}), Unreachable, "ConnectionClosedError"),
        (Answer({}, headers={"content-length": "nonsense"}), Unreachable, None),
    ],
    ids=lambda value: f"{value.status}-{str(value.body)[:24]}" if isinstance(value, Answer) else str(value),
)
async def test_faults_of_the_wire(
    aws: Aws, wire: Wire, answer: Answer, kind: type[RemoteError], code: str | None
) -> None:
    api = await sqs(aws, wire)
    wire.once("ReceiveMessage", answer)
    with pytest.raises(RemoteError) as raised:
        await receive(api)
    assert type(raised.value) is kind
    assert code is None or raised.value.code == code
    assert "\n" not in str(raised.value)
    assert await receive(api) == {"Messages": []}  # and it goes on


async def test_whatever_comes_is_an_answer_or_our_error(aws: Aws, wire: Wire) -> None:
    chance = random.Random(7)
    api = await sqs(aws, wire)
    bodies = [
        "",
        "{}",
        "[]",
        "1",
        '{"__type": 1}',
        '{"__type": null, "message": []}',
        '{"Messages": 1}',
        "\ufeff{}",
        "{",
    ]
    statuses = [200, 204, 206, 226, 299, 400, 418, 451, 500, 505, 599]
    for number in range(330):
        status = chance.choice(statuses if number < 300 else [300, 304, 307, *statuses])
        headers = {"x-amzn-query-error": chance.choice(["", ";", "a;b;c", "OverLimit;Sender"])}
        body = chance.choice(bodies).encode() + chance.choice([b"", b"\x00", chance.randbytes(3)])
        wire.once("ReceiveMessage", Answer(body, status, headers))
        try:
            assert isinstance(await receive(api), dict)
        except RemoteError as ours:
            assert ours.code  # noqa: PT017 - either is right


async def test_an_empty_body_is_an_empty_answer(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    assert await api.call("DeleteMessage", {"QueueUrl": "http://q", "ReceiptHandle": "r"}, timeout=5) == {}


async def test_the_answer_is_the_json_as_it_came(aws: Aws, wire: Wire) -> None:
    body = {"Messages": [{"Body": "b", "Unheard": {"of": [1.5, None]}}], "New": True}
    wire.once("ReceiveMessage", body)
    assert await receive(await sqs(aws, wire)) == body


async def test_no_answer_ends_at_the_deadline(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    wire.once("ReceiveMessage", NEVER)
    began = anyio.current_time()
    with pytest.raises(Unreachable, match=r"no answer within 0\.3 s") as raised:
        await receive(api, timeout=0.3)
    assert raised.value.code == "Timeout"
    assert 0.29 < anyio.current_time() - began < 5
    assert await receive(api) == {"Messages": []}


async def test_a_trickle_ends_at_the_deadline_too(aws: Aws, wire: Wire) -> None:
    """A total deadline, not one between two bytes."""
    api = await sqs(aws, wire)
    long = Answer({"Messages": []}, headers={"content-length": "9999"})  # more is promised than comes
    wire.once("ReceiveMessage", long)
    with pytest.raises(Unreachable, match="no answer within"):
        await receive(api, timeout=0.3)


async def test_cancellation_from_outside_is_no_error(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    wire.once("ReceiveMessage", NEVER)
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive, api)
            await wire.received("ReceiveMessage")
            scope.cancel()
    assert scope.cancelled_caught
    assert await receive(api) == {"Messages": []}


async def test_the_endpoint_goes_and_comes_back(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    await receive(api)
    await wire.down()
    for _ in range(3):
        with pytest.raises(Unreachable, match=wire.url):
            await receive(api)
    await wire.up()
    assert await receive(api) == {"Messages": []}


async def test_patience_lasts_until_the_endpoint_is_back(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    await wire.down()
    told: list[str | None] = []
    waits = anyio.Event()

    def trouble(line: str | None) -> None:
        told.append(line)
        waits.set()

    answers: list[dict[str, Any]] = []

    async def work() -> None:
        answers.append(await persist(lambda: receive(api), trouble=trouble))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await waits.wait()
            await wire.up()
    assert answers == [{"Messages": []}]
    assert len(told) == 2
    assert wire.url in (told[0] or "")
    assert told[1] is None


async def test_tls_with_a_port_that_has_none_says_what_to_do(aws: Aws) -> None:
    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as plain, anyio.create_task_group() as tasks:
        tasks.start_soon(plain.serve, answer)
        port = plain.extra(anyio.abc.SocketAttribute.local_port)
        api = await aws.api("sqs", settings(endpoint_url=f"https://127.0.0.1:{port}"), REGION)
        with pytest.raises(Unreachable, match="AWS_CA_BUNDLE") as raised:
            await receive(api)
        tasks.cancel_scope.cancel()
    assert raised.value.code == "SSLError"


async def test_requests_are_counted_by_operation_and_code(wire: Wire) -> None:
    metrics = Metrics()
    async with Aws(metrics.api_meter()) as aws:
        api = await sqs(aws, wire)
        wire.once("ReceiveMessage", error("ThrottlingException"), NEVER, NEVER)
        await receive_and_ignore(api)
        await receive_and_ignore(api, timeout=0.1)
        with anyio.move_on_after(0.1):
            await receive(api)
        await receive(api)
        await receive(api)
    count = functools.partial(metrics.registry.get_sample_value, "bridge_source_api_requests_total")
    labels = {"service": "sqs", "op": "ReceiveMessage"}
    expected = {"OK": 2.0, "ThrottlingException": 1.0, "Timeout": 1.0, "Cancelled": 1.0}
    assert {code: count({**labels, "code": code}) for code in expected} == expected
    assert metrics.registry.get_sample_value("bridge_source_api_seconds_count", labels) == 5.0


async def receive_and_ignore(api: Api, timeout: float = 20.0) -> None:
    with pytest.raises(RemoteError):
        await receive(api, timeout=timeout)
