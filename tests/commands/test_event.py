"""Sample events: their shapes by the rules and by Powertools' data classes, their bodies, ids, and refusals."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from aws_lambda_powertools.utilities.data_classes import (
    DynamoDBStreamEvent,
    EventBridgeEvent,
    KafkaEvent,
    KinesisStreamEvent,
    S3Event,
    SNSEvent,
    SQSEvent,
)
from aws_lambda_powertools.utilities.data_classes.rabbit_mq_event import RabbitMQEvent
from hypothesis import given, strategies as st

from bridge.commands import main
from bridge.errors import UsageError
from bridge.samples import SHAPES, TEMPLATES, sample_event

SOURCES = ["sqs", "kinesis", "dynamodb", "kafka", "rabbitmq", "s3", "sns", "eventbridge", "schedule"]
LISTS = [source for source in SOURCES if source not in ("eventbridge", "schedule")]
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


class Printed:
    """Runs ``bridge event`` in this process, and gives what it printed."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> bytes:
        status = main(["event", *arguments])
        output, errors = self._capture.readouterr()
        assert (status, errors) == (0, b"")
        return output

    def event(self, *arguments: str) -> Any:
        return json.loads(self(*arguments))

    def refusal(self, *arguments: str) -> str:
        """The one line of an error, without the program's name."""
        status = main(["event", *arguments])
        output, errors = self._capture.readouterr()
        assert (status, output) == (2, b"")
        program, colon, message = errors.decode().removesuffix("\n").partition(": ")
        assert (program, colon) == ("bridge", ": ")
        assert "\n" not in message
        return message


@pytest.fixture
def printed(capsysbinary: pytest.CaptureFixture[bytes]) -> Printed:
    return Printed(capsysbinary)


def records(source: str, event: dict[str, Any]) -> list[dict[str, Any]]:
    if source == "kafka":
        (found,) = event["records"].values()
    elif source == "rabbitmq":
        (found,) = event["rmqMessagesByQueue"].values()
    else:
        found = event["Records"]
    assert isinstance(found, list)
    return found


def skeleton(value: Any) -> Any:
    """The keys in their order, and the types of what they hold."""
    if isinstance(value, dict):
        return [(key, skeleton(member)) for key, member in value.items()]
    if isinstance(value, list):
        return [skeleton(element) for element in value]
    return type(value).__name__


# Shapes


def test_there_is_a_sample_of_each_source() -> None:
    assert list(SHAPES) == SOURCES
    assert {path.stem for path in TEMPLATES.iterdir()} == set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_the_files_are_events_of_the_same_shape(source: str) -> None:
    assert skeleton(json.loads((TEMPLATES / f"{source}.json").read_text())) == skeleton(sample_event(source))


def test_sqs(printed: Printed) -> None:  # SQS-70, SQS-71, SQS-72
    event = printed.event("sqs", "--body", '{"id": 17}')
    assert list(event) == ["Records"]
    assert set(event["Records"][0]) == {
        *("messageId", "receiptHandle", "body", "attributes", "messageAttributes"),
        *("md5OfBody", "eventSource", "eventSourceARN", "awsRegion"),
    }
    (record,) = SQSEvent(event).records
    assert record.body == '{"id": 17}'
    assert record.json_body == {"id": 17}
    assert record.md5_of_body == hashlib.md5(b'{"id": 17}').hexdigest()
    assert record.event_source == "aws:sqs"
    assert record.aws_region == record.event_source_arn.split(":")[3]
    assert all(isinstance(value, str) for value in event["Records"][0]["attributes"].values())
    assert record.attributes.approximate_receive_count == "1"
    assert record.attributes.sent_timestamp <= record.attributes.approximate_first_receive_timestamp


def test_kinesis(printed: Printed) -> None:  # KIN-42
    event = printed.event("kinesis", "--body", "hello")
    (record,) = KinesisStreamEvent(event).records
    assert record.kinesis.data_as_bytes() == b"hello"
    assert record.event_id == f"shardId-000000000006:{record.kinesis.sequence_number}"
    assert list(event["Records"][0]) == [
        *("kinesis", "eventSource", "eventVersion", "eventID", "eventName"),
        *("invokeIdentityArn", "awsRegion", "eventSourceARN"),
    ]
    assert list(event["Records"][0]["kinesis"]) == [
        *("kinesisSchemaVersion", "partitionKey", "sequenceNumber", "data", "approximateArrivalTimestamp")
    ]
    assert isinstance(record.kinesis.approximate_arrival_timestamp, float)


