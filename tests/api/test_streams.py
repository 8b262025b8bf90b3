"""Event source mappings of Kinesis and DynamoDB streams through boto3 (spec/esm-api.md, spec/kinesis.md)."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from anyio.from_thread import start_blocking_portal

from tests.api.conftest import api_site, api_url
from tests.api.lambda_client import client, refused
from tests.api.test_mappings import NO_POSITION, reaches
from tests.e2e.harness import HANDLERS, Bridge, Site, eventually
from tests.e2e.streams import Stream, Table, numbers, order
from tests.servers import ACCOUNT, Server
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.wire import Wire

INVALID = ("InvalidParameterValueException", 400)
INVALID_SHAPE = ("ValidationException", 400)
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:streamer"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:given-up"
ABSENT = {
    "kinesis": "arn:aws:kinesis:eu-west-1:123456789012:stream/absent",
    "dynamodb": "arn:aws:dynamodb:eu-west-1:123456789012:table/absent/stream/2026-01-01T00:00:00.000",
}
STATED = {
    "BatchSize": 100, "MaximumBatchingWindowInSeconds": 0, "ParallelizationFactor": 1, "MaximumRetryAttempts": -1,
    "MaximumRecordAgeInSeconds": -1, "BisectBatchOnFunctionError": False, "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [], "DestinationConfig": {"OnFailure": {}},
}  # fmt: skip
"""What a mapping has that asked for nothing (ESM-91)."""

Create = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory, ministack_server: Server) -> Iterator[tuple[Site, Bridge]]:
    """A daemon beside a server that has streams."""
    site = stream_site(tmp_path_factory.mktemp("streams"), ministack_server)
    with site.running() as bridge:
        yield site, bridge


def stream_site(folder: Path, server: Any) -> Site:
    site = api_site(folder, server)
    site.config["aws"]["account_id"] = ACCOUNT
    site.function("streamer", code=HANDLERS, Handler="actor.stream")
    return site


@pytest.fixture(scope="module")
def api(streams: tuple[Site, Bridge]) -> Any:
    return client(api_url(streams[1]))


@pytest.fixture(scope="module")
def stream(ministack_server: Server) -> Stream:
    """Nobody puts anything into this one."""
    return Stream(ministack_server)


@pytest.fixture(scope="module")
def table(ministack_server: Server) -> Table:
    return Table(ministack_server)


@pytest.fixture(params=["kinesis", "dynamodb"])
def source(request: pytest.FixtureRequest, stream: Stream, table: Table) -> str:
    """The ARN of either."""
    return {"kinesis": stream.arn, "dynamodb": table.arn}[request.param]


@pytest.fixture
def create(api: Any) -> Iterator[Create]:
    """Creates a mapping, which is deleted after the test."""
    made: list[str] = []

    def make(source: str, **options: Any) -> dict[str, Any]:
        given = {"FunctionName": "streamer", "StartingPosition": "TRIM_HORIZON", **options}
        answer: dict[str, Any] = api.create_event_source_mapping(EventSourceArn=source, **given)
        made.append(answer["UUID"])
        return answer

    yield make
    for each in made:
        reaches(api, each, "Enabled", "Disabled", "")
        if state(api, each):
            api.delete_event_source_mapping(UUID=each)
            reaches(api, each, "")


def state(api: Any, each: str) -> str:
    found = [it["State"] for it in api.list_event_source_mappings()["EventSourceMappings"] if it["UUID"] == each]
    return str(found[0]) if found else ""


# Life.


def test_create_get_list_delete(api: Any, create: Create, source: str) -> None:  # KIN-3, ESM-50 to ESM-57, ESM-91
    made = create(source)
    assert made.pop("ResponseMetadata")["HTTPStatusCode"] == 202
    assert made.pop("LastModified").timestamp() > 1.7e9
    each = made["UUID"]
    assert str(uuid.UUID(each)) == each
    assert made == {
        **STATED,
        "UUID": each,
        "StartingPosition": "TRIM_HORIZON",
        "EventSourceArn": source,
        "FunctionArn": FUNCTION,
        "State": "Creating",
        "StateTransitionReason": "User action",
        "LastProcessingResult": "No records processed",
        "EventSourceMappingArn": f"arn:aws:lambda:eu-west-1:123456789012:event-source-mapping:{each}",
    }
    reaches(api, each, "Enabled")
    got = api.get_event_source_mapping(UUID=each)
    (listed,) = api.list_event_source_mappings(EventSourceArn=source)["EventSourceMappings"]
    for answer in (got, listed):
        answer.pop("ResponseMetadata", None)
        answer.pop("LastModified")
        assert answer == {**made, "State": "Enabled"}
    assert api.delete_event_source_mapping(UUID=each)["State"] == "Deleting"
    reaches(api, each, "")


def test_every_option_is_answered(api: Any, create: Create, stream: Stream, table: Table) -> None:  # ESM-20, ESM-24
    asked = {
        "BatchSize": 500, "MaximumBatchingWindowInSeconds": 7, "ParallelizationFactor": 10, "MaximumRetryAttempts": 0,
        "MaximumRecordAgeInSeconds": 604_800, "BisectBatchOnFunctionError": True,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::given-up"}},
        "FilterCriteria": {"Filters": [{"Pattern": '{"data": {"a": [1]}}'}]},
    }  # fmt: skip
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = create(stream.arn, StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=at, Enabled=False, **asked)
    assert {key: made[key] for key in asked} == asked
    assert (made["StartingPosition"], made["StartingPositionTimestamp"]) == ("AT_TIMESTAMP", at)
    assert made["State"] == "Disabled"
    windowed = create(table.arn, StartingPosition="LATEST", TumblingWindowInSeconds=900, MaximumRetryAttempts=10_000)
    assert (windowed["TumblingWindowInSeconds"], windowed["MaximumRetryAttempts"]) == (900, 10_000)
    assert windowed["StartingPosition"] == "LATEST"
    assert "StartingPositionTimestamp" not in windowed


def test_batches_without_a_window_may_be_large(create: Create, source: str) -> None:  # KIN-2, ESM-34
    assert create(source, BatchSize=10_000, Enabled=False)["BatchSize"] == 10_000


def test_how_the_last_batch_went(api: Any, create: Create, ministack_server: Server, tmp_path: Path) -> None:  # KIN-5
    stream, broken = Stream(ministack_server), tmp_path / "broken"
    broken.touch()
    stream.put(order(0, raises=str(broken)))
    each = create(stream.arn)["UUID"]

    def result() -> str:
        return str(api.get_event_source_mapping(UUID=each)["LastProcessingResult"])

    eventually(lambda: result() == "PROBLEM: Function call failed")
    broken.unlink()
    eventually(lambda: result() == "OK")


def test_update(api: Any, create: Create, source: str) -> None:  # ESM-52, ESM-60, ESM-61, ESM-63
    each = create(source)["UUID"]
    reaches(api, each, "Enabled")
    changed = {
        "BatchSize": 7, "MaximumBatchingWindowInSeconds": 3, "ParallelizationFactor": 2, "MaximumRetryAttempts": 4,
        "MaximumRecordAgeInSeconds": 60, "BisectBatchOnFunctionError": True,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "DestinationConfig": {"OnFailure": {"Destination": QUEUE}},
        "FilterCriteria": {"Filters": [{"Pattern": '{"eventName": ["x"]}'}]},
    }  # fmt: skip
    updated = api.update_event_source_mapping(UUID=each, **changed)
    assert {key: updated[key] for key in changed} == changed
    assert (updated["State"], updated["StartingPosition"]) == ("Updating", "TRIM_HORIZON")
    reaches(api, each, "Enabled")
    updated = api.update_event_source_mapping(UUID=each, ParallelizationFactor=1, TumblingWindowInSeconds=30)
    assert (updated["TumblingWindowInSeconds"], updated["BatchSize"]) == (30, 7)
    reaches(api, each, "Enabled")
    back = {**STATED, "DestinationConfig": {"OnFailure": {"Destination": ""}}, "FilterCriteria": {}}
    restored = api.update_event_source_mapping(UUID=each, **back)
    assert {key: restored[key] for key in STATED} == STATED
    assert "FilterCriteria" not in restored
    reaches(api, each, "Enabled")


def test_the_start_is_never_changed(api: Any, create: Create, source: str, streams: tuple[Site, Bridge]) -> None:
    """ESM-27. UpdateEventSourceMapping has no such member, and what it does not have is passed over."""
    each = create(source, Enabled=False)["UUID"]
    parts = urlsplit(api_url(streams[1]))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    body = json.dumps({"StartingPosition": "LATEST", "BatchSize": 5})
    connection.request("PUT", f"/2015-03-31/event-source-mappings/{each}", body)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["StartingPosition"]) == (202, "TRIM_HORIZON")
    connection.close()
    got = api.get_event_source_mapping(UUID=each)
    assert (got["StartingPosition"], got["BatchSize"]) == ("TRIM_HORIZON", 5)


def test_positions_survive_restarts_and_updates_and_go_with_the_mapping(
    tmp_path: Path, ministack_server: Server
) -> None:  # ESM-58, ESM-64, KIN-23
    site, stream = stream_site(tmp_path, ministack_server), Stream(ministack_server)
    stream.put(order(0), order(1))

    def given() -> list[int]:
        return [n for run in numbers(stream.runs(site)) for n in run]

    with site.running() as bridge:
        api = client(api_url(bridge))
        each = api.create_event_source_mapping(
            FunctionName="streamer", EventSourceArn=stream.arn, StartingPosition="TRIM_HORIZON"
        )["UUID"]
        eventually(lambda: given() == [0, 1])
        reaches(api, each, "Enabled")
        api.update_event_source_mapping(UUID=each, BatchSize=1, ParallelizationFactor=3)
        reaches(api, each, "Enabled")
        stream.put(order(2))
        eventually(lambda: given() == [0, 1, 2])
        bridge.stop()
    stream.put(order(3))
    with site.running() as bridge:
        api = client(api_url(bridge))
        eventually(lambda: given() == [0, 1, 2, 3])
        reaches(api, each, "Enabled")
        got = api.get_event_source_mapping(UUID=each)
        assert (got["BatchSize"], got["ParallelizationFactor"]) == (1, 3)
        api.delete_event_source_mapping(UUID=each)
        reaches(api, each, "")
        forgotten = site.cli("mappings", "forget", each, "--admin", bridge.url)
        assert forgotten.status == 2, "its positions were still there"
        bridge.stop()


# Errors.


@pytest.mark.parametrize("kind", ABSENT)
def test_an_unknown_stream(api: Any, kind: str) -> None:  # KIN-4, DDB-29, ESM-38
    given = {"FunctionName": "streamer", "EventSourceArn": ABSENT[kind], "StartingPosition": "LATEST"}
    assert refused(api.create_event_source_mapping, **given) == (*INVALID, f"Stream not found: {ABSENT[kind]}")


def test_an_unknown_consumer(api: Any, stream: Stream) -> None:  # ESM-38
    arn = f"{stream.arn}/consumer/nobody:1768469400"
    given = {"FunctionName": "streamer", "EventSourceArn": arn, "StartingPosition": "LATEST"}
    assert refused(api.create_event_source_mapping, **given) == (*INVALID, f"Stream not found: {arn}")


def test_a_consumer(api: Any, create: Create, ministack_server: Server) -> None:  # KIN-100, KIN-106
    stream = Stream(ministack_server)
    made = stream.api.register_stream_consumer(StreamARN=stream.arn, ConsumerName="bridge")["Consumer"]
    each = create(made["ConsumerARN"], StartingPosition="LATEST")
    assert each["EventSourceArn"] == made["ConsumerARN"]
    reaches(api, each["UUID"], "Enabled")


def test_a_second_mapping(api: Any, create: Create, source: str) -> None:  # KIN-4, ESM-11
    each = create(source, Enabled=False)["UUID"]
    text = (
        f'The event source arn (" {source} ") and function (" streamer ") provided mapping already exists. Please'
        f" update or delete the existing mapping with UUID {each}"
    )
    given = {"FunctionName": "streamer", "EventSourceArn": source, "StartingPosition": "LATEST"}
    assert refused(api.create_event_source_mapping, **given) == ("ResourceConflictException", 409, text)


def test_no_start(api: Any, source: str) -> None:  # ESM-32
    given = {"FunctionName": "streamer", "EventSourceArn": source}
    assert refused(api.create_event_source_mapping, **given) == (*INVALID, NO_POSITION)


def test_a_table_knows_no_times(api: Any, table: Table) -> None:  # ESM-33
    given = {"FunctionName": "streamer", "EventSourceArn": table.arn, "StartingPosition": "AT_TIMESTAMP"}
    text = f"Unsupported starting position for arn type: {table.arn}"
    assert refused(api.create_event_source_mapping, **given) == (*INVALID, text)
    assert refused(api.create_event_source_mapping, **given, StartingPositionTimestamp=1767225600) == (*INVALID, text)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"StartingPosition": "AT_TIMESTAMP"}, "AT_TIMESTAMP needs StartingPositionTimestamp"),
        ({"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": time.time() + 3600}, "is in the future"),
        ({"StartingPositionTimestamp": 1767225600}, "has a meaning only with AT_TIMESTAMP, not with TRIM_HORIZON"),
    ],
)
def test_times_that_do_not_fit(api: Any, stream: Stream, options: dict[str, Any], part: str) -> None:  # KIN-1
    given = {"FunctionName": "streamer", "EventSourceArn": stream.arn, "StartingPosition": "TRIM_HORIZON", **options}
    name, status, message = refused(api.create_event_source_mapping, **given)
    assert (name, status) == INVALID
    assert part in message


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"StartingPosition": "OLDEST"}, "'startingPosition' failed to satisfy constraint: Member must satisfy enum"),
        ({"BatchSize": 0}, "'batchSize' failed to satisfy constraint: Member must have value greater than or"),
        ({"BatchSize": 10_001}, "'batchSize' failed"),
        ({"MaximumBatchingWindowInSeconds": 301}, "'maximumBatchingWindowInSeconds' failed"),
        ({"ParallelizationFactor": 0}, "'parallelizationFactor' failed"),
        ({"ParallelizationFactor": 11}, "'parallelizationFactor' failed"),
        ({"MaximumRetryAttempts": -2}, "'maximumRetryAttempts' failed"),
        ({"MaximumRetryAttempts": 10_001}, "'maximumRetryAttempts' failed"),
        ({"MaximumRecordAgeInSeconds": 604_801}, "'maximumRecordAgeInSeconds' failed"),
        ({"TumblingWindowInSeconds": 901}, "'tumblingWindowInSeconds' failed"),
        ({"FunctionResponseTypes": ["All"]}, "'functionResponseTypes' failed"),
        ({"DestinationConfig": {"OnFailure": {"Destination": "given-up"}}},
         "'destinationConfig.onFailure.destination' failed"),  # ESM-25
    ],
)  # fmt: skip
def test_shapes(api: Any, create: Create, source: str, options: dict[str, Any], part: str) -> None:  # ESM-3, ESM-47
    each = create(source, Enabled=False)["UUID"]
    given = {"FunctionName": "worker", "EventSourceArn": source, "StartingPosition": "LATEST", **options}
    calls = [(api.create_event_source_mapping, given)]
    if "StartingPosition" not in options:
        calls.append((api.update_event_source_mapping, {"UUID": each, **options}))
    for call, parameters in calls:
        name, status, message = refused(call, **parameters)
        assert (name, status) == INVALID_SHAPE
        assert message.startswith("1 validation error detected: Value '")
        assert part in message


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"MaximumRecordAgeInSeconds": 0}, "MaximumRecordAgeInSeconds: 0 is less than 60"),  # ESM-44
        ({"MaximumRecordAgeInSeconds": 59}, "MaximumRecordAgeInSeconds: 59 is less than 60"),
        ({"ParallelizationFactor": 2, "TumblingWindowInSeconds": 60}, "excludes TumblingWindowInSeconds"),  # TW-2
        ({"ScalingConfig": {"MaximumConcurrency": 5}}, "no option of"),  # ESM-41
        ({"ProvisionedPollerConfig": {"MinimumPollers": 5}}, "no option of"),
        ({"DestinationConfig": {"OnSuccess": {"Destination": QUEUE}}},
         "Unsupported DestinationConfig parameter for given event source mapping type."),  # ESM-23
        ({"DestinationConfig": {"OnFailure": {"Destination": f"{QUEUE}.fifo"}}}, "FIFO queues and topics"),  # KIN-86
        ({"DestinationConfig": {"OnFailure": {"Destination": FUNCTION}}}, "is a function, no destination"),  # ESM-24
        ({"FilterCriteria": {"Filters": [{"Pattern": '{"data": 1}'}]}}, "Invalid filter pattern definition."),  # DDB-55
        ({"FilterCriteria": {"Filters": [{"Pattern": "{"}]}}, "Invalid filter pattern definition."),
    ],
)  # fmt: skip
def test_what_a_stream_cannot_have(api: Any, create: Create, source: str, options: dict[str, Any], part: str) -> None:
    each = create(source, Enabled=False)["UUID"]
    given = {"FunctionName": "worker", "EventSourceArn": source, "StartingPosition": "LATEST", **options}
    for call, parameters in (
        (api.create_event_source_mapping, given),
        (api.update_event_source_mapping, {"UUID": each, **options}),
    ):
        name, status, message = refused(call, **parameters)
        assert (name, status) == INVALID
        assert part in message


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AccessDeniedException", (*INVALID, "Cannot access stream {}. Please ensure the role can perform")),  # ESM-39
        ("InternalFailure", ("ServiceException", 500, "The event source cannot be reached: ")),
    ],
)
def test_streams_that_cannot_be_asked(tmp_path: Path, code: str, error: tuple[str, int, str]) -> None:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Wire()) as wire:
        stream = portal.call(FaultyKinesis)
        stream.serve(wire)
        stream.refuse("DescribeStreamSummary", *[code] * 10)
        with stream_site(tmp_path, wire).running() as bridge:
            api = client(api_url(bridge))
            given = {"FunctionName": "streamer", "EventSourceArn": stream.arn, "StartingPosition": "LATEST"}
            name, status, message = refused(api.create_event_source_mapping, **given)
            assert (name, status) == error[:2]
            assert message.startswith(error[2].format(stream.arn))
            assert api.list_event_source_mappings()["EventSourceMappings"] == []
