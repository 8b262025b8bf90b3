"""The behaviours that tests/contracts/executor.py names, in Python 3.9."""

import os
import time
from pathlib import Path
from typing import Any

calls = 0


def echo(event: Any, context: Any) -> Any:
    return event


def nothing(event: Any, context: Any) -> Any:
    return None


def raises(event: Any, context: Any) -> Any:
    raise ValueError("no")


def picky(event: Any, context: Any) -> Any:
    if event["poison"]:
        raise ValueError("no")
    return event


def leaves(event: Any, context: Any) -> Any:
    status = event.get("status")
    if status is None:
        return event
    if status < 0:
        os.kill(os.getpid(), -status)
        time.sleep(60)
    raise SystemExit(status)


def sleeps(event: Any, context: Any) -> Any:
    time.sleep(event["seconds"])
    return event


def large(event: Any, context: Any) -> Any:
    return "x" * (event["bytes"] - 2)


def prose(event: Any, context: Any) -> Any:
    return b"not json"


def meets(event: Any, context: Any) -> Any:
    Path(event["mine"]).touch()
    while not Path(event["theirs"]).exists():
        time.sleep(0.01)
    return event


def counts(event: Any, context: Any) -> Any:
    global calls
    calls += 1
    time.sleep(event.get("seconds", 0))
    return calls