def test_dynamodb(printed: Printed) -> None:  # DDB-40 to DDB-43
    item = {"id": 7, "name": "é", "price": 1.50, "on": True, "no": None, "tags": ["a", 1], "in": {"x": 1e-7, "S": "s"}}
    event = printed.event("dynamodb", "--body", json.dumps(item))
    record = event["Records"][0]
    assert record["dynamodb"]["Keys"] == {"id": {"N": "7"}}
    assert record["dynamodb"]["NewImage"] == {
        "id": {"N": "7"},
        "name": {"S": "é"},
        "price": {"N": "1.5"},
        "on": {"BOOL": True},
        "no": {"NULL": True},
        "tags": {"L": [{"S": "a"}, {"N": "1"}]},
        "in": {"M": {"x": {"N": "0.0000001"}, "S": {"S": "s"}}},
    }
    assert "OldImage" not in record["dynamodb"]
    assert list(record) == [
        *("eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb", "eventSourceARN")
    ]
    assert list(record["dynamodb"]) == [
        *("ApproximateCreationDateTime", "Keys", "NewImage", "SequenceNumber", "SizeBytes", "StreamViewType")
    ]
    assert record["dynamodb"]["ApproximateCreationDateTime"] % 1 == 0
    assert 21 <= len(record["dynamodb"]["SequenceNumber"]) <= 40  # DDB-9
    (parsed,) = DynamoDBStreamEvent(event).records
    assert parsed.dynamodb is not None
    assert parsed.dynamodb.new_image["name"] == "é"
    assert parsed.event_name is not None
    assert parsed.event_name.name == "INSERT"


def test_dynamodb_takes_the_first_fitting_attribute_as_key() -> None:
    (record,) = sample_event("dynamodb", ['{"on": true, "id": [1], "name": "x", "n": 1}'])["Records"]
    assert record["dynamodb"]["Keys"] == {"name": {"S": "x"}}


def test_kafka(printed: Printed) -> None:  # KAF-21, KAF-23, KAF-25
    event = printed.event("kafka", "--body", '{"id": 1}')
    parsed = KafkaEvent(event)
    assert parsed.event_source == "aws:kafka"
    (record,) = parsed.records
    assert record.json_value == {"id": 1}
    assert list(event["records"]) == [f"{record.topic}-{record.partition}"]
    assert list(event["records"]["orders-0"][0]) == [
        *("topic", "partition", "offset", "timestamp", "timestampType", "key", "value", "headers")
    ]
    assert isinstance(event["bootstrapServers"], str)
    assert record.decoded_key == b"1"
    assert record.decoded_headers["kind"] == b"new"


def test_rabbitmq(printed: Printed) -> None:  # RMQ-20 to RMQ-24
    event = printed.event("rabbitmq", "--body", "ping")
    parsed = RabbitMQEvent(event)
    (message,) = parsed.rmq_messages_by_queue["orders::/"]
    assert message.decoded_data == "ping"
    assert message.basic_properties.body_size == 4
    assert message.basic_properties.content_type == "text/plain"
    assert message.basic_properties.timestamp == "Jan 5, 2026, 10:00:00 AM"
    assert len(event["rmqMessagesByQueue"]["orders::/"][0]["basicProperties"]) == 15
    kinds = [records("rabbitmq", sample_event("rabbitmq", [body]))[0] for body in (b"\xff", "{}")]
    assert [kind["basicProperties"]["contentType"] for kind in kinds] == [
        "application/octet-stream",
        "application/json",
    ]


def test_s3(printed: Printed) -> None:  # EVT-1, EVT-2
    event = printed.event("s3", "--body", "hello")
    parsed = S3Event(event)
    assert parsed.bucket_name == "orders"
    assert parsed.object_key == unquote_plus(event["Records"][0]["s3"]["object"]["key"]) == "in/my order 1.json"
    (record,) = parsed.records
    assert record.s3.get_object.size == 5
    assert record.s3.get_object.etag == hashlib.md5(b"hello").hexdigest()
    assert record.event_name == "ObjectCreated:Put"
    assert record.event_time.endswith("Z")


