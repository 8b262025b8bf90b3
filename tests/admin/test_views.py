"""The shapes that programs read (interfaces.md sections 1 and 4)."""

from __future__ import annotations

import msgspec

from bridge.admin import views
from bridge.snapshot import Gate
from tests.admin.control import CLICKS, ORDERS, STARTED, ScriptedControl, view


def test_ready_when_every_mapping_polls_or_has_no_need_to() -> None:
    paused = view("paused", state="Disabled", gate=Gate("paused", STARTED))
    assert views.readiness(ScriptedControl(ORDERS, CLICKS, paused).snapshot()) == {"ready": True, "mappings": {}}
    assert views.readiness(ScriptedControl().snapshot())["ready"] is True


def test_what_is_not_ready_says_why_and_since_when() -> None:
    waiting = view(
        "new", ready=False, state="Creating", gate=Gate("opening", STARTED + 1.5, "the queue does not exist")
    )
    bare = view("bare", ready=False, state="Enabling")
    assert views.readiness(ScriptedControl(ORDERS, waiting, bare).snapshot()) == {
        "ready": False,
        "mappings": {
            "new": {"reason": "opening: the queue does not exist", "since": "2023-11-14T22:13:21.500Z"},
            "bare": {"reason": "Enabling", "since": "2023-11-14T22:13:20.000Z"},
        },
    }


def test_a_draining_daemon_is_not_ready() -> None:
    control = ScriptedControl(ORDERS)
    control.draining = True
    assert views.readiness(control.snapshot()) == {"ready": False, "reason": "draining", "mappings": {}}


def test_a_daemon_that_does_not_know_its_mappings_yet_is_not_ready() -> None:
    snapshot = msgspec.structs.replace(ScriptedControl().snapshot(), starting=True)
    assert views.readiness(snapshot) == {"ready": False, "reason": "starting", "mappings": {}}


def test_a_row_has_exactly_the_promised_keys() -> None:
    assert views.row(ORDERS) == {
        "name": "orders",
        "uuid": ORDERS.uuid,
        "function": "worker",
        "source_arn": "arn:aws:sqs:eu-west-1:123456789012:orders",
        "state": "Enabled",
        "gate": {"name": "window", "since": "2023-11-14T22:14:56.900Z", "detail": "3.1 of 5 s, 7 of 10 records"},
        "in_flight": 7,
        "lag_seconds": 3.25,
        "last_error": "ValueError: no such order",
    }
    assert views.row(CLICKS)["gate"] is None


def test_scale_tells_each_mapping_and_the_total() -> None:
    other = msgspec.structs.replace(ScriptedControl().functions[0], name="other", concurrency=12, busy=0)
    control = ScriptedControl(ORDERS, view("more", function="other", lag_seconds=9.0, in_flight=3), CLICKS)
    control.functions = (*control.functions, other)
    assert views.scale(control.snapshot(), {"orders": 12, "more": 30, "clicks": None}) == {
        "mappings": {
            "orders": {"lag_seconds": 3.25, "backlog": 12, "in_flight": 7, "busy_ratio": 0.5},
            "more": {"lag_seconds": 9.0, "backlog": 30, "in_flight": 3, "busy_ratio": 0.0},
            "clicks": {"lag_seconds": None, "backlog": None, "in_flight": 0, "busy_ratio": 0.5},
        },
        "total": {"lag_seconds": 9.0, "backlog": 42, "in_flight": 10, "busy_ratio": 0.125},
    }


def test_scale_does_not_call_the_unknown_zero() -> None:
    total = views.scale(ScriptedControl(CLICKS).snapshot(), {"clicks": None})["total"]
    assert (total["backlog"], total["lag_seconds"]) == (None, None)
    empty = views.scale(ScriptedControl().snapshot(), {})["total"]
    assert (empty["backlog"], empty["busy_ratio"]) == (0, 0.0)


def test_a_function_without_concurrency_has_a_ratio() -> None:
    blocked = msgspec.structs.replace(ScriptedControl().functions[0], concurrency=0, busy=0)
    control = ScriptedControl(ORDERS, functions=(blocked,))
    assert views.scale(control.snapshot(), {"orders": 1})["mappings"]["orders"]["busy_ratio"] == 0.0
