"""Events of S3, SNS and EventBridge reach handlers in their exact shapes: inside the messages of a queue, through a
real daemon, and directly, by ``bridge event`` and ``bridge invoke``. Powertools judges, by data classes and models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.samples import sample_event
from tests.conftest import missing
from tests.e2e.harness import Site
from tests.e2e.recorder import Recorder
from tests.servers import ACCOUNT, REGION, Queue, Server, unique

try:
    from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, S3Event, SNSEvent, SQSEvent
    from aws_lambda_powertools.utilities.parser import envelopes, models
    from pydantic import BaseModel
except ImportError:
    missing("aws-lambda-powertools[parser]")

TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:orders"
S3 = sample_event("s3")
TEST_EVENT = {  # EVT-6
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-01-05T10:00:00.123Z",
    "Bucket": "orders",
    "RequestId": "64E2751DC7405F7E",
    "HostId": "stXgLjX9o0UogOAnxUQBDDDy1qubPBENkTBUSs3JAHJKAYVvTfJYJjgpSqPSSUGy",
}
S3_OVER_EVENTBRIDGE = {  # EVT-7
    **sample_event("eventbridge"),
    "source": "aws.s3",
    "detail-type": "Object Created",
    "resources": ["arn:aws:s3:::orders"],
    "detail": {
        "version": "0",
        "bucket": {"name": "orders"},
        "object": {
            "key": "in/my order.json",
            "size": 26,
            "etag": "c9c2724ffc16d9496973303da72b749a",
            "sequencer": "00",
        },
        "request-id": "64E2751DC7405F7E",
        "requester": ACCOUNT,
        "source-ip-address": "203.0.113.7",
        "reason": "PutObject",
    },
}


def enveloped(message: str, **more: Any) -> dict[str, Any]:
    """What SNS puts into a queue without raw delivery (EVT-11), made of what it gives to Lambda (EVT-10)."""
    sns = sample_event("sns", [message])["Records"][0]["Sns"]
    names = {"SigningCertUrl": "SigningCertURL", "UnsubscribeUrl": "UnsubscribeURL"}
    return {names.get(key, key): value for key, value in sns.items() if value not in (None, {})} | more


class Order(BaseModel):  # type: ignore[misc,unused-ignore]
    id: int
    kind: str


ORDER = '{"id": 1, "kind": "order"}'
BODIES: dict[str, str] = {
    "s3": json.dumps(S3),
    "s3 test": json.dumps(TEST_EVENT),
    "sns": json.dumps(enveloped(ORDER)),
    "sns with all": json.dumps(
        enveloped(
            ORDER, Subject="s", MessageAttributes={"kind": {"Type": "String", "Value": "new"}}, SequenceNumber="1"
        )
    ),
    "s3 over sns": json.dumps(enveloped(json.dumps(S3))),
    "eventbridge": json.dumps(sample_event("eventbridge")),
    "schedule": json.dumps(sample_event("schedule")),
    "s3 over eventbridge": json.dumps(S3_OVER_EVENTBRIDGE),
    "raw": ORDER,
}
RAW_ATTRIBUTES = {  # EVT-12
    "kind": {"DataType": "String", "StringValue": "new"},
    "n": {"DataType": "Number", "StringValue": "5"},
    "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    "a": {"DataType": "String.Array", "StringValue": '["x", "y"]'},
}

Event = dict[str, Any]


@pytest.fixture(scope="module")
def events(ministack_server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Event]:
    """What a function got for each of BODIES, and for what a real S3, SNS and EventBridge put into the queue: one event
    of one record each, by name."""
    site = Site(tmp_path_factory.mktemp("events") / "site", ministack_server)
    queue = site.queue()
    with Recorder() as recorder:
        site.config["functions"]["web"] = {"url": recorder.url}
        site.mapping(queue, "web", BatchSize=1)
        sent = {}
        with site.running() as bridge:
            for name, body in BODIES.items():
                more = {"MessageAttributes": RAW_ATTRIBUTES} if name == "raw" else {}
                sent[queue.api.send_message(QueueUrl=queue.url, MessageBody=body, **more)["MessageId"]] = name
            produce(ministack_server, queue)
            bridge.until(lambda: len(recorder.events) >= len(BODIES) + PRODUCED)
        found = [json.loads(event) for event in recorder.events]
    named = {sent[event["Records"][0]["messageId"]]: event for event in found if of(event) in sent}
    others = [event for event in found if of(event) not in sent]
    return named | {f"real {kind_of(event)}": event for event in others}


def of(event: Event) -> str:
    (record,) = event["Records"]
    return str(record["messageId"])


PRODUCED = 5
"""Messages of ``produce``."""


def produce(server: Server, queue: Queue) -> None:
    """What other services put into the queue: S3's test message and notification, SNS with an envelope and raw,
    EventBridge."""
    s3, sns, rules = (server.client(service) for service in ("s3", "sns", "events"))
    bucket = unique("bucket")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    wiring = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [wiring]})
    s3.put_object(Bucket=bucket, Key="in/my order.json", Body=b"{}")
    for raw in ("false", "true"):
        topic = sns.create_topic(Name=unique("topic"))["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn, Attributes={"RawMessageDelivery": raw})
        attributes = {"kind": {"DataType": "String", "StringValue": raw}}
        sns.publish(TopicArn=topic, Message=ORDER, Subject="s", MessageAttributes=attributes)
    name = unique("rule")
    rules.put_rule(Name=name, EventPattern='{"source": ["shop.orders"]}')
    rules.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": queue.arn}])
    entry = {"Source": "shop.orders", "DetailType": "Order Placed", "Detail": ORDER}
    rules.put_events(Entries=[entry])


def kind_of(event: Event) -> str:
    body = json.loads(event["Records"][0]["body"])
    for key, name in (("Records", "s3"), ("Event", "s3 test"), ("TopicArn", "sns"), ("detail-type", "eventbridge")):
        if key in body:
            return name
    return "raw"


def body_of(event: Event) -> str:
    (record,) = SQSEvent(event).records
    (model,) = models.SqsModel.model_validate(event).Records
    assert record.body == model.body
    return str(record.body)


@pytest.mark.parametrize("name", BODIES)
def test_a_body_arrives_as_it_was_sent(events: dict[str, Event], name: str) -> None:  # EVT-5, EVT-11, EVT-12, EVT-21
    assert body_of(events[name]) == BODIES[name]
    assert (events[name]["Records"][0]["messageAttributes"] == {}) == (name != "raw")


@pytest.mark.parametrize("name", ["s3", "real s3"])
def test_s3(events: dict[str, Event], name: str) -> None:  # EVT-1, EVT-2
    (record,) = SQSEvent(events[name]).records
    s3 = record.decoded_nested_s3_event
    assert s3.object_key == ("in/my order 1.json" if name == "s3" else "in/my order.json"), "form-decoded"
    (model,) = models.S3SqsEventNotificationModel.model_validate(events[name]).Records
    assert model.body.Records[0].s3.bucket.name == s3.bucket_name
    assert not record.body.startswith('{"Records":[{"eventName":"s3:')


@pytest.mark.parametrize("name", ["s3 test", "real s3 test"])
def test_the_test_message_of_s3(events: dict[str, Event], name: str) -> None:  # EVT-6
    document = json.loads(body_of(events[name]))
    assert set(document) == set(TEST_EVENT)
    assert (document["Service"], document["Event"]) == ("Amazon S3", "s3:TestEvent")
    assert "Records" not in document


@pytest.mark.parametrize("name", ["sns", "sns with all", "real sns"])
def test_sns(events: dict[str, Event], name: str) -> None:  # EVT-11
    (record,) = SQSEvent(events[name]).records
    message = record.decoded_nested_sns_event
    assert message.message == ORDER
    document = json.loads(body_of(events[name]))
    assert document["Type"] == "Notification"
    assert {"SigningCertURL", "UnsubscribeURL"} <= set(document)
    assert ("Subject" in document) == (name != "sns")
    assert ("MessageAttributes" in document) == (name != "sns")
    assert envelopes.SnsSqsEnvelope().parse(events[name], Order) == [Order(id=1, kind="order")]


@pytest.mark.parametrize("name", ["raw", "real raw"])
def test_sns_raw(events: dict[str, Event], name: str) -> None:  # EVT-12
    assert envelopes.SqsEnvelope().parse(events[name], Order) == [Order(id=1, kind="order")]
    (record,) = SQSEvent(events[name]).records
    attribute = record.message_attributes["kind"]
    assert attribute is not None
    assert attribute.data_type == "String"
    assert attribute.string_value in ("new", "true")
    (model,) = models.SqsModel.model_validate(events[name]).Records
    if name == "raw":
        kinds = {key: value.dataType for key, value in model.messageAttributes.items()}
        assert kinds == {"kind": "String", "n": "Number", "b": "Binary", "a": "String.Array"}
        assert model.messageAttributes["b"].binaryValue == "AP8="


def test_s3_over_sns(events: dict[str, Event]) -> None:  # EVT-14
    (record,) = SQSEvent(events["s3 over sns"]).records
    inner = json.loads(record.decoded_nested_sns_event.message)
    assert S3Event(inner).object_key == "in/my order 1.json"
    (model,) = envelopes.SnsSqsEnvelope().parse(events["s3 over sns"], models.S3Model)
    assert model is not None
    stored = model.Records[0].s3.object
    assert stored is not None
    assert stored.sequencer == S3["Records"][0]["s3"]["object"]["sequencer"]


@pytest.mark.parametrize("name", ["eventbridge", "schedule", "s3 over eventbridge", "real eventbridge"])
def test_eventbridge(events: dict[str, Event], name: str) -> None:  # EVT-7, EVT-21, EVT-22
    body = json.loads(body_of(events[name]))
    event, model = EventBridgeEvent(body), models.EventBridgeModel.model_validate(body)
    assert (event.detail_type, event.source) == (model.detail_type, model.source)
    (parsed,) = envelopes.SqsEnvelope().parse(events[name], models.EventBridgeModel)
    assert parsed == model
    if name == "s3 over eventbridge":
        detail = models.S3EventNotificationEventBridgeModel.model_validate(body).detail
        assert detail.object.key == "in/my order.json"
    if name == "schedule":
        assert (event.source, event.detail_type, event.detail) == ("aws.events", "Scheduled Event", {})


# Directly.


def s3_directly(event: Event) -> None:  # EVT-1
    assert S3Event(event).bucket_name == models.S3Model.model_validate(event).Records[0].s3.bucket.name


def sns_directly(event: Event) -> None:  # EVT-10
    assert SNSEvent(event).sns_message == models.SnsModel.model_validate(event).Records[0].Sns.Message == ORDER
    assert envelopes.SnsEnvelope().parse(event, Order) == [Order(id=1, kind="order")]


def eventbridge_directly(event: Event) -> None:  # EVT-20
    assert EventBridgeEvent(event).detail == models.EventBridgeModel.model_validate(event).detail
    assert envelopes.EventBridgeEnvelope().parse(event, Order) == Order(id=1, kind="order")


def schedule_directly(event: Event) -> None:  # EVT-22
    assert models.EventBridgeModel.model_validate(event).detail_type == "Scheduled Event"


@pytest.mark.parametrize(
    ("source", "judge"),
    [
        ("s3", s3_directly),
        ("sns", sns_directly),
        ("eventbridge", eventbridge_directly),
        ("schedule", schedule_directly),
    ],
)
def test_directly(tmp_path: Path, source: str, judge: Callable[[Event], None]) -> None:
    site = Site(tmp_path)
    with Recorder() as recorder:
        site.config["functions"]["web"] = {"url": recorder.url}
        file = str(site.write())
        printed = site.cli("event", source).out
        done = site.cli("invoke", "web", "-c", file, "-e", "-", given=printed)
        assert done.status == 0, done.err
    (event,) = recorder.events
    assert event == printed.strip().encode(), "not a byte is changed on the way"
    judge(json.loads(event))
