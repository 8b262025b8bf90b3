"""SQS queues as replay needs them: both the one where dead letters lie and the one that they are sent to."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from typing import Any

import msgspec

from bridge.aws import Api, Aws
from bridge.errors import NotFound, UsageError
from bridge.function import AwsSettings
from bridge.mapping import SourceArn
from bridge.replay.entries import CALL_TIMEOUT


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """An existing queue, as its attributes describe it."""

    api: Api
    url: str
    arn: str
    fifo: bool
    retention: float | None
    """Seconds for which it keeps a message; none: it does not say."""
    dead_letters: str = ""
    """ARN of its own dead-letter queue; empty: none."""
    max_receives: int = 0
    """Receives after which a message goes there; 0: none."""

    @property
    def name(self) -> str:
        return self.arn.rpartition(":")[2]

    def __str__(self) -> str:
        parts = self.arn.split(":")
        return f"{self.name} (account {parts[4]}, {parts[3]})"


async def find(aws: Aws, settings: AwsSettings, word: str) -> Queue:
    """The queue with this name, URL or ARN. Raises UsageError when there is none, RemoteError."""
    region, account, name, url = _address(word)
    api = await aws.api("sqs", settings, region or None)
    if not url:
        query = {"QueueName": name, **({"QueueOwnerAWSAccountId": account} if account else {})}
        try:
            url = (await api.call("GetQueueUrl", query, timeout=CALL_TIMEOUT))["QueueUrl"]
        except NotFound:
            raise UsageError(_absent(aws, word)) from None
    everything = {"QueueUrl": url, "AttributeNames": ["All"]}
    try:
        answer = await api.call("GetQueueAttributes", everything, timeout=CALL_TIMEOUT)
    except NotFound:
        raise UsageError(_absent(aws, word)) from None
    return _described(api, url, answer.get("Attributes") or {})


def _described(api: Api, url: str, attributes: Dict[str, str]) -> Queue:
    arn = attributes["QueueArn"]
    retention = attributes.get("MessageRetentionPeriod")
    policy = _policy(attributes.get("RedrivePolicy", ""))
    return Queue(
        api=api,
        url=url,
        arn=arn,
        fifo=attributes.get("FifoQueue") == "true" or arn.endswith(".fifo"),
        retention=float(retention) if retention else None,
        dead_letters=str(policy.get("deadLetterTargetArn") or ""),
        max_receives=int(policy.get("maxReceiveCount") or 0),
    )


def _policy(text: str) -> dict[str, Any]:
    """A RedrivePolicy; empty when there is none or it cannot be read."""
    try:
        policy = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
    return policy


def _address(word: str) -> tuple[str, str, str, str]:
    """Region, account, name and URL, as far as the word says them."""
    if word.startswith("arn:"):
        try:
            arn = SourceArn.parse(word)
        except ValueError:
            raise UsageError(f"{word} is no ARN; expected arn:aws:sqs:REGION:ACCOUNT:NAME") from None
        if arn.service != "sqs":
            raise UsageError(f"{word} is no queue of SQS; expected a queue's name, URL or ARN")
        return arn.region, arn.account, arn.resource, ""
    if "://" in word:
        return region_of(word), "", "", word
    return "", "", word, ""


def region_of(url: str) -> str:
    """The region that a URL of AWS's own names, else empty."""
    host = url.partition("://")[2].partition("/")[0].split(".")
    for place, label in enumerate(host[:-2]):
        if label == "sqs" and "amazonaws" in host:
            return host[place + 1] if host[place + 1] != "amazonaws" else ""
    return ""


def _absent(aws: Aws, word: str) -> str:
    places = ", ".join(f"{place.endpoint} in {place.region}" for place in aws.describe() if place.service == "sqs")
    return f"there is no queue {word} at {places}; check name, account, region and endpoint"
