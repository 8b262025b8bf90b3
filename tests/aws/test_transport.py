"""Proxies, certificates and the kinds of endpoints: both clients go the same way."""

from __future__ import annotations

import base64
import ssl
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from bridge.aws import Api, Aws
from bridge.errors import RemoteError, Unreachable
from tests.aws.calls import receive, settings
from tests.servers import REGION
from tests.wire import Answer, Wire

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys", "clients", "no_proxies")]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    """A file of the authority's certificate."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


async def at(aws: Aws, url: str) -> Api:
    return await aws.api("sqs", settings(endpoint_url=url), REGION)


# Proxies.


async def test_a_proxy_is_asked_for_an_http_endpoint(aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", wire.url.replace("//", "//me:hunter2@"))
    api = await at(aws, "http://sqs.example.invalid")
    assert await receive(api) == {"Messages": []}
    (request,) = wire.requests
    assert request.path == "http://sqs.example.invalid/"
    assert request.headers["host"] == "sqs.example.invalid"
    assert base64.b64decode(request.headers["proxy-authorization"].removeprefix("Basic ")) == b"me:hunter2"
    await wire.down()
    for _ in range(2):  # on the connection that was open, and on a new one
        with pytest.raises(Unreachable) as raised:
            await receive(api)
        assert "hunter2" not in "".join(traceback.format_exception(raised.value))
    assert raised.value.code == "ProxyConnectionError"


async def test_no_proxy_is_honoured(aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    here = wire.url.replace("127.0.0.1", "0.0.0.0")  # this machine, but by no name of the loopback
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        await receive(await at(aws, here))
    monkeypatch.setenv("NO_PROXY", "0.0.0.0")
    assert await receive(await aws.api("sqs", settings(endpoint_url=here), "us-west-2")) == {"Messages": []}


@pytest.mark.parametrize(
    ("variable", "region", "host"),
    [
        ("", "eu-west-1", "sqs.eu-west-1.amazonaws.com"),
        ("AWS_USE_FIPS_ENDPOINT", "us-east-1", "sqs-fips.us-east-1.amazonaws.com"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "eu-west-1", "sqs.eu-west-1.api.aws"),
        ("", "cn-north-1", "sqs.cn-north-1.amazonaws.com.cn"),
    ],
)
async def test_a_tunnel_leads_to_the_endpoint_that_the_sdk_finds(
    aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch, variable: str, region: str, host: str
) -> None:
    if variable:
        monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("HTTPS_PROXY", wire.url)
    wire.on("", Answer("this proxy opens no tunnels", 403))
    api = await aws.api("sqs", settings(), region)
    with pytest.raises(Unreachable) as raised:
        await receive(api)
    assert raised.value.code == "ProxyConnectionError"
    assert [request.path for request in wire.requests] == [f"{host}:443"]


# Certificates.


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[Wire]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
    async with Wire(tls) as wire:
        wire.on("ReceiveMessage", {"Messages": []})
        yield wire


async def test_an_unknown_certificate_is_refused(aws: Aws, secure: Wire) -> None:
    with pytest.raises(Unreachable, match="AWS_CA_BUNDLE") as raised:
        await receive(await at(aws, secure.url))
    assert raised.value.code == "SSLError"
    assert secure.requests == []


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
async def test_a_certificate_of_the_own_authority(
    aws: Aws, secure: Wire, bundle: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/else.pem")  # the other one goes first
    monkeypatch.setenv(variable, str(bundle))
    api = await at(aws, secure.url)
    for _ in range(3):
        assert await receive(api) == {"Messages": []}
    assert secure.connected == 1


async def test_an_authority_of_the_profile(
    aws: Aws, secure: Wire, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f"[default]\nca_bundle = {bundle}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert await receive(await at(aws, secure.url)) == {"Messages": []}


async def test_a_certificate_of_another_host_is_refused(
    aws: Aws, secure: Wire, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with pytest.raises(Unreachable) as raised:
        await receive(await at(aws, secure.url.replace("127.0.0.1", "0.0.0.0")))
    assert raised.value.code == "SSLError"


async def test_authorities_that_cannot_be_read_are_an_error_that_passes(
    aws: Aws, secure: Wire, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))

    async def attempt() -> None:
        await receive(await at(aws, secure.url))

    for content in (None, "this is no certificate"):
        if content:
            bundle.write_text(content)
        with pytest.raises(RemoteError) as raised:
            await attempt()
        assert type(raised.value) is Unreachable
    authority.cert_pem.write_to_path(str(bundle))
    await attempt()
