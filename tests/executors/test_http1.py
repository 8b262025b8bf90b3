"""The parser: what it accepts and refuses, and that nothing makes it raise or changes with the way bytes arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from bridge.executors import http1
from bridge.executors.http1 import BODY_LIMIT, DISCARD_LIMIT, HEADER_LIMIT, Continue, Malformed, Parser, Part, Request


def parts(*pieces: bytes) -> list[Part]:
    parser = Parser()
    return [part for piece in pieces for part in parser.feed(piece)]


def one(data: bytes) -> Request:
    (part,) = parts(data)
    assert isinstance(part, Request), part
    return part


def test_a_request_without_a_body() -> None:
    request = one(b"GET /ping?x=1 HTTP/1.1\r\nHost: here\r\nX-Y:  z \r\n\r\n")
    assert request == Request(b"GET", b"/ping", {b"host": b"here", b"x-y": b"z"}, {})


def test_a_body_by_its_length() -> None:
    assert one(b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").body == b"abc"


def test_an_empty_body() -> None:
    assert one(b"POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n").body == b""


def test_a_body_in_chunks() -> None:
    request = one(
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b"3\r\nabc\r\n00A ;x=y\r\n0123456789\r\n0\r\nEnd: yes\r\n\r\n"
    )
    assert request.body == b"abc0123456789"
    assert request.trailers == {b"end": b"yes"}


def test_empty_lines_before_a_request() -> None:  # RFC 9112, 2.2
    assert one(b"\r\n\r\nGET /ping HTTP/1.1\r\n\r\n").target == b"/ping"


@pytest.mark.parametrize(
    ("head", "last"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
    ],
)
def test_whether_the_connection_goes_on(head: bytes, last: bool) -> None:
    assert one(head).last is last


def test_nothing_is_read_after_the_last_request() -> None:
    assert len(parts(b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n")) == 1


def test_a_client_that_asks_before_it_sends_its_body() -> None:
    head = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
    parser = Parser()
    assert parser.feed(head) == [Continue()]
    (request,) = parser.feed(b"abc")
    assert isinstance(request, Request)
    assert request.body == b"abc"
    assert [type(part) for part in parts(head + b"abc")] == [Request]  # it did not wait


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\0\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n\r\n", 400),
        (b"G\xc3\xa4T / HTTP/1.1\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / ftp\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nA: x\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: x\ry\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * http1.LINE_LIMIT, 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA:\0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A" * HEADER_LIMIT + b"A", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * HEADER_LIMIT, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * HEADER_LIMIT + b"\r\n\r\n", 431),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    (part,) = parts(data, b"GET / HTTP/1.1\r\n\r\n")  # nothing is read after it
    assert isinstance(part, Malformed), part
    assert part.status == status
    assert part.why


def test_the_largest_head_is_accepted() -> None:
    head = b"GET / HTTP/1.1\r\nA: "
    assert one(head + b"x" * (HEADER_LIMIT - len(head)) + b"\r\n\r\n").target == b"/"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_thrown_away_and_the_connection_goes_on(chunked: bool) -> None:  # RT-4
    size = BODY_LIMIT + 1
    if chunked:
        head = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = b"%x\r\n%s\r\n1\r\nx\r\n0\r\n\r\n" % (BODY_LIMIT, b"x" * BODY_LIMIT)
    else:
        head = b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size
        body = b"x" * size
    large, after = parts(head, body[:1000], body[1000:], b"GET /ping HTTP/1.1\r\n\r\n")
    assert isinstance(large, Request)
    assert (large.oversized, large.last, large.body) == (True, False, b"")
    assert isinstance(after, Request)
    assert after.target == b"/ping"


@pytest.mark.parametrize(
    "data",
    [
        b"POST /a HTTP/1.1\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (DISCARD_LIMIT + 1),
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (DISCARD_LIMIT + 1),
    ],
)
def test_a_body_too_long_to_throw_away_ends_the_connection(data: bytes) -> None:
    request = one(data)
    assert request.oversized
    assert request.last


def test_the_largest_body_is_accepted() -> None:
    request = one(b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (BODY_LIMIT, b"x" * BODY_LIMIT))
    assert not request.oversized
    assert len(request.body) == BODY_LIMIT


def test_partial_says_whether_a_request_is_awaited_to_its_end() -> None:
    parser = Parser()
    seen = [(parser.partial, parser.body_of)]
    for piece in (b"POST /a HTTP/1.1\r\n", b"Content-Length: 2\r\n\r\na", b"b"):
        parser.feed(piece)
        seen.append((parser.partial, parser.body_of))
    assert seen == [(False, None), (True, None), (True, b"/a"), (False, None)]


# Properties.

TOKENS = st.text("abcXYZ09-_", min_size=1, max_size=12).map(str.encode)
BODIES = st.binary(max_size=80)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Request]:
    """A well-formed request: its bytes, and what is to come out."""
    method, target, body = draw(TOKENS), b"/" + draw(TOKENS), draw(BODIES)
    headers = draw(st.dictionaries(TOKENS.map(lambda name: b"x-" + name.lower()), TOKENS, max_size=4))
    lines = b"".join(b"%s: %s\r\n" % item for item in headers.items())
    if draw(st.booleans()):
        chunks = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
        body = b"".join(chunks)
        coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        data = b"%s %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%s" % (method, target, lines, coded)
        headers[b"transfer-encoding"] = b"chunked"
    else:
        data = b"%s %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (method, target, lines, len(body), body)
        headers[b"content-length"] = str(len(body)).encode()
    return data, Request(method, target, headers, {}, body)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0, 10_000), max_size=12))
def test_pipelined_requests_come_out_however_they_arrive(sent: list[tuple[bytes, Request]], places: list[int]) -> None:
    data = b"".join(raw for raw, _ in sent)
    assert parts(*cut(data, places)) == [request for _, request in sent]


HOSTILE = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [
                b"\r\n",
                b"\r\n\r\n",
                b"GET / HTTP/1.1\r\n",
                b"POST /a HTTP/1.1\r\n",
                b"Content-Length: 5\r\n",
                b"Content-Length: 99999999999999\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Expect: 100-continue\r\n",
                b"Connection: close\r\n",
                b"5\r\nhello\r\n",
                b"0\r\n",
                b"fffffffffffffff\r\n",
                b": ",
                b"\0",
            ]
        ),
    ),
    max_size=14,
).map(b"".join)


@given(HOSTILE, st.lists(st.integers(0, 500), max_size=8))
@settings(max_examples=500)
def test_whatever_comes_nothing_is_raised_and_the_cuts_do_not_matter(data: bytes, places: list[int]) -> None:
    def told(found: list[Part]) -> list[Part]:
        # A client that sends its body at once is not told to go on; one that pauses is.
        return [part for part in found if not isinstance(part, Continue)]

    assert told(parts(*cut(data, places))) == told(parts(data))
