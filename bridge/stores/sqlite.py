"""The state in one SQLite file, readable by its owner alone and opened by one daemon at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import anyio
import anyio.to_thread

from bridge.attempt import Attempt, Bounds, FailedBatch
from bridge.errors import HoldLost, StateError
from bridge.event import Event, Waiting
from bridge.position import Move, Position
from bridge.stores import StateUrl, sqlite_attempts

APPLICATION_ID = 0x62726467  # "brdg"
PATIENCE = 10.0
"""Seconds until a disk that does not answer becomes an error."""
BUSY_WAIT = 5.0
"""Seconds that another program may keep the file locked."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE pauses (
            namespace TEXT NOT NULL,
            uuid TEXT NOT NULL,
            paused_at REAL NOT NULL,
            PRIMARY KEY (namespace, uuid)
        ) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE events (
            namespace TEXT NOT NULL,
            request_id TEXT NOT NULL,
            function TEXT NOT NULL,
            qualifier TEXT NOT NULL,
            accepted_at REAL NOT NULL,
            due_at REAL NOT NULL,
            attempts INTEGER NOT NULL,
            deliveries INTEGER NOT NULL,
            trace TEXT NOT NULL,
            size INTEGER NOT NULL,
            payload BLOB NOT NULL
        )""",
        "CREATE UNIQUE INDEX events_by_request ON events (namespace, request_id)",
    ),
    (
        """CREATE TABLE documents (
            namespace TEXT NOT NULL,
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            document BLOB NOT NULL,
            PRIMARY KEY (namespace, kind, key)
        )""",
    ),
    (  # who owns a partition, and a sign of life, follow as columns of the same row: one write moves all (SCO-1)
        """CREATE TABLE positions (
            namespace TEXT NOT NULL,
            mapping TEXT NOT NULL,
            source TEXT NOT NULL,
            partition TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            position TEXT NOT NULL,
            state BLOB NOT NULL,
            ended INTEGER NOT NULL,
            PRIMARY KEY (namespace, mapping, source, partition)
        )""",
    ),
    sqlite_attempts.MIGRATION,
)
"""What leads from each version of the schema to the next. ``PRAGMA user_version`` says how many a file has seen."""

_WAITING = """SELECT request_id, function, size, due_at, accepted_at, attempts, deliveries FROM events
    WHERE namespace = ?"""
_EVENT = """SELECT request_id, function, payload, accepted_at, due_at, qualifier, attempts, deliveries, trace
    FROM events WHERE namespace = ? AND request_id = ?"""
_ADD = """INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (namespace, request_id) DO NOTHING"""
_MOVE = "UPDATE events SET due_at = ?, attempts = ?, deliveries = ? WHERE namespace = ? AND request_id = ?"
_FORGET = "DELETE FROM events WHERE namespace = ? AND request_id = ?"
_POSITIONS = """SELECT partition, epoch, position, state, ended FROM positions
    WHERE namespace = ? AND mapping = ? AND source = ?"""
_MOVE_POSITION = """INSERT INTO positions VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (namespace, mapping, source, partition) DO UPDATE SET epoch = excluded.epoch,
    position = excluded.position, state = excluded.state, ended = excluded.ended WHERE excluded.epoch >= epoch"""
_FORGET_POSITION = "DELETE FROM positions WHERE namespace = ? AND mapping = ? AND source = ? AND partition = ?"
_FORGET_POSITIONS = "DELETE FROM positions WHERE namespace = ? AND mapping = ?"
_POSITIONED = "SELECT mapping, count(*) FROM positions WHERE namespace = ? GROUP BY mapping"

Value = str | float | bytes
Values = tuple[Value, ...]
Flushing = Literal["FULL", "NORMAL"]
"""FULL: a power cut undoes nothing that has been written; NORMAL: it may undo the last writes, each of them whole."""
T = TypeVar("T")


class SqliteStore:
    """A store in the file of its URL. Every access runs in a worker thread, one at a time."""

    def __init__(self, url: StateUrl) -> None:
        self.failures = 0
        self._path = url.path
        self._namespace = url.namespace
        self._file: _File | None = None
        self._turn: anyio.CapacityLimiter | None = None
        self._using = Lock()
        """Held while a thread works, also by one that was left behind."""

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path} {'open' if self._file else 'closed'}>"

    async def __aenter__(self) -> Self:
        self._turn = anyio.CapacityLimiter(1)
        self._file = await self._threaded(lambda: _File(self._path, self._namespace))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        file, self._file = self._file, None
        if file is not None:
            with anyio.CancelScope(shield=True):
                await self._threaded(file.close)

    async def paused(self) -> frozenset[str]:
        rows = await self._execute("SELECT uuid FROM pauses WHERE namespace = ?", self._namespace)
        return frozenset(uuid for (uuid,) in rows)

    async def pause(self, uuid: str) -> None:
        await self._execute("INSERT OR IGNORE INTO pauses VALUES (?, ?, ?)", self._namespace, uuid, time.time())

    async def resume(self, uuid: str) -> None:
        await self._execute("DELETE FROM pauses WHERE namespace = ? AND uuid = ?", self._namespace, uuid)

    async def change_events(
        self, added: Sequence[Event] = (), moved: Sequence[Waiting] = (), done: Sequence[str] = ()
    ) -> None:
        space = self._namespace
        statements: list[tuple[str, list[Values]]] = [
            (_ADD, [_row(space, event) for event in added]),
            (_MOVE, [(now.due_at, now.attempts, now.deliveries, space, now.request_id) for now in moved]),
            (_FORGET, [(space, request_id) for request_id in done]),
        ]
        file = self._opened()
        await self._threaded(lambda: file.change(statements))

    async def waiting_events(self) -> list[Waiting]:
        return [Waiting(*row) for row in await self._execute(_WAITING, self._namespace)]

    async def event(self, request_id: str) -> Event | None:
        rows = await self._execute(_EVENT, self._namespace, request_id)
        return Event(*rows[0]) if rows else None

    async def documents(self, kind: str) -> dict[str, bytes]:
        query = "SELECT key, document FROM documents WHERE namespace = ? AND kind = ?"
        return dict(await self._execute(query, self._namespace, kind))

    async def keep(self, kind: str, key: str, document: bytes) -> None:
        await self._execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", self._namespace, kind, key, document
        )

    async def forget(self, kind: str, key: str) -> None:
        query = "DELETE FROM documents WHERE namespace = ? AND kind = ? AND key = ?"
        await self._execute(query, self._namespace, kind, key)

    async def positions(self, mapping: str, source: str) -> dict[str, Position]:
        rows = await self._execute(_POSITIONS, self._namespace, mapping, source)
        return {
            partition: Position(epoch=epoch, position=position, state=state, ended=bool(ended))
            for partition, epoch, position, state, ended in rows
        }

    async def move_positions(self, moves: Sequence[Move]) -> None:
        space = self._namespace
        statements: list[tuple[str, list[Values]]] = []
        for forgotten, run in groupby(moves, lambda move: move.position is None):
            statement = _FORGET_POSITION if forgotten else _MOVE_POSITION
            statements.append((statement, [_position_row(space, move) for move in run]))
        file = self._opened()
        await self._threaded(lambda: file.change(statements, fenced=_MOVE_POSITION, flushing="NORMAL"))

    async def forget_positions(self, mapping: str) -> None:
        await self._execute(_FORGET_POSITIONS, self._namespace, mapping)

    async def positioned(self) -> dict[str, int]:
        return dict(await self._execute(_POSITIONED, self._namespace))

    async def add_attempts(self, batches: Sequence[FailedBatch], bounds: Bounds) -> None:
        statements = sqlite_attempts.written(self._namespace, batches, bounds)
        file = self._opened()
        await self._threaded(lambda: file.change(statements, flushing="NORMAL"))

    async def trim_attempts(self, bounds: Bounds, now: float) -> None:
        statements = sqlite_attempts.trimmed(self._namespace, bounds, now)
        file = self._opened()
        await self._threaded(lambda: file.change(statements, flushing="NORMAL"))

    async def attempts(self, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
        rows = await self._execute(sqlite_attempts.ATTEMPTS, self._namespace, sqlite_attempts.wanted(records))
        return sqlite_attempts.by_record(rows)

    async def last_failed(self, uuid: str, most: int) -> list[FailedBatch]:
        return [
            sqlite_attempts.batch(row) for row in await self._execute(sqlite_attempts.LAST, self._namespace, uuid, most)
        ]

    @classmethod
    async def glance(cls, url: StateUrl, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
        return await anyio.to_thread.run_sync(sqlite_attempts.glance, url.path, url.namespace, records)

    async def _execute(self, statement: str, *values: Value) -> list[tuple[Any, ...]]:
        file = self._opened()
        return await self._threaded(lambda: file.execute(statement, values))

    def _opened(self) -> _File:
        if self._file is None:
            raise StateError(f"state file {self._path}: is not open")
        return self._file

    async def _threaded(self, work: Callable[[], T]) -> T:
        try:
            return await self._in_turn(work)
        except StateError:
            self.failures += 1
            raise

    async def _in_turn(self, work: Callable[[], T]) -> T:
        """Runs ``work`` in its turn. The thread of a disk that hangs is left behind: the daemon goes on without it, and
        what it was about to write is called off."""
        called_off = False

        def in_turn() -> T:
            if not self._using.acquire(timeout=PATIENCE):
                raise TimeoutError
            try:
                if called_off:
                    raise TimeoutError
                return work()
            finally:
                self._using.release()

        try:
            with anyio.fail_after(PATIENCE):
                return await anyio.to_thread.run_sync(in_turn, abandon_on_cancel=True, limiter=self._turn)
        except TimeoutError:
            called_off = True
            if self._file is not None:
                self._file.interrupt()
            raise StateError(
                f"state file {self._path}: no answer within {PATIENCE:.0f} s; look after its disk or network share"
            ) from None


class _File:
    """The open file with its lock: blocking, for one thread at a time. Every failure is a StateError."""

    def __init__(self, path: Path, namespace: str) -> None:
        self._path = path
        self._lock = -1
        self._connection: sqlite3.Connection | None = None
        self._flushing: Flushing | None = None
        self._called_off = False
        try:
            self._lock = _claim(path, namespace)
            _create(path)
            self._connection = self._open()
        except OSError as error:
            self.close()
            raise StateError(f"state file {path}: {_cannot_open(error)}") from error
        except sqlite3.Error as error:
            self.close()
            raise self._failed(error) from error
        except BaseException:
            self.close()
            raise

    def execute(self, statement: str, values: tuple[Value, ...]) -> list[tuple[Any, ...]]:
        assert self._connection is not None  # noqa: S101  closed files are not handed out
        try:
            self._flush_as("FULL")
            return self._connection.execute(statement, values).fetchall()  # autocommit: one statement, one write
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def change(
        self, statements: Sequence[tuple[str, Sequence[Values]]], *, fenced: str = "", flushing: Flushing = "FULL"
    ) -> None:
        """All of it in one transaction, or nothing. Raises HoldLost when the statement ``fenced`` passed over a row."""
        try:
            self._flush_as(flushing)
            with self._transaction() as connection:
                for statement, rows in statements:
                    changed = connection.executemany(statement, rows).rowcount
                    if statement == fenced and changed < len(rows):
                        raise HoldLost
        except sqlite3.Error as error:
            raise self._failed(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._connection is not None  # noqa: S101
        self._called_off = False
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            if self._called_off:
                raise StateError(f"state file {self._path}: the write was called off")
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise

    def _flush_as(self, flushing: Flushing) -> None:
        """What is written from now on is flushed to the disk so."""
        assert self._connection is not None  # noqa: S101
        if flushing != self._flushing:
            self._connection.execute(f"PRAGMA synchronous = {flushing}")
            self._flushing = flushing

    def interrupt(self) -> None:
        """Calls off what another thread is executing."""
        self._called_off = True  # what waits for another program's lock does not hear SQLite's own interrupt
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> None:
        """Closes the file, then lets the next daemon have it."""
        try:
            if self._connection is not None:
                self._connection.close()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_WAIT, isolation_level=None, check_same_thread=False)
        try:
            self._check(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (application or version or objects):
            raise StateError(f"state file {self._path}: belongs to another program; name another file")
        if version > len(MIGRATIONS):
            raise StateError(
                f"state file {self._path}: was written by a newer bridge (schema {version}, this one knows up to "
                f"{len(MIGRATIONS)}); upgrade this bridge, or name another file"
            )
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StateError(f"state file {self._path}: {DAMAGED}")

    def _failed(self, error: sqlite3.Error) -> StateError:
        name = getattr(error, "sqlite_errorname", "")
        for start, advice in ADVICE.items():
            if name.startswith(start):
                return StateError(f"state file {self._path}: {advice}")
        return StateError(f"state file {self._path}: {error} ({name or type(error).__name__})")


def positions_of(url: str, mapping: str, source: str) -> dict[str, Position]:
    """Where the partitions of a source stand, read beside whoever has the file open; nothing where there is no file.
    Changes nothing and claims nothing. Raises StateError."""
    parsed = StateUrl.parse(url)
    path = parsed.path.absolute()
    try:
        if parsed.scheme != "sqlite" or not path.exists():
            return {}
        # Without a log nobody has it open; then SQLite would make files beside it that others may not touch.
        how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
        with closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=1)) as connection:
            rows = connection.execute(_POSITIONS, (parsed.namespace, mapping, source)).fetchall()
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"state file {path}: cannot be read: {error}") from error
    return {
        partition: Position(epoch=epoch, position=position, state=state, ended=bool(ended))
        for partition, epoch, position, state, ended in rows
    }


def _row(namespace: str, event: Event) -> Values:
    return (
        namespace, event.request_id, event.function, event.qualifier, event.accepted_at, event.due_at, event.attempts,
        event.deliveries, event.trace, len(event.payload), event.payload,
    )  # fmt: skip


def _position_row(namespace: str, move: Move) -> Values:
    key = (namespace, move.mapping, move.source, move.partition)
    position = move.position
    return (*key, position.epoch, position.position, position.state, position.ended) if position else key


DAMAGED = (
    "is damaged, or no state file of bridge; restore it, or move it away to start afresh (positions, pauses,"
    " asynchronous events and what was made through the API are forgotten)"
)
ADVICE = {
    "SQLITE_FULL": "its disk is full; free some space",
    "SQLITE_IOERR": "its disk fails or is full; free some space or look after the disk",
    "SQLITE_CORRUPT": DAMAGED,
    "SQLITE_NOTADB": DAMAGED,
    "SQLITE_READONLY": "is read-only; let this user write to it and its folder",
    "SQLITE_CANTOPEN": "cannot be opened; let this user write to it and its folder",
    "SQLITE_BUSY": "another program keeps it locked; close that program",
}
"""SQLite's error name, or its beginning -> what to do."""


