"""Writes down what a handler did, one JSON line per record, where the variable JOURNAL says."""

import json
import os
import time


def write(event, context, record, outcome):
    entry = {
        "at": time.time(),
        "request": context.aws_request_id,
        "batch": len(event["Records"]),
        "record": record,
        "outcome": outcome,
    }
    line = json.dumps(entry).encode() + b"\n"
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, line)  # one write: lines of several processes do not mix
    finally:
        os.close(journal)
