"""Replays on real servers, seen from the outside by botocore."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from bridge.aws import Aws
from bridge.replay.journal import Journal
from bridge.replay.loop import replay
from bridge.replay.plan import Plan
from bridge.replay.queue import SqsShelf
from bridge.replay.queues import find
from bridge.replay.summary import Summary
from bridge.replay.to_source import source_target
from tests.servers import Queue, Server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]

BLOB = bytes(range(256))
ATTRIBUTES: dict[str, Any] = {
    "text": {"DataType": "String", "StringValue": "grüße"},
    "own": {"DataType": "String.uuid", "StringValue": "u"},
    "count": {"DataType": "Number", "StringValue": "12.50"},
    "blob": {"DataType": "Binary", "BinaryValue": BLOB},
    "image": {"DataType": "Binary.png", "BinaryValue": b"\x89PNG"},
}


def pair(server: Server, *, fifo: bool = False) -> tuple[Queue, Queue]:
    """A queue and the one where its dead letters go."""
    dead = server.queue(fifo=fifo)
    policy = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": 3})
    return server.queue(fifo=fifo, RedrivePolicy=policy), dead


async def run(
    server: Server, dead: Queue, folder: Path, *, client: Literal["fast", "sdk"] = "fast", **plan: Any
) -> Summary:
    """Back to the source, whatever the queue says that is."""
    settings = msgspec.structs.replace(server.settings, client=client)
    async with Aws() as aws:
        shelf = SqsShelf(await find(aws, settings, dead.name), poll=0)
        target = await source_target(aws, settings, shelf)
        assert target
        await target.check(dry=False)
        made = Plan(**{"rate": 0, **plan})
        async with Journal(folder / "journal.jsonl", shelf.arn, run=made.run) as journal:
            return await replay(made, shelf, target, journal)


def received(queue: Queue) -> list[dict[str, Any]]:
    """All messages, in order; they stay hidden."""
    found: list[dict[str, Any]] = []
    while answer := queue.api.receive_message(
        QueueUrl=queue.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
    ).get("Messages"):
        found += answer
        for message in answer:
            queue.api.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
    return found


@pytest.mark.parametrize("client", ["fast", "sdk"])
async def test_whole_messages(sqs_server: Server, tmp_path: Path, client: Literal["fast", "sdk"]) -> None:
    """REPLAY-DO-5, REPLAY-DONT-4, REPLAY-DONT-9"""
    source, dead = pair(sqs_server)
    body = '{"n":  1.50, "s": "\\u00e9 é 😀"}'
    trace = "Root=1-5e3d83c1-e6a0db584850d61342823d4c;Sampled=1"
    dead.api.send_message(
        QueueUrl=dead.url,
        MessageBody=body,
        MessageAttributes=ATTRIBUTES,
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": trace}},
    )
    summary = await run(sqs_server, dead, tmp_path, client=client)
    assert summary.complete
    (message,) = received(source)
    assert message["Body"] == body
    assert message["MessageAttributes"] == ATTRIBUTES
    assert message["Attributes"].get("AWSTraceHeader", trace) == trace  # not every server keeps it
    assert dead.counts() == (0, 0)


async def test_a_filter_gives_back_what_is_not_meant(sqs_server: Server, tmp_path: Path) -> None:
    """REPLAY-DO-6"""
    source, dead = pair(sqs_server)
    dead.send(*[json.dumps({"kind": "order" if number % 4 == 0 else "other"}) for number in range(40)])
    summary = await run(sqs_server, dead, tmp_path, patterns=('{"body": {"kind": ["order"]}}',))
    assert (summary.read, summary.matched, summary.sent, summary.left) == (40, 10, 10, 30)
    assert source.counts() == (10, 0)
    assert dead.counts() == (30, 0)  # visible again at once


async def test_groups_in_order(sqs_server: Server, tmp_path: Path) -> None:
    """REPLAY-DO-4, REPLAY-DONT-2: sent, dead and replayed within the five minutes of the original's deduplication."""
    source, dead = pair(sqs_server, fifo=True)
    once = {f"{number}": f"original {number}" for number in range(12)}
    for queue in (source, dead):  # the source has seen these deduplication ids
        for body, token in once.items():
            queue.api.send_message(
                QueueUrl=queue.url,
                MessageBody=body,
                MessageGroupId=f"group {int(body) % 3}",
                MessageDeduplicationId=token,
            )
    assert len(received(source)) == 12
    summary = await run(sqs_server, dead, tmp_path)
    assert summary.complete
    messages = received(source)
    assert sorted(int(message["Body"]) for message in messages) == list(range(12))
    for group in range(3):
        bodies = [int(it["Body"]) for it in messages if it["Attributes"]["MessageGroupId"] == f"group {group}"]
        assert bodies == list(range(group, 12, 3))


async def test_kept(sqs_server: Server, tmp_path: Path) -> None:
    source, dead = pair(sqs_server)
    dead.send("a", "b")
    assert (await run(sqs_server, dead, tmp_path, keep=True)).complete
    assert source.counts() == dead.counts() == (2, 0)


async def test_batches_of_large_messages(sqs_server: Server, tmp_path: Path) -> None:
    """REPLAY-DO-5"""
    source, dead = pair(sqs_server)
    for number in range(7):
        dead.send(f"{number}" * 200_000)
    summary = await run(sqs_server, dead, tmp_path)
    assert summary.complete, summary
    assert source.counts() == (7, 0)
