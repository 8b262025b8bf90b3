"""The border to AWS against real servers of unrelated makers."""

from __future__ import annotations

import base64

import anyio
import anyio.abc
import pytest

from bridge.aws import Aws
from bridge.errors import (
    NotFound,
    Rejected,
)
from tests.aws.calls import settings
from tests.servers import ACCOUNT, REGION, Server, unique

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys", "clients")]


async def test_messages_make_the_round_trip(aws: Aws, sqs_server: Server) -> None:
    api = await aws.api("sqs", settings(endpoint_url=sqs_server.url), REGION)
    made = await api.call("CreateQueue", {"QueueName": unique("round-trip")}, timeout=10)
    queue = {"QueueUrl": made["QueueUrl"]}
    colour = {"StringValue": "blue", "DataType": "String"}
    photo = {"BinaryValue": b"\x00\xff", "DataType": "Binary"}
    await api.call(
        "SendMessage",
        {**queue, "MessageBody": "grüße \u2028 {}", "MessageAttributes": {"colour": colour, "photo": photo}},
        timeout=10,
    )
    names = {"MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]}
    answer = await api.call("ReceiveMessage", {**queue, **names, "WaitTimeSeconds": 5}, timeout=15)
    (message,) = answer["Messages"]
    assert message["Body"] == "grüße \u2028 {}"
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert message["MessageAttributes"]["colour"]["StringValue"] == "blue"
    # As it came: blobs are base64 text, which is what the event needs (SQS-71).
    assert message["MessageAttributes"]["photo"]["BinaryValue"] == base64.b64encode(b"\x00\xff").decode()
    entries = [
        {"Id": "good", "ReceiptHandle": message["ReceiptHandle"]},
        {"Id": "bad", "ReceiptHandle": "no handle of this queue"},
    ]
    settled = await api.call("DeleteMessageBatch", {**queue, "Entries": entries}, timeout=10)
    assert [entry["Id"] for entry in settled["Successful"]] == ["good"]
    assert [entry["Id"] for entry in settled["Failed"]] == ["bad"]


async def test_real_errors_are_ours(aws: Aws, sqs_server: Server) -> None:
    api = await aws.api("sqs", settings(endpoint_url=sqs_server.url), REGION)
    with pytest.raises(NotFound):
        await api.call("GetQueueUrl", {"QueueName": unique("nowhere")}, timeout=10)
    with pytest.raises(NotFound):
        await api.call("ReceiveMessage", {"QueueUrl": f"{sqs_server.url}/{ACCOUNT}/nowhere"}, timeout=10)
    queue = sqs_server.queue()
    with pytest.raises(Rejected):
        await api.call("DeleteMessage", {"QueueUrl": queue.url, "ReceiptHandle": "none of this queue"}, timeout=10)


async def test_an_empty_long_poll_waits_and_an_arrival_ends_it(aws: Aws, sqs_server: Server) -> None:
    api = await aws.api("sqs", settings(endpoint_url=sqs_server.url), REGION)
    queue = sqs_server.queue()
    poll = {"QueueUrl": queue.url, "WaitTimeSeconds": 20}
    found: list[str] = []

    async def receive() -> None:
        answer = await api.call("ReceiveMessage", poll, timeout=30)
        found.extend(message["Body"] for message in answer["Messages"])

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await api.call("SendMessage", {"QueueUrl": queue.url, "MessageBody": "wake up"}, timeout=10)
    assert found == ["wake up"]


async def test_queue_urls_that_do_not_resolve_go_to_the_endpoint(aws: Aws, fauxqs_server: Server) -> None:
    queue = fauxqs_server.queue()
    assert not queue.url.startswith(fauxqs_server.url)
    api = await aws.api("sqs", settings(endpoint_url=fauxqs_server.url), REGION)
    await api.call("SendMessage", {"QueueUrl": queue.url, "MessageBody": "here"}, timeout=10)
    answer = await api.call("ReceiveMessage", {"QueueUrl": queue.url}, timeout=10)
    assert [message["Body"] for message in answer["Messages"]] == ["here"]
