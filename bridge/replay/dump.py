"""Dead letters in a file, to be looked at, edited and sent: a line of JSON each, behind a header."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec

from bridge.errors import StateError, UsageError
from bridge.replay.letter import Attribute, Letter, Message, read
from bridge.replay.shelf import Count

SCHEMA = 1


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    schema: int
    dlq: str
    """ARN."""
    retention: float | None = None
    fifo: bool = False


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """One message. Values of Binary attributes are base64."""

    id: str
    body: str
    attributes: dict[str, str] = {}
    message_attributes: dict[str, dict[str, Any]] = {}


class Writer:
    """A dump in the making, for its owner alone. A context manager. Raises UsageError when the file is there already,
    StateError when it cannot be written."""

    def __init__(self, path: Path, dlq: str, *, retention: float | None, fifo: bool) -> None:
        self._path = path
        self._header = _Header(schema=SCHEMA, dlq=dlq, retention=retention, fifo=fifo)
        self._file: BinaryIO

    def __enter__(self) -> Self:
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise UsageError(f"{self._path} exists already; move it away or export to another file") from None
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written: {error.strerror}") from None
        self._file = os.fdopen(handle, "wb")
        self._write(msgspec.json.encode(self._header))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing(self._file):
            self._file.flush()
            os.fsync(self._file.fileno())

    def add(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            it = letter.message
            attributes = {
                name: {"type": value.type, "value": value.value} for name, value in it.message_attributes.items()
            }
            line = {"id": it.id, "body": it.body, "attributes": it.attributes, "message_attributes": attributes}
            self._write(msgspec.json.encode(line))

    def _write(self, line: bytes) -> None:
        try:
            self._file.write(line + b"\n")
        except OSError as error:
            raise StateError(f"{self._path}: the dump cannot be written: {error.strerror}") from error


class DumpShelf:
    """The letters of a dump. Deleting changes nothing in the file. Raises UsageError when it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: Iterator[tuple[int, bytes]] = iter(())
        self._file: BinaryIO
        header = self._read_header()
        self.arn, self.fifo, self._retention = header.dlq, header.fifo, header.retention

    def __repr__(self) -> str:
        return f"<DumpShelf {self._path}>"

    async def __aenter__(self) -> Self:
        self._file = self._open()
        self._lines = enumerate(self._file, 1)
        next(self._lines)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    async def count(self) -> Count:
        with self._open() as lines:
            return Count(sum(1 for line in lines if line.strip()) - 1)

    async def take(self, n: int) -> list[Letter]:
        found: list[Letter] = []
        for number, line in self._lines:
            if line.strip():
                found.append(self._letter(line, number))
            if len(found) == n:
                break
        return found

    def end(self) -> None:
        self._lines = iter(())

    def holds(self, letter: Letter) -> bool:  # noqa: ARG002 - nobody else takes them
        return True

    def park(self, letters: Sequence[Letter]) -> None:
        """A file gives each letter once."""

    async def release(self, letters: Sequence[Letter]) -> None:
        """They are in the file still."""

    async def delete(self, letters: Sequence[Letter]) -> list[str]:
        return [""] * len(letters)

    def check(self) -> list[str]:
        """The ids, in order. Raises UsageError, naming the first line that is no message, or an id that is there
        twice."""
        ids: dict[str, int] = {}
        with self._open() as lines:
            for number, line in enumerate(lines, 1):
                if number == 1 or not line.strip():
                    continue
                name = self._letter(line, number).id
                if name in ids:
                    raise UsageError(f"{self._path}:{number}: message {name} stands in line {ids[name]} already")
                ids[name] = number
        return list(ids)

    def _letter(self, line: bytes, number: int) -> Letter:
        try:
            it = msgspec.json.decode(line, type=_Line)
            message = Message(
                id=it.id,
                body=it.body,
                attributes=it.attributes,
                message_attributes={name: _attribute(value) for name, value in it.message_attributes.items()},
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{self._path}:{number}: this is no message: {error}") from None
        return read(message, self._retention)

    def _read_header(self) -> _Header:
        with self._open() as lines:
            try:
                header = msgspec.json.decode(lines.readline(), type=_Header)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise UsageError(f"{self._path}:1: this is no dump of dead letters: {error}") from None
        if header.schema > SCHEMA:
            raise UsageError(f"{self._path}: the dump has schema {header.schema}, of a newer bridge; use that one")
        return header

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise UsageError(f"{self._path} cannot be read: {error.strerror}") from None


def _attribute(value: dict[str, Any]) -> Attribute:
    kind, text = value["type"], value["value"]
    if not isinstance(kind, str) or not isinstance(text, str):
        raise TypeError("an attribute has a type and a value, both texts")
    return Attribute(kind, b64decode(text, validate=True) if kind.startswith("Binary") else text)
