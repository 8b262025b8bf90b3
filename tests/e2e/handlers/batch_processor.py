"""A handler as people write it with Powertools: each record on its own, failures reported by the batch processor."""

from __future__ import annotations

from typing import Any

from actor import journal  # type: ignore[import-not-found]  # it stands beside this file
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

processor = BatchProcessor(event_type=EventType.SQS)


def one(record: SQSRecord) -> None:
    if record.json_body.get("bad") and record.attributes.approximate_receive_count == "1":
        raise ValueError("not this time")


def handler(event: dict[str, Any], context: Any) -> Any:
    with journal(event, context):
        return process_partial_response(event=event, record_handler=one, processor=processor, context=context)
