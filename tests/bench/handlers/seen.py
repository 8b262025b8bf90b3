"""Writes down how many records came, and how long after they had been put."""

import os
import time
from typing import Any

_file = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def handler(event: dict[str, Any], context: object) -> None:
    now, records = time.time(), event["Records"]
    first, last = (now - record["kinesis"]["approximateArrivalTimestamp"] for record in (records[0], records[-1]))
    os.write(_file, f"{len(records)} {first:.4f} {last:.4f} {now:.4f}\n".encode())
