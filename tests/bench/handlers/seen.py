"""Writes down how many records came, and how long after they had been put."""

import os
import time
from typing import Any

_file = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def time_of(record: dict[str, Any]) -> float:
    """When it was put."""
    if "kinesis" in record:
        return float(record["kinesis"]["approximateArrivalTimestamp"])
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def handler(event: dict[str, Any], context: object) -> None:
    now, records = time.time(), event["Records"]
    first, last = (now - time_of(record) for record in (records[0], records[-1]))
    os.write(_file, f"{len(records)} {first:.4f} {last:.4f} {now:.4f}\n".encode())