def test_sns(printed: Printed) -> None:  # EVT-10
    event = printed.event("sns", "--body", "héllo 💡")
    parsed = SNSEvent(event)
    assert parsed.sns_message == "héllo 💡"
    (record,) = parsed.records
    assert record.event_source == "aws:sns"
    assert record.event_subscription_arn.startswith(record.sns.topic_arn + ":")
    assert event["Records"][0]["Sns"]["Subject"] is None
    assert event["Records"][0]["Sns"]["MessageAttributes"] == {}
    assert {"SigningCertUrl", "UnsubscribeUrl"} < set(event["Records"][0]["Sns"])


def test_eventbridge(printed: Printed) -> None:  # EVT-20
    event = printed.event("eventbridge", "--body", '{"id": 5, "in": {"x": [1.5]}}')
    parsed = EventBridgeEvent(event)
    assert parsed.detail == {"id": 5, "in": {"x": [1.5]}}
    assert parsed.detail_type == "Order Placed"
    assert list(event) == [
        *("version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail")
    ]


def test_schedule(printed: Printed) -> None:  # EVT-22
    event = printed.event("schedule")
    parsed = EventBridgeEvent(event)
    assert (parsed.source, parsed.detail_type, parsed.detail) == ("aws.events", "Scheduled Event", {})
    assert ":rule/" in parsed.resources[0]


# Bodies


@pytest.mark.parametrize("source", ["kinesis", "kafka", "rabbitmq"])
@given(body=st.binary())
def test_any_bytes_travel_as_base64(source: str, body: bytes) -> None:
    (record,) = records(source, sample_event(source, [body]))
    text = record["kinesis"]["data"] if source == "kinesis" else record["value" if source == "kafka" else "data"]
    assert base64.b64decode(text, validate=True) == body


def test_a_body_from_a_file(printed: Printed, tmp_path: Path) -> None:
    file = tmp_path / "body.bin"
    file.write_bytes(b"\x00\xff\n")
    (record,) = printed.event("kinesis", "--body", f"@{file}")["Records"]
    assert base64.b64decode(record["kinesis"]["data"]) == b"\x00\xff\n"
    file.write_text("zwölf\n")
    (record,) = printed.event("sqs", "--body", f"@{file}")["Records"]
    assert record["body"] == "zwölf\n"
    assert record["md5OfBody"] == hashlib.md5("zwölf\n".encode()).hexdigest()


def test_without_a_body_each_record_has_its_own(printed: Printed) -> None:
    event = printed.event("sqs", "-n", "3")
    assert [json.loads(record["body"])["id"] for record in event["Records"]] == [1, 2, 3]


# Several records, and the seed


def unique(source: str, record: dict[str, Any]) -> tuple[Any, ...]:
    match source:
        case "sqs":
            return record["messageId"], record["receiptHandle"]
        case "kinesis":
            return record["eventID"], int(record["kinesis"]["sequenceNumber"])
        case "dynamodb":
            return record["eventID"], int(record["dynamodb"]["SequenceNumber"])
        case "kafka":
            return record["key"], record["offset"]
        case "rabbitmq":
            return (record["basicProperties"]["messageId"],)
        case "s3":
            return record["s3"]["object"]["key"], int(record["s3"]["object"]["sequencer"], 16)
        case _:
            return (record["Sns"]["MessageId"],)


@pytest.mark.parametrize("source", LISTS)
def test_ids_are_unique_and_sequence_numbers_ascend(source: str, printed: Printed) -> None:
    found = records(source, printed.event(source, "-n", "250"))
    columns = list(zip(*(unique(source, record) for record in found), strict=True))
    assert [len(set(column)) for column in columns] == [250] * len(columns)
    if isinstance(columns[-1][0], int):
        assert list(columns[-1]) == sorted(columns[-1])


