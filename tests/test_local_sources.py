"""What a configuration needs at the embedded endpoint, planned."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from bridge.function import EventInvoke, Function
from bridge.local_sources import Site, planned
from bridge.mapping import Mapping, SourceArn, StreamOptions

EU, US = "eu-west-1", "us-east-1"
ALICE, BOB = "111111111111", "222222222222"
HERE = Site(ALICE, EU)


def mapping(queue: str, *, function: str = "worker", account: str = ALICE, region: str = EU) -> Mapping:
    arn = SourceArn("aws", "sqs", region, account, queue)
    return Mapping(name=queue, uuid="u", function=function, source_arn=arn)


def streaming(arn: str, **options: Any) -> Mapping:
    stream = StreamOptions(**options)
    return Mapping(name=arn, uuid="u", function="worker", source_arn=SourceArn.parse(arn), stream=stream)


def function(name: str = "worker", timeout: float = 3.0, *, account: str = ALICE) -> Function:
    arn = f"arn:aws:lambda:{EU}:{account}:function:{name}"
    return Function(name=name, arn=arn, kind="python", timeout=timeout)


WORKER = {"worker": function()}


def test_queues_that_are_told_of_asynchronous_events_are_made_too() -> None:  # DST-1, DST-20
    place = f"arn:aws:sqs:{EU}:{ALICE}"
    told = EventInvoke(on_success=f"{place}:done", on_failure="arn:aws:s3:::bucket")
    teller = msgspec.structs.replace(function(), event_invoke=told, dead_letter=f"{place}:orders")
    queues = planned([mapping("orders")], {"worker": teller})[HERE].queues
    assert queues["done"] == {}
    assert list(queues) == ["orders-dlq", "orders", "done"]
    assert "RedrivePolicy" in queues["orders"]


@pytest.mark.parametrize(
    ("timeout", "visibility"), [(1, "30"), (3, "30"), (5.1, "31"), (30, "180"), (900, "5400"), (1e6, "43200")]
)
def test_messages_are_hidden_for_six_timeouts(timeout: float, visibility: str) -> None:  # SQS-27, SQS-82
    plan = planned([mapping("orders")], {"worker": function(timeout=timeout)})
    assert plan[HERE].queues["orders"]["VisibilityTimeout"] == visibility


def test_a_queue_gets_a_dead_letter_queue() -> None:  # SQS-37
    queues = planned([mapping("orders")], WORKER)[HERE].queues
    assert list(queues) == ["orders-dlq", "orders"]  # the one that the other refers to comes first
    assert queues["orders-dlq"] == {}
    assert json.loads(queues["orders"]["RedrivePolicy"]) == {
        "deadLetterTargetArn": f"arn:aws:sqs:{EU}:{ALICE}:orders-dlq",
        "maxReceiveCount": "5",
    }


def test_a_fifo_queue_gets_a_fifo_one() -> None:  # SQS-62
    queues = planned([mapping("orders.fifo")], WORKER)[HERE].queues
    kind = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    assert queues["orders-dlq.fifo"] == kind
    assert queues["orders.fifo"].items() >= kind.items()
    assert "orders-dlq.fifo" in queues["orders.fifo"]["RedrivePolicy"]


@pytest.mark.parametrize("order", [["orders", "orders-dlq"], ["orders-dlq", "orders"]])
def test_a_dead_letter_queue_may_be_a_source_too(order: list[str]) -> None:
    queues = planned([mapping(name) for name in order], WORKER)[HERE].queues
    assert set(queues) == {"orders", "orders-dlq", "orders-dlq-dlq"}
    assert "orders-dlq-dlq" in queues["orders-dlq"]["RedrivePolicy"]


@pytest.mark.parametrize("order", [["slow", "quick"], ["quick", "slow"]])
def test_two_mappings_of_a_queue_agree_on_the_longer_time(order: list[str]) -> None:
    functions = {"slow": function("slow", 60), "quick": function("quick", 1)}
    plan = planned([mapping("orders", function=name) for name in order], functions)
    assert plan[HERE].queues["orders"]["VisibilityTimeout"] == "360"


def test_accounts_and_regions_are_kept_apart() -> None:
    plan = planned([mapping("a"), mapping("a", account=BOB), mapping("b", region=US)], WORKER)
    assert {site: set(needs.queues) for site, needs in plan.items()} == {
        (ALICE, EU): {"a", "a-dlq"},
        (BOB, EU): {"a", "a-dlq"},
        (ALICE, US): {"b", "b-dlq"},
    }


STREAM = f"arn:aws:kinesis:{EU}:{ALICE}:stream/clicks"
TABLE = f"arn:aws:dynamodb:{EU}:{ALICE}:table/users/stream/2026-01-01T00:00:00.000"


def test_streams_and_their_consumers() -> None:  # KIN-100
    fanned = f"{STREAM}/consumer/me:1700000000"
    for order in ([STREAM, fanned], [fanned, STREAM]):
        needs = planned([streaming(arn) for arn in order], WORKER)[HERE]
        assert needs.streams == {"clicks": [SourceArn.parse(fanned)]}
        assert needs.queues == {}


def test_tables_with_streams() -> None:
    other = TABLE.replace("2026", "2025")
    needs = planned([streaming(TABLE), streaming(other)], WORKER)[HERE]
    assert needs.tables == {"users": [SourceArn.parse(TABLE), SourceArn.parse(other)]}


def test_what_is_told_of_failures() -> None:  # KIN-80, KIN-85
    told = ("arn:aws:s3:::bucket", f"arn:aws:sns:{US}:{BOB}:alarms", f"arn:aws:sqs:{EU}:{ALICE}:failures")
    plan = planned([streaming(STREAM, on_failure=target) for target in told], {"worker": function(account=BOB)})
    assert list(plan[HERE].queues) == ["failures"]
    assert list(plan[Site(BOB, US)].topics) == ["alarms"]
    assert list(plan[Site(BOB, EU)].buckets) == ["bucket"]  # has no account: it is its user's
