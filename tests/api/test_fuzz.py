"""Whatever a client sends to the API, it gets an answer or one of Lambda's errors, and the daemon logs no bug."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bridge.api.routes import ROUTES
from bridge.api.shapes import Model
from bridge.aws import service_model
from tests.api.conftest import api_url
from tests.e2e.harness import Bridge, Site

MODEL = Model(service_model("lambda", "2015-03-31"))
PLACES = sorted({(MODEL.operation(name).method, MODEL.operation(name).path) for name in ROUTES})
MEMBERS = [
    "BatchSize", "BisectBatchOnFunctionError", "DestinationConfig", "Enabled", "EventSourceArn", "FilterCriteria",
    "FunctionName", "FunctionResponseTypes", "MaximumBatchingWindowInSeconds", "MaximumEventAgeInSeconds",
    "MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "ParallelizationFactor", "ProvisionedConcurrentExecutions",
    "ProvisionedPollerConfig", "ReservedConcurrentExecutions", "ScalingConfig", "StartingPosition",
    "StartingPositionTimestamp", "Tags", "TumblingWindowInSeconds", "UUID", "Queues", "Topics",
]  # fmt: skip
WORDS = [
    "",
    "worker",
    "filed",
    "*",
    "..",
    "arn:aws:sqs:eu-west-1:123456789012:nowhere",
    "$LATEST",
    "worker:1",
    "0",
    "é",
    "\x00",
    "a" * 300,
]

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20), st.sampled_from(WORDS)
)
NAMES = st.sampled_from(MEMBERS) | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=6).map(lambda given: json.dumps(given).encode()),
)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
HEADER_NAMES = [
    "Authorization", "Content-Type", "X-Amz-Client-Context", "X-Amz-Invocation-Type", "X-Amz-Log-Type",
    "X-Amzn-Trace-Id",
]  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(HEADER_NAMES), PRINTABLE | st.sampled_from(["Event", "DryRun", "Tail", "e30="]), max_size=3
)
SEGMENTS = st.sampled_from(WORDS) | st.text(max_size=10)


@pytest.fixture(scope="module")
def wire(stage: tuple[Site, Bridge]) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(api_url(stage[1]))
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 0, timeout=30)
    yield connection
    connection.close()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from(PLACES),
    data=st.data(),
    query=st.dictionaries(SEGMENTS, SEGMENTS, max_size=2),
    headers=HEADERS,
)
def test_any_request_gets_a_documented_answer(
    wire: http.client.HTTPConnection,
    place: tuple[str, str],
    data: st.DataObject,
    query: dict[str, str],
    headers: dict[str, str],
) -> None:
    method, path = place
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + quote(data.draw(SEGMENTS), safe="") + rest.partition("}")[2]
    pairs = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
    body = data.draw(BODIES)
    wire.request(method, f"{path}?{pairs}" if pairs else path, body, headers)
    with wire.getresponse() as response:
        answer = response.read()
        assert response.status < 500, (method, path, body, response.status, answer)
        if response.status >= 400:
            assert response.headers["x-amzn-errortype"]  # ESM-2
            told: dict[str, Any] = json.loads(answer)
            assert told.get("message") or told.get("Message")


def test_no_bug_was_logged(stage: tuple[Site, Bridge]) -> None:
    """After all of the above."""
    assert stage[1].events("api_failed") == []
