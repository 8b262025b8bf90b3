"""Versions and aliases through boto3: every way to name one reaches its code, and what is not there is not found."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import api_url
from tests.api.lambda_client import client, refused
from tests.api.versioned import ARN, journal, versioned_site
from tests.e2e.harness import Bridge, Site, eventually
from tests.servers import Server

NOT_FOUND = ("ResourceNotFoundException", 404)
INVALID = ("InvalidParameterValueException", 400)
TARGET = "arn:aws:sqs:eu-west-1:123456789012:letters"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, roto_server: Server) -> Iterator[tuple[Site, Bridge]]:
    site = versioned_site(tmp_path_factory.mktemp("versions"), roto_server)
    queue = roto_server.queue(name="shop-of-live", VisibilityTimeout="5")
    site.mapping(queue, "shop:live", name="filed")
    site.config["functions"]["shop"]["EventInvokeConfig"] = {
        "MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": TARGET}},
    }  # fmt: skip
    roto_server.queue(name="letters")
    with site.running() as bridge:
        yield site, bridge


@pytest.fixture(scope="module")
def api(shop: tuple[Site, Bridge]) -> Any:
    return client(api_url(shop[1]))


def asked(api: Any, name: str, **options: Any) -> tuple[dict[str, Any], str]:
    """The handler's answer, and the version that was executed."""
    answer = api.invoke(FunctionName=name, **options)
    return json.loads(answer["Payload"].read()), answer["ExecutedVersion"]


@pytest.mark.parametrize(
    ("name", "qualifier", "code", "version"),
    [
        ("shop", "", "now", "$LATEST"),
        ("shop", "$LATEST", "now", "$LATEST"),
        ("shop", "2", "two", "2"),
        ("shop:2", "", "two", "2"),
        (f"{ARN}:1", "", "one", "1"),
        ("shop", "live", "one", "1"),
        ("shop:live", "", "one", "1"),
        ("shop:live", "live", "one", "1"),
        (f"{ARN}:live", "", "one", "1"),
        ("123456789012:function:shop:live", "", "one", "1"),
        ("shop:next", "", "now", "$LATEST"),
    ],
)
def test_every_way_to_name_one(api: Any, name: str, qualifier: str, code: str, version: str) -> None:  # ESM-8, INV-1
    answer, executed = asked(api, name, **({"Qualifier": qualifier} if qualifier else {}))
    said = qualifier or name.partition("shop:")[2]
    assert (answer["code"], executed) == (code, version)  # INV-3
    assert (answer["version"], answer["variable"], answer["stream"]) == (
        version,
        version,
        f"[{version}]",
    )  # RT-20, RT-22
    assert answer["arn"] == (f"{ARN}:{said}" if said else ARN)  # RT-3


def test_an_alias_shares_its_invocations(api: Any) -> None:
    seen = {asked(api, "shop:canary")[1] for _ in range(40)}
    assert seen == {"1", "2"}  # one in 2^39 sees but one of them


def test_the_log_names_the_version(api: Any) -> None:  # INV-30
    answer = api.invoke(FunctionName="shop:live", LogType="Tail")
    assert b" Version: 1\n" in base64.b64decode(answer["LogResult"])


@pytest.mark.parametrize("qualifier", ["3", "Live", "prod"])
def test_one_that_is_not_there(api: Any, qualifier: str) -> None:  # INV-10
    missing = (*NOT_FOUND, f"Function not found: {ARN}:{qualifier}")
    for call in (api.invoke, api.get_function, api.get_function_configuration):
        assert refused(call, FunctionName="shop", Qualifier=qualifier) == missing
        assert refused(call, FunctionName=f"shop:{qualifier}") == missing
    text = "The derived qualifier from the function name does not match the specified qualifier."
    assert refused(api.invoke, FunctionName="shop:1", Qualifier="2") == (*INVALID, text)


def test_events_go_to_the_alias_that_was_named(api: Any, shop: tuple[Site, Bridge]) -> None:  # ASY-1, ASY-20
    request = api.invoke(FunctionName="shop:live", InvocationType="Event", Payload=b'"event"')
    assert "ExecutedVersion" not in request
    (entry,) = eventually(lambda: [it for it in journal(shop[0]) if it["event"] == "event"])
    assert (entry["code"], entry["arn"]) == ("one", f"{ARN}:live")
    api.invoke(FunctionName="shop", InvocationType="Event", Payload=b'"unqualified"')
    (entry,) = eventually(lambda: [it for it in journal(shop[0]) if it["event"] == "unqualified"])
    assert (entry["code"], entry["arn"]) == ("now", ARN)


