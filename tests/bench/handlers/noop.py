"""The handler of the benches: nothing to do, nothing to report."""

from typing import Any


def handler(event: dict[str, Any], context: object) -> None:
    return None
