"""Asks the queues of a configuration for what IAM has to know and the configuration does not say: their dead-letter
queues and keys."""

from __future__ import annotations

from typing import NamedTuple

import anyio

from bridge.aws import Aws
from bridge.doctor.facts import Case
from bridge.doctor.inquiry import Inquiry
from bridge.doctor.queues import look_at_queue
from bridge.mapping import Mapping
from bridge.settings import Settings


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

        async def one(mapping: Mapping) -> None:
            case = Case(mapping=mapping, function=settings.functions[mapping.function])
            queue = await look_at_queue(Inquiry(aws, case), mapping.aws, mapping.source_arn, "source")
            trouble = case.failed[0].detail if case.failed else ""
            found[str(mapping.source_arn)] = Asked(queue.dlq, queue.key) if queue else Asked(trouble=trouble)

        with anyio.move_on_after(deadline):
            async with anyio.create_task_group() as tasks:
                for mapping in settings.mappings.values():
                    if mapping.source == "sqs":
                        tasks.start_soon(one, mapping, name=f"letters of {mapping.name}")
    return found
