"""The handlers of the end-to-end tests: they do what their records say, and keep a journal of it.

``handler`` takes messages of queues.

A body is a JSON object, or a text that asks for nothing. Its keys, all optional; the records of a batch come in order:

    sleep   seconds until the next one
    prints  a line for the standard output
    spawn   true: starts a process that sleeps for ever, and notes its pid
    until   for what follows: up to which receive count of the message it holds; 1
    raises  true: the handler raises
    exits   a status: the process ends at once
    fails   true: with ``PARTIAL`` set the answer names the message, else the handler raises at its end
    answer  what the handler answers; ``$1``, ``$2`` … in its strings stand for the ids of the batch
    raw     the same, as a text that need not be JSON

``stream`` takes records of streams: the data of a Kinesis record, or the attribute ``order`` of a new image, is such an
object, with the keys

    sleep   seconds until the next one
    raises  true: the handler raises; a path: it does as long as something is there
    fails   true: the answer names the record, and those after it are not looked at
    raw     what the handler answers at its end, as a text that need not be JSON

Of a tumbling window it gathers the ``n`` of all records in its state, and notes it at the window's last invocation.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def handler(event: dict[str, Any], context: Any) -> Any:
    with journal(event, context):
        return act(event["Records"])


def stream(event: dict[str, Any], context: Any) -> Any:
    with journal(event, context):
        answer = follow(event["Records"])
        return gather(event) if "window" in event else answer


@contextmanager
def journal(event: dict[str, Any], context: Any) -> Iterator[None]:
    """Notes what an invocation was given, and when and how it ended."""
    note = {
        "request": context.aws_request_id,
        "function": context.function_name,
        "setting": os.environ.get("SETTING", ""),
        "pid": os.getpid(),
    }
    write({**note, "what": "start", "at": time.time(), "records": event["Records"]})
    well = False
    try:
        yield
        well = True
    finally:
        write({**note, "what": "end", "at": time.time(), "well": well})


def act(records: list[dict[str, Any]]) -> Any:
    failed = []
    answer: Any = None
    for record in records:
        order = read(record)
        time.sleep(order.get("sleep", 0))
        if "prints" in order:
            print(order["prints"])
        if order.get("spawn"):
            write({"what": "spawn", "pid": subprocess.Popen(["/bin/sleep", "1000"]).pid})
        if order.get("raises"):
            raise ValueError(f"told to raise by {record['messageId']}")
        if "exits" in order:
            os._exit(order["exits"])
        if order.get("fails"):
            failed.append({"itemIdentifier": record["messageId"]})
        answer = order["raw"].encode() if "raw" in order else order.get("answer", answer)
    if failed and not os.environ.get("PARTIAL"):
        raise ValueError(f"told to fail {len(failed)} messages")
    ids = [record["messageId"] for record in records]
    return {"batchItemFailures": failed} if failed else fill(answer, ids)


def read(record: dict[str, Any]) -> dict[str, Any]:
    """What a message asks for, this time."""
    try:
        order = json.loads(record["body"])
    except ValueError:
        return {}
    if not isinstance(order, dict):
        return {}
    if int(record["attributes"]["ApproximateReceiveCount"]) > order.get("until", 1):
        return {key: order[key] for key in ("sleep", "prints", "spawn") if key in order}
    return order


def fill(answer: Any, ids: list[str]) -> Any:
    if isinstance(answer, bytes):
        return answer
    text = re.sub(r"\$(\d+)", lambda found: ids[int(found[1]) - 1], json.dumps(answer))
    return json.loads(text)


def follow(records: list[dict[str, Any]]) -> Any:
    answer: Any = None
    for record in records:
        order = ordered(record)
        time.sleep(order.get("sleep", 0))
        raises = order.get("raises")
        if raises is True or (raises and Path(raises).exists()):
            raise ValueError(f"told to raise by {number(record)}")
        if order.get("fails"):
            return {"batchItemFailures": [{"itemIdentifier": number(record)}]}
        answer = order["raw"].encode() if "raw" in order else answer
    return answer


def gather(event: dict[str, Any]) -> Any:
    """The answer of a window."""
    seen = [*event["state"].get("seen", ()), *(ordered(record)["n"] for record in event["Records"])]
    if event["isFinalInvokeForWindow"]:
        write({"what": "window", "shard": event["shardId"], "start": event["window"]["start"], "seen": seen})
    return {"state": {"seen": seen}}


def number(record: dict[str, Any]) -> str:
    """Its sequence number."""
    return str(record["kinesis"]["sequenceNumber"] if "kinesis" in record else record["dynamodb"]["SequenceNumber"])


def ordered(record: dict[str, Any]) -> dict[str, Any]:
    """What a record asks for."""
    try:
        if "kinesis" in record:
            order = json.loads(base64.b64decode(record["kinesis"]["data"]))
        else:
            order = json.loads(record["dynamodb"]["NewImage"]["order"]["S"])
    except (ValueError, KeyError):
        return {}
    return order if isinstance(order, dict) else {}


def write(line: dict[str, Any]) -> None:
    """One write call a line: appends of several processes do not mix."""
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, json.dumps(line).encode() + b"\n")
    finally:
        os.close(journal)