def test_ids_have_their_usual_form() -> None:
    ids = [
        sample_event("sqs")["Records"][0]["messageId"],
        sample_event("sns")["Records"][0]["Sns"]["MessageId"],
        sample_event("eventbridge")["id"],
        sample_event("schedule", seed=3)["id"],
    ]
    assert len(set(ids)) == 4
    assert [each for each in ids if not re.fullmatch(UUID, each)] == []


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_seed_gives_the_same_bytes(source: str, printed: Printed) -> None:
    assert printed(source) == printed(source, "--seed", "0")
    assert printed(source, "--seed", "seven") == printed(source, "--seed", "seven")
    assert printed(source, "--seed", "7") != printed(source, "--seed", "8")


def test_the_bytes_do_not_depend_on_the_process(printed: Printed) -> None:
    command = [sys.executable, "-m", "bridge", "event", "sqs", "-n", "2", "--seed", "5"]
    for environment in ({"PYTHONHASHSEED": "1", "LC_ALL": "C"}, {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"}):
        run = subprocess.run(command, capture_output=True, check=True, env={**os.environ, **environment})
        assert run.stdout == printed("sqs", "-n", "2", "--seed", "5")


def test_bytes_of_the_command_line_that_are_no_text(printed: Printed) -> None:
    typed = os.fsdecode(b"\xff\xfe")
    (record,) = printed.event("kinesis", "--body", typed, "--seed", typed)["Records"]
    assert base64.b64decode(record["kinesis"]["data"]) == b"\xff\xfe"
    assert "0xff at position 0" in printed.refusal("sqs", "--body", typed)


# Refusals


def test_an_unknown_source(printed: Printed) -> None:
    assert printed.refusal("kinesys").endswith('did you mean "kinesis"?')
    assert "known are: sqs, kinesis, dynamodb" in printed.refusal("xyz")


@pytest.mark.parametrize("count", ["0", "-1", "10001", "x", "1.5"])
def test_counts_out_of_range(count: str, printed: Printed) -> None:
    assert "-n" in printed.refusal("sqs", "-n", count)


@pytest.mark.parametrize("source", ["eventbridge", "schedule"])
def test_what_comes_one_at_a_time(source: str, printed: Printed) -> None:
    assert printed.refusal(source, "-n", "2") == f"{source} events come one at a time, not 2 in one"


@pytest.mark.parametrize(
    ("source", "body", "part"),
    [
        ("schedule", "x", "no body"),
        ("eventbridge", "x", "a body of eventbridge is a JSON object: Expecting value"),
        ("eventbridge", "[1]", "a JSON object, not [1]"),
        ("eventbridge", '{"a": NaN}', "NaN is no JSON number"),
        ("eventbridge", '{"a": -1e999}', "-1e999 is no JSON number"),
        ("eventbridge", '{"a": "\\ud800"}', "surrogates not allowed"),
        ("eventbridge", '{"a": ' + "[" * 100_000, "nested too deeply"),
        ("dynamodb", "5", "a JSON object, not 5"),
        ("dynamodb", "{}", "needs an attribute that is a string or a number"),
        ("dynamodb", '{"a": [1]}', "needs an attribute that is a string or a number"),
        ("dynamodb", '{"a": 1, "b": ' + "[" * 100_000, "nested too deeply"),
        ("sqs", "@/nowhere/at/all", "cannot read --body @/nowhere/at/all: No such file or directory"),
        ("sqs", "@", "cannot read --body @: Is a directory"),
    ],
)
def test_bodies_that_do_not_fit(source: str, body: str, part: str, printed: Printed) -> None:
    assert part in printed.refusal(source, "--body", body)


@pytest.mark.parametrize("source", ["sqs", "sns", "dynamodb", "eventbridge"])
def test_what_must_be_text(source: str, printed: Printed, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b'{"a": "\xe9"}')
    message = f"a body of {source} is UTF-8 text, and this is none: byte 0xe9 at position 7"
    assert printed.refusal(source, "--body", f"@{file}") == message
    with pytest.raises(UsageError, match="0xe9 at position 7"):
        sample_event(source, [file.read_bytes()])


def test_help_tells_what_the_body_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["event", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {source} " in text for source in SOURCES)
    assert "bridge event sqs --body" in text
