"""Credentials of children: constant ones as variables, expiring ones served to the right caller alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from bridge.aws import Credentials
from bridge.errors import AccessDenied
from bridge.executors import process
from bridge.executors.credentials import ChildCredentials
from bridge.invocation import Failed
from tests.contracts.executor import answer, error, invocation
from tests.executors.surroundings import Lines, function, running

pytestmark = pytest.mark.anyio

CONSTANT = Credentials("AKIDCONSTANT", "secret-of-it")
TOMORROW = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)


class Chain:
    """The AWS chain: gives what stands in ``credentials``, or raises it."""

    def __init__(self, credentials: Credentials | Exception | None) -> None:
        self.credentials = credentials

    async def current(self) -> Credentials | None:
        if isinstance(self.credentials, Exception):
            raise self.credentials
        return self.credentials


def temporary(name: str) -> Credentials:
    return Credentials(name, "secret-of-it", "token-of-it", TOMORROW)


async def get(variables: dict[str, str], token: str | None = None) -> tuple[int, Any]:
    headers = {"Authorization": variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] if token is None else token}
    url = variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, await response.json()


async def test_constant_ones_are_variables() -> None:
    async with ChildCredentials(Chain(CONSTANT)) as credentials:
        assert await credentials.variables() == {
            "AWS_ACCESS_KEY_ID": "AKIDCONSTANT",
            "AWS_SECRET_ACCESS_KEY": "secret-of-it",
        }
    async with ChildCredentials(Chain(Credentials("a", "b", "c"))) as credentials:
        assert (await credentials.variables())["AWS_SESSION_TOKEN"] == "c"


async def test_none_are_no_variables() -> None:
    async with ChildCredentials(Chain(None)) as credentials:
        assert await credentials.variables() == {}


async def test_expiring_ones_are_served_and_renewed() -> None:
    chain = Chain(temporary("AKID1"))
    async with ChildCredentials(chain) as credentials:
        variables = await credentials.variables()
        assert sorted(variables) == ["AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        assert variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"].startswith("http://127.0.0.1:")
        assert await get(variables) == (
            200,
            {
                "AccessKeyId": "AKID1",
                "SecretAccessKey": "secret-of-it",
                "Token": "token-of-it",
                "Expiration": TOMORROW.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        )
        east = timezone(timedelta(hours=9))
        chain.credentials = Credentials("AKID2", "s", "t", TOMORROW.astimezone(east))
        status, document = await get(variables)
        assert (status, document["AccessKeyId"]) == (200, "AKID2")
        assert document["Expiration"] == TOMORROW.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert await credentials.variables() == variables  # one endpoint for all children


async def test_concurrent_children_share_the_endpoint() -> None:
    found: list[dict[str, str]] = []
    async with ChildCredentials(Chain(temporary("AKID"))) as credentials:

        async def ask() -> None:
            found.append(await credentials.variables())

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
        assert found == [found[0]] * 5
        assert (await get(found[0]))[0] == 200


@pytest.mark.parametrize("token", ["", "wrong", "wr\xf6ng", "Bearer x"])
async def test_others_get_nothing(token: str) -> None:
    async with ChildCredentials(Chain(temporary("AKID"))) as credentials:
        status, document = await get(await credentials.variables(), token)
    assert status == 401
    assert "AKID" not in str(document)


async def test_tokens_are_unguessable_and_differ() -> None:
    async with ChildCredentials(Chain(temporary("A"))) as one, ChildCredentials(Chain(temporary("A"))) as other:
        tokens = {(await given.variables())["AWS_CONTAINER_AUTHORIZATION_TOKEN"] for given in (one, other)}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 43


@pytest.mark.parametrize("trouble", [None, AccessDenied("the role may not be assumed")])
async def test_a_chain_that_fails_later_is_told_to_the_child(trouble: Exception | None) -> None:
    chain = Chain(temporary("AKID"))
    async with ChildCredentials(chain) as credentials:
        variables = await credentials.variables()
        chain.credentials = trouble
        assert (await get(variables))[0] == 503


async def test_leaving_closes_the_port() -> None:
    async with ChildCredentials(Chain(temporary("AKID"))) as credentials:
        variables = await credentials.variables()
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(variables)


# In a child, by a real SDK.

SDK = """
import boto3
def handler(event, context):
    session = boto3.Session()
    found = session.get_credentials()
    if found is None:
        return None
    frozen = found.get_frozen_credentials()
    client = session.client("sqs")
    return [frozen.access_key, frozen.secret_key, frozen.token, found.method, client.meta.region_name]
"""


@pytest.mark.parametrize(
    ("credentials", "settings", "expected"),
    [
        (CONSTANT, {}, ["AKIDCONSTANT", "secret-of-it", None, "env", "eu-west-1"]),
        (temporary("AKID"), {}, ["AKID", "secret-of-it", "token-of-it", "container-role", "eu-west-1"]),
        (None, {}, None),
        (CONSTANT, {"credentials": "none"}, None),
    ],
)
async def test_a_real_sdk_finds_them(
    credentials: Credentials | None,
    settings: dict[str, Any],
    expected: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    if settings:  # somebody's profile, which is not the function's
        (home / ".aws" / "credentials").write_text(
            "[default]\naws_access_key_id = AKIDHOME\naws_secret_access_key = x\n"
        )
    monkeypatch.setenv("HOME", str(home))
    tmp_path.joinpath("app.py").write_text(SDK)
    worker = function("app.handler", code=tmp_path, timeout=30.0, **settings)
    async with running(worker, credentials=Chain(credentials)) as executor:
        assert answer(await executor.invoke(invocation())) == expected


async def test_without_credentials_no_child_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(AccessDenied("the role may not be assumed"))
    async with running(function("behaviours.echo"), credentials=chain, output=Lines()) as executor:
        outcome = await executor.invoke(invocation())
        assert isinstance(outcome, Failed)
        assert (outcome.kind, outcome.ran) == ("unreachable", False)
        assert error(outcome)["errorMessage"].endswith("Error: the role may not be assumed")
        chain.credentials = CONSTANT
        assert answer(await executor.invoke(invocation())) == {}


async def test_a_chain_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        async def current(self) -> Credentials | None:
            await anyio.sleep_forever()
            return None

    monkeypatch.setattr(process, "CREDENTIALS_LIMIT", 0.1)
    async with running(function("behaviours.echo"), credentials=Hanging()) as executor:
        outcome = await executor.invoke(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "unreachable"
