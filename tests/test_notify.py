"""What the service manager hears: real datagrams on real sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The value of NOTIFY_SOCKET, and the manager's end."""
    name = f"bridge-test-{os.getpid()}"
    spelled, address = (f"@{name}", f"\0{name}") if request.param == "abstract" else (f"{tmp_path}/n",) * 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address)
        end.settimeout(10)
        yield spelled, end


def test_each_state_is_a_datagram(manager: tuple[str, socket.socket]) -> None:
    name, end = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.ready("2 mappings\npoll")
    assert end.recv(1000) == b"READY=1\nSTATUS=2 mappings poll"
    assert notifier.ready()
    assert end.recv(1000) == b"READY=1"
    assert notifier.status("1 mapping waits")
    assert end.recv(1000) == b"STATUS=1 mapping waits"
    assert notifier.alive()
    assert end.recv(1000) == b"WATCHDOG=1"
    assert notifier.stopping("draining")
    assert end.recv(1000) == b"STOPPING=1\nSTATUS=draining"


def test_a_reload_tells_its_monotonic_time(manager: tuple[str, socket.socket]) -> None:
    name, end = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert Notifier({"NOTIFY_SOCKET": name}).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = end.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    key, _, now = second.partition("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(now) <= after


def test_a_manager_that_does_not_read_blocks_nobody(manager: tuple[str, socket.socket]) -> None:
    name, end = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    while notifier.status("x" * 1000):
        pass  # until its queue is full
    assert end.recv(2000) == b"STATUS=" + b"x" * 1000
    assert notifier.alive()


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/notify", "vsock:2:1234", "/" + "x" * 200])
def test_no_manager_is_no_trouble(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert not notifier.ready()
    assert not notifier.alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "me"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog == seconds
