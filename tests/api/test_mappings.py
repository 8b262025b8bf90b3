"""Event source mappings through boto3 (spec/esm-api.md)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import api_site, api_url
from tests.api.lambda_client import client, refused
from tests.e2e.harness import Bridge, Site, eventually
from tests.servers import Queue, Server, unique

INVALID = ("InvalidParameterValueException", 400)
NOWHERE = "00000000-0000-0000-0000-000000000000"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:"
CONFLICT = (
    'An event source mapping with SQS arn (" {} ") and function (" worker ") already exists. Please update or delete'
    " the existing mapping with UUID {}"
)
NO_POSITION = (
    "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be"
    " null."
)
NO_QUEUE = (
    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message:"
    " The specified queue does not exist."
)
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/users/stream/2026-01-01T00:00:00.000"

Create = Callable[..., dict[str, Any]]


@pytest.fixture
def create(api: Any, queue: Queue) -> Iterator[Create]:
    """Creates a mapping of ``queue``, which is deleted after the test."""
    made: list[str] = []

    def make(**options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = api.create_event_source_mapping(
            **{"FunctionName": "worker", "EventSourceArn": queue.arn, **options}
        )
        made.append(answer["UUID"])
        return answer

    yield make
    for each in made:
        reaches(api, each, "Enabled", "Disabled", "")
        if state(api, each):
            api.delete_event_source_mapping(UUID=each)


def state(api: Any, each: str) -> str:
    """Its state; empty: it is gone."""
    try:
        return str(api.get_event_source_mapping(UUID=each)["State"])
    except api.exceptions.ResourceNotFoundException:
        return ""


def reaches(api: Any, each: str, *states: str) -> None:
    eventually(lambda: state(api, each) in states)


# Life.


def test_create_get_update_delete(api: Any, create: Create, queue: Queue, stage: tuple[Site, Bridge]) -> None:
    made = create()
    assert made.pop("ResponseMetadata")["HTTPStatusCode"] == 202
    assert made.pop("LastModified").timestamp() > 1.7e9  # ESM-59
    each = made["UUID"]
    assert str(uuid.UUID(each)) == each  # ESM-6
    function = api.get_function_configuration(FunctionName="worker")["FunctionArn"]
    assert made == {  # ESM-4, ESM-9, ESM-51, ESM-90
        "UUID": each,
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": queue.arn,
        "FunctionArn": function,
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
        "FunctionResponseTypes": [],
        "EventSourceMappingArn": f"{function.removesuffix(':function:worker')}:event-source-mapping:{each}",  # ESM-7
    }
    reaches(api, each, "Enabled")
    assert stage[1].view(each).ready  # `Enabled` means that it polls
    updated = api.update_event_source_mapping(UUID=each, BatchSize=5, FunctionResponseTypes=["ReportBatchItemFailures"])
    assert updated["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert (updated["State"], updated["BatchSize"]) == ("Updating", 5)  # ESM-52
    reaches(api, each, "Enabled")
    got = api.get_event_source_mapping(UUID=each)
    assert (got["BatchSize"], got["FunctionResponseTypes"]) == (5, ["ReportBatchItemFailures"])
    deleted = api.delete_event_source_mapping(UUID=each)
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert (deleted["State"], deleted["BatchSize"]) == ("Deleting", 5)  # ESM-53
    reaches(api, each, "")
    text = "The resource you requested does not exist."  # ESM-13
    for call in (api.get_event_source_mapping, api.delete_event_source_mapping, api.update_event_source_mapping):
        assert refused(call, UUID=each) == ("ResourceNotFoundException", 404, text)
    assert not [it for it in stage[1].state().mappings if it.name == each]


def test_messages_flow_only_while_it_is_enabled(api: Any, create: Create, queue: Queue) -> None:  # ESM-58
    each = create(Enabled=False)
    assert each["State"] == "Disabled"  # ESM-51
    queue.send("waits")
    assert queue.counts() == (1, 0)
    enabling = api.update_event_source_mapping(UUID=each["UUID"], Enabled=True)
    assert enabling["State"] in ("Enabling", "Enabled")  # ESM-52
    eventually(lambda: queue.counts() == (0, 0))
    reaches(api, each["UUID"], "Enabled")
    assert api.update_event_source_mapping(UUID=each["UUID"], Enabled=False)["State"] in ("Disabling", "Disabled")
    reaches(api, each["UUID"], "Disabled")
    both = api.update_event_source_mapping(UUID=each["UUID"], Enabled=True, BatchSize=3)
    assert (both["State"], both["BatchSize"]) == ("Enabling", 3)
    queue.send("goes")
    eventually(lambda: queue.counts() == (0, 0))


def test_it_survives_restarts(tmp_path: Path, roto_server: Server) -> None:
    first, second = (roto_server.queue(VisibilityTimeout="5") for _ in range(2))
    site = api_site(tmp_path, roto_server)
    with site.running() as bridge:
        api = client(api_url(bridge))
        made = api.create_event_source_mapping(
            FunctionName="worker:$LATEST", EventSourceArn=first.arn, BatchSize=7, Tags={"team": "blue"}
        )
        off = api.create_event_source_mapping(FunctionName="slow", EventSourceArn=second.arn, Enabled=False)
        api.put_function_concurrency(FunctionName="worker", ReservedConcurrentExecutions=3)
        api.put_function_event_invoke_config(FunctionName="worker", MaximumRetryAttempts=1)
        reaches(api, made["UUID"], "Enabled")
        bridge.kill()
        bridge.process.wait()
    with site.running() as bridge:
        api = client(api_url(bridge))
        reaches(api, made["UUID"], "Enabled")
        got = api.get_event_source_mapping(UUID=made["UUID"])
        assert (got["BatchSize"], got["FunctionArn"]) == (7, made["FunctionArn"])
        assert got["FunctionArn"].endswith(":worker:$LATEST")  # ESM-10
        assert state(api, off["UUID"]) == "Disabled"
        assert api.list_tags(Resource=made["EventSourceMappingArn"])["Tags"] == {"team": "blue"}
        assert api.get_function_concurrency(FunctionName="worker")["ReservedConcurrentExecutions"] == 3
        assert api.get_function_event_invoke_config(FunctionName="worker")["MaximumRetryAttempts"] == 1
        first.send("one")
        eventually(lambda: first.counts() == (0, 0))
        # Its function goes away, and comes back (ESM-14).
        worker = site.config["functions"].pop("worker")
        bridge.reload()
        gone = api.get_event_source_mapping(UUID=made["UUID"])
        assert (gone["State"], gone["StateTransitionReason"]) == ("Disabled", "Function does not exist")
        site.config["functions"]["worker"] = worker
        bridge.reload()
        reaches(api, made["UUID"], "Enabled")
        api.delete_event_source_mapping(UUID=made["UUID"])
        reaches(api, made["UUID"], "")
    with site.running() as bridge:
        left = client(api_url(bridge)).list_event_source_mappings()["EventSourceMappings"]
        assert [it["UUID"] for it in left] == [off["UUID"]]


def test_a_mapping_of_the_file(api: Any, stage: tuple[Site, Bridge]) -> None:
    (each,) = (it.uuid for it in stage[1].state().mappings if it.name == "filed")
    for call, options in (
        (api.update_event_source_mapping, {"BatchSize": 3}),
        (api.update_event_source_mapping, {"BatchSize": 3, "Enabled": False}),
        (api.delete_event_source_mapping, {}),
    ):
        name, status, message = refused(call, UUID=each, **options)
        assert (name, status) == INVALID
        assert f"mappings.filed of {stage[0].file}:" in message
    assert api.update_event_source_mapping(UUID=each, Enabled=False)["State"] in ("Disabling", "Disabled")
    reaches(api, each, "Disabled")
    assert stage[1].view("filed").gate.name == "paused"  # type: ignore[union-attr]
    assert api.update_event_source_mapping(UUID=each, Enabled=True)["State"] in ("Enabling", "Enabled")
    reaches(api, each, "Enabled")


def test_in_use(api: Any, create: Create, queue: Queue, stage: tuple[Site, Bridge], tmp_path: Path) -> None:  # ESM-54
    gate = tmp_path / "gate"
    each = create(BatchSize=1)["UUID"]
    queue.send(json.dumps({"order": {"until": str(gate)}}))
    stage[1].until(lambda: any(it.busy for it in stage[1].state().functions))
    reaches(api, each, "Enabled")
    assert api.update_event_source_mapping(UUID=each, BatchSize=2)["State"] == "Updating"  # until the handler is done
    text = "Cannot {} the event source mapping because it is in use."
    error = refused(api.update_event_source_mapping, UUID=each, BatchSize=3)
    assert error == ("ResourceInUseException", 400, text.format("update"))
    error = refused(api.delete_event_source_mapping, UUID=each)
    assert error == ("ResourceInUseException", 400, text.format("delete"))
    assert state(api, each) == "Updating"
    gate.touch()
    reaches(api, each, "Enabled")
    assert api.get_event_source_mapping(UUID=each)["BatchSize"] == 2
    assert queue.counts() == (0, 0)  # ESM-58: what ran was settled


def test_duplicates(api: Any, create: Create, queue: Queue) -> None:  # ESM-11, ESM-15
    first = create()["UUID"]
    assert refused(api.create_event_source_mapping, FunctionName="worker", EventSourceArn=queue.arn) == (
        "ResourceConflictException",
        409,
        CONFLICT.format(queue.arn, first),
    )
    create(FunctionName="worker:$LATEST", Enabled=False)
    other = create(FunctionName="slow", Enabled=False)["UUID"]
    error = refused(api.update_event_source_mapping, UUID=other, FunctionName="worker")
    assert error[:2] == ("ResourceConflictException", 409)


def test_moving_to_another_function(api: Any, create: Create) -> None:  # ESM-64
    each = create(Enabled=False)["UUID"]
    moved = api.update_event_source_mapping(UUID=each, FunctionName="slow")
    assert (moved["UUID"], moved["FunctionArn"].rpartition(":")[2]) == (each, "slow")


def test_merging(api: Any, create: Create) -> None:  # ESM-60 to ESM-63
    filters = {"Filters": [{"Pattern": '{"body": {"a": [1]}}'}]}
    made = create(
        Enabled=False, BatchSize=20, MaximumBatchingWindowInSeconds=1, FilterCriteria=filters,
        ScalingConfig={"MaximumConcurrency": 5}, FunctionResponseTypes=["ReportBatchItemFailures"],
    )  # fmt: skip
    each = made["UUID"]
    assert (made["FilterCriteria"], made["ScalingConfig"]) == (filters, {"MaximumConcurrency": 5})
    kept = api.update_event_source_mapping(UUID=each, BatchSize=30)
    assert (kept["FilterCriteria"], kept["MaximumBatchingWindowInSeconds"]) == (filters, 1)
    reaches(api, each, "Disabled")
    bare = api.update_event_source_mapping(UUID=each, FilterCriteria={}, ScalingConfig={}, FunctionResponseTypes=[])
    assert not {"FilterCriteria", "ScalingConfig"} & bare.keys()
    assert (bare["FunctionResponseTypes"], bare["BatchSize"]) == ([], 30)
    reaches(api, each, "Disabled")
    text = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
    error = refused(api.update_event_source_mapping, UUID=each, MaximumBatchingWindowInSeconds=0)
    assert error == (*INVALID, text)  # ESM-34, of the merged result
    pollers = {"MinimumPollers": 3, "MaximumPollers": 9}
    assert (
        api.update_event_source_mapping(UUID=each, ProvisionedPollerConfig=pollers)["ProvisionedPollerConfig"]
        == pollers
    )


def test_filters_without_any(create: Create) -> None:  # ESM-62
    assert "FilterCriteria" not in create(FilterCriteria={"Filters": []}, Enabled=False)


def test_pollers_have_defaults(create: Create) -> None:  # ESM-42
    made = create(ProvisionedPollerConfig={"MinimumPollers": 2}, Enabled=False)
    assert made["ProvisionedPollerConfig"] == {"MinimumPollers": 2, "MaximumPollers": 200}


# Refusals.

BROKEN = "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member must {}"
NUMBERS = "have value less than or equal to"


@pytest.mark.parametrize(
    ("options", "value", "path", "rule"),
    [
        ({"BatchSize": 0}, "0", "batchSize", "have value greater than or equal to 1"),
        ({"BatchSize": 10001}, "10001", "batchSize", f"{NUMBERS} 10000"),
        ({"MaximumBatchingWindowInSeconds": 301}, "301", "maximumBatchingWindowInSeconds", f"{NUMBERS} 300"),
        (
            {"ScalingConfig": {"MaximumConcurrency": 1001}}, "1001", "scalingConfig.maximumConcurrency",
            f"{NUMBERS} 1000",
        ),
        ({"ParallelizationFactor": 11}, "11", "parallelizationFactor", f"{NUMBERS} 10"),
        ({"TumblingWindowInSeconds": 901}, "901", "tumblingWindowInSeconds", f"{NUMBERS} 900"),
        ({"MaximumRecordAgeInSeconds": 604801}, "604801", "maximumRecordAgeInSeconds", f"{NUMBERS} 604800"),
        ({"MaximumRetryAttempts": 10001}, "10001", "maximumRetryAttempts", f"{NUMBERS} 10000"),
        (
            {"StartingPosition": "FIRST"}, "FIRST", "startingPosition",
            "satisfy enum value set: [TRIM_HORIZON, LATEST, AT_TIMESTAMP]",
        ),
        ({"FilterCriteria": {"Filters": [{"Pattern": "x" * 4097}]}}, "*", "filterCriteria.filters.1.member.pattern",
         "have length less than or equal to 4096"),
        (
            {"FunctionResponseTypes": ["Report"]}, "[Report]", "functionResponseTypes",
            "satisfy constraint: [Member must satisfy enum value set: [ReportBatchItemFailures]]",
        ),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": "nowhere"}}}, "nowhere",
            "destinationConfig.onFailure.destination", "satisfy regular expression pattern: ",
        ),
        (
            {"SourceAccessConfigurations": [{"Type": "TELEPATHY", "URI": "x"}]}, "TELEPATHY",
            "sourceAccessConfigurations.1.member.type", "satisfy enum value set: [BASIC_AUTH, ",
        ),
    ],
)  # fmt: skip
def test_broken_constraints(api: Any, options: dict[str, Any], value: str, path: str, rule: str) -> None:
    """ESM-3, ESM-20, ESM-21, ESM-25, FLT-6."""
    name, status, message = refused(
        api.create_event_source_mapping, FunctionName="worker", EventSourceArn=f"{QUEUE}any", **options
    )
    assert (name, status) == ("ValidationException", 400)
    before, _, after = BROKEN.partition("'{}' at")
    if value == "*":
        assert message.startswith(before)
        assert f"at '{path}' failed to satisfy constraint: Member must {rule}" in message
    else:
        assert message.startswith(BROKEN.format(value, path, rule)), after


def test_several_broken_constraints(api: Any) -> None:  # ESM-3
    name, _, message = refused(api.create_event_source_mapping, BatchSize=0, MaximumRetryAttempts=-2)
    assert name == "ValidationException"
    assert message.startswith("3 validation errors detected: ")
    assert "Value null at 'functionName' failed to satisfy constraint: Member must not be null" in message


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"EventSourceArn": None}, "Unrecognized event source."),  # ESM-30
        (  # ESM-31
            {"EventSourceArn": None, "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:1"]}}},
            "Required 'sourceAccessConfigurations' parameter is missing.",
        ),
        *(
            (  # ESM-32
                {"EventSourceArn": arn},
                NO_POSITION,
            )
            for arn in (STREAM, TABLE)
        ),
        (  # ESM-33
            {"EventSourceArn": TABLE, "StartingPosition": "AT_TIMESTAMP"},
            f"Unsupported starting position for arn type: {TABLE}",
        ),
        *(
            (
                {"DestinationConfig": {key: {"Destination": f"{QUEUE}letters"}}},  # ESM-23
                "Unsupported DestinationConfig parameter for given event source mapping type.",
            )
            for key in ("OnSuccess", "OnFailure")
        ),
        (  # ESM-34
            {"BatchSize": 11},
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (  # ESM-35
            {"EventSourceArn": f"{QUEUE}a.fifo", "MaximumBatchingWindowInSeconds": 1},
            "Batching window is not supported for FIFO queues",
        ),
        (  # ESM-36
            {"EventSourceArn": f"{QUEUE}a.fifo", "BatchSize": 11},
            "Maximum batch size must be between 1 and 10 inclusive",
        ),
        *(
            ({"FilterCriteria": {"Filters": [{"Pattern": pattern}]}}, "Invalid filter pattern definition.")  # FLT-3
            for pattern in ("null", "word", '{"eventSource": "aws:sqs"}', '{"eventSource": []}', "[]", "{", "", "{}")
        ),
        ({"FilterCriteria": {"Filters": [{}]}}, "Invalid filter pattern definition."),  # FLT-8
        ({"FunctionName": "nope"}, "Function does not exist"),  # ESM-12
        ({"FunctionName": "worker:prod"}, "Function does not exist"),
    ],
)
def test_refused_before_anything_is_asked(api: Any, options: dict[str, Any], text: str) -> None:
    given = {"FunctionName": "worker", "EventSourceArn": f"{QUEUE}any", **options}
    given = {key: value for key, value in given.items() if value is not None}
    assert refused(api.create_event_source_mapping, **given) == (*INVALID, text)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (  # ESM-40
            {"ScalingConfig": {"MaximumConcurrency": 2}, "ProvisionedPollerConfig": {"MinimumPollers": 2}},
            "ProvisionedPollerConfig",
        ),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 9, "MaximumPollers": 3}}, "MinimumPollers"),  # ESM-42
        ({"ProvisionedPollerConfig": {"PollerGroupName": "g"}}, "PollerGroupName"),  # ESM-43
        ({"FilterCriteria": {"Filters": [{"Pattern": '{"a": [1]}'}] * 11}}, "FilterCriteria.Filters"),  # ESM-45
        ({"ParallelizationFactor": 2}, "ParallelizationFactor"),  # ESM-20: of streams alone
        ({"Topics": ["clicks"]}, "Topics"),
        ({"EventSourceArn": STREAM, "StartingPosition": "LATEST"}, "kinesis"),  # not implemented yet
        ({"EventSourceArn": "arn:aws:s3:::bucket"}, "EventSourceArn"),
        ({"KMSKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1"}, "KMSKeyArn"),
    ],
)
def test_refused_in_our_own_words(api: Any, options: dict[str, Any], part: str) -> None:
    given = {"FunctionName": "worker", "EventSourceArn": f"{QUEUE}any", **options}
    name, status, message = refused(api.create_event_source_mapping, **given)
    assert (name, status) == INVALID
    assert part in message


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"DestinationConfig": {"OnSuccess": {"Destination": f"{QUEUE}a"}}, "EventSourceArn": None}, "Unsupported"),
        ({"BatchSize": 11, "FilterCriteria": {"Filters": [{"Pattern": "{"}]}}, "Maximum batch window"),
        ({"FilterCriteria": {"Filters": [{"Pattern": "{"}]}, "FunctionName": "nope"}, "Invalid filter"),
        ({"FunctionName": "nope"}, "Function does not exist"),
    ],
)
def test_the_order_of_checks(api: Any, options: dict[str, Any], text: str) -> None:  # ESM-47
    given = {"FunctionName": "worker", "EventSourceArn": f"{QUEUE}none", **options}
    given = {key: value for key, value in given.items() if value is not None}
    assert refused(api.create_event_source_mapping, **given)[2].startswith(text)


def test_a_queue_that_is_not_there(api: Any) -> None:  # ESM-38
    arn = f"{QUEUE}{unique('none')}"
    assert refused(api.create_event_source_mapping, FunctionName="worker", EventSourceArn=arn) == (
        *INVALID,
        NO_QUEUE,
    )


def test_a_visibility_timeout_that_is_too_short(api: Any, create: Create, roto_server: Server) -> None:  # ESM-37
    short = roto_server.queue(VisibilityTimeout="4")
    text = "Queue visibility timeout: 4 seconds is less than Function timeout: 5 seconds"
    error = refused(api.create_event_source_mapping, FunctionName="worker", EventSourceArn=short.arn)
    assert error == (*INVALID, text)
    each = create(FunctionName="slow", EventSourceArn=short.arn, Enabled=False)["UUID"]
    assert refused(api.update_event_source_mapping, UUID=each, FunctionName="worker") == (*INVALID, text)


@pytest.mark.parametrize("each", [NOWHERE, "ffffffff-ffff-ffff-ffff-ffffffffffff"])
def test_an_unknown_uuid(api: Any, each: str) -> None:  # ESM-13
    text = "The resource you requested does not exist."
    assert refused(api.get_event_source_mapping, UUID=each) == ("ResourceNotFoundException", 404, text)
    assert refused(api.get_event_source_mapping, UUID="short")[0] == "ValidationException"


# List.


def test_list(api: Any, create: Create, queue: Queue) -> None:  # ESM-70 to ESM-73
    made = [create(FunctionName=name, Enabled=False)["UUID"] for name in ("worker", "worker:$LATEST", "slow", "narrow")]
    listed = api.list_event_source_mappings(EventSourceArn=queue.arn)
    assert [it["UUID"] for it in listed["EventSourceMappings"]] == made
    assert "NextMarker" not in listed
    pages = api.get_paginator("list_event_source_mappings").paginate(
        EventSourceArn=queue.arn, PaginationConfig={"PageSize": 3}
    )
    assert [[it["UUID"] for it in page["EventSourceMappings"]] for page in pages] == [made[:3], made[3:]]
    arn = api.get_function_configuration(FunctionName="worker")["FunctionArn"]
    for name, expected in (("worker", made[:1]), (arn, made[:1]), ("worker:$LATEST", made[1:2]), ("nope", [])):
        found = api.list_event_source_mappings(EventSourceArn=queue.arn, FunctionName=name)
        assert [it["UUID"] for it in found["EventSourceMappings"]] == expected
    assert refused(api.list_event_source_mappings, MaxItems=10001)[0] == "ValidationException"
    assert refused(api.list_event_source_mappings, Marker="elsewhere")[:2] == INVALID


# Tags.


def test_tags(api: Any, create: Create) -> None:  # ESM-80, ESM-81
    made = create(Enabled=False, Tags={"team": "blue", "cost": "1"})
    arn = made["EventSourceMappingArn"]
    assert "Tags" not in api.get_event_source_mapping(UUID=made["UUID"])
    assert api.list_tags(Resource=arn)["Tags"] == {"team": "blue", "cost": "1"}
    tagged = api.tag_resource(Resource=arn, Tags={"team": "red", "a/b": "ü"})
    assert tagged["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert api.untag_resource(Resource=arn, TagKeys=["cost", "none"])["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert api.list_tags(Resource=arn)["Tags"] == {"team": "red", "a/b": "ü"}
    gone = f"{arn.rpartition(':')[0]}:{NOWHERE}"
    text = f"Event source mapping not found: {gone}"
    assert refused(api.list_tags, Resource=gone) == ("ResourceNotFoundException", 404, text)
    assert refused(api.tag_resource, Resource=arn, Tags={f"k{n}": "" for n in range(50)})[:2] == INVALID
    assert refused(api.tag_resource, Resource=arn, Tags={"": "v"})[0] == "ValidationException"
