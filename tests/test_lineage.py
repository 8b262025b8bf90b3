"""Hops in a trace header."""

from __future__ import annotations

import re

import pytest

from bridge.lineage import MOST_FUNCTIONS, Caller, caller, hops, joined, lengthened, new_trace

A, B = "arn:a", "arn:b"
ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def test_each_function_is_counted_by_itself() -> None:  # INV-40
    trace = ROOT
    for _ in range(3):
        trace = lengthened(lengthened(trace, A), B)
    trace = lengthened(trace, A)
    assert (hops(trace, A), hops(trace, B), hops(trace, "arn:c")) == (4, 3, 0)
    assert trace.startswith(ROOT + ";Lineage=")


def test_the_span_that_a_header_names() -> None:
    named = Caller("5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8", True)
    assert caller(ROOT) == caller(lengthened(ROOT, A)) == caller(ROOT.replace(";", "; ")) == named
    assert named.traceparent == "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
    other = caller(ROOT.replace("Sampled=1", "Sampled=?"))
    assert other
    assert other.traceparent.endswith("-00")


@pytest.mark.parametrize(
    "header",
    [
        "",
        pytest.param(new_trace(0), id="new"),
        ROOT.replace("Parent", "Parents"),
        ROOT.replace("53995c3f42cd8ad8", "0" * 16),
        ROOT.replace("1-5759", "2-5759"),
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995C3F42CD8AD8",
        "Parent=53995c3f42cd8ad8;Root=",
        f"Root=1-{'0' * 8}-{'0' * 24};Parent=53995c3f42cd8ad8",
    ],
)
def test_headers_that_name_no_span(header: str) -> None:
    assert caller(header) is None


def test_where_chains_meet_the_longest_goes_on() -> None:  # SQS-36
    short, long = lengthened(ROOT, A), lengthened(lengthened("Root=1-2-3", A), A)
    for traces in ([short, "", long], [long, short]):
        assert joined(traces, A, 0).startswith("Root=1-2-3;Lineage=")
        assert hops(joined(traces, A, 0), A) == 3
    assert hops(joined(["", ""], A, 0), A) == 1  # a chain begins
    assert joined([], A, 0x5759E988).startswith("Root=1-5759e988-")


@pytest.mark.parametrize(
    "trace",
    ["", "Lineage=", "Lineage=nonsense", "Lineage=1:fc3b4ff1:0", "Lineage=ffffffff:9999999999999", ";;=;", "x" * 9000],
)
def test_anything_is_a_trace_without_hops(trace: str) -> None:
    assert hops(trace, A) == 0
    assert hops(lengthened(trace, A), A) == 1


def test_a_lineage_does_not_grow_for_ever() -> None:
    trace = ROOT
    for number in range(200):
        trace = lengthened(lengthened(trace, f"arn:{number}"), A)
    assert hops(trace, A) == 200
    assert trace.count("|") == MOST_FUNCTIONS - 1


def test_a_new_trace_looks_like_those_of_aws() -> None:
    assert re.fullmatch(r"Root=1-5759e988-[0-9a-f]{24};Sampled=0", new_trace(0x5759E988 + 0.5))
    assert new_trace(0) != new_trace(0)
