"""Writes down each number that it gets, and from a record about one the number that the record is about."""

import os
from typing import Any


def handler(event: Any, context: Any) -> Any:
    number = event["requestPayload"] if isinstance(event, dict) else event
    file = os.open(f"{os.environ['JOURNAL']}.{context.function_name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{number} {context.aws_request_id}\n".encode())
    os.close(file)
    if os.environ["SETTING"] == "raise":
        raise ValueError(number)
    return number