def test_a_function_as_destination_by_alias(api: Any, shop: tuple[Site, Bridge]) -> None:  # DST-5, DST-12
    api.put_function_event_invoke_config(
        FunctionName="shop", Qualifier="2", DestinationConfig={"OnSuccess": {"Destination": f"{ARN}:live"}}
    )
    api.invoke(FunctionName="shop:2", InvocationType="Event", Payload=b'"told"')

    def reports() -> list[dict[str, Any]]:
        return [it for it in journal(shop[0]) if isinstance(it["event"], dict) and "requestContext" in it["event"]]

    (entry,) = eventually(reports)
    assert entry["code"] == "one"
    assert entry["event"]["requestContext"]["functionArn"] == f"{ARN}:2"
    assert entry["event"]["responseContext"]["executedVersion"] == "2"
    api.delete_function_event_invoke_config(FunctionName="shop", Qualifier="2")


def test_mappings_go_to_the_alias_that_they_name(  # ESM-10, ESM-64
    api: Any, shop: tuple[Site, Bridge], roto_server: Server
) -> None:
    def codes(arn: str) -> list[str]:
        return [it["code"] for it in journal(shop[0]) if arn in json.dumps(it["event"])]

    (filed,) = api.list_event_source_mappings(FunctionName="shop:live")["EventSourceMappings"]
    assert filed["FunctionArn"] == f"{ARN}:live"
    roto_server.queue(name="shop-of-live", VisibilityTimeout="5").send("filed")  # it is there already
    assert eventually(lambda: codes(filed["EventSourceArn"])) == ["one"]
    first, second = (roto_server.queue(VisibilityTimeout="5") for _ in range(2))
    made = api.create_event_source_mapping(FunctionName=f"{ARN}:2", EventSourceArn=first.arn)
    assert made["FunctionArn"] == f"{ARN}:2"
    first.send("made")
    assert eventually(lambda: codes(first.arn)) == ["two"]
    each = api.create_event_source_mapping(FunctionName="shop:2", EventSourceArn=second.arn, Enabled=False)["UUID"]
    moved = api.update_event_source_mapping(UUID=each, FunctionName="shop:live", Enabled=True)
    assert (moved["UUID"], moved["FunctionArn"]) == (each, f"{ARN}:live")
    second.send("moved")
    assert eventually(lambda: codes(second.arn)) == ["one"]
    for uuid in (each, made["UUID"]):
        eventually(lambda uuid=uuid: api.get_event_source_mapping(UUID=uuid)["State"] == "Enabled")  # type: ignore[misc]
        api.delete_event_source_mapping(UUID=uuid)


def test_a_mapping_of_a_version_that_is_not_there(api: Any, roto_server: Server) -> None:  # ESM-12
    queue = roto_server.queue(VisibilityTimeout="5")
    for name in ("shop:3", "shop:prod", f"{ARN}:prod"):
        assert refused(api.create_event_source_mapping, FunctionName=name, EventSourceArn=queue.arn) == (
            *INVALID, "Function does not exist",
        )  # fmt: skip


# What is told about them.


def test_reading_a_function_by_its_qualifier(api: Any, shop: tuple[Site, Bridge]) -> None:
    found = api.get_function(FunctionName="shop", Qualifier="live")
    assert (found["Configuration"]["Version"], found["Configuration"]["FunctionArn"]) == ("1", f"{ARN}:live")
    assert found["Code"]["Location"] == (shop[0].folder / "one").as_uri()
    assert api.get_function_configuration(FunctionName="shop:2")["Version"] == "2"
    listed = api.list_functions(FunctionVersion="ALL")["Functions"]
    assert [it["FunctionArn"] for it in listed] == [f"{ARN}:{version}" for version in ("$LATEST", "1", "2")]


def test_versions_and_aliases_are_listed(api: Any) -> None:
    versions = api.list_versions_by_function(FunctionName="shop")["Versions"]
    assert [it["Version"] for it in versions] == ["$LATEST", "1", "2"]
    assert [it["FunctionArn"] for it in versions] == [f"{ARN}:{version}" for version in ("$LATEST", "1", "2")]
    assert [it["Name"] for it in api.list_aliases(FunctionName="shop")["Aliases"]] == ["canary", "live", "next"]
    named = api.list_aliases(FunctionName="shop", FunctionVersion="$LATEST")["Aliases"]
    assert [it["Name"] for it in named] == ["next"]
    pages = api.get_paginator("list_aliases").paginate(FunctionName="shop", PaginationConfig={"PageSize": 2})
    assert [len(page["Aliases"]) for page in pages] == [2, 1]
    canary = api.get_alias(FunctionName="shop", Name="canary")
    assert canary["AliasArn"] == f"{ARN}:canary"
    assert (canary["FunctionVersion"], canary["RoutingConfig"]) == ("1", {"AdditionalVersionWeights": {"2": 0.5}})
    live = api.get_alias(FunctionName="shop", Name="live")
    assert live["Description"] == "what customers use"
    assert "RoutingConfig" not in live
    missing = f"Cannot find alias arn: {ARN}:prod"
    assert refused(api.get_alias, FunctionName="shop", Name="prod") == (*NOT_FOUND, missing)
    assert refused(api.list_aliases, FunctionName="nope")[:2] == NOT_FOUND


