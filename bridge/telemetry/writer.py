"""Where log lines leave the process: to a stream that may be slow, broken, full or closed, none of which may hold up
or end the daemon."""

from __future__ import annotations

import atexit
import os
import select
import stat
import threading
from collections import deque
from typing import TextIO

MOST_WAITING = 1 << 20
"""Bytes of lines that may wait for a slow reader; what comes on top is dropped and counted."""
LAST_WAIT = 2.0
"""Seconds that the end of the program waits for a slow reader."""


class Writer:
    """Writes whole lines, in order, at once where that cannot block, else from a thread of its own until the reader has
    caught up. Never raises; ``dropped`` counts the lines that were lost.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._lock = threading.Lock()
        self._stream: TextIO | None = None
        self._fd: int | None = None
        self._plain_file = False
        self._poll = select.poll()
        self._torn = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._drainer: threading.Thread | None = None
        atexit.register(self.close)

    def open(self, stream: TextIO | None) -> None:
        """From now on to ``stream``; none (a closed standard error): every line is dropped."""
        fd = _descriptor(stream)
        if stream is not None and stream is self._stream and fd == self._fd:
            return
        self.close()
        with self._lock:
            self._stream, self._fd, self._torn = stream, fd, False
            if fd is not None:
                self._poll = _writable(fd)
                self._plain_file = stat.S_ISREG(os.fstat(fd).st_mode)

    def write(self, line: bytes) -> None:
        """Takes one line with its newline."""
        with self._lock:
            if self._drainer is None:
                if self._fd is None:
                    self._to_stream(line)
                    return
                if self._blocks_not(line):
                    line = self._put(self._fd, line)
                    if not line:
                        return
            self._queue(line)

    def flush(self) -> None:
        """Lines are never held back on purpose."""

    def close(self, timeout: float = LAST_WAIT) -> None:
        """Gives a slow reader ``timeout`` seconds for what waits."""
        if (drainer := self._drainer) is not None:
            drainer.join(timeout)

    def _blocks_not(self, line: bytes) -> bool:
        # A pipe or socket that polls as writable takes this many bytes without blocking.
        return self._plain_file or (len(line) <= select.PIPE_BUF and bool(self._poll.poll(0)))

    def _put(self, fd: int, line: bytes) -> bytes:
        """Writes; gives what a non-blocking descriptor did not take."""
        start = line = b"\n" + line if self._torn else line
        self._torn = False
        try:
            while line:
                line = line[os.write(fd, line) :]
        except BlockingIOError:
            return line
        except OSError:
            self.dropped += 1
            self._torn = len(line) < len(start)
        return b""

    def _to_stream(self, line: bytes) -> None:
        """For streams without a descriptor."""
        try:
            if self._stream is None:
                self.dropped += 1
            else:
                self._stream.write(line.decode())
                self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed
            self.dropped += 1

    def _queue(self, line: bytes) -> None:
        if self._waiting_bytes + len(line) > MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        if self._drainer is None:
            self._drainer = threading.Thread(target=self._drain, name="log writer", daemon=True)
            self._drainer.start()

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._fd is None:
                    self._drainer = None
                    return
                fd, line = self._fd, self._waiting.popleft()
            size, ready = len(line), _writable(fd)
            while line:
                ready.poll(1000)
                line = self._put(fd, line)
            with self._lock:
                self._waiting_bytes -= size


def _writable(fd: int) -> select.poll:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return poll


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
