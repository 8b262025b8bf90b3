"""The behaviours that tests/contracts/executor.py names, in Python 3.9."""

import os
import time

calls = 0


def echo(event, context):
    return event


def nothing(event, context):
    return None


def raises(event, context):
    raise ValueError("no")


def picky(event, context):
    if event["poison"]:
        raise ValueError("no")
    return event


def leaves(event, context):
    status = event.get("status")
    if status is None:
        return event
    if status < 0:
        os.kill(os.getpid(), -status)
        time.sleep(60)
    raise SystemExit(status)


def sleeps(event, context):
    time.sleep(event["seconds"])
    return event


def large(event, context):
    return "x" * (event["bytes"] - 2)


def prose(event, context):
    return b"not json"


def meets(event, context):
    with open(event["mine"], "w"):
        pass
    while not os.path.exists(event["theirs"]):
        time.sleep(0.01)
    return event


def counts(event, context):
    global calls
    calls += 1
    time.sleep(event.get("seconds", 0))
    return calls
