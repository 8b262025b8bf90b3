"""The border to AWS: against two real servers, and against a wire that does what real ones do not."""

from __future__ import annotations

import base64
import functools
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from bridge.aws import Api, Aws, Credentials
from bridge.errors import (
    AccessDenied,
    ExpiredCredentials,
    NotFound,
    OverLimit,
    Rejected,
    RemoteError,
    ServiceFault,
    Throttled,
    Unreachable,
)
from bridge.faults import persist
from bridge.function import AwsSettings
from bridge.telemetry.metrics import Metrics
from tests.servers import ACCOUNT, REGION, Server, unique
from tests.wire import DROPPED, GARBAGE, NEVER, Answer, Request, Wire, cut, error

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]

ROLE = "arn:aws:iam::210987654321:role/bridge"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as wire:
        wire.on("ReceiveMessage", {"Messages": []})
        wire.on("DeleteMessage", Answer(b""))
        yield wire


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    async with Aws() as aws:
        yield aws


def at(wire: Wire, **settings: Any) -> AwsSettings:
    return AwsSettings(endpoint_url=wire.url, **settings)


async def sqs(aws: Aws, wire: Wire, **settings: Any) -> Api:
    return await aws.api("sqs", at(wire, **settings), REGION)


async def receive(api: Api, timeout: float = 20.0) -> dict[str, Any]:
    return await api.call("ReceiveMessage", {"QueueUrl": "http://q", "WaitTimeSeconds": 20}, timeout=timeout)


def test_the_module_is_cheap_to_import() -> None:
    heavy = "{'asyncio', 'anyio', 'aiohttp', 'aiobotocore', 'botocore', 'structlog', 'prometheus_client'}"
    code = f"import sys, bridge.aws; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# Against real servers.


