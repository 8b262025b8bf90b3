"""The journal: what survives a crash, and what it refuses to work with."""

from __future__ import annotations

import json
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import StateError
from bridge.replay.journal import Journal, default_path
from bridge.replay.letter import Letter, Message

pytestmark = pytest.mark.anyio

DLQ = "arn:aws:sqs:eu-west-1:123456789012:dlq"


def letter(message_id: str) -> Letter:
    return Letter(message=Message(id=message_id, body=f"body of {message_id}"))


def journal(folder: Path, **options: Any) -> Journal:
    return Journal(folder / "deep" / "j.jsonl", **{"dlq": DLQ, "run": "run-1", **options})


async def fill(folder: Path) -> Path:
    """Messages in each state: on its way, sent, done, failed, unknown."""
    async with journal(folder) as it:
        letters = [letter(name) for name in ("way", "sent", "done", "failed", "unknown")]
        await it.sending([(one, f"token of {one.id}", "target") for one in letters])
        states: Any = ("sent", "sent", "failed", "unknown")
        await it.judged((one, state, "target", "", "") for one, state in zip(letters[1:], states, strict=True))
        it.done(["done"])
    return it.path


async def test_what_earlier_runs_left(tmp_path: Path) -> None:
    """REPLAY-DO-1"""
    await fill(tmp_path)
    async with journal(tmp_path) as it:
        assert {name: one.state for name, one in it.open.items()} == {
            "way": "sending", "sent": "sent", "done": "done", "unknown": "unknown",
        }  # fmt: skip
        assert it.open["way"].token == "token of way"
        assert it.resumes
        it.ended(complete=True)
    async with journal(tmp_path) as it:
        assert set(it.open) == {"way", "sent", "unknown"}  # a complete run is over; what has no end is not
        assert not it.resumes


async def test_a_line_that_a_crash_has_torn(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    whole = path.read_bytes()
    for torn in (b"{", b'{"at":"2026', b'{"state":"sent","id":"way"}'):
        path.write_bytes(whole + torn)
        async with journal(tmp_path) as it:
            assert it.open["way"].state == "sending"
        assert path.read_bytes().startswith(whole + b'{"at":')
        assert all(json.loads(line) for line in path.read_text().splitlines())


async def test_a_header_that_a_crash_has_torn(tmp_path: Path) -> None:
    path = await fill(tmp_path)
    path.write_bytes(path.read_bytes()[:10])
    async with journal(tmp_path) as it:
        assert not it.open
    assert json.loads(path.read_text().splitlines()[0])["dlq"] == DLQ


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ('{"schema": 2, "dlq": "DLQ"}', "has schema 2, of a newer bridge than this, which reads up to 1"),
        ('{"schema": 1, "dlq": "arn:aws:sqs:eu-west-1:1:other"}', "is the journal of arn:aws:sqs:eu-west-1:1:other"),
        ("hello", "is no journal of a replay"),
        ("[]", "is no journal of a replay"),
        ('{"schema": 1, "dlq": "DLQ"}\n{"state": "lost"}\n{}', ":2: the journal is damaged"),
    ],
)
async def test_what_it_does_not_touch(tmp_path: Path, header: str, error: str) -> None:
    path = tmp_path / "deep" / "j.jsonl"
    path.parent.mkdir()
    text = header.replace("DLQ", DLQ) + "\n"
    path.write_text(text)
    with pytest.raises(StateError, match=error):
        async with journal(tmp_path):
            pass
    assert path.read_text() == text


async def test_one_at_a_time(tmp_path: Path) -> None:
    async with journal(tmp_path):
        with pytest.raises(StateError, match="another replay is writing this journal"):
            async with journal(tmp_path):
                pass
    async with journal(tmp_path) as it:
        assert it.resumes


async def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """REPLAY-DO-13"""
    before = os.umask(0)
    try:
        path = await fill(tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_disk_that_is_full_stops_everything(tmp_path: Path) -> None:
    import resource
    import signal

    before, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    letters = [(letter(f"{number}"), "token", "target") for number in range(100)]
    try:
        async with AsyncExitStack() as stack:
            it = await stack.enter_async_context(journal(tmp_path))
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
            with pytest.raises(StateError, match="the journal cannot be written: File too large"):
                await it.sending(letters)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    async with journal(tmp_path) as it:
        assert not it.open  # nothing of what could not be said in whole


async def test_a_place_for_each_queue_at_each_endpoint() -> None:
    state = Path("/var/lib/bridge/state.db")
    here, there = default_path(state, DLQ, "https://a"), default_path(state, DLQ, "http://b")
    assert here.parent == Path("/var/lib/bridge/replay")
    assert here.name.startswith("dlq-")
    assert here != there
    assert here == default_path(state, DLQ, "https://a")
