"""Who we are at AWS, and who our children are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from bridge.aws import Aws, Credentials
from bridge.errors import (
    AccessDenied,
    ExpiredCredentials,
)
from bridge.faults import persist
from tests.aws.calls import at, receive, settings, sqs, until
from tests.servers import ACCOUNT, REGION
from tests.wire import Answer, Request, Wire, error

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys", "clients")]

ROLE = "arn:aws:iam::210987654321:role/bridge"


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
    await receive(await aws.api("sqs", settings(profile="dev")))
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
    assert await aws.credentials(settings()).current() == Credentials(ACCOUNT, "secret")


async def test_credentials_of_a_role_come_with_their_expiry(aws: Aws, wire: Wire) -> None:
    wire.on("AssumeRole", assumed("ROLE"))
    found = await aws.credentials(at(wire, role_arn=ROLE), REGION).current()
    assert found is not None
    assert (found.access_key, found.token) == ("ROLE", "t")
    assert found.expiry is not None
    assert 3000 < (found.expiry - datetime.now(UTC)).total_seconds() <= 3600


async def test_no_credentials_are_none(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    source = aws.credentials(settings())
    assert await source.current() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "LATE")
    found = await source.current()
    assert found is not None
    assert found.access_key == "LATE"


async def test_credentials_that_fail_are_our_error(aws: Aws) -> None:
    with pytest.raises(AccessDenied, match="nobody"):
        await aws.credentials(settings(profile="nobody")).current()


def test_credentials_are_never_shown() -> None:
    shown = repr(Credentials("AKIDEXAMPLE", "secret-key", "token-value", datetime(2030, 1, 1, tzinfo=UTC)))
    assert not any(part in shown for part in ("AKID", "secret-key", "token-value"))
