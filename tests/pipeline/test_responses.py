"""What a handler's answer says: the table of spec/sqs.md section 5."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, strategies as st

from bridge.pipeline.responses import failed_ids, finished, window_state
from tests.records import records

IDS = {"a", "b", "c"}


@pytest.mark.parametrize(
    "payload",
    [
        b"",  # SQS-45
        b"null",  # SQS-41
        b"{}",
        b'{"other": 1}',
        b'{"batchItemFailures": null}',
        b'{"batchItemFailures": []}',
        b' {"batchItemFailures" : [ ] } ',
    ],
)
def test_complete_success(payload: bytes) -> None:  # SQS-41
    assert failed_ids(payload, IDS) == frozenset()


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b'{"batchItemFailures": [}',
        b'"text"',  # SQS-46
        b"17",
        b"[]",
        b"true",
        b'{"batchItemFailures": {}}',
        b'{"batchItemFailures": "a"}',
        b'{"batchItemFailures": 0}',
        b'{"batchItemFailures": [{"itemIdentifier": ""}]}',  # SQS-42
        b'{"batchItemFailures": [{"itemIdentifier": null}]}',
        b'{"batchItemFailures": [{"foo": "a"}]}',  # SQS-94
        b'{"batchItemFailures": [{"itemIdentifier": "unknown"}]}',
        b'{"batchItemFailures": [{"itemIdentifier": "A"}]}',  # SQS-47
        b'{"batchItemFailures": [{"itemIdentifier": 7}]}',
        b'{"batchItemFailures": [{"itemIdentifier": ["a"]}]}',
        b'{"batchItemFailures": ["a"]}',
        b'{"batchItemFailures": [null]}',
        b'{"batchItemFailures": [{"itemIdentifier": "a"}, {}]}',  # one bad entry fails the whole batch
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"batchItemFailures": [NaN]}',
    ],
)
def test_complete_failure(payload: bytes) -> None:  # SQS-42
    assert failed_ids(payload, IDS) is None


def test_named_records_failed() -> None:  # SQS-40, SQS-44
    answer = {"batchItemFailures": [{"itemIdentifier": name} for name in ("c", "a", "c")], "more": 1}
    assert failed_ids(json.dumps(answer).encode(), IDS) == frozenset({"a", "c"})


@given(st.lists(st.sampled_from(sorted(IDS))))
def test_any_choice_of_the_batch_is_understood(names: list[str]) -> None:  # SQS-44
    answer = {"batchItemFailures": [{"itemIdentifier": name} for name in names]}
    assert failed_ids(json.dumps(answer).encode(), IDS) == frozenset(names)


@given(st.binary(max_size=200))
def test_no_answer_is_too_strange(payload: bytes) -> None:
    named = failed_ids(payload, IDS)
    assert named is None or named <= IDS


BATCH = records(3)
"""``r0`` to ``r2``."""


def named(*names: object) -> bytes:
    return json.dumps({"batchItemFailures": [{"itemIdentifier": name} for name in names]}).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b'""',
        b"{}",
        b"[]",
        b'{"other": 1}',
        b'{"batchItemFailures": null}',
        b'{"batchItemFailures": []}',
        b' {"batchItemFailures" : [ ] } ',
    ],
)
def test_nothing_of_a_stream_failed(payload: bytes) -> None:  # KIN-70
    assert finished(payload, BATCH) == 3


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b'{"batchItemFailures": [}',
        b'"text"',
        b"17",
        b"0",
        b"false",
        b"[1]",
        b'{"batchItemFailures": {}}',
        b'{"batchItemFailures": ""}',
        b'{"batchItemFailures": 0}',
        b'{"batchItemFailures": ["r1"]}',
        b'{"batchItemFailures": [{"foo": "r1"}]}',
        b'{"batchItemFailures": [{"foo": null}]}',
        b'{"batchItemFailures": [null]}',
        named(""),
        named(None),
        named(123),
        named("123"),
        named("r1", "123"),
        named("r0", None),
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_useless_answer_fails_the_whole_batch_of_a_stream(payload: bytes) -> None:  # KIN-72
    assert finished(payload, BATCH) is None


@pytest.mark.parametrize(
    ("names", "count"), [(["r0"], 0), (["r1"], 1), (["r2"], 2), (["r2", "r1"], 1), (["r1", "r1"], 1)]
)
def test_what_comes_before_the_first_record_named_is_finished(names: list[str], count: int) -> None:  # KIN-71
    assert finished(named(*names), BATCH) == count


def test_first_is_by_number_not_by_text() -> None:  # KIN-71
    batch = [msgspec.structs.replace(it, id=str(number)) for it, number in zip(BATCH, (9, 10, 11), strict=True)]
    assert finished(named("10", "9"), batch) == 0


@given(st.lists(st.sampled_from(["r0", "r1", "r2"]), min_size=1))
def test_the_order_of_names_says_nothing(names: list[str]) -> None:  # KIN-71
    assert finished(named(*names), BATCH) == min(int(name[1:]) for name in names)


@given(st.binary(max_size=60))
def test_no_answer_of_a_stream_is_too_strange(payload: bytes) -> None:
    assert finished(payload, BATCH) in (None, 3)
    window_state(payload)


@pytest.mark.parametrize(
    ("payload", "state"),
    [
        (b'{"state": {}}', b"{}"),
        (b'{"state": null}', b"{}"),  # TW-31
        (b'{"state": {"a": 1.0, "b": [ 1e400 ]}, "batchItemFailures": []}', b'{"a":1.0,"b":[1e400]}'),
        (b'{"state": {"a": "\\u00e9"}}', b'{"a":"\\u00e9"}'),
        (b'{"state": [1]}', None),
        (b'{"state": "{}"}', None),
        (b'{"state": 0}', None),
        (b'{"State": {}}', None),  # TW-30
        (b"{}", None),
        (b"null", None),
        (b"", None),
        (b"[]", None),
        (b"no json", None),
        (b'{"state": {"a": "\xff"}}', None),
        (b'{"state": ' + b'{"a":' * 100_000, None),
    ],
)
def test_the_state_of_a_window(payload: bytes, state: bytes | None) -> None:  # TW-30, TW-31
    assert window_state(payload) == state
