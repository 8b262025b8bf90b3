"""Handlers that write."""

import sys
from typing import Any


def says(event: Any, context: Any) -> None:
    print(event["say"])
    print(event["say"], file=sys.stderr)
