"""What a handler writes to stdout and stderr: passed on by lines, bounded in memory and in its claim on the loop."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import IO, NamedTuple, Protocol

import structlog

log = structlog.get_logger()

LINE_LIMIT = 16 * 1024
"""Bytes of a line; a longer one is passed on in pieces."""
READ_SIZE = 16 * 1024
LAST_READS = 8
"""Reads at the end of an invocation: more than a pipe holds."""
LINES_AT_ONCE = 64
"""Lines passed on in one turn of the loop. While lines wait, the pipe is not read, and in the end the child waits."""
CROWD = 1024
"""Waiting lines from which on the next invocation has to wait too."""


class Origin(NamedTuple):
    """Which invocation, of which mapping, was running when something was written."""

    mapping: str = ""
    request_id: str = ""


class OutputSink(Protocol):
    """Takes one line of a handler's output, without its newline. Must neither block nor raise."""

    def __call__(self, line: str, *, stream: str, function: str, mapping: str, request_id: str) -> None: ...


def log_line(line: str, *, stream: str, function: str, mapping: str, request_id: str) -> None:
    """The sink of the daemon: a log line each."""
    log.info("handler_output", function=function, mapping=mapping, request_id=request_id, stream=stream, line=line)


class Output:
    """Reads both streams of a child from ``open`` on, until both have ended or ``close`` is called."""

    def __init__(
        self, stdout: IO[bytes], stderr: IO[bytes], write: Callable[[bytes], None], sink: OutputSink, function: str
    ) -> None:
        self.origin = Origin()
        """To whom the next bytes are attributed."""
        self._sink = sink
        self._function = function
        self._streams = [_Stream(self, "stdout", stdout, write), _Stream(self, "stderr", stderr, write)]

    def open(self) -> None:
        for stream in self._streams:
            stream.open()

    def flush(self) -> None:
        """Reads what the child has written until now; a line without its end counts as one."""
        for stream in self._streams:
            stream.flush()

    def close(self) -> None:
        """Takes what is left in the pipes and lets go of them."""
        for stream in self._streams:
            stream.close()

    @property
    def crowded(self) -> bool:
        """Whether the child writes faster than lines are passed on."""
        out, err = self._streams
        return out.crowded or err.crowded

    @property
    def quiet(self) -> bool:
        """Whether the sink has everything that was read."""
        return all(stream.emptied.is_set() for stream in self._streams)

    async def passed_on(self) -> None:
        """Waits until it is quiet."""
        for stream in self._streams:
            await stream.emptied.wait()

    def emit(self, line: bytes, stream: str, origin: Origin) -> None:
        self._sink(
            line.decode(errors="replace"),
            stream=stream,
            function=self._function,
            mapping=origin.mapping,
            request_id=origin.request_id,
        )


class _Stream:
    def __init__(self, output: Output, name: str, pipe: IO[bytes], write: Callable[[bytes], None]) -> None:
        self.emptied = asyncio.Event()
        self.emptied.set()
        self._output = output
        self._name = name
        self._pipe = pipe
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._part = b""
        self._lines: deque[tuple[bytes, Origin]] = deque()
        self._reading = False
        self._scheduled = False
        self._ended = False

    @property
    def crowded(self) -> bool:
        return len(self._lines) > CROWD

    def open(self) -> None:
        os.set_blocking(self._pipe.fileno(), False)
        self._resume()

    def flush(self) -> None:
        for _ in range(LAST_READS):
            if self._ended or not self._read():
                break
        if self._part:
            self._queue(self._part)
            self._part = b""
        if self._lines:
            self._pass_on()

    def close(self) -> None:
        self.flush()
        self._end()

    def _on_readable(self) -> None:
        self._read()
        self._pass_on()

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            data = os.read(self._pipe.fileno(), READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        self._write(data)
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            self._queue(line)
        while len(self._part) > LINE_LIMIT:
            cut = _whole_characters(self._part)
            self._queue(self._part[:cut])
            self._part = self._part[cut:]
        return True

    def _queue(self, line: bytes) -> None:
        origin = self._output.origin
        while len(line) > LINE_LIMIT:
            cut = _whole_characters(line)
            self._lines.append((line[:cut], origin))
            line = line[cut:]
        self._lines.append((line.removesuffix(b"\r"), origin))

    def _pass_on(self) -> None:
        """Some lines now, the others in the next turns of the loop."""
        lines = self._lines
        for _ in range(min(len(lines), LINES_AT_ONCE)):
            line, origin = lines.popleft()
            self._output.emit(line, self._name, origin)
        if not lines:
            self.emptied.set()
            self._resume()
        elif not self._scheduled:
            self.emptied.clear()
            self._pause()
            self._scheduled = True
            self._loop.call_soon(self._pass_on_more)

    def _pass_on_more(self) -> None:
        self._scheduled = False
        self._pass_on()

    def _resume(self) -> None:
        if not self._reading and not self._ended:
            self._reading = True
            self._loop.add_reader(self._pipe.fileno(), self._on_readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._pipe.fileno())

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._pause()
            self._pipe.close()
            if self._part:
                self._queue(self._part)
                self._part = b""
            self._pass_on()


def _whole_characters(line: bytes) -> int:
    """Where to cut a line that is too long, so that no UTF-8 character is torn."""
    cut = LINE_LIMIT
    while cut > LINE_LIMIT - 4 and line[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
