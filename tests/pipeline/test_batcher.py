"""The batching window."""

from __future__ import annotations

import json

from hypothesis import given, strategies as st

from bridge.pipeline.batcher import ENVELOPE, PAYLOAD_LIMIT, Batcher
from bridge.record import Batch, Record
from tests.records import record, records


def payload(batch: Batch) -> bytes:
    return b'{"Records":[' + b",".join(item.json for item in batch.records) + b"]}"


def test_without_a_window_whatever_came_goes() -> None:  # SQS-6
    batcher = Batcher("p", 10, 0)
    batcher.add(records(3), 5.0)
    (batch,) = batcher.take(5.0)
    assert [item.id for item in batch.records] == ["r0", "r1", "r2"]
    assert (batch.trigger, batch.partition, batch.attempt) == ("window", "p", 1)
    assert batcher.take(5.0) == []


def test_the_first_record_opens_the_window() -> None:  # SQS-7, SQS-14
    batcher = Batcher("p", 10, 5)
    assert batcher.left(0.0) is None
    batcher.add(records(1), 100.0)
    batcher.add(records(1, start=1), 104.0)
    assert batcher.left(104.0) == 1.0
    assert batcher.take(104.999) == []
    (batch,) = batcher.take(105.0)
    assert (len(batch.records), batch.trigger) == (2, "window")
    assert batcher.left(105.0) is None


def test_a_full_batch_goes_at_once() -> None:  # SQS-5, SQS-14
    batcher = Batcher("p", 10, 300)
    batcher.add(records(25), 0.0)
    first, second = batcher.take(0.0)
    assert [first.trigger, second.trigger] == ["size", "size"]
    assert (batcher.count, batcher.room) == (5, 5)
    assert [item.id for item in second.records] == [f"r{number}" for number in range(10, 20)]


def test_the_payload_limit_cuts_and_the_next_batch_gets_what_did_not_fit() -> None:  # SQS-8
    batcher = Batcher("p", 10_000, 300)
    batcher.add(records(10, size=1_000_000), 0.0)
    (batch,) = batcher.take(0.0)
    assert (batch.trigger, len(batch.records)) == ("bytes", 6)
    assert batcher.count == 4
    assert batcher.left(1.0) == 299.0  # opened by the record that did not fit


def test_the_limit_is_exact_to_the_byte() -> None:  # SQS-8
    room = PAYLOAD_LIMIT - ENVELOPE - 1
    fits = Batcher("p", 100, 300)
    fits.add([record("a", size=room // 2), record("b", size=room - room // 2)], 0.0)
    assert fits.take(0.0) == []
    (batch,) = fits.flush()
    assert len(payload(batch)) == PAYLOAD_LIMIT
    over = Batcher("p", 100, 300)
    over.add([record("a", size=room // 2), record("b", size=room - room // 2 + 1)], 0.0)
    assert [item.id for batch in over.take(0.0) for item in batch.records] == ["a"]


def test_a_single_record_always_goes() -> None:  # SQS-9
    batcher = Batcher("p", 10, 0, limit=50)
    batcher.add([record("a", size=100), record("b", size=100)], 0.0)
    assert [[item.id for item in batch.records] for batch in batcher.take(0.0)] == [["a"], ["b"]]


def test_flush_says_so() -> None:
    batcher = Batcher("p", 2, 300)
    batcher.add(records(3), 0.0)
    assert [batch.trigger for batch in batcher.flush()] == ["size", "flush"]
    assert batcher.flush() == []


@given(
    st.lists(st.tuples(st.lists(st.integers(60, 900), max_size=12), st.floats(0, 3))),
    st.integers(1, 12),
    st.integers(0, 5),
)
def test_each_record_leaves_once_in_order_within_all_bounds(
    pages: list[tuple[list[int], float]], size: int, window: int
) -> None:  # SQS-5, SQS-8, SQS-13
    batcher = Batcher("p", size, window, limit=2000)
    now, count = 0.0, 0
    given_in: list[Record] = []
    given_out: list[Record] = []
    opened: dict[str, float] = {}
    for sizes, pause in pages:
        now += pause
        page = [record(f"r{count + index}", size=weight) for index, weight in enumerate(sizes)]
        count += len(page)
        given_in += page
        batcher.add(page, now)
        opened.update((item.id, now) for item in page)
        for batch in batcher.take(now):
            given_out += batch.records
            assert 1 <= len(batch.records) <= size
            assert len(payload(batch)) <= 2000
            assert json.loads(payload(batch))["Records"]
            if batch.trigger == "window":
                assert now >= opened[batch.records[0].id] + window
    given_out += [item for batch in batcher.flush() for item in batch.records]
    assert given_out == given_in


def following(size: int = 10, window: float = 5.0) -> Batcher:
    return Batcher("shard", size, window, opens="after invocation")


def test_the_first_window_of_a_stream_is_over_at_once() -> None:  # KIN-37
    batcher = following()
    batcher.add(records(1), 100.0)
    assert batcher.left(100.0) == 0
    assert [len(batch.records) for batch in batcher.take(100.0)] == [1]


def test_the_window_of_a_stream_opens_when_the_invocation_ended() -> None:  # KIN-37
    batcher = following()
    batcher.invoked(100.0)
    batcher.add(records(1), 104.0)  # the first record opens nothing
    assert batcher.left(104.0) == 1
    assert batcher.take(104.999) == []
    (batch,) = batcher.take(105.0)
    assert (len(batch.records), batch.trigger) == (1, "window")
    batcher.add(records(1), 200.0)  # long over: it goes at once
    assert batcher.left(200.0) == 0


def test_what_waits_when_an_invocation_ends_waits_for_its_window_from_then_on() -> None:  # KIN-37
    batcher = following(size=2)
    batcher.invoked(0.0)
    batcher.add(records(3), 1.0)
    assert [len(batch.records) for batch in batcher.take(1.0)] == [2]
    batcher.invoked(60.0)
    assert batcher.left(60.0) == 5
    assert batcher.take(64.9) == []
    assert [len(batch.records) for batch in batcher.take(65.0)] == [1]


def test_a_queue_does_not_care_when_invocations_end() -> None:  # SQS-7
    batcher = Batcher("p", 10, 5)
    batcher.add(records(1), 100.0)
    batcher.invoked(103.0)
    assert batcher.left(103.0) == 2


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 4), st.booleans()), max_size=30),
    st.integers(1, 5),
    st.sampled_from([0.0, 1.0, 5.0]),
)
def test_no_record_of_a_stream_waits_longer_than_a_window_after_an_invocation(
    steps: list[tuple[float, int, bool]], size: int, window: float
) -> None:
    """KIN-36, KIN-37: in order, none twice, no more than the batch size."""
    batcher = following(size, window)
    now, invoked_at, number = 0.0, float("-inf"), 0
    taken: list[str] = []
    for passed, count, invoked in steps:
        now += passed
        batcher.add(records(count, start=number), now)
        number += count
        due = batcher.take(now)
        assert all(1 <= len(batch.records) <= size for batch in due)
        taken += [it.id for batch in due for it in batch.records]
        if now >= invoked_at + window:
            assert batcher.count == 0
        if invoked:
            invoked_at = now
            batcher.invoked(now)
    taken += [it.id for batch in batcher.flush() for it in batch.records]
    assert taken == [f"r{n}" for n in range(number)]
