"""The rows of the tables of spec/esm-api.md that no other test goes through: each limit of each parameter, and what AWS
documents about sources that are refused here."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from tests.api.conftest import api_url
from tests.api.lambda_client import refused
from tests.e2e.harness import Bridge, Site, eventually
from tests.servers import Queue

INVALID = ("InvalidParameterValueException", 400)
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:any"
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
LEAST, MOST = "have value greater than or equal to", "have value less than or equal to"
SHORT, LONG = "have length greater than or equal to", "have length less than or equal to"
ENUM = "satisfy enum value set: ["


def kafka(**options: Any) -> dict[str, Any]:
    return {"AmazonManagedKafkaEventSourceConfig": options}


@pytest.mark.parametrize(
    ("options", "path", "rule"),
    [
        ({"FunctionName": ""}, "functionName", f"{SHORT} 1"),  # ESM-8
        ({"FunctionName": "a b"}, "functionName", "satisfy regular expression pattern: "),
        ({"EventSourceArn": "queue"}, "eventSourceArn", "satisfy regular expression pattern: "),
        ({"MaximumBatchingWindowInSeconds": -1}, "maximumBatchingWindowInSeconds", f"{LEAST} 0"),
        ({"ScalingConfig": {"MaximumConcurrency": 1}}, "scalingConfig.maximumConcurrency", f"{LEAST} 2"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 0}}, "provisionedPollerConfig.minimumPollers", f"{LEAST} 1"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 201}}, "provisionedPollerConfig.minimumPollers", f"{MOST} 200"),
        ({"ProvisionedPollerConfig": {"MaximumPollers": 0}}, "provisionedPollerConfig.maximumPollers", f"{LEAST} 1"),
        (
            {"ProvisionedPollerConfig": {"MaximumPollers": 10_001}},
            "provisionedPollerConfig.maximumPollers",
            f"{MOST} 10000",
        ),
        ({"ParallelizationFactor": 0}, "parallelizationFactor", f"{LEAST} 1"),
        ({"TumblingWindowInSeconds": -1}, "tumblingWindowInSeconds", f"{LEAST} 0"),
        ({"MaximumRecordAgeInSeconds": -2}, "maximumRecordAgeInSeconds", f"{LEAST} -1"),
        ({"MaximumRetryAttempts": -2}, "maximumRetryAttempts", f"{LEAST} -1"),
        ({"MetricsConfig": {"Metrics": ["Luck"]}}, "metricsConfig.metrics", "satisfy constraint: [Member must satisfy"),
        ({"Topics": ["a", "b"]}, "topics", f"{LONG} 1"),
        ({"Topics": []}, "topics", f"{SHORT} 1"),
        ({"Topics": ["t" * 250]}, "topics", f"satisfy constraint: [Member must {LONG} 249]"),
        ({"Queues": ["a", "b"]}, "queues", f"{LONG} 1"),
        ({"Queues": ["q" * 1001]}, "queues", f"satisfy constraint: [Member must {LONG} 1000]"),
        ({"SourceAccessConfigurations": [{"URI": "x"}] * 24}, "sourceAccessConfigurations", f"{LONG} 23"),
        (kafka(ConsumerGroupId=""), "amazonManagedKafkaEventSourceConfig.consumerGroupId", f"{SHORT} 1"),
        (kafka(ConsumerGroupId="g" * 201), "amazonManagedKafkaEventSourceConfig.consumerGroupId", f"{LONG} 200"),
        (  # ESM-22
            kafka(SchemaRegistryConfig={"EventRecordFormat": "XML"}),
            "amazonManagedKafkaEventSourceConfig.schemaRegistryConfig.eventRecordFormat",
            f"{ENUM}JSON, SOURCE]",
        ),
        (
            kafka(SchemaRegistryConfig={"AccessConfigs": [{"Type": "TELEPATHY"}]}),
            "amazonManagedKafkaEventSourceConfig.schemaRegistryConfig.accessConfigs.1.member.type",
            f"{ENUM}BASIC_AUTH, CLIENT_CERTIFICATE_TLS_AUTH, SERVER_ROOT_CA_CERTIFICATE",
        ),
        (
            kafka(SchemaRegistryConfig={"SchemaValidationConfigs": [{"Attribute": "HEADERS"}]}),
            "amazonManagedKafkaEventSourceConfig.schemaRegistryConfig.schemaValidationConfigs.1.member.attribute",
            f"{ENUM}KEY, VALUE]",
        ),
        (
            {"DocumentDBEventSourceConfig": {"FullDocument": "Half"}},
            "documentDBEventSourceConfig.fullDocument",
            f"{ENUM}UpdateLookup, Default]",
        ),
        (
            {"DocumentDBEventSourceConfig": {"DatabaseName": "d" * 64}}, "documentDBEventSourceConfig.databaseName",
            f"{LONG} 63",
        ),
        (
            {"DocumentDBEventSourceConfig": {"CollectionName": "c" * 58}}, "documentDBEventSourceConfig.collectionName",
            f"{LONG} 57",
        ),
        (
            {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:1"] * 11}}},
            "selfManagedEventSource.endpoints",
            f"Map value must satisfy constraint: [Member must {LONG} 10]",
        ),
        ({"Tags": {"k" * 129: "v"}}, "tags", f"Map value must satisfy constraint: [Member must {LONG} 128]"),
    ],
)  # fmt: skip
def test_limits(api: Any, options: dict[str, Any], path: str, rule: str) -> None:  # ESM-3, ESM-20
    given = {"FunctionName": "worker", "EventSourceArn": QUEUE, **options}
    name, status, message = refused(api.create_event_source_mapping, **given)
    assert (name, status) == ("ValidationException", 400), message
    assert message.startswith("1 validation error detected: Value ")
    wording = rule if rule.startswith("Map value") else f"Member must {rule}"
    assert f"at '{path}' failed to satisfy constraint: {wording}" in message


@pytest.mark.parametrize(
    "options",
    [
        {"DestinationConfig": {"OnFailure": {"Destination": QUEUE.replace("sqs", "lambda")}}},  # ESM-24
        {"ScalingConfig": {"MaximumConcurrency": 5}},  # ESM-41
        {"MaximumRecordAgeInSeconds": 30},  # ESM-44: inside the shape's range, and refused
        {"MaximumRecordAgeInSeconds": 0},
    ],
)
def test_what_streams_do_not_take(api: Any, options: dict[str, Any]) -> None:
    given = {"FunctionName": "worker", "EventSourceArn": STREAM, "StartingPosition": "LATEST", **options}
    name, status, _ = refused(api.create_event_source_mapping, **given)
    assert status == 400
    assert name in ("InvalidParameterValueException", "ValidationException")
    assert api.list_event_source_mappings(EventSourceArn=STREAM)["EventSourceMappings"] == []


def asked(url: str, method: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """The status and the body, which is a JSON object."""
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, json.load(answer)


def test_what_an_update_cannot_change(api: Any, queue: Queue, stage: tuple[Site, Bridge]) -> None:
    """Members that UpdateEventSourceMapping does not have are passed over (ESM-27); paths end with a slash or without
    (ESM-1); SQS mappings have no LastProcessingResult, and USER_INITIATED for a reason (ESM-56, ESM-57)."""
    mappings = f"{api_url(stage[1])}/2015-03-31/event-source-mappings"
    given = {"FunctionName": "worker", "EventSourceArn": queue.arn, "Enabled": False}
    status, made = asked(f"{mappings}/", "POST", given)
    assert (status, made["StateTransitionReason"]) == (202, "USER_INITIATED")
    one = f"{mappings}/{made['UUID']}"
    try:
        for path in (one, f"{one}/"):
            changes = {"EventSourceArn": QUEUE, "StartingPosition": "LATEST", "Queues": ["x"], "BatchSize": 3}
            status, updated = asked(path, "PUT", changes)
            assert (status, updated["EventSourceArn"], updated["BatchSize"]) == (202, queue.arn, 3)
            eventually(lambda path=path: asked(path, "GET")[1]["State"] == "Disabled")  # type: ignore[misc]
        assert not {"StartingPosition", "Queues", "LastProcessingResult"} & asked(one, "GET")[1].keys()
        assert made["UUID"] in {it["UUID"] for it in asked(mappings, "GET")[1]["EventSourceMappings"]}
    finally:
        assert asked(one, "DELETE")[0] == 202


def test_a_queue_of_another_region(api: Any) -> None:  # ESM-46
    queue = "arn:aws:sqs:us-west-2:123456789012:any"
    *kind, message = refused(api.create_event_source_mapping, FunctionName="worker", EventSourceArn=queue)
    assert tuple(kind) == INVALID
    assert message.startswith(f"Queue and function must be in the same Region: {queue} and arn:aws:lambda:eu-west-1:")
