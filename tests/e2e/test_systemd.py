"""What a service manager hears (interfaces.md section 1): the daemon's end of sd_notify, on a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from signal import Signals
from typing import NamedTuple

import pytest

from tests.e2e.faulty import FaultyServer
from tests.e2e.harness import Site, eventually


class Told(NamedTuple):
    """One datagram, and when it came (monotonic)."""

    at: float
    fields: dict[str, str]


class Manager:
    """A unix datagram socket that writes down what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[Told] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            lines = (line.partition("=") for line in datagram.decode().splitlines())
            self.told.append(Told(time.monotonic(), {key: value for key, _, value in lines}))

    def all(self, key: str) -> list[Told]:
        return [told for told in self.told if key in told.fields]

    def waits_for(self, key: str, count: int = 1) -> Told:
        """The ``count``-th of this kind."""
        return eventually(lambda: len(found := self.all(key)) >= count and found[count - 1]) or self.told[0]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    listening = Manager(tmp_path_factory.mktemp("notify") / "socket")
    yield listening
    listening.close()


def test_ready_when_the_mappings_have_polled(faulty_site: Site, faulty_server: FaultyServer, manager: Manager) -> None:
    slow, quick = faulty_server.queue(), faulty_server.queue()
    faulty_site.function()
    faulty_site.mapping(slow, name="slow")
    faulty_site.mapping(quick, name="quick")
    slow.stall()
    with faulty_site.start(env={"NOTIFY_SOCKET": str(manager.path)}) as bridge:
        bridge.until(lambda: bridge.view("quick").ready)
        assert not bridge.view("slow").ready
        answered = time.monotonic()
        slow.go_on()
        ready = manager.waits_for("READY")
        assert ready.at >= answered
        assert ready.fields == {"READY": "1", "STATUS": "2 of 2 mappings poll"}
        bridge.stop()
        assert len(manager.all("READY")) == 1
        assert manager.all("WATCHDOG") == [], "nobody asked for it"


def test_ready_when_a_mapping_cannot_poll_and_says_why(one_site: Site, manager: Manager) -> None:
    one_site.function()
    one_site.mapping(one_site.queue(), name="there")
    one_site.mapping("arn:aws:sqs:eu-west-1:123456789012:not-there", name="absent")
    with one_site.start(env={"NOTIFY_SOCKET": str(manager.path)}) as bridge:
        ready = manager.waits_for("READY")
        assert ready.fields["STATUS"] == "1 of 2 mappings poll"
        status, body = bridge.readiness()
        assert (status, list(body["mappings"])) == (503, ["absent"])
        gate = bridge.view("absent").gate
        assert gate is not None
        assert "QueueDoesNotExist" in gate.detail or "NonExistentQueue" in gate.detail


def test_watchdog_reload_and_stop(one_site: Site, manager: Manager) -> None:
    one_site.function()
    one_site.mapping(one_site.queue(), name="orders")
    env = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "3000000"}
    with one_site.start(env=env) as bridge:
        manager.waits_for("READY")
        manager.waits_for("WATCHDOG", 2)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        bridge.signal(Signals.SIGHUP)
        reloading = manager.waits_for("RELOADING")
        assert before <= int(reloading.fields["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        again = manager.waits_for("READY", 2)
        assert manager.told.index(reloading) < manager.told.index(again)
        bridge.stop()
    assert manager.waits_for("STOPPING").fields["STOPPING"] == "1"
    feeds = [told.at for told in manager.all("WATCHDOG")]
    assert all(later - earlier < 3 for earlier, later in pairwise(feeds))
