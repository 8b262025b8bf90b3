"""Looks at a queue: its attributes, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping as Dict
from math import inf
from typing import Any

from bridge.doctor.facts import About, Queue
from bridge.doctor.inquiry import Inquiry
from bridge.errors import ServiceFault
from bridge.function import AwsSettings
from bridge.mapping import SourceArn
from bridge.sources.sqs import max_receives


async def look_at_queue(inquiry: Inquiry, settings: AwsSettings, arn: SourceArn, about: About) -> Queue | None:
    """Its attributes; none where they cannot be had."""
    address = {"QueueName": arn.resource, **({"QueueOwnerAWSAccountId": arn.account} if arn.account else {})}
    where: dict[str, Any] = {"resource": str(arn), "about": about}
    region = arn.region or None
    found = await inquiry.ask("sqs", settings, region, "GetQueueUrl", address, **where)
    if not found:
        return None
    query = {"QueueUrl": found["QueueUrl"], "AttributeNames": ["All"]}
    answer = await inquiry.ask("sqs", settings, region, "GetQueueAttributes", query, **where)
    if not answer:
        return None
    try:
        return queue_of(str(arn), answer.get("Attributes", {}))
    except ValueError as error:
        inquiry.note(ServiceFault(f"its attributes cannot be read: {error}"), about, str(arn))
        return None


def queue_of(arn: str, attributes: Dict[str, str]) -> Queue:
    """Of GetQueueAttributes."""
    waiting = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed")
    return Queue(
        arn=arn,
        fifo=attributes.get("FifoQueue") == "true" or arn.endswith(".fifo"),  # SQS-62
        visibility=int(attributes.get("VisibilityTimeout", 30)),
        retention=int(attributes.get("MessageRetentionPeriod", 345_600)),  # SQS-82
        waiting=sum(int(attributes.get(name, 0)) for name in waiting),
        in_flight=int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0)),
        max_receives=max_receives(attributes) if letters_of(attributes) else inf,
        dlq=letters_of(attributes),
        key=attributes.get("KmsMasterKeyId", ""),
        high_throughput=attributes.get("FifoThroughputLimit") == "perMessageGroupId",
    )


def letters_of(attributes: Dict[str, str]) -> str:
    """The ARN of the dead-letter queue; empty: none."""
    try:
        target = str(json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"])
        SourceArn.parse(target)
    except (KeyError, TypeError, ValueError):
        return ""
    return target
