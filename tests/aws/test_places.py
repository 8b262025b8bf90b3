"""Where AWS is: endpoints and regions."""

from __future__ import annotations

import pytest

from bridge.aws import Aws
from bridge.errors import (
    AccessDenied,
    Rejected,
    RemoteError,
    Unreachable,
)
from tests.aws.calls import receive, settings, sqs
from tests.servers import REGION
from tests.wire import Wire

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys", "clients")]


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
    given = settings(endpoint_url=nowhere, endpoint_urls={"sqs": wire.url})
    assert await receive(await aws.api("sqs", given, REGION)) == {"Messages": []}


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"])
async def test_endpoints_of_the_environment(
    aws: Aws, wire: Wire, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, wire.url)
    assert await receive(await aws.api("sqs", settings(region=REGION))) == {"Messages": []}
    (place,) = aws.describe()
    assert (place.region, place.endpoint) == (REGION, wire.url)


async def test_settings_go_before_the_environment(aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    assert await receive(await sqs(aws, wire)) == {"Messages": []}


async def test_without_an_endpoint_it_is_the_regions_own(aws: Aws) -> None:
    await aws.api("sqs", settings(), "eu-central-1")
    (place,) = aws.describe()
    assert place.endpoint == "https://sqs.eu-central-1.amazonaws.com"


async def test_a_proxy_is_not_asked_for_this_machine(aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert await receive(await sqs(aws, wire)) == {"Messages": []}


async def test_keys_in_an_endpoint_are_not_shown(aws: Aws) -> None:
    api = await aws.api("sqs", settings(endpoint_url="http://me:hunter2@127.0.0.1:9"), REGION)
    with pytest.raises(Unreachable) as raised:
        await receive(api)
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(api)
    assert "hunter2" not in str(aws.describe())


@pytest.mark.parametrize(
    ("given", "region", "kind", "says"),
    [
        ({}, None, Rejected, "AWS_REGION"),
        ({"endpoint_url": "garbage"}, REGION, Rejected, "garbage"),
        ({"profile": "nobody"}, REGION, AccessDenied, "nobody"),
    ],
)
async def test_settings_that_make_no_client(
    aws: Aws, given: dict[str, str], region: str | None, kind: type[RemoteError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        await aws.api("sqs", settings(**given), region)
    assert aws.describe() == ()
