"""Who may change something (interfaces.md section 4): loopback or the token, and no web page."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from bridge.admin.access import Access, is_loopback

HERE = {"Host": "127.0.0.1:9464"}
TOKEN = "s3cret"


def status(access: Access, peer: str | None, headers: dict[str, str]) -> int:
    """200 when allowed."""
    refusal = access.refusal(peer, CIMultiDict(headers))
    assert refusal is None or refusal.reason
    return refusal.status if refusal else 200


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "::1%lo"])
def test_this_machine_may(peer: str) -> None:
    assert is_loopback(peer)
    assert status(Access("127.0.0.1", ""), peer, HERE) == 200
    assert status(Access("127.0.0.1", TOKEN), peer, HERE) == 200


@pytest.mark.parametrize(
    ("site", "expected"), [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403), ("", 403)]
)
def test_browsers_tell_what_kind_of_page_asks(site: str, expected: int) -> None:
    for headers in (HERE, {**HERE, "Authorization": f"Bearer {TOKEN}"}):
        assert status(Access("127.0.0.1", TOKEN), "127.0.0.1", {**headers, "Sec-Fetch-Site": site}) == expected


@pytest.mark.parametrize("peer", ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "", "localhost", None])
def test_others_need_the_token(peer: str | None) -> None:
    headers = {"Host": "bridge.internal:9464"}
    assert status(Access("0.0.0.0", ""), peer, headers) == 403
    assert status(Access("0.0.0.0", TOKEN), peer, headers) == 401
    assert status(Access("0.0.0.0", TOKEN), peer, {**headers, "Authorization": f"Bearer {TOKEN}"}) == 200
    assert status(Access("0.0.0.0", TOKEN), peer, {**headers, "authorization": f"bearer  {TOKEN} "}) == 200


@pytest.mark.parametrize(
    "given",
    [
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer",
        "",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \udcff",
    ],
)
def test_a_wrong_token_is_refused_from_anywhere(given: str) -> None:
    assert status(Access("0.0.0.0", TOKEN), "10.0.0.1", {**HERE, "Authorization": given}) == 401
    assert status(Access("0.0.0.0", TOKEN), "127.0.0.1", {**HERE, "Authorization": given}) == 401


def test_a_token_that_nobody_asked_for_helps_nobody() -> None:
    headers = {**HERE, "Authorization": f"Bearer {TOKEN}"}
    assert status(Access("0.0.0.0", ""), "127.0.0.1", headers) == 200
    assert status(Access("0.0.0.0", ""), "10.0.0.1", headers) == 403
    assert status(Access("0.0.0.0", ""), "10.0.0.1", {**HERE, "Authorization": "Bearer "}) == 403


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "x-real-ip"])
def test_a_proxy_on_this_machine_is_not_this_machine(name: str) -> None:
    assert status(Access("127.0.0.1", ""), "127.0.0.1", {**HERE, name: "203.0.113.7"}) == 403


@pytest.mark.parametrize(
    ("listen", "host", "expected"),
    [
        ("127.0.0.1", "localhost:9464", 200),
        ("127.0.0.1", "LOCALHOST", 200),
        ("127.0.0.1", "[::1]:9464", 200),
        ("10.0.0.5", "10.0.0.5:9464", 200),
        ("bridge.internal", "Bridge.internal:9464", 200),
        ("127.0.0.1", "evil.example:9464", 403),  # DNS rebinding
        ("127.0.0.1", "127.0.0.1.evil.example", 403),
        ("127.0.0.1", "localhost.evil.example", 403),
        ("127.0.0.1", "evil.example@localhost:9464", 200),  # no browser sends it; the host in it is localhost
        ("127.0.0.1", "", 403),
        ("127.0.0.1", "[", 403),
        ("", "", 403),
    ],
)
def test_the_host_must_be_ours(listen: str, host: str, expected: int) -> None:
    assert status(Access(listen, ""), "127.0.0.1", {"Host": host}) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:9464", 200),
        ("http://127.0.0.1:8080", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://127.0.0.1:9464", 403),
    ],
)
def test_pages_of_other_sites_may_not(origin: str, expected: int) -> None:
    assert status(Access("127.0.0.1", ""), "127.0.0.1", {**HERE, "Origin": origin}) == expected
    token = {"Authorization": f"Bearer {TOKEN}"}
    assert status(Access("127.0.0.1", TOKEN), "10.0.0.1", {**HERE, **token, "Origin": origin}) == expected
