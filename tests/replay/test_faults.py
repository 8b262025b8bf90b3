"""A server that fails entries and requests, throttles, and drops connections, half of them after it did what was
asked: nothing is lost, and there are no more duplicates than were announced."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from bridge.aws import Aws
from bridge.function import AwsSettings
from bridge.replay.journal import Journal
from bridge.replay.loop import replay
from bridge.replay.plan import Plan
from bridge.replay.queue import SqsShelf
from bridge.replay.queues import find
from bridge.replay.to_queue import QueueTarget
from tests.servers import Server, fakeaws

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]

MESSAGES = 400


def bodies(server: Server, queue: str) -> list[str]:
    """All that is in the queue."""
    client, found = server.client(), list[str]()
    while True:
        answer = client.receive_message(QueueUrl=f"{server.url}/000000000000/{queue}", MaxNumberOfMessages=10)
        if not answer.get("Messages"):
            return found
        found += [message["Body"] for message in answer["Messages"]]


def control(server: Server, path: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}{path}", method="POST")) as answer:
        answer.read()


async def test_a_server_that_errs_in_every_way(tmp_path: Path) -> None:
    """REPLAY-DO-2, REPLAY-DONT-1"""
    faults = {"error_rate": 0.04, "throttle_rate": 0.04, "drop_rate": 0.04, "batch_fail_rate": 0.05}
    with fakeaws(queues=1, messages=MESSAGES, visibility=120) as server:
        server.client().create_queue(QueueName="target")
        async with Aws() as aws:
            settings = AwsSettings(region="eu-west-1", endpoint_url=server.url)
            dead, target = await find(aws, settings, "q0"), await find(aws, settings, "target")
            control(server, "/set?" + "&".join(f"{name.replace('_', '-')}={rate}" for name, rate in faults.items()))
            plan = Plan(rate=0, concurrency=8)
            async with Journal(tmp_path / "journal.jsonl", dead.arn, run=plan.run) as journal:
                # A receive whose answer was dropped hides its messages until the run that asked for them is long over.
                summary = await replay(plan, SqsShelf(dead, hold=5), QueueTarget(target, dead), journal)
                while summary.left:
                    again = await replay(plan, SqsShelf(dead, hold=5), QueueTarget(target, dead), journal)
                    summary.possible_duplicates += again.possible_duplicates
                    summary.left = again.left
        control(server, "/set?" + "&".join(f"{name.replace('_', '-')}=0" for name in faults))
        arrived = Counter(bodies(server, "target"))
        with urllib.request.urlopen(f"{server.url}/stats") as answer:
            counted = json.load(answer)["faults"]
    assert all(counted.values()), counted  # every kind of fault took place
    assert len(arrived) == MESSAGES
    assert arrived.total() - MESSAGES <= summary.possible_duplicates
    assert summary.possible_duplicates < MESSAGES
