"""What doctor finds where no real server plays along: scripted answers on a real wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import anyio
import pytest

from tests.doctor.clinic import QUEUE, Clinic, Wired, wired
from tests.doctor.test_streams import store
from tests.servers import ACCOUNT, REGION, Server
from tests.wire import NEVER, Answer, error

Made = Callable[[str], Clinic]
STREAM = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks"
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/users/stream/2026-01-01T00:00:00.000"
DENIED = error("AccessDeniedException", message="User: bridge is not authorized")


@pytest.fixture
def far() -> Iterator[Wired]:
    """An endpoint with a good queue, stream and table, until a test says otherwise."""
    with wired() as it:
        it.wire.on("GetQueueUrl", {"QueueUrl": f"{it.url}/{ACCOUNT}/orders"})
        it.wire.on("GetQueueAttributes", attributes())
        it.wire.on("DescribeStreamSummary", {"StreamDescriptionSummary": {"RetentionPeriodHours": 24}})
        it.wire.on("ListShards", {"Shards": [{"ShardId": "shardId-000000000000"}]})
        it.wire.on("GetShardIterator", {"ShardIterator": "here"})
        it.wire.on("GetRecords", {"Records": [], "MillisBehindLatest": 0, "NextShardIterator": "there"})
        it.wire.on("DescribeStream", described("ENABLED"))
        yield it


def attributes(**more: str) -> dict[str, Any]:
    return {"Attributes": {"VisibilityTimeout": "30", "MessageRetentionPeriod": "345600", **more}}


def described(status: str) -> dict[str, Any]:
    return {"StreamDescription": {"StreamStatus": status, "Shards": [{"ShardId": "shardId-0000000000000000-00000000"}]}}


def test_nobody_is_there(clinic: Made) -> None:
    with wired() as far:
        it = clinic(far.url)
        far.down()
        it.mapping("orders")
        it.mapping("clicks", STREAM, StartingPosition="LATEST")
        began = time.monotonic()
        found = it.examine()
        assert time.monotonic() - began < 10
    assert found.status == 1
    for name, what in (("orders", QUEUE), ("clicks", STREAM)):
        level, message, _ = found[name]["unreachable"]
        assert level == "error"
        assert message.startswith(f"{what}: ")
        assert far.url in message


def test_a_queue_that_does_not_answer_is_a_finding_and_delays_nobody(
    clinic: Made, far: Wired, ministack_server: Server
) -> None:
    far.wire.on("GetQueueAttributes", NEVER)
    it = clinic(ministack_server.url)
    it.mapping("silent", aws={"endpoint_url": far.url})
    it.mapping("good", ministack_server.queue())
    began = time.monotonic()
    found = it.examine("--timeout", "1")
    assert 1 <= time.monotonic() - began < 6
    level, message, _ = found["silent"]["no-answer"]
    assert level == "error"
    assert message.startswith(f"sqs:GetQueueAttributes on {QUEUE}: no answer within 1 s")
    assert "idle-cost" in found["good"]
    assert "no-answer" not in found["good"]


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (DENIED, "permission-missing", f"sqs:GetQueueAttributes on {QUEUE} is denied: sqs GetQueueAttributes: User"),
        (error("ExpiredToken"), "credentials-refused", f"{QUEUE}: sqs GetQueueAttributes: as scripted (ExpiredToken)"),
        (error("InvalidSignatureException"), "credentials-refused", "the signature was refused"),
        (error("RequestTimeTooSkewed"), "credentials-refused", "set this machine's clock"),
        (error("InternalError", status=500), "call-failed", "as scripted (InternalError)"),
        (
            Answer({"Attributes": {"VisibilityTimeout": "soon"}}),
            "call-failed",
            "its attributes cannot be read: invalid literal",
        ),
    ],
)
def test_refusals(clinic: Made, far: Wired, answer: Answer, code: str, said: str) -> None:
    far.wire.on("GetQueueAttributes", answer)
    it = clinic(far.url)
    it.mapping("orders")
    found = it.examine()
    assert said in found["orders"][code].message
    assert found["orders"].keys() == {code}


@pytest.mark.parametrize("operation", ["DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords"])
def test_each_missing_permission_is_named(clinic: Made, far: Wired, operation: str) -> None:
    far.wire.on(operation, DENIED)
    it = clinic(far.url)
    it.mapping("clicks", STREAM, StartingPosition="TRIM_HORIZON")
    found = it.examine()
    assert found.status == 1
    level, message, fix = found["clicks"]["permission-missing"]
    assert (level, fix) == ("error", "bridge iam-policy prints all that is needed")
    assert message.startswith(f"kinesis:{operation} on {STREAM} is denied: ")


def test_a_table_whose_stream_may_not_be_read(clinic: Made, far: Wired) -> None:
    far.wire.on("GetRecords", DENIED)
    it = clinic(far.url)
    it.mapping("users", TABLE, StartingPosition="TRIM_HORIZON")
    assert it.examine()["users"]["permission-missing"].message.startswith(f"dynamodb:GetRecords on {TABLE} is denied")


def test_a_role_that_may_not_be_assumed(clinic: Made, far: Wired) -> None:
    body = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    far.wire.on("AssumeRole", Answer(body, 403))
    it = clinic(far.url)
    role = f"arn:aws:iam::{ACCOUNT}:role/there"
    it.mapping("orders", aws={"role_arn": role})
    found = it.examine()["orders"]
    assert found.keys() == {"permission-missing"}
    assert found["permission-missing"].message.startswith(f"sts:AssumeRole on {role} is denied: ")


def test_a_throttled_question_is_asked_again(clinic: Made, far: Wired) -> None:
    far.wire.once("DescribeStreamSummary", error("LimitExceededException"), error("LimitExceededException"))
    it = clinic(far.url)
    it.mapping("clicks", STREAM, StartingPosition="LATEST")
    assert it.examine()["clicks"].keys() == {"no-retry-bound", "idle-cost"}


@pytest.mark.parametrize(("ahead", "said"), [(-7200.0, "2 h behind"), (7200.0, "2 h ahead of"), (3.0, "")])
def test_a_wrong_clock(clinic: Made, far: Wired, ahead: float, said: str) -> None:
    async def dated(_: object) -> Answer:
        return Answer(attributes(), headers={"date": formatdate(time.time() + ahead, usegmt=True)})

    far.wire.on("GetQueueAttributes", dated)
    it = clinic(far.url)
    it.mapping("orders")
    found = it.examine()["orders"]
    assert ("clock-skew" in found) is bool(said)
    if said:
        assert found["clock-skew"].level == "warning"
        assert found["clock-skew"].message.startswith("the clock of the sqs endpoint is ")
        assert said in found["clock-skew"].message


def test_the_limits_of_queues(clinic: Made, far: Wired) -> None:  # SQS-81
    far.wire.on("GetQueueAttributes", attributes(ApproximateNumberOfMessagesNotVisible="119000"))
    it = clinic(far.url)
    it.mapping("orders")
    found = it.examine()
    assert found["orders"]["in-flight-limit"].message.startswith("119,000 of at most 120,000 messages are in flight")


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        (19_000, ""),
        (50_000, "50,000 messages wait: SQS looks for free groups among the first 20,000 only at endpoints with the"),
        (200_000, "200,000 messages wait: SQS looks for free groups among the first 120,000 only, so one slow"),
    ],
)
def test_how_far_a_fifo_queue_looks(clinic: Made, far: Wired, waiting: int, said: str) -> None:
    far.wire.on("GetQueueAttributes", attributes(FifoQueue="true", ApproximateNumberOfMessages=str(waiting)))
    it = clinic(far.url)
    it.mapping("orders", f"{QUEUE}.fifo")
    found = it.examine()["orders"]
    assert ("fifo-look-ahead" in found) is bool(said)
    if said:
        assert found["fifo-look-ahead"].message.startswith(said)
        assert f"the backlog of {waiting:,} takes" in found["fifo-throughput"].message


@pytest.mark.parametrize("queue", [QUEUE, f"{QUEUE}.fifo"])
def test_a_dead_letter_queue_of_the_other_kind(clinic: Made, far: Wired, queue: str) -> None:
    other = QUEUE if queue.endswith(".fifo") else f"{QUEUE}.fifo"
    redrive = json.dumps({"deadLetterTargetArn": other.replace("orders", "dead"), "maxReceiveCount": 9})
    far.wire.once("GetQueueAttributes", Answer(attributes(RedrivePolicy=redrive)))
    it = clinic(far.url)
    it.mapping("orders", queue)
    level, message, _ = it.examine()["orders"]["dlq-wrong-kind"]
    assert level == "error"
    assert "SQS cannot move messages there" in message


def test_streams_that_end(clinic: Made, far: Wired) -> None:  # DDB-10
    far.wire.on("DescribeStream", described("DISABLED"))
    it = clinic(far.url)
    it.mapping("users", TABLE, StartingPosition="LATEST")
    assert "the table's stream is disabled" in it.examine()["users"]["stream-ends"].message


def test_a_stream_that_is_being_deleted(clinic: Made, far: Wired) -> None:
    summary = {"RetentionPeriodHours": 24, "StreamStatus": "DELETING"}
    far.wire.on("DescribeStreamSummary", {"StreamDescriptionSummary": summary})
    it = clinic(far.url)
    it.mapping("clicks", STREAM, StartingPosition="LATEST")
    assert "the stream is being deleted" in it.examine()["clicks"]["stream-ends"].message


def test_a_consumer_that_is_not_active_yet(clinic: Made, far: Wired) -> None:  # KIN-106
    far.wire.on("DescribeStreamConsumer", {"ConsumerDescription": {"ConsumerStatus": "CREATING"}})
    it = clinic(far.url)
    it.mapping("clicks", f"{STREAM}/consumer/own:1", StartingPosition="LATEST")
    assert it.examine()["clicks"]["consumer-not-active"].message.startswith("the registered consumer is CREATING")


def test_a_position_that_a_table_has_trimmed(clinic: Made, far: Wired) -> None:  # DDB-25
    far.wire.on("GetShardIterator", error("TrimmedDataAccessException"))
    it = clinic(far.url)
    it.mapping("users", TABLE, StartingPosition="TRIM_HORIZON")
    assert "position-trimmed" not in it.examine()["users"]  # it has never been anywhere
    anyio.run(store, it, TABLE, "shardId-0000000000000000-00000000", "AFTER_SEQUENCE_NUMBER 100")
    found = it.examine()
    assert found.status == 1
    assert found["users"]["position-trimmed"].message.startswith("the stored position is older than the oldest record")


def test_a_denied_look_at_lambda_is_no_finding(clinic: Made, far: Wired) -> None:
    far.wire.on("", Answer("", 403))
    it = clinic(far.url)
    it.mapping("orders")
    assert it.examine()["orders"].keys() == {"no-dlq", "idle-cost"}
    assert far.wire.of("")[0].path.startswith("/2015-03-31/event-source-mappings")


def test_the_lambda_side_of_a_denied_function(clinic: Made, far: Wired) -> None:
    far.wire.on("", Answer({"Message": "no"}, 403, {"x-amzn-errortype": "AccessDeniedException"}))
    it = clinic(far.url)
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:real"
    it.function("remote", **{"lambda": f"{function}:live"})
    found = it.examine()
    assert found["function remote"]["permission-missing"].message.startswith(
        f"lambda:GetFunctionConfiguration on {function}:live is denied"
    )
