"""Whatever a function was given and has answered, destinations are told JSON of AWS's shape, within their limits."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given, settings, strategies as st

from bridge.destinations.report import attributes, document
from bridge.errors import Rejected
from bridge.invocation import Failed, FailureKind, Outcome, Succeeded
from tests.contracts.destination import REQUEST, failure, report

DEEP = b"[" * 50_000 + b"]" * 50_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())
TEXTS = st.one_of(
    st.binary(max_size=60), JSON, st.sampled_from([DEEP, b'"\xff"', b'{"\xed\xa0\x80":1}', b"1e400", b"-"])
)
ERRORS = TEXTS | st.builds(
    lambda message: json.dumps({"errorMessage": message}).encode(), st.text(max_size=2000) | st.integers()
)
KINDS: list[FailureKind] = ["function", "timeout", "exit", "oom", "throttled", "reserved_zero", "unreachable"]
OUTCOMES: st.SearchStrategy[Outcome] = st.builds(Succeeded, TEXTS, st.just(REQUEST)) | st.builds(
    Failed, st.sampled_from(KINDS), ERRORS, st.just(REQUEST)
)


@settings(max_examples=400, deadline=None)
@given(payload=JSON, outcome=OUTCOMES, limit=st.integers(200, 2000) | st.just(1 << 20))
def test_any_outcome_makes_a_document(payload: bytes, outcome: Outcome, limit: int) -> None:
    make = report if isinstance(outcome, Succeeded) else failure
    told = make("", payload, outcome=outcome)
    with suppress(Rejected):
        found = document(told, limit)
        assert len(found) <= limit
        shown = json.loads(found)
        assert list(shown)[:3] == ["version", "timestamp", "requestContext"]
        assert {"requestPayload", "responsePayload"} >= set(list(shown)[3:]) - {"responseContext"}


@settings(max_examples=300, deadline=None)
@given(outcome=OUTCOMES)
def test_any_outcome_makes_attributes_that_a_queue_takes(outcome: Outcome) -> None:  # DST-21
    for kind, value in attributes(failure("", b"{}", outcome=outcome)).values():
        assert kind in ("String", "Number")
        assert value
        assert len(value.encode()) <= 1024
