"""Whatever a client sends to the admin interface, it gets an answer in JSON, and nothing changes without permission."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.admin.control import CLICKS, DLQ, ORDERS, ScriptedControl, ScriptedDesk, served

LETTERS = json.dumps({"place": DLQ, "ids": ["m-1"]}).encode()
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
PATHS = st.one_of(
    st.sampled_from(["/metrics", "/healthz", "/readyz", "/scale", "/state", "/"]),
    st.sampled_from(["/letters", "/letters/peek", "/letters/replay", "/letters/stop", "/attempts"]),
    st.builds(
        "/{}/{}/{}".format,
        st.sampled_from(["mappings", "functions", ""]),
        st.text(max_size=20).map(lambda text: quote(text, safe="")),
        st.sampled_from(["pause", "resume", "forget", "attempts", ""]),
    ),
)
HEADER_NAMES = ["Origin", "Authorization", "Forwarded", "Content-Type", "Accept", "Host", "If-None-Match", "X-Bridge"]
TELLING = ["http://evil.example", "Bearer x", "application/json", "null", "127.0.0.1", "[::1", "localhost"]
HEADERS = st.dictionaries(st.sampled_from(HEADER_NAMES), ASCII | st.sampled_from(TELLING), max_size=3)
BODIES = st.binary(max_size=40) | st.sampled_from(
    [b"{}", b'{"wait": 5}', b'{"wait": false}', b'{"records": ["m-7"]}', LETTERS, b"[" * 4000, b"\xff", b'{"\xff": 1}']
)


@pytest.fixture(scope="module")
def control() -> ScriptedControl:
    return ScriptedControl(ORDERS, CLICKS)


@pytest.fixture(scope="module")
def wire(control: ScriptedControl) -> Iterator[http.client.HTTPConnection]:
    with served(control, "s3cret", desk=ScriptedDesk()) as url:
        parts = urlsplit(url)
        with closing(http.client.HTTPConnection(str(parts.hostname), parts.port or 0, timeout=30)) as connection:
            yield connection


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"]),
    path=PATHS,
    headers=HEADERS,
    body=BODIES,
)
def test_any_request_gets_an_answer(
    wire: http.client.HTTPConnection,
    control: ScriptedControl,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    before = len(control.asked)
    wire.request(method, path, body, headers)
    with wire.getresponse() as response:
        answer = response.read()
        assert response.status < 500, (response.status, answer)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        if path.startswith("/letters") and response.status == 200:
            assert "X-Bridge" in headers
        if response.status >= 400 and method != "HEAD":
            assert json.loads(answer)["error"]
        changed = [asked for asked in control.asked[before:] if asked[0] != "backlog"]
        if changed:
            assert method == "POST"
            assert headers.get("Origin", "") in ("", f"http://{headers.get('Host', f'{wire.host}:{wire.port}')}")
            assert "Authorization" not in headers or headers["Authorization"] == "Bearer s3cret"
