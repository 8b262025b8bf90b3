"""The journal of a queue's replays: what is being sent, was sent and is done, on disk before the next step is taken; at
the same time an audit, which names messages and never holds them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote

import anyio
import anyio.to_thread
import msgspec

from bridge.errors import StateError
from bridge.replay.letter import Letter
from bridge.snapshot import iso

SCHEMA = 1
"""Of the file; a larger one is of a newer bridge."""
MOST_LINE = 1 << 20
COMPLETE = "complete"
COMPANY = 0.001
"""Seconds that a write waits for others to share it: making it last costs more than all the rest."""

State = Literal["sending", "sent", "done", "kept", "failed", "unknown", "begun", "ended"]
"""``unknown``: it failed, but may have arrived. ``kept``: sent, and the original stays where it is. ``begun``,
``ended``: a run did, its id is in ``run``."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One step of one message."""

    at: str
    """ISO 8601 UTC."""
    state: State
    id: str = ""
    """Of the dead letter; with the ARN in the header it names the message in all runs."""
    run: str = ""
    token: str = ""
    """With ``sending``: what the target may suppress a double by."""
    caller: str = ""
    """ARN of who did it."""
    sha256: str = ""
    """Of the body."""
    target: str = ""
    new_id: str = ""
    outcome: str = ""
    """Why it failed, or how it went."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    schema: int
    dlq: str
    """ARN."""
    created: str


class Open(NamedTuple):
    """How far a message has come."""

    state: State
    token: str
    target: str


class Journal:
    """One file, ours alone while it is open. An async context manager. Raises StateError when the file is in use, of
    another queue, of a newer bridge, or cannot be written."""

    def __init__(self, path: Path, dlq: str, *, run: str, caller: str = "") -> None:
        self.path, self._dlq = path, dlq
        self._run, self._caller = run, caller
        self.open: dict[str, Open] = {}
        """By message id: what is on its way or was sent, and of runs that did not come to their end also what is done
        or kept."""
        self.resumes = False
        """The latest run before this one did not come to its end."""
        self._file: FileIO
        self._size = 0
        self._pending: list[bytes] = []
        self._lock = anyio.Lock()
        self._encode = msgspec.json.Encoder().encode

    def __repr__(self) -> str:
        return f"<Journal {self.path}: {len(self.open)} messages without an end>"

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self._enter)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self.flush()
        finally:
            self._file.close()

    # What happens to messages.

    async def sending(self, letters: Sequence[tuple[Letter, str, str]]) -> None:
        """These are about to be sent, each with its token and target; on disk when it returns."""
        at = iso(time.time())
        for letter, token, target in letters:
            self.open[letter.id] = Open("sending", token, target)
            self._add(Line(at=at, state="sending", id=letter.id, run=self._run, token=token, target=target))
        await self.flush()

    async def judged(self, lines: Iterable[tuple[Letter, State, str, str, str]]) -> None:
        """What became of each: letter, state, target, new id, outcome; on disk when it returns."""
        at = iso(time.time())
        for letter, state, target, new_id, outcome in lines:
            self._follow(letter.id, "failed" if state == "kept" else state, target, "")  # of this run it is known
            self._add(
                Line(
                    at=at,
                    state=state,
                    id=letter.id,
                    run=self._run,
                    caller=self._caller,
                    sha256=sha256(letter.message.body.encode()).hexdigest(),
                    target=target,
                    new_id=new_id,
                    outcome=outcome,
                )
            )
        await self.flush()

    def done(self, ids: Iterable[str]) -> None:
        """These originals are gone. Written with the next that is flushed: losing it costs a second delete."""
        at = iso(time.time())
        for name in ids:
            self.open.pop(name, None)
            self._add(Line(at=at, state="done", id=name, run=self._run))

    def ended(self, *, complete: bool) -> None:
        """The run came to its end. ``complete``: the next one begins anew, with whatever is there then; else it goes
        on where this one left off."""
        self._add(
            Line(at=iso(time.time()), state="ended", run=self._run, outcome=COMPLETE if complete else "incomplete")
        )

    def _add(self, line: Line) -> None:
        self._pending.append(self._encode(line))

    async def flush(self) -> None:
        """All that was said so far is on disk. Those who wait at the same time share one write."""
        async with self._lock:
            if self._pending:
                await anyio.sleep(COMPANY)
                lines, self._pending = self._pending, []
                # Not to be given up half way: whether it was written must be known.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._write, b"\n".join([*lines, b""]))

    def _write(self, text: bytes) -> None:
        try:
            left = memoryview(text)
            while left:
                left = left[self._file.write(left) :]
            os.fdatasync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._size)  # so that the next line does not hang on to half of this one
            raise StateError(f"{self.path}: the journal cannot be written: {error.strerror}") from error
        self._size += len(text)

    # Opening.

    def _enter(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"{self.path}: the journal cannot be opened: {error.strerror}") from error
        self._file = FileIO(handle, "r+")
        try:
            self._claim()
            self._load()
        except BaseException:
            self._file.close()
            raise

    def _claim(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateError(f"{self.path}: another replay is writing this journal; wait for it to end") from None
        os.fchmod(self._file.fileno(), 0o600)

    def _load(self) -> None:
        """Reads what earlier runs left, and cuts off a last line that a crash has torn."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MOST_LINE), b"")):
                if not line.endswith(b"\n"):
                    break
                if number == 0:
                    self._check(line)
                else:
                    self._read(line, number + 1)
                self._size += len(line)
        self._file.truncate(self._size)
        if not self._size:
            self._write(self._encode(Header(schema=SCHEMA, dlq=self._dlq, created=iso(time.time()))) + b"\n")
            _sync_folder(self.path.parent)
        begun = Line(at=iso(time.time()), state="begun", run=self._run, caller=self._caller)
        self._write(self._encode(begun) + b"\n")

    def _check(self, line: bytes) -> None:
        try:
            header = msgspec.json.decode(line, type=dict[str, Any])
            schema, dlq = header["schema"], header["dlq"]
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
            raise StateError(f"{self.path} is no journal of a replay; name another file with --journal") from None
        if not isinstance(schema, int) or schema > SCHEMA:
            raise StateError(
                f"{self.path}: the journal has schema {schema}, of a newer bridge than this, which reads up to"
                f" {SCHEMA}; use that one, or name another file with --journal"
            )
        if dlq != self._dlq:
            raise StateError(f"{self.path} is the journal of {dlq}, not of {self._dlq}; name another with --journal")

    def _read(self, line: bytes, number: int) -> None:
        try:
            it = msgspec.json.decode(line, type=Line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError(
                f"{self.path}:{number}: the journal is damaged: {error}; move it away to start anew"
            ) from None
        self.resumes = it.state != "ended" and (self.resumes or it.state == "begun")
        if it.state == "ended" and it.outcome == COMPLETE:
            self.open = {name: before for name, before in self.open.items() if before.state not in ("done", "kept")}
        elif not it.id:
            return
        elif it.state == "done":
            before = self.open.get(it.id)
            self.open[it.id] = Open("done", "", before.target if before else "")
        else:
            self._follow(it.id, it.state, it.target, it.token)

    def _follow(self, name: str, state: State, target: str, token: str) -> None:
        before = self.open.pop(name, None)
        if state != "failed":
            self.open[name] = Open(state, token or (before.token if before else ""), target)


def default_path(state: Path, dlq: str, endpoint: str) -> Path:
    """Beside the state, by queue: the same for the same queue at the same endpoint."""
    place = sha256(f"{endpoint} {dlq}".encode()).hexdigest()[:8]
    return state.parent / "replay" / f"{quote(dlq.rpartition(':')[2], safe='')}-{place}.jsonl"


def _sync_folder(folder: Path) -> None:
    """Makes a new file's name last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
