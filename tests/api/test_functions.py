"""Functions, their concurrency and their asynchronous settings through boto3."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.api.lambda_client import refused
from tests.e2e.harness import Bridge, Site

NOT_FOUND = ("ResourceNotFoundException", 404)
INVALID = ("InvalidParameterValueException", 400)
TARGET = "arn:aws:sqs:eu-west-1:123456789012:{}"


def test_list(api: Any) -> None:
    assert [it["FunctionName"] for it in api.list_functions()["Functions"]] == ["narrow", "slow", "worker"]
    pages = api.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    assert [len(page["Functions"]) for page in pages] == [2, 1]
    (first,) = api.list_functions(MaxItems=1, FunctionVersion="ALL")["Functions"]
    assert first["FunctionArn"].endswith(":narrow:$LATEST")
    assert refused(api.list_functions, MaxItems=0)[0] == "ValidationException"
    assert refused(api.list_functions, Marker="%%%")[:2] == INVALID


def test_get(api: Any) -> None:
    found = api.get_function(FunctionName="narrow")
    configuration = found["Configuration"]
    assert configuration["FunctionName"] == "narrow"
    assert (configuration["Handler"], configuration["Timeout"], configuration["MemorySize"]) == ("app.handler", 5, 128)
    assert (configuration["State"], configuration["Version"]) == ("Active", "$LATEST")
    assert found["Concurrency"] == {"ReservedConcurrentExecutions": 1}
    assert found["Code"]["Location"].startswith("file:///")
    assert "Concurrency" not in api.get_function(FunctionName="worker")
    alone = api.get_function_configuration(FunctionName="narrow", Qualifier="$LATEST")
    assert alone["FunctionArn"] == f"{configuration['FunctionArn']}:$LATEST"


def test_variables_are_not_shown_to_anybody(api: Any) -> None:
    """They may be secrets, and nobody has signed."""
    environment = api.get_function_configuration(FunctionName="worker")["Environment"]
    assert environment["Error"]["ErrorCode"] == "AccessDeniedException"
    assert "Variables" not in environment


@pytest.mark.parametrize("operation", ["get_function", "get_function_configuration", "get_function_concurrency"])
def test_an_unknown_one(api: Any, operation: str) -> None:
    name, status, message = refused(getattr(api, operation), FunctionName="nope")
    assert (name, status) == NOT_FOUND
    assert message.startswith("Function not found: arn:aws:lambda:eu-west-1:")
    assert message.endswith(":function:nope")


def test_tags(api: Any) -> None:
    arn = api.get_function_configuration(FunctionName="slow")["FunctionArn"]
    api.tag_resource(Resource=arn, Tags={"team": "blue"})
    assert api.get_function(FunctionName="slow")["Tags"] == {"team": "blue"}
    api.untag_resource(Resource=arn, TagKeys=["team"])
    assert api.list_tags(Resource=arn)["Tags"] == {}
    assert refused(api.list_tags, Resource=arn.replace("slow", "nope"))[:2] == NOT_FOUND


def test_concurrency_holds_at_once(api: Any, tmp_path: Path, stage: tuple[Site, Bridge]) -> None:  # INV-11
    put = api.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=0)
    assert put["ReservedConcurrentExecutions"] == 0
    assert refused(api.invoke, FunctionName="slow") == ("TooManyRequestsException", 429, "Rate Exceeded.")
    api.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=2)
    gate = tmp_path / "gate"
    payload = json.dumps({"order": {"until": str(gate)}}).encode()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(api.invoke, FunctionName="slow", Payload=payload)
        stage[1].until(lambda: any(it.busy for it in stage[1].state().functions if it.name == "slow"))
        assert api.invoke(FunctionName="slow")["StatusCode"] == 200
        api.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=1)
        assert refused(api.invoke, FunctionName="slow")[0] == "TooManyRequestsException"
        gate.touch()
        assert "FunctionError" not in running.result()
    assert api.get_function_concurrency(FunctionName="slow")["ReservedConcurrentExecutions"] == 1
    assert api.delete_function_concurrency(FunctionName="slow")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert "ReservedConcurrentExecutions" not in api.get_function_concurrency(FunctionName="slow")
    assert api.invoke(FunctionName="slow")["StatusCode"] == 200
    assert refused(api.put_function_concurrency, FunctionName="slow", ReservedConcurrentExecutions=-1)[0] == (
        "ValidationException"
    )
    assert refused(api.put_function_concurrency, FunctionName="slow:$LATEST", ReservedConcurrentExecutions=1)[:2] == (
        INVALID
    )


# Asynchronous settings (ASY-20 to ASY-23).


def test_event_invoke_config(api: Any) -> None:
    arn = api.get_function_configuration(FunctionName="worker", Qualifier="$LATEST")["FunctionArn"]
    none = f"The function {arn} doesn't have an EventInvokeConfig"
    assert refused(api.get_function_event_invoke_config, FunctionName="worker") == (*NOT_FOUND, none)
    assert refused(api.update_function_event_invoke_config, FunctionName="worker", MaximumRetryAttempts=0) == (
        *NOT_FOUND,
        none,
    )
    put = api.put_function_event_invoke_config(
        FunctionName="worker",
        MaximumRetryAttempts=1,
        MaximumEventAgeInSeconds=60,
        DestinationConfig={"OnFailure": {"Destination": TARGET.format("letters")}},
    )
    assert put.pop("LastModified").timestamp() > 1.7e9
    assert put.pop("ResponseMetadata")["HTTPStatusCode"] == 200
    assert put == {
        "FunctionArn": arn,
        "MaximumRetryAttempts": 1,
        "MaximumEventAgeInSeconds": 60,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": TARGET.format("letters")}},
    }
    updated = api.update_function_event_invoke_config(FunctionName="worker", MaximumRetryAttempts=0)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (0, 60)
    replaced = api.put_function_event_invoke_config(FunctionName="worker", MaximumEventAgeInSeconds=90)
    assert "MaximumRetryAttempts" not in replaced
    assert replaced["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}}
    listed = api.list_function_event_invoke_configs(FunctionName="worker")["FunctionEventInvokeConfigs"]
    assert [it["FunctionArn"] for it in listed] == [arn]
    deleted = api.delete_function_event_invoke_config(FunctionName="worker")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(api.delete_function_event_invoke_config, FunctionName="worker") == (*NOT_FOUND, none)
    assert api.list_function_event_invoke_configs(FunctionName="worker")["FunctionEventInvokeConfigs"] == []


def test_event_invoke_config_refusals(api: Any) -> None:  # ASY-23
    put = api.put_function_event_invoke_config
    text = "You must specify at least one of error handling or destination setting."
    assert refused(put, FunctionName="worker") == (*INVALID, text)
    assert refused(put, FunctionName="nope", MaximumRetryAttempts=1) == (*NOT_FOUND, "The function doesn't exist.")
    arn = api.get_function_configuration(FunctionName="worker")["FunctionArn"]

    def to(destination: str, kind: str = "OnSuccess") -> tuple[str, int, str]:
        return refused(put, FunctionName="worker", DestinationConfig={kind: {"Destination": destination}})

    assert to(arn) == (*INVALID, "You can't specify the function as a destination for itself.")
    missing = arn.replace("worker", "nope")
    assert to(missing) == (*INVALID, f"The destination ARN {missing} is invalid.")
    for target in ("arn:aws:kinesis:eu-west-1:123456789012:stream/s", "arn:aws:s3:::bucket"):
        shown = f"DestinationConfig(onSuccess=OnSuccess(destination={target}), onFailure=null)"
        assert to(target) == (*INVALID, f"The provided destination config {shown} is invalid.")
    assert to("nowhere", "OnFailure")[0] == "ValidationException"
    assert refused(put, FunctionName="worker", MaximumRetryAttempts=3)[0] == "ValidationException"
    assert refused(put, FunctionName="worker", MaximumEventAgeInSeconds=59)[0] == "ValidationException"
    api.put_function_event_invoke_config(
        FunctionName="worker", DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::bucket"}}
    )
    api.delete_function_event_invoke_config(FunctionName="worker")


def test_what_is_not_there(api: Any) -> None:
    name, status, message = refused(api.publish_version, FunctionName="worker")
    assert (name, status) == ("UnknownOperationException", 404)
    assert "is no operation of this API; served are: Invoke, " in message
