"""Whatever an endpoint answers, it becomes records, or an error that is ours: nothing else is ever raised."""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import suppress
from typing import Any

from hypothesis import given, settings, strategies as st

from bridge.errors import StateError
from bridge.filtering import decode_body
from bridge.pipeline.responses import failed_ids, finished, window_state
from bridge.record import Record
from bridge.sources.kinesis_aggregates import MAGIC, parts
from bridge.sources.kinesis_records import decode_data
from bridge.sources.shards import Where

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["batchItemFailures", "itemIdentifier", "state", "a", ""]), inner, max_size=3)
    ),
    max_leaves=10,
)
PAYLOADS = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
RECORDS = tuple(Record(id=str(number), json=b"{}", arrived_at=0.0) for number in range(3))


@settings(max_examples=500, deadline=None)
@given(payload=PAYLOADS)
def test_any_answer_of_a_handler_is_read(payload: bytes) -> None:
    named = failed_ids(payload, {record.id for record in RECORDS})
    assert named is None or named <= {record.id for record in RECORDS}
    done = finished(payload, RECORDS)
    assert done is None or 0 <= done <= len(RECORDS)
    state = window_state(payload)
    assert state is None or isinstance(json.loads(state), dict)


@settings(max_examples=500, deadline=None)
@given(body=st.binary(max_size=80), sealed=st.booleans())
def test_any_data_is_taken_apart_or_left_whole(body: bytes, sealed: bool) -> None:
    """KIN-45: what only looks like an aggregate is a record."""
    from hashlib import md5

    data = MAGIC + body + md5(body, usedforsecurity=False).digest() if sealed else body
    for part in parts(b64encode(data).decode()):
        assert isinstance(part.key, str)


@given(text=st.text(max_size=40) | st.binary(max_size=40).map(lambda data: b64encode(data).decode()))
def test_any_text_is_decoded_for_filters(text: str) -> None:
    seen: Any = decode_data(text)
    assert isinstance(seen, str | dict | list)
    assert isinstance(decode_body(text), str | dict | list)


@given(
    text=st.text(max_size=40) | st.sampled_from(["AT_TIMESTAMP nan", "AFTER_SEQUENCE_NUMBER ٣", "AT_TIMESTAMP 1e999"])
)
def test_any_stored_text_is_a_position_or_a_state_error(text: str) -> None:
    with suppress(StateError):
        assert str(Where.parse(str(Where.parse(text)))) == str(Where.parse(text))