async def test_messages_make_the_round_trip(aws: Aws, sqs_server: Server) -> None:
    api = await aws.api("sqs", sqs_server.settings, REGION)
    made = await api.call("CreateQueue", {"QueueName": unique("round-trip")}, timeout=10)
    queue = {"QueueUrl": made["QueueUrl"]}
    colour = {"StringValue": "blue", "DataType": "String"}
    photo = {"BinaryValue": b"\x00\xff", "DataType": "Binary"}
    await api.call(
        "SendMessage",
        {**queue, "MessageBody": "grüße \u2028 {}", "MessageAttributes": {"colour": colour, "photo": photo}},
        timeout=10,
    )
    names = {"MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]}
    answer = await api.call("ReceiveMessage", {**queue, **names, "WaitTimeSeconds": 5}, timeout=15)
    (message,) = answer["Messages"]
    assert message["Body"] == "grüße \u2028 {}"
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert message["MessageAttributes"]["colour"]["StringValue"] == "blue"
    # As it came: blobs are base64 text, which is what the event needs (SQS-71).
    assert message["MessageAttributes"]["photo"]["BinaryValue"] == base64.b64encode(b"\x00\xff").decode()
    entries = [
        {"Id": "good", "ReceiptHandle": message["ReceiptHandle"]},
        {"Id": "bad", "ReceiptHandle": "no handle of this queue"},
    ]
    settled = await api.call("DeleteMessageBatch", {**queue, "Entries": entries}, timeout=10)
    assert [entry["Id"] for entry in settled["Successful"]] == ["good"]
    assert [entry["Id"] for entry in settled["Failed"]] == ["bad"]


async def test_real_errors_are_ours(aws: Aws, sqs_server: Server) -> None:
    api = await aws.api("sqs", sqs_server.settings, REGION)
    with pytest.raises(NotFound):
        await api.call("GetQueueUrl", {"QueueName": unique("nowhere")}, timeout=10)
    with pytest.raises(NotFound):
        await api.call("ReceiveMessage", {"QueueUrl": f"{sqs_server.url}/{ACCOUNT}/nowhere"}, timeout=10)
    queue = sqs_server.queue()
    with pytest.raises(Rejected):
        await api.call("DeleteMessage", {"QueueUrl": queue.url, "ReceiptHandle": "none of this queue"}, timeout=10)


async def test_an_empty_long_poll_waits_and_an_arrival_ends_it(aws: Aws, sqs_server: Server) -> None:
    api = await aws.api("sqs", sqs_server.settings, REGION)
    queue = sqs_server.queue()
    poll = {"QueueUrl": queue.url, "WaitTimeSeconds": 20}
    found: list[str] = []

    async def receive() -> None:
        answer = await api.call("ReceiveMessage", poll, timeout=30)
        found.extend(message["Body"] for message in answer["Messages"])

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await api.call("SendMessage", {"QueueUrl": queue.url, "MessageBody": "wake up"}, timeout=10)
    assert found == ["wake up"]


async def test_queue_urls_that_do_not_resolve_go_to_the_endpoint(aws: Aws, fauxqs_server: Server) -> None:
    queue = fauxqs_server.queue()
    assert not queue.url.startswith(fauxqs_server.url)
    api = await aws.api("sqs", fauxqs_server.settings, REGION)
    await api.call("SendMessage", {"QueueUrl": queue.url, "MessageBody": "here"}, timeout=10)
    answer = await api.call("ReceiveMessage", {"QueueUrl": queue.url}, timeout=10)
    assert [message["Body"] for message in answer["Messages"]] == ["here"]


# Errors and answers.


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
        (Answer("[]", 400), ServiceFault, "AttributeError"),
        (Answer("null", 500), ServiceFault, "AttributeError"),
        (GARBAGE, ServiceFault, "ResponseParserError"),
        (Answer("[]"), ServiceFault, "ResponseParserError"),
        (Answer("null"), ServiceFault, "ResponseParserError"),
        (Answer(b'{"Messages": "\xff"}'), ServiceFault, "ResponseParserError"),
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
    for _ in range(300):
        status = chance.choice([200, 204, 206, 226, 299, 300, 304, 307, 400, 418, 451, 500, 505, 599])
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
        api = await aws.api("sqs", AwsSettings(endpoint_url=f"https://127.0.0.1:{port}"), REGION)
        with pytest.raises(Unreachable, match="AWS_CA_BUNDLE") as raised:
            await receive(api)
        tasks.cancel_scope.cancel()
    assert raised.value.code == "SSLError"


# Connections.


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


async def until(reached: Any) -> None:
    """Waits for a state of the wire, which changes only by what the loop does."""
    with anyio.fail_after(10):
        while not reached():
            await anyio.sleep(0.001)


async def test_one_client_for_each_service_region_endpoint_and_identity(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    assert await sqs(aws, wire, region="us-west-2", account_id="1") is api
    others = [
        await aws.api("sqs", at(wire), "us-west-2"),
        await aws.api("sns", at(wire), REGION),
        await aws.api("sqs", AwsSettings(endpoint_url=wire.url + "/other"), REGION),
        await sqs(aws, wire, role_arn=ROLE),
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


# Where AWS is.


async def test_the_host_of_a_queue_url_is_never_followed(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"
    await api.call("ReceiveMessage", {"QueueUrl": url}, timeout=5)
    (request,) = wire.requests
    assert request.params["QueueUrl"] == url
    assert request.headers["host"] == wire.url.removeprefix("http://")
    assert request.path == "/"
    assert request.region == REGION


async def test_an_endpoint_of_the_service_goes_before_the_endpoint_of_all(aws: Aws, wire: Wire) -> None:
    nowhere = "http://127.0.0.1:9"
    settings = AwsSettings(endpoint_url=nowhere, endpoint_urls={"sqs": wire.url})
    assert await receive(await aws.api("sqs", settings, REGION)) == {"Messages": []}


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"])
async def test_endpoints_of_the_environment(
    aws: Aws, wire: Wire, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, wire.url)
    assert await receive(await aws.api("sqs", AwsSettings(region=REGION))) == {"Messages": []}
    (place,) = aws.describe()
    assert (place.region, place.endpoint) == (REGION, wire.url)


async def test_settings_go_before_the_environment(aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    assert await receive(await sqs(aws, wire)) == {"Messages": []}


async def test_without_an_endpoint_it_is_the_regions_own(aws: Aws) -> None:
    await aws.api("sqs", AwsSettings(), "eu-central-1")
    (place,) = aws.describe()
    assert place.endpoint == "https://sqs.eu-central-1.amazonaws.com"


async def test_a_proxy_is_not_asked_for_this_machine(aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert await receive(await sqs(aws, wire)) == {"Messages": []}


async def test_keys_in_an_endpoint_are_not_shown(aws: Aws) -> None:
    settings = AwsSettings(endpoint_url="http://me:hunter2@127.0.0.1:9")
    api = await aws.api("sqs", settings, REGION)
    with pytest.raises(Unreachable) as raised:
        await receive(api)
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(api)
    assert "hunter2" not in str(aws.describe())


@pytest.mark.parametrize(
    ("settings", "region", "kind", "says"),
    [
        (AwsSettings(), None, Rejected, "AWS_REGION"),
        (AwsSettings(endpoint_url="garbage"), REGION, Rejected, "garbage"),
        (AwsSettings(profile="nobody"), REGION, AccessDenied, "nobody"),
    ],
)
async def test_settings_that_make_no_client(
    aws: Aws, settings: AwsSettings, region: str | None, kind: type[RemoteError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        await aws.api("sqs", settings, region)
    assert aws.describe() == ()


# Who we are.


async def test_requests_are_signed_by_the_keys_of_the_environment(aws: Aws, wire: Wire) -> None:
    await receive(await sqs(aws, wire))
    assert wire.requests[0].access_key == ACCOUNT
    assert wire.requests[0].headers["user-agent"].startswith("bridge/")


async def test_a_profile_brings_keys_and_endpoint(
    aws: Aws, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile dev]\naws_access_key_id = DEV\naws_secret_access_key = s\nregion = eu-north-1\nservices = here\n"
        f"[services here]\nsqs =\n  endpoint_url = {wire.url}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    await receive(await aws.api("sqs", AwsSettings(profile="dev")))
    assert (wire.requests[0].access_key, wire.requests[0].region) == ("DEV", "eu-north-1")


def assumed(key: str, *, seconds: float = 3600) -> Answer:
    expiry = datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
    result = f"<AssumeRoleResult><Credentials>{keys}<Expiration>{expiry}</Expiration></Credentials></AssumeRoleResult>"
    return Answer(
        f"<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>{result}</AssumeRoleResponse>"
    )


async def test_a_role_is_assumed_once_by_the_keys_of_the_chain(aws: Aws, wire: Wire) -> None:
    wire.on("AssumeRole", assumed("ROLE"))
    api = await sqs(aws, wire, role_arn=ROLE)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(receive, api)
    (request,) = wire.of("AssumeRole")
    assert request.params["RoleArn"] == ROLE
    assert (request.access_key, request.region) == (ACCOUNT, REGION)
    assert {request.access_key for request in wire.of("ReceiveMessage")} == {"ROLE"}
    assert {request.headers["x-amz-security-token"] for request in wire.of("ReceiveMessage")} == {"t"}


async def test_a_role_is_assumed_anew_before_it_expires(aws: Aws, wire: Wire) -> None:
    wire.once("AssumeRole", assumed("OLD", seconds=60), assumed("NEW"))
    api = await sqs(aws, wire, role_arn=ROLE)
    for _ in range(3):
        await receive(api)
    assert [request.access_key for request in wire.of("ReceiveMessage")] == ["OLD", "NEW", "NEW"]


async def test_a_role_that_may_not_be_assumed(aws: Aws, wire: Wire) -> None:
    problem = "<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not yours</Message></Error>"
    wire.on("AssumeRole", Answer(f"<ErrorResponse>{problem}</ErrorResponse>", 403))
    api = await sqs(aws, wire, role_arn=ROLE)
    with pytest.raises(AccessDenied, match="sts AssumeRole: not yours"):
        await receive(api)


class Keys:
    """A credentials file, and a wire that takes one key only."""

    def __init__(self, wire: Wire, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
        self._path = path
        self.valid = "FIRST"
        self.write("FIRST")
        wire.on("ReceiveMessage", self.answer)

    def write(self, key: str) -> None:
        self._path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n")

    async def answer(self, request: Request) -> Answer | dict[str, Any]:
        return {"Messages": []} if request.access_key == self.valid else error("ExpiredToken", status=403)


@pytest.fixture
def keys(wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    return Keys(wire, tmp_path / "credentials", monkeypatch)


async def test_expired_keys_are_looked_up_anew(aws: Aws, wire: Wire, keys: Keys) -> None:
    api = await sqs(aws, wire)
    await receive(api)
    keys.valid = "SECOND"
    keys.write("SECOND")
    with pytest.raises(ExpiredCredentials):
        await receive(api)
    assert await receive(api) == {"Messages": []}
    assert [request.access_key for request in wire.requests] == ["FIRST", "FIRST", "SECOND"]
    await until(lambda: wire.connections == 1)  # the old client is closed


async def test_patience_outlasts_expired_keys(aws: Aws, wire: Wire, keys: Keys) -> None:
    """Twenty pollers find out together; the keys are renewed by somebody else a while later."""
    api = await sqs(aws, wire)
    keys.valid = "SECOND"
    told: list[str | None] = []
    answers: list[dict[str, Any]] = []

    async def work() -> None:
        answers.append(await persist(lambda: receive(api), trouble=told.append))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(work)
            await wire.received("ReceiveMessage", 40)
            keys.write("SECOND")
    assert answers == [{"Messages": []}] * 20
    assert told.count(None) == len(told) / 2
    await until(lambda: wire.connections <= 20)


async def test_no_keys_at_all_says_so_and_keys_that_appear_are_found(
    aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(AccessDenied, match=r"aws\.profile, AWS_PROFILE, or AWS_ACCESS_KEY_ID"):
        await sqs(aws, wire)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "LATE")
    await receive(await sqs(aws, wire))
    assert wire.requests[0].access_key == "LATE"


async def test_given_credentials_replace_the_chain(wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "config"
    broken.write_text("[profile")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(broken))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    async with Aws(credentials=lambda settings: Credentials(settings.account_id or "", "s")) as aws:
        for account in ("111111111111", "222222222222"):
            await receive(await sqs(aws, wire, account_id=account))
    assert [request.access_key for request in wire.requests] == ["111111111111", "222222222222"]


# For somebody else's calls.


async def test_constant_credentials_are_handed_on(aws: Aws) -> None:
    assert await aws.credentials(AwsSettings()).current() == Credentials(ACCOUNT, "secret")


async def test_credentials_of_a_role_come_with_their_expiry(aws: Aws, wire: Wire) -> None:
    wire.on("AssumeRole", assumed("ROLE"))
    found = await aws.credentials(at(wire, role_arn=ROLE), REGION).current()
    assert found is not None
    assert (found.access_key, found.token) == ("ROLE", "t")
    assert found.expiry is not None
    assert 3000 < (found.expiry - datetime.now(UTC)).total_seconds() <= 3600


async def test_no_credentials_are_none(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    source = aws.credentials(AwsSettings())
    assert await source.current() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "LATE")
    found = await source.current()
    assert found is not None
    assert found.access_key == "LATE"


async def test_credentials_that_fail_are_our_error(aws: Aws) -> None:
    with pytest.raises(AccessDenied, match="nobody"):
        await aws.credentials(AwsSettings(profile="nobody")).current()


def test_credentials_are_never_shown() -> None:
    shown = repr(Credentials("AKIDEXAMPLE", "secret-key", "token-value", datetime(2030, 1, 1, tzinfo=UTC)))
    assert not any(part in shown for part in ("AKID", "secret-key", "token-value"))


# Figures.


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
