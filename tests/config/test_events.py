"""DeadLetterConfig and EventInvokeConfig of a function."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.function import EventInvoke, Function
from tests.configured import RUNTIME, problem, settings

PLACE = "eu-west-1:123456789012"
QUEUE = f"arn:aws:sqs:{PLACE}:ends"


def one(options: str) -> str:
    function = f"{{Runtime: {RUNTIME}, Handler: app.handler, CodeUri: ., {options}}}"
    return f"aws: {{region: eu-west-1, account_id: '123456789012'}}\nfunctions: {{worker: {function}}}\n"


def worker(folder: Path, options: str) -> Function:
    return settings(folder, one(options)).functions["worker"]


def destination(name: str, arn: str) -> str:
    return f"EventInvokeConfig: {{DestinationConfig: {{{name}: {{Destination: '{arn}'}}}}}}"


def test_defaults_are_those_of_aws(tmp_path: Path) -> None:  # ASY-4, ASY-6
    function = worker(tmp_path, "")
    assert function.event_invoke == EventInvoke()
    assert function.dead_letter == ""


def test_all_of_it(tmp_path: Path) -> None:
    function = worker(
        tmp_path,
        "EventInvokeConfig: {MaximumRetryAttempts: 0, MaximumEventAgeInSeconds: 60, DestinationConfig: {"
        f"OnSuccess: {{Destination: '{QUEUE}'}}, OnFailure: {{Destination: 'arn:aws:s3:::failed-events'}}}}}},"
        f"DeadLetterConfig: {{TargetArn: 'arn:aws:sns:{PLACE}:dead'}}",
    )
    assert function.event_invoke == EventInvoke(
        retries=0, max_age=60, on_success=QUEUE, on_failure="arn:aws:s3:::failed-events"
    )
    assert function.dead_letter == f"arn:aws:sns:{PLACE}:dead"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("EventInvokeConfig: {MaximumRetryAttempts: 3}", "MaximumRetryAttempts: 3 is more than 2"),
        ("EventInvokeConfig: {MaximumRetryAttempts: -1}", "MaximumRetryAttempts: -1 is less than 0"),
        ("EventInvokeConfig: {MaximumEventAgeInSeconds: 59}", "MaximumEventAgeInSeconds: 59 is less than 60"),
        ("EventInvokeConfig: {MaximumEventAgeInSeconds: 21601}", "MaximumEventAgeInSeconds: 21601 is more than 21600"),
        ("EventInvokeConfig: {}", ": You must specify at least one of error handling or destination setting."),
        ("EventInvokeConfig: {DestinationConfig: {OnSuccess: {}}}", ": You must specify at least one"),
        ("EventInvokeConfig: {MaximumRetryAttempts: 1, Retries: 1}", "Retries: unknown option"),
    ],
)
def test_ranges(tmp_path: Path, options: str, part: str) -> None:  # ASY-4, ASY-6, ASY-23
    assert part in problem(tmp_path, one(options))
    assert problem(tmp_path, one(options)).startswith("bridge.yaml:2: functions.worker.EventInvokeConfig")


@pytest.mark.parametrize(
    "arn",
    [
        QUEUE,
        f"arn:aws:sns:{PLACE}:topic",
        f"arn:aws:events:{PLACE}:event-bus/default",
        f"arn:aws:lambda:{PLACE}:function:other",
        f"arn:aws:lambda:{PLACE}:function:other:prod",
        f"arn:aws:lambda:{PLACE}:function:other:$LATEST",
        "arn:aws-cn:sqs:cn-north-1:123456789012:q",
    ],
)
def test_destinations(tmp_path: Path, arn: str) -> None:  # DST-1
    assert worker(tmp_path, destination("OnSuccess", arn)).event_invoke.on_success == arn
    assert worker(tmp_path, destination("OnFailure", arn)).event_invoke.on_failure == arn


@pytest.mark.parametrize(
    ("arn", "message"),
    [
        (f"{QUEUE}.fifo", "FIFO queues and topics are not supported here"),
        (f"arn:aws:sns:{PLACE}:topic.fifo", "FIFO queues and topics are not supported here"),
        (f"arn:aws:kinesis:{PLACE}:stream/s", "is no ARN of a destination; expected that of an SQS queue, "),
        ("orders", '"orders" is no ARN of a destination'),
        (f"arn:aws:sns:{PLACE}:topic:sub", "is no ARN of a destination"),
        ("arn:aws:s3:::failed-events", "is an S3 bucket, on failure only"),
        (f"arn:aws:lambda:{PLACE}:function:worker", "You can't specify the function as a destination for itself."),
        (f"arn:aws:lambda:{PLACE}:function:worker:prod", "You can't specify the function as a destination for itself."),
    ],
)
def test_what_is_no_destination(tmp_path: Path, arn: str, message: str) -> None:  # DST-1, ASY-23
    found = problem(tmp_path, one(destination("OnSuccess", arn)))
    assert found.startswith("bridge.yaml:2: functions.worker.EventInvokeConfig.DestinationConfig.OnSuccess.Destination")
    assert message in found


@pytest.mark.parametrize(
    ("arn", "message"),
    [
        (f"{QUEUE}.fifo", "FIFO queues and topics are not supported here"),
        ("arn:aws:s3:::failed-events", "is an S3 bucket, no dead-letter queue; expected an SQS queue or an SNS topic"),
        (f"arn:aws:lambda:{PLACE}:function:other", "is a function, no dead-letter queue"),
        ("dead", "is no ARN of a destination"),
    ],
)
def test_what_is_no_dead_letter_queue(tmp_path: Path, arn: str, message: str) -> None:  # DST-20
    found = problem(tmp_path, one(f"DeadLetterConfig: {{TargetArn: '{arn}'}}"))
    assert found.startswith("bridge.yaml:2: functions.worker.DeadLetterConfig.TargetArn")
    assert message in found


def test_functions_that_run_elsewhere_have_them_too(tmp_path: Path) -> None:
    text = f"functions: {{there: {{url: 'http://127.0.0.1:9/x', DeadLetterConfig: {{TargetArn: '{QUEUE}'}}"
    found = settings(tmp_path, f"{text}, {destination('OnFailure', QUEUE)}}}}}\n").functions["there"]
    assert (found.dead_letter, found.event_invoke.on_failure) == (QUEUE, QUEUE)
