"""The block `api`: where it listens, and whom it may trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configured import problem, problems, settings

SIGNED = "auth: sigv4, access_keys: {AKID: hush}"


def test_it_is_off_unless_it_stands_there(tmp_path: Path) -> None:
    assert settings(tmp_path, "").api_host is None
    assert settings(tmp_path, "api: off").api_host is None
    loaded = settings(tmp_path, "api: {}")
    assert (loaded.api_host, loaded.api_port, loaded.api_keys) == ("127.0.0.1", 3001, None)
    loaded = settings(tmp_path, "api: off", {"BRIDGE_API__LISTEN": "[::1]:0"})
    assert (loaded.api_host, loaded.api_port) == ("::1", 0)


def test_keys(tmp_path: Path) -> None:
    loaded = settings(tmp_path, "api: {auth: sigv4, access_keys: {AKID: '${S}'}}", {"S": "hush"})
    assert loaded.api_keys == {"AKID": "hush"}
    assert "hush" not in repr(loaded)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:3001", "[::]:3001", "192.0.2.1:3001", "example.org:3001", "127.evil.org:1"]
)
def test_other_hosts_must_sign(tmp_path: Path, address: str) -> None:
    text = f"api: {{listen: '{address}'}}"
    assert problem(tmp_path, text).startswith("bridge.yaml:1: api.listen: auth: none lets anybody who reaches ")
    assert settings(tmp_path, f"api: {{listen: '{address}', {SIGNED}}}").api_keys == {"AKID": "hush"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.1.2.3:1", "localhost:1", "[::1]:1"])
def test_this_machine_need_not(tmp_path: Path, address: str) -> None:
    assert settings(tmp_path, f"api: {{listen: '{address}'}}").api_keys is None


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ("listen: nowhere", "api.listen"),
        ("auth: sigv4", "api.auth"),
        ("auth: basic", "api.auth"),
        ("access_keys: {AKID: hush}", "api.access_keys"),
        ("auth: sigv4, access_keys: {AKID: ''}", "api.access_keys.AKID"),
        ("auth: sigv4, access_keys: {AKID: 'two words'}", "api.access_keys.AKID"),
        ("auth: sigv4, access_keys: {'no/id': hush}", "api.access_keys"),
        ("token: hush", "api.token"),
    ],
)
def test_refusals(tmp_path: Path, options: str, path: str) -> None:
    found = problems(tmp_path, f"api: {{{options}}}")
    assert any(line.startswith(f"bridge.yaml:1: {path}: ") for line in found), found
    assert not any("hush" in line for line in found)
