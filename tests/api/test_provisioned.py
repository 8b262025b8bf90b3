"""Provisioned concurrency of versions and aliases through boto3 (RT-62): environments really stand ready, also after a
restart, and the state says how many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import api_url
from tests.api.lambda_client import client, refused
from tests.api.versioned import ARN, versioned_site
from tests.e2e.harness import Bridge, Site, eventually

NOT_FOUND = ("ResourceNotFoundException", 404)
INVALID = ("InvalidParameterValueException", 400)
CONFLICT = ("ResourceConflictException", 409)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return versioned_site(tmp_path_factory.mktemp("provisioned"))


@pytest.fixture(scope="module")
def bridge(site: Site) -> Iterator[Bridge]:
    with site.running() as bridge:
        yield bridge


@pytest.fixture
def api(bridge: Bridge) -> Iterator[Any]:
    """With nothing provisioned before and after."""
    api = client(api_url(bridge))
    yield api
    for config in api.list_provisioned_concurrency_configs(FunctionName="shop")["ProvisionedConcurrencyConfigs"]:
        qualifier = config["FunctionArn"].rpartition(":")[2]
        api.delete_provisioned_concurrency_config(FunctionName="shop", Qualifier=qualifier)


def put(api: Any, qualifier: str, count: int, name: str = "shop") -> Any:
    return api.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=count
    )


def becomes_ready(api: Any, qualifier: str) -> Any:
    def look() -> Any:
        now = api.get_provisioned_concurrency_config(FunctionName="shop", Qualifier=qualifier)
        return now["Status"] == "READY" and now

    return eventually(look)


def started(api: Any, qualifier: str) -> tuple[str, str]:
    """The version that an invocation got, and how its environment was started."""
    answer = json.loads(api.invoke(FunctionName="shop", Qualifier=qualifier)["Payload"].read())
    return answer["version"], answer["started"]


def test_environments_are_started_ahead(api: Any, bridge: Bridge) -> None:
    made = put(api, "2", 3)
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert (made["RequestedProvisionedConcurrentExecutions"], made["Status"]) == (3, "IN_PROGRESS")
    ready = becomes_ready(api, "2")
    assert ready["AllocatedProvisionedConcurrentExecutions"] == ready["AvailableProvisionedConcurrentExecutions"] == 3
    assert "StatusReason" not in ready
    assert [it.idle for it in bridge.state().functions] == [3]
    assert started(api, "2") == ("2", "provisioned-concurrency")  # RT-22
    assert started(api, "1") == ("1", "on-demand")


def test_those_of_an_alias_are_of_its_versions(api: Any) -> None:
    put(api, "canary", 2)
    becomes_ready(api, "canary")
    seen = {started(api, "canary") for _ in range(30)}
    assert {version for version, _ in seen} == {"1", "2"}


def test_they_survive_a_restart_and_a_reload(tmp_path: Path) -> None:
    site = versioned_site(tmp_path)
    with site.running() as bridge:
        put(client(api_url(bridge)), "live", 1)
        bridge.stop()
    with site.running() as bridge:
        api = client(api_url(bridge))
        assert becomes_ready(api, "live")["AllocatedProvisionedConcurrentExecutions"] == 1
        assert started(api, "live") == ("1", "provisioned-concurrency")
        site.config["functions"]["shop"]["aliases"]["live"] = {"FunctionVersion": "2"}
        bridge.reload()
        becomes_ready(api, "live")
        assert started(api, "live") == ("2", "provisioned-concurrency")


def test_code_that_does_not_start_is_told(api: Any, site: Site) -> None:
    code = site.folder / "two" / "app.py"
    text = code.read_text()
    code.write_text("raise ValueError('not today')")
    put(api, "2", 6)

    def failed() -> Any:
        now = api.get_provisioned_concurrency_config(FunctionName="shop", Qualifier="2")
        return now["Status"] == "FAILED" and now

    assert eventually(failed)["StatusReason"] == "ValueError: not today"
    code.write_text(text)
    becomes_ready(api, "2")


# Refusals.


def test_only_versions_and_aliases_have_it(api: Any) -> None:
    get = api.get_provisioned_concurrency_config
    unpublished = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    assert refused(put, api=api, qualifier="$LATEST", count=1) == (*INVALID, unpublished)
    assert refused(put, api=api, qualifier="next", count=1) == (*INVALID, unpublished)  # an alias of $LATEST
    text = "The function resource provided must be an alias or a published version."
    assert refused(get, FunctionName="shop", Qualifier="$LATEST") == (*INVALID, text)
    assert refused(api.delete_provisioned_concurrency_config, FunctionName="shop", Qualifier="$LATEST") == (
        *INVALID, text,
    )  # fmt: skip
    assert refused(put, api=api, qualifier="", count=1)[:2] == ("ValidationException", 400)
    assert refused(put, api=api, qualifier="live", count=0)[:2] == ("ValidationException", 400)


def test_what_is_not_there(api: Any) -> None:
    for call in (
        put,
        lambda api, qualifier, **_: api.get_provisioned_concurrency_config(FunctionName="shop", Qualifier=qualifier),
    ):
        assert refused(call, api=api, qualifier="9", count=1) == (*NOT_FOUND, f"Function not found: {ARN}:9")
        assert refused(call, api=api, qualifier="prod", count=1) == (
            *NOT_FOUND, f"Cannot find alias arn: {ARN}:prod",
        )  # fmt: skip
    missing = refused(put, api=api, qualifier="live", count=1, name="nope")
    assert missing[:2] == NOT_FOUND
    assert missing[2].startswith("Function not found: arn:aws:lambda:")
    none = ("ProvisionedConcurrencyConfigNotFoundException", 404)
    text = "No Provisioned Concurrency Config found for this function"
    assert refused(api.get_provisioned_concurrency_config, FunctionName="shop", Qualifier="1") == (*none, text)
    deleted = api.delete_provisioned_concurrency_config(FunctionName="shop", Qualifier="1")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_not_for_an_alias_and_its_version_at_once(api: Any) -> None:
    put(api, "live", 1)
    text = "Version is pointed by a Provisioned Concurrency alias"
    assert refused(put, api=api, qualifier="1", count=1) == (*CONFLICT, text)
    put(api, "2", 1)
    text = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
    assert refused(put, api=api, qualifier="canary", count=1) == (*CONFLICT, text)
    listed = api.list_provisioned_concurrency_configs(FunctionName="shop")["ProvisionedConcurrencyConfigs"]
    assert [it["FunctionArn"] for it in listed] == [f"{ARN}:2", f"{ARN}:live"]
    pages = api.get_paginator("list_provisioned_concurrency_configs").paginate(
        FunctionName="shop", PaginationConfig={"PageSize": 1}
    )
    assert [len(page["ProvisionedConcurrencyConfigs"]) for page in pages] == [1, 1]


def test_it_is_a_part_of_what_the_function_has(api: Any) -> None:  # RT-62
    put(api, "live", 2)
    text = "Requested Provisioned Concurrency should not be greater than"
    name, status, message = refused(put, api=api, qualifier="2", count=5)
    assert (name, status) == INVALID
    assert message.startswith(f"{text} max_environments of the function, 6 by ")
    api.put_function_concurrency(FunctionName="shop", ReservedConcurrentExecutions=4)
    assert refused(put, api=api, qualifier="2", count=3) == (
        *INVALID, f"{text} the reservedConcurrentExecution for function",
    )  # fmt: skip
    put(api, "2", 2)
    put(api, "2", 1)  # in place of the other
    for reserved in (2, 0):
        message = refused(api.put_function_concurrency, FunctionName="shop", ReservedConcurrentExecutions=reserved)[2]
        assert message == (
            f"ReservedConcurrentExecutions {reserved} should not be lower than function's total provisioned"
            " concurrency [3]."
        )
    api.delete_function_concurrency(FunctionName="shop")
