"""Tells a service manager how the daemon is, in the protocol of systemd's ``sd_notify``."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

import structlog

log = structlog.get_logger()


class Notifier:
    """Sends states to the socket that ``NOTIFY_SOCKET`` names; without one, every call does nothing.

    No call blocks or raises; each gives whether the manager got the message. A failure is logged once.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._failed = False
        self.watchdog = _watchdog(environ)
        """Seconds within which the manager wants to hear ``alive`` again; none: it does not watch."""

    def __repr__(self) -> str:
        return f"<Notifier {self._address or 'off'}>"

    def ready(self, status: str = "") -> bool:
        """Started, or reloaded."""
        return self._send("READY=1", *_status(status))

    def status(self, status: str) -> bool:
        """One line for people."""
        return self._send(*_status(status))

    def reloading(self) -> bool:
        """A reload begins; ``ready`` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, status: str = "") -> bool:
        """The shutdown begins."""
        return self._send("STOPPING=1", *_status(status))

    def alive(self) -> bool:
        """Feeds the watchdog."""
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        if not self._address or not lines:
            return False
        try:
            address = _address(self._address)
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as sender:
                sender.sendto("\n".join(lines).encode(errors="replace"), address)
        except (OSError, ValueError) as error:
            if not self._failed:
                log.warning("notify_failed", socket=self._address, error=str(error))
            self._failed = True
            return False
        self._failed = False
        return True


def _address(text: str) -> bytes:
    """A path, or with ``@`` in front a name in the abstract namespace."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    if text.startswith("/"):
        return os.fsencode(text)
    raise ValueError("NOTIFY_SOCKET is neither an absolute path nor @NAME")


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()


def _watchdog(environ: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environ["WATCHDOG_USEC"])
        meant = int(environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if meant and microseconds > 0 else None
