"""How commands find the daemon: --admin, BRIDGE_ADMIN, the found configuration, the default."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.admin.client import Address, Client, find
from bridge.errors import RemoteError, Unreachable, UsageError

DEFAULT = "http://127.0.0.1:9464"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration is found by accident."""
    monkeypatch.chdir(tmp_path)


def configured(text: str) -> dict[str, str]:
    """The environment of a user with this configuration."""
    Path("elsewhere.yaml").write_text(text)
    return {"BRIDGE_CONFIG": "elsewhere.yaml"}


def test_what_is_said_goes_first() -> None:
    environ = {"BRIDGE_ADMIN": "http://b:2", **configured("admin: {listen: 127.0.0.1:3, token: t}")}
    assert find("http://a:1", None, environ) == Address("http://a:1")
    assert find(None, None, environ) == Address("http://b:2")
    del environ["BRIDGE_ADMIN"]
    assert find(None, None, environ) == Address("http://127.0.0.1:3", "t")
    assert find(None, None, {}) == Address(DEFAULT)


def test_the_token_is_given_set_or_belongs_to_the_configured_address() -> None:
    environ = configured("admin: {token: from-file}")
    assert find(None, "given", environ).token == "given"
    assert find(None, None, {**environ, "BRIDGE_ADMIN_TOKEN": "set"}).token == "set"
    assert find(None, None, environ).token == "from-file"
    assert find("http://other:1", None, environ).token == ""  # it is nobody else's business


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("admin: {listen: 0.0.0.0:9000}", "http://127.0.0.1:9000"),
        ("admin: {listen: '[::]:9000'}", "http://[::1]:9000"),
        ("admin: {listen: '[::1]:9000'}", "http://[::1]:9000"),
        ("admin: {listen: bridge.internal:9000}", "http://bridge.internal:9000"),
        ("functions: {}", DEFAULT),
        ("", DEFAULT),
        ("admin: {listen: 127.0.0.1:9000}\nfunctions: {x: {Handlr: 1}}\nmapings: ${UNSET}\n", "http://127.0.0.1:9000"),
        ("admin: [1, 2]", DEFAULT),
        ("- no\n- table", DEFAULT),
        ("broken: [yaml", DEFAULT),
    ],
)
def test_the_configured_address_whatever_else_stands_there(text: str, url: str) -> None:
    assert find(None, None, configured(text)).url == url


def test_a_configuration_that_cannot_be_read_does_not_matter(tmp_path: Path) -> None:
    assert find(None, None, {"BRIDGE_CONFIG": "absent.yaml"}).url == DEFAULT
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert find(None, None, {"BRIDGE_CONFIG": "binary.yaml"}).url == DEFAULT


def test_the_environment_lies_over_the_file() -> None:
    environ = {**configured("admin: {listen: 127.0.0.1:1}"), "BRIDGE_ADMIN__LISTEN": "127.0.0.1:9001"}
    assert find(None, None, environ).url == "http://127.0.0.1:9001"
    assert find(None, None, {"BRIDGE_ADMIN__LISTEN": "127.0.0.1:9002"}).url == "http://127.0.0.1:9002"


@pytest.mark.parametrize("text", ["admin: off", "admin: 'off'", "admin: {listen: off}", "admin: {listen: 'off'}"])
def test_a_daemon_without_admin_interface_cannot_be_asked(text: str) -> None:
    with pytest.raises(UsageError, match=r"admin\.listen: off"):
        find(None, None, configured(text))


def test_a_free_port_cannot_be_known() -> None:
    with pytest.raises(UsageError, match="--admin URL"):
        find(None, None, configured("admin: {listen: 127.0.0.1:0}"))


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x", "http://", "http://x:port", "http://x:99999", "http://[::1", "http://x?y", "http://x#y", "/path"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected such as http://127"):
        Client(Address(url))


def test_the_configured_token_may_stand_in_a_file(tmp_path: Path) -> None:
    environ = configured("admin: {token_file: secret}")
    assert find(None, None, environ).token == ""  # nor may everybody read it
    (tmp_path / "secret").write_text("hush\n")
    assert find(None, None, environ).token == "hush"


def test_a_token_that_cannot_stand_in_a_header_is_refused() -> None:
    for token in ("a\nb", "ü"):
        with pytest.raises(UsageError, match="token"):
            Client(Address(DEFAULT, token))


def test_short_addresses_and_prefixes_are_understood() -> None:
    assert Client(Address("localhost:9464")).url == "http://localhost:9464"
    assert Client(Address("https://me:pw@ops.example/bridge/")).url == "https://ops.example/bridge"


@contextmanager
def wire(answer: bytes) -> Iterator[str]:
    """A server that gives each client ``answer``, whatever it asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked = b""
                while b"\r\n\r\n" not in asked and (more := connection.recv(65536)):
                    asked += more
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "does not speak as a daemon does"),
        (b"", "does not speak as a daemon does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>", "no daemon of this version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no daemon of this version"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n<htm>", "answers 404, as no daemon does"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 16\r\n\r\n{\"error\": \"bad\"}", "bad (500)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "does not speak as a daemon does"),
    ],
)  # fmt: skip
def test_what_is_no_daemon_is_named_in_one_line(answer: bytes, part: str) -> None:
    with wire(answer) as url:
        with pytest.raises(RemoteError) as caught:
            Client(Address(url)).snapshot()
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Unreachable, match=rf"no daemon answers at {url} \(Connection refused\); start it"):
        Client(Address(url)).get("/healthz")


def test_a_daemon_that_hangs_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unreachable, match="did not answer within 0 s"):
            Client(Address(url)).get("/healthz", 0.05)
