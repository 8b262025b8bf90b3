"""The URL that says where the state is (interfaces.md section 2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import StateError
from bridge.stores import STORES, StateUrl, open_store


@pytest.mark.parametrize(
    ("text", "path", "namespace"),
    [
        ("sqlite:////var/lib/bridge/state.db", "/var/lib/bridge/state.db", ""),
        ("sqlite:////var/lib/state.db?namespace=me", "/var/lib/state.db", "me"),
        ("sqlite:///state.db", "state.db", ""),
        ("sqlite:////with%20space/%3F.db", "/with space/?.db", ""),
        ("memory:", ".", ""),
        ("memory:?namespace=me", ".", "me"),
    ],
)
def test_a_url_is_read(text: str, path: str, namespace: str) -> None:
    url = StateUrl.parse(text)
    assert url == (text.partition(":")[0], Path(path), namespace)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "write sqlite:////PATH or memory:"),
        ("/var/lib/bridge/state.db", "write sqlite:////PATH"),
        ("sqlite", "write sqlite:////PATH"),
        ("sqlite3:////x.db", 'did you mean "sqlite"?'),
        ("postgres://host/db", "write sqlite:////PATH"),
        ("sqlite://host/x.db", "names no file"),
        ("sqlite:/var/lib/x.db", "four slashes"),
        ("sqlite:x.db", "names no file"),
        ("sqlite:////folder/", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:////x%00.db", "names no file"),
        ("sqlite:////x.db#part", "names no file"),
        ("sqlite:////x.db?mode=ro", "'mode'"),
        ("sqlite:////x.db?namespace=", "namespace"),
        ("sqlite:////x.db?namespace=../x", "namespace"),
        ("sqlite://[x/y.db", "no URL of a store"),
        ("memory:/x", "just memory:"),
    ],
)
def test_a_bad_url_gets_one_line(text: str, part: str) -> None:
    with pytest.raises(StateError) as caught:
        open_store(text)
    message = str(caught.value)
    assert message.startswith("state: ")
    assert part in message
    assert "\n" not in message


def test_every_store_can_be_opened_by_its_scheme() -> None:
    assert {type(open_store(url)).__name__ for url in ("memory:", "sqlite:////x")} == {
        name.rpartition(":")[2] for name in STORES.values()
    }