def _claim(path: Path, namespace: str) -> int:
    """Makes the folder and takes the lock that keeps a second daemon out; gives its descriptor."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{path}.{namespace}.lock" if namespace else f"{path}.lock"
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, os.pwrite(lock, f"{os.getpid()}\n".encode(), 0))
    except BlockingIOError:
        holder = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        who = f" (pid {holder})" if holder.isdigit() else ""
        raise StateError(
            f"state file {path}: another daemon{who} uses it; stop that one, or name another file or ?namespace="
        ) from None
    except OSError:
        os.close(lock)
        raise
    return lock


def _create(path: Path) -> None:
    """Makes the file, or makes it private. SQLite gives its -wal and -shm files the same mode."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is no regular file")
        if mode & 0o177:
            os.fchmod(file, 0o600)
    finally:
        os.close(file)


def _cannot_open(error: OSError) -> str:
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"cannot be written ({error.strerror}); let this user write to {error.filename or 'it'}"
        case errno.ENOSPC | errno.EDQUOT:
            return ADVICE["SQLITE_FULL"]
        case errno.ENOTDIR | errno.EEXIST | errno.ENOENT:
            return f"its folder cannot be made ({error.strerror}: {error.filename}); name another path"
        case errno.EISDIR:
            return "is a folder; name a file in it"
        case _:
            return f"{error.strerror or error}; name another file"


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(_pragma(connection, "user_version"), len(MIGRATIONS)):
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
