"""A handler of a Kinesis stream: what it raises fails the whole batch, which then comes back in halves."""

import json
from base64 import b64decode

import journal


def handler(event, context):
    for record in event["Records"]:
        click = json.loads(b64decode(record["kinesis"]["data"]))
        if "page" not in click:
            journal.write(event, context, record, "failed")
            raise ValueError(f"click {click['id']} is on no page")  # however often it is tried: a poison record
        journal.write(event, context, record, "done")
