"""Writes down what a handler saw, one JSON line per record, where the variable JOURNAL says."""

import json
import os
import time


def write(record, context, outcome):
    entry = {
        "at": time.time(),
        "request": context.aws_request_id,
        "message": record["messageId"],
        "first_received": int(record["attributes"]["ApproximateFirstReceiveTimestamp"]) / 1000,
        "receives": int(record["attributes"]["ApproximateReceiveCount"]),
        "group": record["attributes"].get("MessageGroupId"),
        "body": json.loads(record["body"]),
        "outcome": outcome,
    }
    line = json.dumps(entry).encode() + b"\n"
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, line)  # one write: lines of several processes do not mix
    finally:
        os.close(journal)
