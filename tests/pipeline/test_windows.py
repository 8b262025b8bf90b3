"""Tumbling windows: which window a record is in, what goes from one invocation to the next, and when one is over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import floor
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from bridge.pipeline.batcher import ENVELOPE, Batcher
from bridge.pipeline.verdict import Verdict
from bridge.pipeline.windows import GRACE, LARGEST_EVENT_STATE, STATE_LIMIT, Windows, frame_of
from bridge.record import Batch, Record, Window
from bridge.sources.payload import records_event
from tests.records import record

LENGTH = 60.0


def arrived(at: float, name: str = "") -> Record:
    return msgspec.structs.replace(record(name or f"{at:g}"), arrived_at=at)


def windows(length: float = LENGTH, *, batching: float = 0.0, kept: bytes = b"") -> Windows:
    return Windows("shard", "arn", length, batching=batching, kept=kept)


class Lane:
    """A shard's way through batcher and windows, with a handler that lists what it is given."""

    def __init__(self, length: float = LENGTH, *, size: int = 100, kept: bytes = b"") -> None:
        self.windows = windows(length, kept=kept)
        self.batcher = Batcher("shard", size, 0.0, tumbling=self.windows.of)
        self.stored = kept
        self.calls: list[tuple[list[str], list[str], str]] = []
        """Records, state, and ``final`` or ``early``."""

    def read(self, records: Sequence[Record], wall: float = 0.0, *, caught_up: bool = False) -> None:
        self.batcher.add(records, 0.0)
        for batch in self.windows.around(
            self.batcher.take(0.0), wall, caught_up=caught_up, idle=not self.batcher.count
        ):
            self.handle(batch)

    def end(self, wall: float = 0.0) -> None:
        for batch in self.windows.ended(self.batcher.flush(), wall):
            self.handle(batch)

    def handle(self, batch: Batch, state: bytes | None = None) -> None:
        event = json.loads(records_event(batch, self.windows.fields(batch)))
        before = event["state"].get("names", [])
        kind = "early" if batch.early else "final" if batch.closes else ""
        self.calls.append(([it.id for it in batch.records], before, kind))
        after = json.dumps({"names": [*before, *(it.id for it in batch.records)]}).encode()
        self.settle(batch, Verdict(done=batch.records, state=state or after))

    def settle(self, batch: Batch, verdict: Verdict) -> None:
        stored, finals = self.windows.settled(batch, verdict)
        self.stored = self.stored if stored is None else stored
        for final in finals:
            self.handle(final)


# Where the boundaries are.


@pytest.mark.parametrize(
    ("length", "at", "start"),
    [
        (120, 1607497440.0, 1607497440),  # TW-11: the published example
        (120, 1607497559.999, 1607497440),
        (120, 1607497560.0, 1607497560),  # the end is not included
        (7, 100.0, 98),
        (1, 5.5, 5),
        (900, 899.999, 0),
    ],
)
def test_windows_are_multiples_of_their_length(length: float, at: float, start: float) -> None:
    assert windows(length).of(arrived(at)) == Window(start, start + length)


@given(st.lists(st.floats(0, 1e10), min_size=1), st.integers(1, 900))
def test_a_record_is_in_its_own_window_or_a_later_one(times: list[float], length: int) -> None:
    """TW-11, TW-13: windows never go back, and each record is where its time says, or was too late for that."""
    it = windows(length)
    before = Window(0, 0)
    for at in times:
        window = it.of(arrived(at))
        assert window.start % length == 0
        assert window.end == window.start + length
        assert window.start >= before.start
        assert window == max(before, Window(floor(at / length) * length, floor(at / length) * length + length))
        before = window


@given(st.lists(st.floats(0, 1000)), st.integers(1, 200), st.integers(1, 5))
def test_no_batch_spans_two_windows(times: list[float], length: int, size: int) -> None:  # TW-4
    lane = Lane(length, size=size)
    lane.batcher.add([arrived(at) for at in times], 0.0)
    before = -1.0
    for batch in lane.batcher.flush():
        assert batch.window is not None
        assert batch.window.start >= before
        before = batch.window.start
        assert all(it.arrived_at < batch.window.end for it in batch.records)


# Its life.


