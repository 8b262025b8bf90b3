"""Handlers of the examples: plain Lambda functions, which need nothing of bridge."""

import json
import os

TABLE_NAME = os.environ.get("TABLE_NAME", "orders")


def handler(event, context):
    """Takes a batch. Raising would leave the whole batch in its queue, to come again."""
    for record in event["Records"]:
        print(f"{context.aws_request_id} {record['messageId']} for {TABLE_NAME}: {record['body']}")


def partial(event, context):
    """Takes a batch and names the records that failed; only these come again."""
    failed = []
    for record in event["Records"]:
        try:
            json.loads(record["body"])
        except ValueError:
            failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}
