"""YAML with positions, bounds and variables."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from bridge.config.tree import Place, Problem, Scalar, Table, parse, parse_value, plain
from bridge.errors import ConfigError


def read(text: str, **environ: str) -> Any:
    problems: list[Problem] = []
    value = plain(parse(text, "f.yaml", environ, problems))
    assert not problems, problems
    return value


def complaints(text: str, environ: Dict[str, str] | None = None) -> list[str]:
    problems: list[Problem] = []
    parse(text, "f.yaml", environ or {}, problems)
    return list(map(str, problems))


def broken(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(text, "f.yaml", {}, [])
    return str(raised.value)


def test_every_value_knows_the_line_of_its_key() -> None:
    tree = parse("a: 1\nb:\n  c:\n    - x\n    - y\n", "f.yaml", {}, [])
    assert isinstance(tree, Table)
    b = tree.items["b"]
    assert isinstance(b, Table)
    c = b.items["c"]
    assert str(b.place) == "f.yaml:2"
    assert str(c.place) == "f.yaml:3"
    assert [str(item.place) for item in c.items] == ["f.yaml:4", "f.yaml:5"]  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file_holds_nothing(text: str) -> None:
    assert read(text) in ({}, None)


def test_text_in_quotes_stays_text_and_the_text_of_numbers_is_kept() -> None:
    tree = parse("{a: '1', b: 0123, c: 2026-01-01, d: off, e: 1:30}", "f.yaml", {}, [])
    assert isinstance(tree, Table)
    values = {key: (item.value, item.text) for key, item in tree.items.items() if isinstance(item, Scalar)}
    assert values == {
        "a": ("1", "1"), "b": (83, "0123"), "c": ("2026-01-01", "2026-01-01"), "d": (False, "off"), "e": (90, "1:30"),
    }  # fmt: skip


def test_duplicate_keys_are_refused_with_both_lines() -> None:
    assert complaints("a:\n  b: 1\n  c: 2\n  b: 3\n") == [
        "f.yaml:4: a.b: given more than once, first in line 2; keep one"
    ]


def test_anchors_aliases_and_merges_work() -> None:
    text = "base: &base {x: 1, y: 2}\none: {<<: *base, y: 3}\ntwo: *base\nthree: {<<: [{z: 1}, *base, {x: 9}]}\n"
    assert read(text) == {
        "base": {"x": 1, "y": 2}, "one": {"x": 1, "y": 3}, "two": {"x": 1, "y": 2}, "three": {"z": 1, "x": 1, "y": 2},
    }  # fmt: skip


def test_a_merge_of_something_else_is_refused() -> None:
    assert complaints("a: {<<: 5}") == ["f.yaml:1: a.<<: << takes a mapping or a list of mappings"]


def test_a_bomb_of_aliases_is_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert "more than 100000 values, counting each use of an alias" in broken("\n".join(levels))


def test_an_alias_cannot_hold_itself() -> None:
    assert broken("a: &a [*a]") == "f.yaml:1: broken YAML: no anchor &a stands before *a"


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 5000 + "]" * 5000, "{a: " * 5000, "- " * 5000])
def test_depth_is_bounded(text: str) -> None:
    assert "f.yaml:1: broken YAML: more than 64 levels deep" in broken(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\n", 3),
        ("a: 1\n  b: 2\n", 2),
        ("a: 'x\n", 2),
        ("\ta: 1", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\n? [x]\n: 1\n", 2),
        ("a: 1\n\x07: 1\n", 2),
        ("a: *nothing\n", 1),
        ("a: &x\nb: &", 2),
        ("%YAML 9.9\n---\na: 1", 1),
    ],
)
def test_broken_yaml_is_one_line_that_names_the_line(text: str, line: int) -> None:
    message = broken(text)
    assert message.startswith(f"f.yaml:{line}: broken YAML: ")
    assert "\n" not in message


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!int", "!secret", "!!binary", "!!set"])
def test_tags_do_nothing(tag: str) -> None:
    (complaint,) = complaints(f"a: {tag} '5'")
    assert complaint.startswith("f.yaml:1: a: the tag ")


class TestVariables:
    def test_they_are_expanded_inside_scalars(self) -> None:
        assert read("a: x-${A}-${B}", A="1", B="2") == {"a": "x-1-2"}

    def test_also_unquoted_in_flow_style_as_the_documentation_writes_it(self) -> None:
        text = "admin: {listen: 127.0.0.1:9464, token: ${TOKEN:-}}"
        assert read(text, TOKEN="s3cret") == {"admin": {"listen": "127.0.0.1:9464", "token": "s3cret"}}
        assert read(text) == {"admin": {"listen": "127.0.0.1:9464", "token": None}}

    def test_a_plain_scalar_gets_its_type_from_the_value(self) -> None:
        assert read("{a: ${N}, b: '${N}', c: ${N}0, d: ${F}}", N="5", F="true") == {
            "a": 5,
            "b": "5",
            "c": 50,
            "d": True,
        }

    def test_a_value_is_never_read_as_yaml_structure(self) -> None:
        assert read("a: ${X}\n", X="{b: 1}\nc: 2 # no") == {"a": "{b: 1}\nc: 2 # no"}

    def test_the_default_stands_for_unset_and_empty(self) -> None:
        assert read("a: ${X:-d e}\nb: ${Y:-f}\nc: ${Z:-f}", Y="", Z="z") == {"a": "d e", "b": "f", "c": "z"}

    def test_two_dollars_are_one_and_a_lone_one_is_itself(self) -> None:
        assert read("a: $$5\nb: $${X}\nc: name:$LATEST\nd: '{\"$or\": []}'\ne: $$$$") == {
            "a": "$5", "b": "${X}", "c": "name:$LATEST", "d": '{"$or": []}', "e": "$$",
        }  # fmt: skip

    def test_keys_and_comments_are_left_alone(self) -> None:
        assert read("${X}: 1 # ${Y}\n") == {"${X}": 1}

    def test_an_unset_variable_is_an_error(self) -> None:
        assert complaints("a:\n  b: ${NOPE}\n") == [
            "f.yaml:2: a.b: the environment variable NOPE is not set; set it, or write a default: ${NOPE:-…}"
        ]

    @pytest.mark.parametrize("expression", ["${}", "${1X}", "${A B}", "${A:?needed}", "${A-x}"])
    def test_what_names_no_variable_is_an_error(self, expression: str) -> None:
        (complaint,) = complaints(f"a: '{expression}'", {"A": "1"})
        assert complaint.startswith(f"f.yaml:1: a: {expression} names no variable; write ")

    @given(text=st.text(st.characters(exclude_categories=["C"]), max_size=40))
    def test_private_characters_of_the_user_survive(self, text: str) -> None:
        text = f"\ue000{text}\ue0000\ue001${{X}}"
        assert read(f"a: {yaml_quoted(text)}", X="x") == {"a": expanded(text, "x")}


def yaml_quoted(text: str) -> str:
    return "'" + text.replace("'", "''").replace("\x85", "").replace("\u2028", "").replace("\u2029", "") + "'"


def expanded(text: str, value: str) -> str:
    return "$".join(part.replace("${X}", value) for part in text.split("$$"))


class TestOneValue:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("5", 5),
            ("", None),
            ("[a, 1]", ["a", 1]),
            ("{a: {b: c}}", {"a": {"b": "c"}}),
            ("${X}", None),
            ("a b", "a b"),
        ],
    )
    def test_scalars_and_flow(self, text: str, value: object) -> None:
        if text == "${X}":
            text, value = "'${X}'", "${X}"  # nothing is expanded: that was the shell's part
        assert plain(parse_value(text, Place("--set a"))) == value

    @pytest.mark.parametrize("text", ["[1", "{a: 1, a: 2}", "*x", "a: b: c"])
    def test_what_is_broken_names_its_origin(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"^--set a: "):
            parse_value(text, Place("--set a"))


@given(text=st.text(max_size=200))
def test_any_text_is_a_tree_or_one_error(text: str) -> None:
    with suppress(ConfigError):
        parse(text, "f.yaml", {}, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_", min_size=1), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(value=st.dictionaries(st.text("abc_", min_size=1), JSON))
def test_it_reads_as_yaml_does(value: dict[str, Any]) -> None:
    text = yaml.safe_dump(value)
    assert read(text.replace("$", "$$")) == yaml.safe_load(text)
