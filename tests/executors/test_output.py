"""What handlers write: cut into lines, attributed, bounded, and never in the way of the loop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import IO

import anyio
import pytest
import structlog

from bridge.executors import output as module
from bridge.executors.output import CROWD, LINE_LIMIT, LINES_AT_ONCE, Origin, Output, log_line
from tests.contracts.executor import invocation
from tests.executors.surroundings import PATIENCE, Lines, Write, function, running, said

pytestmark = pytest.mark.anyio


class Written:
    """Both pipes of a child, seen from the child, and what came of them."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.raw = bytearray()
        (out, self._out), (err, self._err) = os.pipe(), os.pipe()
        self.output = Output(self._reading(out), self._reading(err), self.raw.extend, self.lines, "worker")
        self._open = True

    @staticmethod
    def _reading(fd: int) -> IO[bytes]:
        return os.fdopen(fd, "rb", buffering=0)

    def write(self, data: bytes, *, stderr: bool = False) -> None:
        assert os.write(self._err if stderr else self._out, data) == len(data)

    def end(self) -> None:
        if self._open:
            self._open = False
            os.close(self._out)
            os.close(self._err)

    async def until(self, count: int) -> None:
        with anyio.fail_after(PATIENCE):
            while len(self.lines) < count:
                await anyio.sleep(0.001)


@asynccontextmanager
async def written() -> AsyncIterator[Written]:
    made = Written()
    made.output.open()
    try:
        yield made
    finally:
        made.end()
        made.output.close()


async def test_lines_come_as_they_are_written_and_carry_their_origin() -> None:
    async with written() as child:
        child.output.origin = Origin("orders", "id-1")
        child.write(b"one\ntw")
        await child.until(1)
        assert child.lines == [("one", "stdout", "worker", "orders", "id-1")]
        child.write(b"o\r\n\n")
        child.write("dr\u00fcei\n".encode(), stderr=True)
        await child.until(4)
        assert child.lines.texts[1:3] == ["two", ""]
        assert child.lines[3] == ("dr\u00fcei", "stderr", "worker", "orders", "id-1")
    assert bytes(child.raw) == b"one\ntwo\r\n\ndr\xc3\xbcei\n"


async def test_a_flush_takes_what_is_there_even_without_its_end() -> None:
    async with written() as child:
        child.output.origin = Origin("orders", "id-1")
        child.write(b"whole\npart")
        child.write(b"of stderr", stderr=True)
        child.output.flush()
        child.output.origin = Origin("orders", "id-2")
        child.write(b"later\n")
        await child.until(4)
    assert [(line.text, line.request_id) for line in child.lines] == [
        ("whole", "id-1"),
        ("part", "id-1"),
        ("of stderr", "id-1"),
        ("later", "id-2"),
    ]


async def test_the_end_of_a_stream_ends_its_last_line() -> None:
    async with written() as child:
        child.write(b"last words")
        child.end()
        await child.until(1)
        assert child.output.quiet
    assert child.lines.texts == ["last words"]


async def test_what_is_left_at_the_close_is_passed_on() -> None:
    async with written() as child:
        child.write(b"x\n" * 1000)
        child.output.close()
        assert len(child.lines) < 1000
        assert not child.output.quiet
        with anyio.fail_after(PATIENCE):
            await child.output.passed_on()
        assert len(child.lines) == 1000
        assert child.output.quiet


async def test_a_long_line_comes_in_pieces_without_tearing_a_character() -> None:
    text = "a" + "\u20ac" * (LINE_LIMIT // 2)
    async with written() as child:
        child.write(text.encode() + b"\n")
        await child.until(2)
    assert "".join(child.lines.texts) == text
    assert all(len(line.encode()) <= LINE_LIMIT for line in child.lines.texts)


async def test_an_endless_line_is_not_collected() -> None:
    async with written() as child:
        for count in range(1, 11):
            child.write(b"x" * LINE_LIMIT)
            with anyio.fail_after(PATIENCE):
                while len(child.raw) < count * LINE_LIMIT:
                    await anyio.sleep(0.001)
            assert len(child.lines) >= count - 1
        await child.until(9)
    assert sum(map(len, child.lines.texts)) == 10 * LINE_LIMIT


async def test_bytes_that_are_no_text_do_no_harm() -> None:
    async with written() as child:
        child.write(b"\xff\xfe \x80\n" + b"\x80" * (LINE_LIMIT + 10) + b"\n")
        await child.until(3)
    assert child.lines.texts[0] == "\ufffd\ufffd \ufffd"


async def test_many_lines_take_many_turns_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn passes on LINES_AT_ONCE lines of a stream, and the pipe is not read while lines wait."""
    async with written() as child:
        child.write(b"x\n" * 8000)
        counts = [0]
        with anyio.fail_after(PATIENCE):
            while counts[-1] < 8000:
                await anyio.sleep(0)
                counts.append(len(child.lines))
        # A check may come before or after the turn's portion.
        assert max(later - earlier for earlier, later in pairwise(counts)) <= 2 * LINES_AT_ONCE


async def test_a_child_that_writes_faster_than_lines_leave_is_a_crowd() -> None:
    async with written() as child:
        seen = [child.output.crowded]
        child.write(b"\n" * (CROWD + 2 * LINES_AT_ONCE))
        child.output.flush()
        seen.append(child.output.crowded)
        with anyio.fail_after(PATIENCE):
            await child.output.passed_on()
        seen.append(child.output.crowded)
    assert seen == [False, True, False]


async def test_a_flood_of_output_holds_up_the_handler_and_not_the_memory(write: Write) -> None:
    """Every line arrives, and the next invocation waits until it has."""
    code = """
        def handler(event, context):
            print("x\\n" * 29999 + "end")
    """
    lines = Lines()
    async with running(write(code, timeout=PATIENCE), output=lines) as executor:
        for count in (1, 2, 3):
            await executor.invoke(invocation())
            assert len(lines) == count * 30000


async def test_the_daemon_logs_each_line() -> None:
    with structlog.testing.capture_logs() as logs:
        log_line("said", stream="stderr", function="worker", mapping="orders", request_id="id-1")
    assert said(logs) == [
        {
            "event": "handler_output",
            "log_level": "info",
            "function": "worker",
            "mapping": "orders",
            "request_id": "id-1",
            "stream": "stderr",
            "line": "said",
        }
    ]


async def test_output_of_handlers_is_logged_unless_told_otherwise() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running(function("telling.says")) as executor:
            asked = invocation({"say": "hello"}, mapping="orders")
            await executor.invoke(asked)
    assert [
        (line["event"], line["line"], line["mapping"], line["request_id"], line["stream"]) for line in said(logs)
    ] == [
        ("handler_output", "hello", "orders", asked.request_id, "stdout"),
        ("handler_output", "hello", "orders", asked.request_id, "stderr"),
    ]


def test_the_reads_at_the_end_empty_a_full_pipe() -> None:
    assert module.LAST_READS * module.READ_SIZE > 65536
