"""Sends each of its messages to its own queue again, with the trace header that it was given: as SDKs on Lambda do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import botocore.session


def handler(event: dict[str, Any], _context: Any) -> None:
    sqs = botocore.session.get_session().create_client("sqs")
    for record in event["Records"]:
        name = record["eventSourceARN"].rpartition(":")[2]
        trace = {"DataType": "String", "StringValue": os.environ["_X_AMZN_TRACE_ID"]}
        with Path(os.environ["JOURNAL"]).open("a") as journal:
            journal.write(f"{os.environ['_X_AMZN_TRACE_ID']}\n")
        if record["body"] == "again":
            sqs.send_message(
                QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"],
                MessageBody=record["body"],
                MessageSystemAttributes={"AWSTraceHeader": trace},
            )
