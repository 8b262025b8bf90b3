"""What a handler's answer says: the table of spec/sqs.md section 5."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from bridge.pipeline.responses import failed_ids

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
