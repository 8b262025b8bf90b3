"""Suggestions for mistyped words."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from bridge.nearest import did_you_mean

KNOWN = ("BatchSize", "shutdown_grace", "validate", "config-schema")


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("batchsize", "BatchSize"), ("batch_size", "BatchSize"), ("BatchSizes", "BatchSize"), ("valdate", "validate"),
        ("ShutdownGrace", "shutdown_grace"), ("configschema", "config-schema"),
    ],
)  # fmt: skip
def test_the_nearest(word: str, nearest: str) -> None:
    assert did_you_mean(word, KNOWN) == f'; did you mean "{nearest}"?'


@pytest.mark.parametrize("word", ["", "zzz", "x" * 100_000])
def test_none_is_near(word: str) -> None:
    assert did_you_mean(word, KNOWN) == ""


@given(word=st.text(), known=st.lists(st.text()))
def test_whatever_the_words(word: str, known: list[str]) -> None:
    said = did_you_mean(word, known)
    assert not said or any(f'"{name}"' in said for name in known)
