"""A handler of a standard queue: it reports the records that failed, and only those come back."""

import json

import journal


def handler(event, context):
    failures = []
    for record in event["Records"]:
        try:
            ship(json.loads(record["body"]), int(record["attributes"]["ApproximateReceiveCount"]))
        except ValueError as error:
            print(f"order of message {record['messageId']} failed: {error}")
            journal.write(event, context, record, "failed")
            failures.append({"itemIdentifier": record["messageId"]})
        else:
            journal.write(event, context, record, "done")
    return {"batchItemFailures": failures}


def ship(order, attempt):
    if order["quantity"] < 1:
        raise ValueError("a quantity below 1")  # however often it is tried: a poison message
    if order.get("flaky") and attempt == 1:
        raise ValueError("the warehouse does not answer")
