"""The alternatives of a leaf: what each comparison accepts, and what is refused in which words."""

from __future__ import annotations

from math import inf, nan
from time import process_time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from bridge.filtering import InvalidPattern, compile_pattern

MISSING = object()


def accepts(alternatives: list[Any], value: Any) -> bool:
    return compile_pattern({"a": alternatives})({} if value is MISSING else {"a": value})


VECTORS: list[tuple[list[Any], list[Any], list[Any]]] = [
    # The table of section 5: leaf, what it matches, what it does not.
    (["x"], ["x", ["y", "x"]], ["X", "", None, MISSING]),
    ([None], [None], ["null", [], MISSING]),  # FLT-17
    ([""], [""], [None, MISSING]),
    ([False], [False], [True, "false"]),
    ([300], [300, 300.0], ["300"]),  # FLT-22
    ([{"numeric": [">=", 100, "<", 200]}], [100, 199.9], [200, "150", None]),
    ([{"exists": True}], ["x", None, ["x"]], [{"b": 1}, [], MISSING]),  # FLT-18
    ([{"exists": False}], [MISSING, {"b": 1}], ["x"]),  # FLT-19
    ([{"anything-but": "x"}], ["y", None, ""], ["x", MISSING]),
    ([{"anything-but": [100, 200]}], [300], [100, MISSING]),
    ([{"anything-but": {"prefix": "in"}}], ["out", 12, None], ["init", MISSING]),
    ([{"prefix": "us-"}], ["us-1"], ["US-1", 5]),
    ([{"suffix": ".png"}], ["a.png"], ["a.PNG"]),
    ([{"equals-ignore-case": "abc"}], ["ABC"], ["abcd"]),
    ([{"anything-but": ["roses"]}, {"exists": False}], ["tulip", MISSING], ["roses"]),  # FLT-27
    # Plain values. FLT-15: no folding, no normalisation, spaces count.
    (["\u00e9"], ["\u00e9"], ["e\u0301", "\u00c9", "\u00e9 "]),
    (["💡 "], ["💡 "], ["💡"]),
    ([True], [True], [1, "true", False, None]),
    ([1], [1, 1.0], [True, "1", 1.5]),
    ([0], [0, -0.0], [False, None, "", []]),
    ([9007199254740993], [9007199254740992], [9007199254740994]),  # FLT-22: one double
    ([3.0e2], [300], [301]),
    ([10**400 // 10**100], [10**300], [10**400]),
    (["x", None, 5, True], ["x", None, 5, True, ["z", 5]], ["y", 6, False, {}, []]),
    # FLT-18, FLT-19
    ([{"exists": True}], [0, "", False, [[], ["x"]]], [[[]], [{"b": 1}], {}]),
    ([{"exists": False}], [[], {}, [{"b": 1}]], [None, "", False, ["x"], [{"b": 1}, "x"]]),
    # FLT-20: strings only
    ([{"prefix": ""}], ["", "x"], [None, 5, True, MISSING, []]),
    ([{"suffix": ""}], ["", "x"], [None, 5, True, MISSING]),
    ([{"prefix": {"equals-ignore-case": "EventB"}}], ["eventbridge", "EVENTB"], ["event", 5]),
    ([{"suffix": {"equals-ignore-case": ".PNG"}}], ["a.png", ".PnG"], ["png", None]),
    ([{"equals-ignore-case": ""}], [""], ["x", None, MISSING]),
    ([{"equals-ignore-case": "ÉTÉ ΔΣ"}], ["été δ\u03c3", "Été δς"], ["ete δς", 5]),
    ([{"equals-ignore-case": "straße"}], ["STRAßE"], ["STRASSE"]),
    ([{"suffix": {"equals-ignore-case": "ÇA"}}], ["voilà ça"], ["ca"]),
    # FLT-21
    ([{"numeric": ["=", 100]}], [100, 100.0, 1e2], ["100", 101, None, True, MISSING]),
    ([{"numeric": ["=", 1]}], [1], [True]),
    ([{"numeric": ["<", 10]}], [9.99, -inf], [10, 11, nan]),
    ([{"numeric": ["<=", 10]}], [10], [10.001]),
    ([{"numeric": [">", 10]}], [10.001, 10**400, inf], [10, -(10**400)]),
    ([{"numeric": [">=", 10]}], [10, [1, 10]], [9, [1, 2]]),
    ([{"numeric": [">", 0, "<=", 5]}], [5, 0.1], [0, 5.1]),
    # FLT-23
    ([{"anything-but": "x"}], [5, True, ["x", "y"]], [["x"], {}, []]),
    ([{"anything-but": ["x", "y"]}], ["z", None, ""], ["x", "y"]),
    ([{"anything-but": ""}], ["x", None], [""]),
    ([{"anything-but": 0}], [1, "0", False, None], [0, 0.0]),
    ([{"anything-but": [1, 2]}], [3, "1", True], [1, 2.0]),
    # FLT-24
    ([{"anything-but": {"prefix": ["in", "out"]}}], ["x", 5, None, True], ["into", "outer", MISSING]),
    ([{"anything-but": {"suffix": ".txt"}}], ["a.png", 5, None], ["a.txt", MISSING]),
    ([{"anything-but": {"suffix": [".txt", ".jpg"]}}], ["a.png"], ["a.txt", "b.jpg"]),
    ([{"anything-but": {"equals-ignore-case": ["A", "b"]}}], ["c", 5, None], ["a", "B", MISSING]),
    ([{"anything-but": {"wildcard": "*/dir/*"}}], ["dir", 5, None], ["a/dir/b", MISSING]),
    ([{"anything-but": {"wildcard": ["a*", "*z"]}}], ["b"], ["ab", "yz"]),
    ([{"anything-but": {"wildcard": ""}}], ["x", None], ["", MISSING]),
    # FLT-25
    ([{"wildcard": ""}], [""], ["x", None]),
    ([{"wildcard": "*"}], ["", "x", "a\nb"], [None, 5]),
    ([{"wildcard": "a*b"}], ["ab", "axxb", "aab"], ["a", "b", "abc", "ba"]),
    ([{"wildcard": "ab*ba"}], ["abba", "abxba"], ["aba"]),  # beginning and end may not share characters
    ([{"wildcard": "a*b*c"}], ["abc", "axbxbxc"], ["acb", "ac"]),
    ([{"wildcard": "*ab*ab*"}], ["abab", "xabyabz"], ["aab", "abb"]),
    ([{"wildcard": r"a\*b"}], ["a*b"], ["axb", "ab"]),
    ([{"wildcard": r"a\\*"}], ["a\\", "a\\x"], ["a", "ax"]),
    ([{"wildcard": r"\**"}], ["*", "*x"], ["x"]),
    ([{"wildcard": "a.c"}], ["a.c"], ["abc"]),  # no regular expression
    # FLT-26
    ([{"cidr": "10.0.0.0/24"}], ["10.0.0.0", "10.0.0.255"], ["10.0.1.0", "10.0.0.256", "x", "", "::1", 167772160]),
    ([{"cidr": "10.0.0.77/24"}], ["10.0.0.1"], ["10.0.1.77"]),  # bits of a host do not matter
    ([{"cidr": "10.0.0.1/32"}], ["10.0.0.1"], ["10.0.0.2", None, MISSING]),
    ([{"cidr": "0.0.0.0/0"}], ["255.255.255.255"], ["::", "10.0.0"]),
    ([{"cidr": "2001:db8:1234:1a00::/64"}], ["2001:0db8:1234:1a00::1"], ["2001:db8:1234:1a01::", "10.0.0.1"]),
]


@pytest.mark.parametrize(("alternatives", "matching", "others"), VECTORS, ids=[str(vector[0]) for vector in VECTORS])
def test_vectors(alternatives: list[Any], matching: list[Any], others: list[Any]) -> None:  # section 5, FLT-15..27
    assert [value for value in matching if not accepts(alternatives, value)] == []
    assert [value for value in others if accepts(alternatives, value)] == []


NOT_A_VALUE = "Match value must be String, number, true, false, or null"
NOT_A_LIST_OR_SINGLE = "Value of anything-but must be an array or single string/number value."
NOT_IN_A_LIST = "Inside anything but list, start|null|boolean is not supported."
MIXED = "Inside anything but list, either all values are number or string, mixed type is not supported"
ONE_KEY = "Only one key allowed in match expression"

REFUSED: list[tuple[Any, str]] = [
    # FLT-4
    (["x"], NOT_A_VALUE),
    (nan, NOT_A_VALUE),
    (10**400, NOT_A_VALUE),
    ({"x"}, NOT_A_VALUE),
    ({}, "Match expression name not found"),
    ({"prefix": "a", "suffix": "b"}, ONE_KEY),
    ({"exists": True, "x": 1}, ONE_KEY),
    ({"x": 1}, "Unrecognized match type x"),
    ({5: 1}, "Unrecognized match type 5"),
    # FLT-5
    ({"NUMERIC": ["=", 1]}, "Unrecognized match type NUMERIC"),
    ({"EXISTS": True}, "Unrecognized match type EXISTS"),
    # FLT-20
    ({"prefix": 5}, "prefix match pattern must be a string"),
    ({"prefix": ["x"]}, "prefix match pattern must be a string"),
    ({"suffix": None}, "suffix match pattern must be a string"),
    ({"suffix": ["x"]}, "suffix match pattern must be a string"),
    ({"wildcard": 5}, "wildcard match pattern must be a string"),
    ({"wildcard": ["x"]}, "wildcard match pattern must be a string"),
    ({"equals-ignore-case": True}, "equals-ignore-case match pattern must be a string"),
    ({"equals-ignore-case": {"prefix": "x"}}, "equals-ignore-case match pattern must be a string"),
    ({"prefix": {}}, "Prefix expression name not found"),
    ({"prefix": {"suffix": "x"}}, "Unsupported prefix pattern: suffix"),
    ({"suffix": {"wildcard": "x"}}, "Unsupported suffix pattern: wildcard"),
    ({"suffix": {"equals-ignore-case": 5}}, "equals-ignore-case match pattern must be a string"),
    ({"prefix": {"equals-ignore-case": "x", "y": 1}}, ONE_KEY),
    ({"cidr": 5}, "cidr match pattern must be a string"),
    # FLT-18
    ({"exists": "true"}, "exists match pattern must be either true or false."),
    ({"exists": 1}, "exists match pattern must be either true or false."),
    ({"exists": None}, "exists match pattern must be either true or false."),
    # FLT-21
    ({"numeric": 5}, "Value of numeric must be an array."),
    ({"numeric": []}, "Invalid member in numeric match: ]"),
    ({"numeric": [5]}, "Invalid member in numeric match: 5"),
    ({"numeric": [True, 5]}, "Invalid member in numeric match: true"),
    ({"numeric": [[], 5]}, "Invalid member in numeric match: ["),
    ({"numeric": ["!=", 5]}, "Unrecognized numeric range operator: !="),
    ({"numeric": ["="]}, "Value of equals must be numeric"),
    ({"numeric": ["<", "5"]}, "Value of < must be numeric"),
    ({"numeric": [">", True]}, "Value of > must be numeric"),
    ({"numeric": [">", inf]}, "Value of > must be numeric"),
    ({"numeric": ["=", 1, "<", 2]}, "Too many elements in numeric expression"),
    ({"numeric": ["<", 1, ">", 0]}, "Too many elements in numeric expression"),
    ({"numeric": [">", 0, ">", 0]}, "Bad numeric range operator: >"),
    ({"numeric": [">", 0, "=", 0]}, "Bad numeric range operator: ="),
    ({"numeric": [">", 0, None]}, "Bad value in numeric range: null"),
    ({"numeric": [">", 0, "<"]}, "Value of < must be numeric"),
    ({"numeric": [">=", 0, "<=", None]}, "Value of <= must be numeric"),
    ({"numeric": [">", 0, "<", 5, 6]}, "Too many terms in numeric range expression"),
    ({"numeric": [">", 5, "<", 0]}, "Bottom must be less than top"),
    # FLT-23
    ({"anything-but": None}, NOT_A_LIST_OR_SINGLE),
    ({"anything-but": True}, NOT_A_LIST_OR_SINGLE),
    ({"anything-but": ["x", None]}, NOT_IN_A_LIST),
    ({"anything-but": [True]}, NOT_IN_A_LIST),
    ({"anything-but": [["x"]]}, NOT_IN_A_LIST),
    ({"anything-but": [{"prefix": "x"}]}, NOT_IN_A_LIST),
    ({"anything-but": ["x", 1]}, MIXED),
    ({"anything-but": []}, MIXED),
    # FLT-24
    ({"anything-but": {}}, "Anything-But expression name not found"),
    ({"anything-but": {"exists": True}}, "Unsupported anything-but pattern: exists"),
    ({"anything-but": {"numeric": ["=", 1]}}, "Unsupported anything-but pattern: numeric"),
    ({"anything-but": {"prefix": "x", "suffix": "y"}}, ONE_KEY),
    ({"anything-but": {"prefix": ""}}, "Null prefix/suffix not allowed"),
    ({"anything-but": {"suffix": ["x", ""]}}, "Null prefix/suffix not allowed"),
    ({"anything-but": {"prefix": 5}}, "prefix/suffix match pattern must be a string"),
    ({"anything-but": {"suffix": [5, "x"]}}, "prefix/suffix match pattern must be a string"),
    ({"anything-but": {"wildcard": 5}}, "wildcard match pattern must be a string"),
    ({"anything-but": {"wildcard": [5, "x"]}}, "wildcard match pattern must be a string"),
    ({"anything-but": {"wildcard": "**"}}, "Consecutive wildcard characters at pos 1"),
    (
        {"anything-but": {"equals-ignore-case": 5}},
        "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.",
    ),
    ({"anything-but": {"prefix": {"equals-ignore-case": "x"}}}, NOT_A_LIST_OR_SINGLE),
    ({"anything-but": {"suffix": {"equals-ignore-case": "x"}}}, NOT_A_LIST_OR_SINGLE),
    ({"anything-but": {"prefix": None}}, NOT_A_LIST_OR_SINGLE),
    ({"anything-but": {"wildcard": []}}, "Empty arrays are not allowed"),
    # FLT-25
    ({"wildcard": "**"}, "Consecutive wildcard characters at pos 1"),
    ({"wildcard": "ab**"}, "Consecutive wildcard characters at pos 3"),
    ({"wildcard": r"\a"}, "Invalid escape character at pos 1"),
    ({"wildcard": "a\\"}, "Invalid escape character at pos 2"),
    # FLT-26
    ({"cidr": "10.0.0.0"}, "Malformed CIDR, one '/' required"),
    ({"cidr": "10.0.0.0/8/8"}, "Malformed CIDR, one '/' required"),
    ({"cidr": "/8"}, "Malformed CIDR, one '/' required"),
    ({"cidr": "bad-/64filter"}, "Malformed CIDR, mask bits must be an integer"),
    ({"cidr": "10.0.0.0/²"}, "Malformed CIDR, mask bits must be an integer"),
    ({"cidr": "10.0.0.0/" + "1" * 5000}, "Malformed CIDR, mask bits must be an integer"),
    ({"cidr": "10.0.0.0/-1"}, "Malformed CIDR, mask bits must not be negative"),
    ({"cidr": "xx.11.xx/8"}, "Nonstandard IP address: xx.11.xx"),
    ({"cidr": "10.0.0.256/8"}, "Nonstandard IP address: 10.0.0.256"),
    ({"cidr": "xxxx:db8:1234:1a00::/64"}, "Nonstandard IP address: xxxx:db8:1234:1a00::"),
    ({"cidr": "10.0.0.0/33"}, "IPv4 mask bits must be at most 32"),
    ({"cidr": "::/129"}, "IPv6 mask bits must be at most 128"),
]


@pytest.mark.parametrize(("alternative", "reason"), REFUSED, ids=[str(case[0])[:60] for case in REFUSED])
def test_refused(alternative: Any, reason: str) -> None:  # FLT-4, FLT-5, FLT-18..26
    with pytest.raises(InvalidPattern) as caught:
        compile_pattern({"detail": {"a": ["fine", alternative]}})
    assert caught.value.reason == reason
    assert caught.value.place == "detail.a"
    assert str(caught.value) == f"detail.a: {reason}"


TOO_COMPLEX = [
    ["*:*:*:*:*:event-bus/*"],
    ["*a*b*c*d*e*f*g*h*i*j*k"],
    ["*aaaaaaaaaa"],
    [f"*:stack/{name}/*" for name in "abcd"],
    ["x*1", "xy*1", "xyz*1", "xyz*2", "xyz*3", "xyz*1*"],
]
BEARABLE = [
    ["arn:aws:events:us-east-1:*:event-bus/*"],
    ["/Users/*/dir/dir/dir/dir/dir/doc.txt"],
    ["aaaaaaaaaaaaaaaaaaaaaaaa*"],
    [r"\*\*\*\*\*\*\*\*\*\*\*\*"],
    ["*a*b*c*d*e*f*"],
    [f"*:stack/{name}/*" for name in "abc"],
    [f"{name}*{name}*" for name in "abcdefghijklmnop"],  # no text begins like two of them
]


@pytest.mark.parametrize("texts", TOO_COMPLEX, ids=str)
def test_complex_wildcards_are_refused(texts: list[str]) -> None:  # FLT-25
    for alternatives in ([{"wildcard": text} for text in texts], [{"anything-but": {"wildcard": texts}}]):
        with pytest.raises(InvalidPattern, match=r"^a: Rule is too complex - try using fewer wildcard characters"):
            compile_pattern({"a": alternatives})


@pytest.mark.parametrize("texts", BEARABLE, ids=str)
def test_simple_wildcards_are_accepted(texts: list[str]) -> None:  # FLT-25
    compile_pattern({"a": [{"wildcard": text} for text in texts]})


def test_a_wildcard_costs_little_whatever_the_text() -> None:  # FLT-25
    matches = compile_pattern({"a": [{"wildcard": "*ab*cd*ab*cd*x"}]})
    text = "abcd" * 250_000
    before = process_time()
    assert not matches({"a": text + "y"})
    assert not matches({"a": text})
    assert matches({"a": text + "x"})
    assert process_time() - before < 1


letters = st.text(alphabet="ab*\\", max_size=12)


@given(text=letters, pieces=st.lists(letters.filter(bool), min_size=1, max_size=3))
def test_a_wildcard_matches_what_it_was_made_of(text: str, pieces: list[str]) -> None:  # FLT-25
    escaped = [piece[:4].replace("\\", r"\\").replace("*", r"\*") for piece in pieces]
    assert accepts([{"wildcard": "*".join(escaped)}], text.join(piece[:4] for piece in pieces))


@given(text=st.text(max_size=8), extra=st.text(max_size=8))
def test_strings_against_python(text: str, extra: str) -> None:  # FLT-15, FLT-20
    assert accepts([{"prefix": text}], text + extra)
    assert accepts([{"suffix": text}], extra + text)
    assert accepts([{"equals-ignore-case": text}], text)
    assert accepts([{"prefix": {"equals-ignore-case": text}}], text + extra)
    assert accepts([{"suffix": {"equals-ignore-case": text}}], extra + text)
    assert accepts([text], extra) == (text == extra)
    assert accepts([{"anything-but": text}], extra) == (text != extra)


@given(bound=st.floats(-1e12, 1e12), value=st.floats(allow_nan=False) | st.integers())
def test_numbers_against_python(bound: float, value: float) -> None:  # FLT-21
    double = float(value)
    assert accepts([{"numeric": ["=", bound]}], value) == (double == bound) == accepts([bound], value)
    assert accepts([{"numeric": ["<", bound]}], value) == (double < bound)
    assert accepts([{"numeric": [">=", bound]}], value) == (double >= bound)
    assert accepts([{"numeric": [">", bound, "<=", 2e12]}], value) == (bound < double <= 2e12)
    assert accepts([{"anything-but": bound}], value) == (double != bound)
