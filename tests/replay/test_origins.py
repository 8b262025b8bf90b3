"""Letters go where they came from: messages to queues, what a function did not take to functions; and how each kind is
shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.commands import replay_shown
from bridge.replay.letter import Letter
from bridge.replay.target import Outcome, Parcel, Refused, Sent
from bridge.replay.to_origin import NO_MESSAGE, OriginTarget
from tests.replay.test_documents import ASYNC, DEAD, EVENT, NOTIFICATION, POINTER, UNDELIVERED
from tests.replay.world import message, moved

pytestmark = pytest.mark.anyio


class Place:
    """A target that keeps what it is sent."""

    def __init__(self, name: str, most: int) -> None:
        self.name, self.most = name, most
        self.sent: list[list[str]] = []
        self.checked = 0

    def arn(self, letter: Letter) -> str:
        return f"arn of {self.name}"

    async def check(self, *, dry: bool) -> None:
        self.checked += 1

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        self.sent.append([parcel.letter.id for parcel in parcels])
        return [Sent(target=self.name) for _ in parcels]


POINTED = message(POINTER, name="pointer")
STORED = message({**POINTER, "payload": json.dumps(EVENT)}, name="stored")
RECORD = message(ASYNC, name="record")
DEAD_EVENT = message("{}", DEAD, name="event")
UNTAKEN = message(NOTIFICATION, DEAD, name="notification")
CUT = message(
    "{}", {**UNDELIVERED, "TARGET_ARN": "arn:aws:sqs:eu-west-1:1:q", "IS_PAYLOAD_TRUNCATED": "true"}, name="cut"
)
A, B, C = moved("a", "b", "c")


async def sent(target: OriginTarget, *letters: Letter) -> list[Outcome]:
    return await target.send([Parcel(letter, "token") for letter in letters])


async def test_each_to_where_it_came_from() -> None:  # REPLAY-DO-8, REPLAY-DONT-8
    queues, functions = Place("queue", 10), Place("function", 1)
    target = OriginTarget(queues, functions, "")
    outcomes = await sent(target, A, B, POINTED, RECORD, DEAD_EVENT, C, STORED)
    assert [it.target for it in outcomes] == ["queue"] * 2 + ["function"] * 3 + ["queue", "function"]
    assert queues.sent == [["m1", "m2"], ["m3"]]
    assert functions.sent == [["pointer", "record", "event"], ["stored"]]
    assert (target.arn(A), target.arn(POINTED), target.most) == ("arn of queue", "arn of function", 10)
    await target.check(dry=False)
    assert (queues.checked, functions.checked) == (1, 0)  # most queues hold nothing for functions


async def test_a_record_of_a_failure_is_never_sent_as_if_it_were_the_event() -> None:  # REPLAY-DONT-8
    queue = Place("queue", 10)
    target = OriginTarget(queue, None, NO_MESSAGE)
    outcomes = await sent(target, A, POINTED, STORED, RECORD, DEAD_EVENT, UNTAKEN, CUT)
    assert [isinstance(it, Sent) for it in outcomes] == [True, False, False, False, True, True, False]
    assert outcomes[1:4] == [Refused(NO_MESSAGE, sender_fault=True, alone=True)] * 3
    cut = outcomes[-1]
    assert isinstance(cut, Refused)
    assert "cut it off" in cut.reason
    assert target.arn(POINTED) == ""


async def test_a_queue_that_is_not_known_lets_functions_say_how_many() -> None:
    assert OriginTarget(Place("", 10), Place("function", 1), "").most == 1
    assert OriginTarget(Place("", 10), Place("function", 1), "").name == "function"


@pytest.mark.parametrize(
    ("letter", "line", "kind"),
    [
        (A, "no reason is known, from orders", "plain"),
        (POINTED, "RetryAttemptsExhausted, Unhandled, after 2 attempts", "pointer"),
        (STORED, "RetryAttemptsExhausted, Unhandled, after 2 attempts", "object"),
        (RECORD, "RetriesExhausted, ValueError: not today, after 3 attempts", "async"),
        (DEAD_EVENT, "not today", "async"),
        (UNTAKEN, "not today", "async"),
        (message("{}", UNDELIVERED), "MaximumRetryAttempts, NO_PERMISSIONS: may not, after 185 attempts", "async"),
        (message(json.dumps(ASYNC)[:-9]), "RetriesExhausted", "async"),
    ],
)
def test_each_kind_is_shown_with_its_reason(letter: Letter, line: str, kind: str) -> None:  # REPLAY-DO-8
    assert replay_shown.reason_line(letter) == line
    shown: dict[str, Any] = json.loads(replay_shown.letter_json(letter))
    assert shown["kind"] == kind


def test_what_hinders_a_letter_is_shown() -> None:
    torn = message(json.dumps(ASYNC)[:-9])
    lines = list(replay_shown.letters([torn], 0.0))
    assert any("the record was cut off" in line for line in lines)
    assert "cut off" in json.loads(replay_shown.letter_json(torn))["hindrance"]
    assert json.loads(replay_shown.letter_json(A))["hindrance"] == ""