@given(st.lists(st.lists(st.floats(0, 500), max_size=6), max_size=8), st.integers(1, 4), st.data())
def test_every_record_is_counted_once_and_every_window_closed_once(
    pages: list[list[float]], size: int, data: st.DataObject
) -> None:
    """TW-12, TW-21, TW-43, TW-45, TW-47: also with a restart from what was stored, anywhere."""
    crash = data.draw(st.integers(0, len(pages)))
    lane = Lane(size=size)
    number = 0
    for index, page in enumerate(pages):
        if index == crash:
            calls, lane = lane.calls, Lane(size=size, kept=lane.stored)
            lane.calls = calls
        records = [arrived(at, str(number + n)) for n, at in enumerate(page)]
        number += len(page)
        lane.read(records)
    lane.end(wall=1e9)
    given_to_it = [name for names, _, _ in lane.calls for name in names]
    assert given_to_it == [str(n) for n in range(number)]
    finals = [state for names, state, kind in lane.calls if kind == "final"]
    assert [name for state in finals for name in state] == given_to_it
    assert all(finals)
    assert all(not names for names, _, kind in lane.calls if kind)


def test_the_first_invocation_has_an_empty_state_and_the_next_its_answer() -> None:  # TW-21, W1
    lane = Lane(size=1)
    lane.read([arrived(10), arrived(30), arrived(70)])
    assert lane.calls == [
        (["10"], [], ""), (["30"], ["10"], ""), ([], ["10", "30"], "final"), (["70"], [], ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wall", "caught_up", "closes"),
    [
        (60 + GRACE, True, True),
        (60 + GRACE - 0.01, True, False),  # within its grace
        (1e9, False, False),  # there is more to read
    ],
)
def test_silence_closes_a_window(wall: float, caught_up: bool, closes: bool) -> None:  # TW-42, W2
    lane = Lane()
    lane.read([arrived(10)])
    assert lane.windows.left(59.0) == 1 + GRACE
    lane.read([], wall, caught_up=caught_up)
    assert (lane.calls[1:] == [([], ["10"], "final")]) == closes
    assert (lane.windows.left(wall) == float("inf")) == closes


def test_the_grace_is_longer_by_the_batching_window() -> None:  # TW-42
    it = windows(batching=5)
    it.settled(Batch((arrived(10),), "shard", "size", window=Window(0, 60)), Verdict((arrived(10),), state=b"{}"))
    assert it.left(60) == 5 + GRACE


def test_what_was_filtered_out_shows_that_a_window_is_over() -> None:  # TW-42, TW-44
    lane = Lane()
    lane.read([arrived(10)])
    lane.windows.passed([arrived(59)])
    lane.read([])
    assert len(lane.calls) == 1
    lane.windows.passed([arrived(60), arrived(5)])
    lane.read([])
    assert lane.calls[1:] == [([], ["10"], "final")]


def test_nothing_waits_behind_a_batch_that_is_still_collected() -> None:  # TW-42
    lane = Lane()
    lane.read([arrived(10)])
    assert [*lane.windows.around([], 1e9, caught_up=True, idle=False)] == []


@pytest.mark.parametrize(("wall", "kind"), [(59.9, "early"), (60, "final")])
def test_the_end_of_a_shard_closes_its_window(wall: float, kind: str) -> None:  # TW-53, W5
    lane = Lane()
    lane.read([arrived(10)])
    lane.end(wall)
    assert lane.calls[1:] == [([], ["10"], kind)]
    lane.end(wall)
    assert len(lane.calls) == 2


def test_without_records_there_is_no_final_invocation() -> None:  # TW-43
    lane = Lane()
    lane.end(1e9)
    lane.read([], 1e9, caught_up=True)
    assert lane.calls == []


def test_late_records_never_open_a_closed_window() -> None:  # TW-13
    lane = Lane()
    lane.read([arrived(10)])
    lane.read([], 61, caught_up=True)
    assert lane.windows.of(arrived(59)) == Window(60, 120)
    again = Lane(kept=lane.stored)
    assert again.windows.of(arrived(59)) == Window(60, 120)  # after a restart neither


# What failed.


def batch_of(lane: Lane, *times: float) -> Batch:
    lane.batcher.add([arrived(at) for at in times], 0.0)
    (batch,) = lane.batcher.flush()
    return batch


def test_what_failed_or_was_given_up_leaves_the_state() -> None:  # TW-60, TW-63
    lane = Lane()
    lane.read([arrived(10)])
    before = lane.stored
    batch = batch_of(lane, 20)
    lane.settle(batch, Verdict(retry=(batch,)))
    lane.settle(batch, Verdict(state=b'{"names":["nonsense"]}', retry=(batch,)))
    assert lane.stored == before
    lane.handle(batch)
    assert lane.calls[-1] == (["20"], ["10"], "")


def test_a_failing_final_invocation_is_tried_again_with_the_same_state() -> None:  # TW-46, TW-64
    lane = Lane()
    lane.read([arrived(10)])
    (final,) = lane.windows.ended([], 1e9)
    lane.settle(final, Verdict(retry=(final,)))
    lane.handle(final)
    assert lane.calls[-1] == ([], ["10"], "final")


def test_a_final_invocation_that_is_given_up_ends_the_window() -> None:  # TW-46
    lane = Lane()
    lane.read([arrived(10)])
    (final,) = lane.windows.ended([], 1e9)
    lane.settle(final, Verdict())
    lane.read([arrived(70)])
    assert lane.calls[-1] == (["70"], [], "")
    assert final.span == (arrived_like(final.span.first), arrived_like(final.span.last), 1)


def arrived_like(it: Record) -> Record:
    """The same record; records are told apart by identity."""
    assert (it.id, it.arrived_at) == ("10", 10.0)
    return it


# States that are too large.


def state_of(size: int) -> bytes:
    return b'{"x":"' + b"x" * (size - 8) + b'"}'


@pytest.mark.parametrize(("size", "early"), [(STATE_LIMIT, False), (STATE_LIMIT + 1, True)])
def test_a_state_above_a_mebibyte_ends_early(size: int, early: bool) -> None:  # TW-32, TW-33, TW-50
    it = windows()
    work = Batch((arrived(10),), "shard", "size", window=Window(0, 60))
    stored, finals = it.settled(work, Verdict(done=work.records, state=state_of(size)))
    assert len(finals) == early
    for final in finals:
        fields = it.fields(final)
        assert fields["state"] == state_of(size)  # TW-52
        assert (fields["isFinalInvokeForWindow"], fields["isWindowTerminatedEarly"]) == (b"true", b"true")
        (again,) = windows(kept=stored or b"").around([], 0.0, caught_up=False, idle=True)  # after a crash
        assert (again.early, again.window) == (True, Window(0, 60))


def test_after_that_the_same_window_goes_on_with_a_fresh_state() -> None:  # TW-51
    lane = Lane()
    lane.handle(batch_of(lane, 10), state_of(STATE_LIMIT + 1))
    assert lane.calls == [(["10"], [], ""), ([], [], "early")]
    lane.read([arrived(20)])
    lane.end(1e9)
    assert lane.calls[2:] == [(["20"], [], ""), ([], ["20"], "final")]


def test_a_state_that_fits_no_event_is_replaced_by_the_one_before() -> None:  # TW-52
    it = windows()
    work = Batch((arrived(10),), "shard", "size", window=Window(0, 60))
    it.settled(work, Verdict(done=work.records, state=b'{"before":1}'))
    stored, (final,) = it.settled(work, Verdict(done=work.records, state=state_of(LARGEST_EVENT_STATE + 1)))
    assert it.fields(final)["state"] == b'{"before":1}'
    assert len(stored or b"") < 200


# The event.


def test_the_members_of_an_event() -> None:  # TW-20, TW-22
    it = Windows('sh"ard', "arn:x", 120, batching=0, kept=b"")
    work = Batch((arrived(1607497500),), "shard", "size", window=it.of(arrived(1607497500)))
    assert it.fields(work) == {
        "window": b'{"start":"2020-12-09T07:04:00Z","end":"2020-12-09T07:06:00Z"}',
        "state": b"{}",
        "shardId": b'"sh\\"ard"',
        "eventSourceARN": b'"arn:x"',
        "isFinalInvokeForWindow": b"false",
        "isWindowTerminatedEarly": b"false",
    }
    assert frame_of(it.fields(work)) == len(records_event(work, it.fields(work))) - len(work.records[0].json)
    assert frame_of({}) == ENVELOPE


def test_without_windows_there_is_nothing_of_it() -> None:  # TW-1
    it = windows(0.0)
    work = Batch((arrived(10),), "shard", "size")
    fields: Any = it.fields(work)
    assert fields == {}
    assert [*it.around([work], 0.0, caught_up=True, idle=True)] == [work]
    assert [*it.ended([work], 0.0)] == [work]
    assert it.settled(work, Verdict(done=work.records)) == (None, ())
    it.passed(work.records)
    assert it.left(0.0) == float("inf")