def test_asynchronous_settings_of_each_qualifier(api: Any, shop: tuple[Site, Bridge]) -> None:  # ASY-20, ASY-21
    """Those of the configuration file stand until others are set here; nothing inherits them."""
    get, put = api.get_function_event_invoke_config, api.put_function_event_invoke_config
    filed = get(FunctionName="shop")
    assert (filed["FunctionArn"], filed["MaximumRetryAttempts"]) == (f"{ARN}:$LATEST", 0)
    assert filed["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {"Destination": TARGET}}
    assert "MaximumEventAgeInSeconds" not in filed
    none = f"The function {ARN}:live doesn't have an EventInvokeConfig"
    assert refused(get, FunctionName="shop", Qualifier="live") == (*NOT_FOUND, none)
    assert refused(put, FunctionName="shop:prod", MaximumRetryAttempts=1) == (*NOT_FOUND, "The function doesn't exist.")
    put(FunctionName="shop", Qualifier="live", MaximumEventAgeInSeconds=60)
    listed = api.list_function_event_invoke_configs(FunctionName="shop")["FunctionEventInvokeConfigs"]
    assert [it["FunctionArn"] for it in listed] == [f"{ARN}:$LATEST", f"{ARN}:live"]
    updated = api.update_function_event_invoke_config(FunctionName="shop", MaximumEventAgeInSeconds=90)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (0, 90)
    api.delete_function_event_invoke_config(FunctionName="shop")
    assert refused(get, FunctionName="shop")[:2] == NOT_FOUND
    listed = api.list_function_event_invoke_configs(FunctionName="shop")["FunctionEventInvokeConfigs"]
    assert [it["FunctionArn"] for it in listed] == [f"{ARN}:live"]
    api.delete_function_event_invoke_config(FunctionName="shop:live")
    for destination in (f"{ARN}:prod", f"{ARN}:9"):
        to = {"OnSuccess": {"Destination": destination}}
        assert refused(put, FunctionName="shop", DestinationConfig=to) == (
            *INVALID, f"The destination ARN {destination} is invalid.",
        )  # fmt: skip


def test_the_client_context(api: Any) -> None:  # INV-2, RT-3
    context = {"custom": {"a": "ü\n"}, "env": {"b": 2}, "client": {"app_title": "shop"}}
    encoded = base64.b64encode(json.dumps(context, indent=1, ensure_ascii=False).encode()).decode()
    answer, _ = asked(api, "shop", ClientContext=encoded)
    assert answer["client"] == [{"a": "ü\n"}, {"b": 2}, "shop"]
    assert asked(api, "shop")[0]["client"] is None


@pytest.mark.parametrize("context", ["%%%", "e30", base64.b64encode(b"[]").decode(), base64.b64encode(b"{").decode()])
def test_a_client_context_that_is_none(api: Any, context: str) -> None:  # INV-2
    text = "Client context must be a valid Base64-encoded JSON object."
    assert refused(api.invoke, FunctionName="shop", ClientContext=context) == (
        "InvalidRequestContentException", 400, text,
    )  # fmt: skip


def test_a_client_context_that_is_too_large(api: Any) -> None:  # INV-2
    context = base64.b64encode(json.dumps({"custom": {"a": "x" * 3000}}).encode()).decode()
    assert refused(api.invoke, FunctionName="shop", ClientContext=context)[:2] == INVALID


def test_events_have_no_client_context(api: Any, shop: tuple[Site, Bridge]) -> None:  # ASY-12
    context = base64.b64encode(b'{"custom": {"a": 1}}').decode()
    api.invoke(FunctionName="shop", InvocationType="Event", Payload=b'"no context"', ClientContext=context)
    (entry,) = eventually(lambda: [it for it in journal(shop[0]) if it["event"] == "no context"])
    assert entry["client"] is None


def test_invoke_without_a_daemon(shop: tuple[Site, Bridge]) -> None:
    site, _ = shop
    done = site.cli("invoke", "shop:live", "-c", str(site.file))
    assert (done.status, json.loads(done.out)["code"], json.loads(done.out)["arn"]) == (0, "one", f"{ARN}:live")
    done = site.cli("invoke", "shop:life", "-c", str(site.file))
    assert (done.status, len(done.lines)) == (2, 1)
    assert 'the function shop has no version or alias "life"; did you mean "live"?' in done.err
    done = site.cli("invoke", "shop:live", "--async", "--api", api_url(shop[1]))
    assert (done.status, len(done.out.strip())) == (0, 36)
