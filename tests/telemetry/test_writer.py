"""The way out of log lines: it may be slow, broken, full or closed, and nothing of that is felt."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from bridge.telemetry.writer import MOST_WAITING, Writer


@pytest.fixture
def writer() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The reader's descriptor, and the stream to write to."""
    reader, end = os.pipe()
    stream = os.fdopen(end, "w")
    yield reader, stream
    stream.close()
    try:
        os.close(reader)
    except OSError:
        return  # the test closed it


def read_lines(reader: int, count: int) -> list[bytes]:
    with os.fdopen(os.dup(reader), "rb") as lines:
        return [lines.readline() for _ in range(count)]


def test_lines_arrive_at_once(writer: Writer, pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    writer.open(stream)
    writer.write(b"one\n")
    assert os.read(reader, 100) == b"one\n"


def test_a_slow_reader_holds_up_nobody_and_loses_nothing(writer: Writer, pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    writer.open(stream)
    sent = [b"%06d %s\n" % (number, b"x" * 500) for number in range(1500)]  # far more than the pipe holds
    for line in sent:
        writer.write(line)
    assert read_lines(reader, len(sent)) == sent
    writer.close()
    writer.write(b"direct again\n")
    assert os.read(reader, 100) == b"direct again\n"
    assert writer.dropped == 0


def test_what_a_stuck_reader_does_not_take_is_bounded_and_counted(writer: Writer, pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    writer.open(stream)
    line = b"x" * 999 + b"\n"
    for _ in range(3000):
        writer.write(line)
    least = 3000 - (MOST_WAITING + (64 << 10)) // 1000 - 2
    assert least <= writer.dropped <= 3000 - MOST_WAITING // 1000
    assert len(read_lines(reader, 3000 - writer.dropped)) == 3000 - writer.dropped


def test_a_line_longer_than_a_pipe_is_written_whole(writer: Writer, pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    writer.open(stream)
    line = b"y" * 300_000 + b"\n"
    writer.write(line)
    writer.write(b"next\n")
    assert read_lines(reader, 2) == [line, b"next\n"]


def test_a_non_blocking_stream_is_waited_for_elsewhere(writer: Writer, pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    os.set_blocking(stream.fileno(), False)
    writer.open(stream)
    sent = [b"%06d %s\n" % (number, b"x" * 5000) for number in range(100)]
    for line in sent:
        writer.write(line)
    assert read_lines(reader, 100) == sent


def test_a_broken_pipe_is_counted(writer: Writer, pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    writer.open(stream)
    os.close(reader)
    writer.write(b"one\n")
    writer.write(b"two\n")
    assert writer.dropped == 2


def test_a_full_disk_is_counted(writer: Writer) -> None:
    with Path("/dev/full").open("w") as full:
        writer.open(full)
        writer.write(b"one\n")
        assert writer.dropped == 1


def test_a_line_torn_by_a_full_disk_does_not_swallow_the_next(writer: Writer, tmp_path: Path) -> None:
    # A file size limit cuts a write short, as a full disk does.
    script = """
import resource, signal, sys
from bridge.telemetry.writer import Writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = Writer()
writer.open(sys.stderr)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
writer.write(b"seven..\\n")
writer.write(b"torn in the middle\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
writer.write(b"next\\n")
print(writer.dropped)
"""
    log = tmp_path / "log"
    with log.open("w") as file:
        done = subprocess.run([sys.executable, "-c", script], stderr=file, stdout=subprocess.PIPE, check=True)
    assert log.read_bytes() == b"seven..\nto\nnext\n"
    assert done.stdout == b"1\n"


def test_a_closed_standard_error_is_counted(writer: Writer) -> None:
    writer.open(None)
    writer.write(b"one\n")
    assert writer.dropped == 1


def test_a_closed_stream_is_counted(writer: Writer) -> None:
    stream = io.StringIO()
    stream.close()
    writer.open(stream)
    writer.write(b"one\n")
    assert writer.dropped == 1


def test_threads_do_not_mix_their_lines(writer: Writer, pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    writer.open(stream)

    def write(letter: bytes) -> None:
        for _ in range(500):
            writer.write(letter * 100 + b"\n")

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    lines = read_lines(reader, 1500)
    for thread in threads:
        thread.join()
    assert sorted(set(lines)) == [letter * 100 + b"\n" for letter in (b"a", b"b", b"c")]
    assert len(lines) == 1500


END = """
import sys
from bridge.telemetry.writer import Writer
writer = Writer()
writer.open(sys.stderr)
for number in range(1000):
    writer.write(b"%06d " % number + b"x" * 500 + b"\\n")
print("written", flush=True)
"""


def test_the_end_of_the_program_waits_for_a_slow_reader() -> None:
    with subprocess.Popen([sys.executable, "-c", END], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == b"written\n"
        assert len(child.stderr.readlines()) == 1000
        assert child.wait(30) == 0


def test_the_end_of_the_program_does_not_wait_for_a_stuck_reader_for_ever() -> None:
    with subprocess.Popen([sys.executable, "-c", END], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.wait(30) == 0
