"""Handlers of the examples: plain Lambda functions, which need nothing of bridge."""

import base64
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


def clicks(event, context):
    """Takes records of a Kinesis stream: their data is base64."""
    for record in event["Records"]:
        data = base64.b64decode(record["kinesis"]["data"])
        print(f"{context.aws_request_id} {record['kinesis']['partitionKey']}: {data!r}")


def changes(event, context):
    """Takes the changes of a DynamoDB table."""
    for record in event["Records"]:
        print(f"{context.aws_request_id} {record['eventName']} {record['dynamodb']['Keys']}")


def count(event, context):
    """Counts the records of a tumbling window: what it answers as `state` comes back with the next batch of the window,
    and with its last invocation."""
    total = event["state"].get("total", 0) + len(event["Records"])
    if event["isFinalInvokeForWindow"]:
        print(f"{event['shardId']} {event['window']['start']}: {total} records")
    return {"state": {"total": total}}
