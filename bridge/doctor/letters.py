"""Asks the queues of a configuration for what IAM has to know and the configuration does not say: their dead-letter
queues and keys."""

from __future__ import annotations

from typing import NamedTuple

import anyio

from bridge.aws import Aws
from bridge.doctor.gather import letters_of
from bridge.errors import RemoteError
from bridge.mapping import Mapping
from bridge.settings import Settings

CALL_TIMEOUT = 5.0


class Asked(NamedTuple):
    """What a queue told. ``trouble``: why it did not, in one line."""

    dlq: str = ""
    key: str = ""
    """The KMS key that it is encrypted with; empty: none that IAM has to know."""
    trouble: str = ""


async def ask(settings: Settings, deadline: float) -> dict[str, Asked]:
    """By the ARN of the queue; within ``deadline`` seconds, without those that did not answer in it."""
    found: dict[str, Asked] = {}
    async with Aws() as aws:
        with anyio.move_on_after(deadline):
            async with anyio.create_task_group() as tasks:
                for mapping in settings.mappings.values():
                    if mapping.source == "sqs":
                        tasks.start_soon(_ask, aws, mapping, found, name=f"letters of {mapping.name}")
    return found


async def _ask(aws: Aws, mapping: Mapping, found: dict[str, Asked]) -> None:
    arn = mapping.source_arn
    try:
        api = await aws.api("sqs", mapping.aws, arn.region or None)
        address = {"QueueName": arn.resource, **({"QueueOwnerAWSAccountId": arn.account} if arn.account else {})}
        url = (await api.call("GetQueueUrl", address, timeout=CALL_TIMEOUT))["QueueUrl"]
        query = {"QueueUrl": url, "AttributeNames": ["All"]}
        attributes = (await api.call("GetQueueAttributes", query, timeout=CALL_TIMEOUT)).get("Attributes", {})
    except RemoteError as error:
        found[str(arn)] = Asked(trouble=str(error))
    else:
        found[str(arn)] = Asked(letters_of(attributes), attributes.get("KmsMasterKeyId", ""))
