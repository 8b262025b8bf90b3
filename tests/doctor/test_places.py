"""What doctor finds about destinations and functions on Lambda, on a real server."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

from bridge.local import free_port
from tests.doctor.clinic import Clinic, Stream, redriven
from tests.servers import ACCOUNT, REGION, Server, unique

Made = Callable[[str], Clinic]
LONG: dict[str, Any] = {"MessageRetentionPeriod": "1209600"}


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def on_lambda(server: Server, *, timeout: int = 3, reserved: int | None = None) -> str:
    """The ARN of a real function."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as file:
        file.writestr("app.py", "def handler(event, context): return event")
    api, name = server.client("lambda"), unique("function")
    made = api.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Handler="app.handler",
        Role=f"arn:aws:iam::{ACCOUNT}:role/handler",
        Code={"ZipFile": code.getvalue()},
        Timeout=timeout,
    )
    if reserved is not None:
        api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
    return str(made["FunctionArn"])


def ends(**targets: str) -> dict[str, Any]:
    told = {key: {"Destination": target} for key, target in targets.items()}
    return {"EventInvokeConfig": {"DestinationConfig": told}}


def test_destinations_of_every_kind_that_are_gone_and_that_are_there(clinic: Made, ministack_server: Server) -> None:
    server = ministack_server
    it = clinic(server.url)
    bucket = unique("bucket")
    server.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    there = {
        "sqs": server.queue().arn,
        "sns": server.client("sns").create_topic(Name=unique("topic"))["TopicArn"],
        "events": server.client("events").create_event_bus(Name=unique("bus"))["EventBusArn"],
        "lambda": on_lambda(server),
    }
    gone = {
        "sqs": arn("sqs", "gone"),
        "sns": arn("sns", "gone"),
        "events": arn("events", "event-bus/gone"),
        "lambda": arn("lambda", "function:gone"),
    }
    for kind, targets in (("there", there), ("gone", gone)):
        it.function(f"{kind}-one", **ends(OnSuccess=targets["sqs"], OnFailure=targets["sns"]))
        it.function(f"{kind}-two", **ends(OnSuccess=targets["events"], OnFailure=targets["lambda"]))
        it.function(f"{kind}-three", **ends(OnFailure=f"arn:aws:s3:::{bucket if kind == 'there' else 'gone-for-good'}"))
        it.function(f"{kind}-four", DeadLetterConfig={"TargetArn": targets["sqs"]})
    it.function("own", **ends(OnSuccess=arn("lambda", "function:there-one").replace(ACCOUNT, "000000000000")))
    found = it.examine()
    assert found.status == 1
    missing = sorted(row["message"].partition(" ")[0] for row in found.rows if row["code"] == "destination-missing")
    assert missing == sorted([*gone.values(), gone["sqs"], "arn:aws:s3:::gone-for-good"])
    assert {row["code"] for row in found.rows} == {"destination-missing"}
    assert {row["function"].partition("-")[0] for row in found.rows} == {"gone"}
    assert "tried for 60 s, counted and given up" in found["function gone-one"]["destination-missing"].message


def test_the_destination_of_a_mapping(clinic: Made, ministack_server: Server) -> None:
    it = clinic(ministack_server.url)
    told = {"OnFailure": {"Destination": arn("sqs", "gone")}}
    stream = Stream(ministack_server)
    it.mapping("clicks", stream.arn, StartingPosition="LATEST", MaximumRetryAttempts=1, DestinationConfig=told)
    assert it.examine()["clicks"]["destination-missing"].message.startswith(f"{arn('sqs', 'gone')} does not exist")


def test_functions_on_lambda(clinic: Made, ministack_server: Server) -> None:  # SQS-35
    server = ministack_server
    it = clinic(server.url)
    it.function("slow", **{"lambda": on_lambda(server, timeout=90)}, Timeout=30)
    it.function("narrow", **{"lambda": on_lambda(server, reserved=2)}, Timeout=30)
    it.function("gone", **{"lambda": arn("lambda", "function:gone")}, Timeout=30)
    queue = {"VisibilityTimeout": "180", **redriven(server, 6, **LONG)}
    for name in ("slow", "narrow", "gone"):
        it.mapping(name, server.queue(**queue), name)
    found = it.examine()
    assert found["slow"]["function-timeout-longer"].message.startswith(
        "Lambda lets the function run for 90 s, the bridge waits 30 s"
    )
    assert found["narrow"]["throttle-receives"].message == (
        "up to 16 batches are sent at once to a function with 2 reserved: the rest is throttled, goes back after 3 min"
        " with a receive used up, and after 6 of them lies in the dead-letter queue without a handler having seen it"
    )
    assert found["function gone"]["function-missing"].level == "error"
    assert found["gone"].keys() == {"burn-budget", "idle-cost"}  # said once, of the function


def test_a_function_behind_a_url(clinic: Made, ministack_server: Server) -> None:
    it = clinic(ministack_server.url)
    it.function("there", url=f"{ministack_server.url}/events")
    it.function("gone", url=f"http://127.0.0.1:{free_port()}/events?token=secret")
    found = it.examine()
    assert found.status == 1
    assert found["function there"] == {}
    level, message, _ = found["function gone"]["function-unreachable"]
    assert level == "error"
    assert "/events (" in message
    assert "secret" not in message


def test_a_mapping_of_lambda_on_the_same_source(clinic: Made, ministack_server: Server) -> None:
    server = ministack_server
    it = clinic(server.url)
    queue, stream, function = server.queue(), Stream(server), on_lambda(server)
    api = server.client("lambda")
    uuids = [
        api.create_event_source_mapping(EventSourceArn=queue.arn, FunctionName=function)["UUID"],
        api.create_event_source_mapping(EventSourceArn=stream.arn, FunctionName=function, StartingPosition="LATEST")[
            "UUID"
        ],
    ]
    it.mapping("orders", queue)
    it.mapping("clicks", stream.arn, StartingPosition="LATEST")
    try:
        found = it.examine()
        api.update_event_source_mapping(UUID=uuids[0], Enabled=False)
        later = it.examine("orders")
    finally:
        for uuid in uuids:
            api.delete_event_source_mapping(UUID=uuid)
    level, message, fix = found["orders"]["lambda-competes"]
    assert level == "warning"
    assert message.startswith(
        f"Lambda's mapping {uuids[0]} ({function}) is enabled on the same source: each message goes"
    )
    assert fix == f"aws lambda update-event-source-mapping --uuid {uuids[0]} --no-enabled"
    assert "each record is handled by both" in found["clicks"]["lambda-competes"].message
    assert f"2 readers (Lambda's mapping {uuids[1]} besides)" in found["clicks"]["shared-throughput"].message
    assert "lambda-competes" not in later["orders"]
