"""Prints the id of each order; what is no JSON object with an id comes again, and ends in the dead-letter queue."""

import json


def handler(event, context):
    failures = []
    for record in event["Records"]:
        try:
            print("order", json.loads(record["body"])["id"])
        except (ValueError, LookupError, TypeError) as error:
            print(f"not an order: {error!r}")
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
