"""A handler of a FIFO queue: at the first failure of a group it reports that record and the rest of its group."""

import json

import journal


def handler(event, context):
    failures = []
    stopped = set()
    for record in event["Records"]:
        group = record["attributes"]["MessageGroupId"]
        payment = json.loads(record["body"])
        first_try = record["attributes"]["ApproximateReceiveCount"] == "1"
        if group in stopped or (payment.get("flaky") and first_try):
            stopped.add(group)
            journal.write(event, context, record, "failed")
            failures.append({"itemIdentifier": record["messageId"]})
        else:
            journal.write(event, context, record, "done")
    return {"batchItemFailures": failures}
