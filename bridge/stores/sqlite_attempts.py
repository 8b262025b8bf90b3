"""Failed attempts in SQLite: an invocation is a row, and each of its records that failed another."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bridge.attempt import Attempt, Bounds, FailedBatch

MIGRATION = (
    """CREATE TABLE failures (
        namespace TEXT NOT NULL,
        id INTEGER NOT NULL,
        uuid TEXT NOT NULL,
        mapping TEXT NOT NULL,
        partition TEXT NOT NULL,
        at REAL NOT NULL,
        request_id TEXT NOT NULL,
        outcome TEXT NOT NULL,
        error_type TEXT NOT NULL,
        message TEXT NOT NULL,
        duration REAL NOT NULL,
        log_tail TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX failures_by_id ON failures (namespace, id)",
    "CREATE INDEX failures_by_mapping ON failures (namespace, uuid, id)",
    """CREATE TABLE failed_records (
        namespace TEXT NOT NULL,
        record TEXT NOT NULL,
        failure INTEGER NOT NULL,
        uuid TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (namespace, record, failure)
    ) WITHOUT ROWID""",
    "CREATE INDEX failed_records_by_failure ON failed_records (namespace, failure)",
)

_COLUMNS = "mapping, partition, at, request_id, outcome, error_type, message, duration, log_tail"
_MEMBERS = tuple(_COLUMNS.split(", "))
_ADD = "INSERT OR IGNORE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_RECORD = "INSERT OR IGNORE INTO failed_records VALUES (?, ?, ?, ?, ?)"
_TRIM_RECORD = """DELETE FROM failed_records WHERE namespace = ?1 AND record = ?2 AND failure IN (
    SELECT failure FROM failed_records WHERE namespace = ?1 AND record = ?2 ORDER BY failure DESC LIMIT -1 OFFSET ?3)"""
_TRIM_AGE = "DELETE FROM failed_records WHERE namespace = ? AND failure < ?"
_TRIM_MAPPINGS = """DELETE FROM failed_records WHERE namespace = ?1 AND (record, failure) IN (
    SELECT record, failure FROM (SELECT record, failure, row_number() OVER (PARTITION BY uuid ORDER BY failure DESC)
    AS place FROM failed_records WHERE namespace = ?1) WHERE place > ?2)"""
_TRIM_TOTAL = """DELETE FROM failed_records WHERE namespace = ?1 AND (record, failure) IN (
    SELECT record, failure FROM failed_records WHERE namespace = ?1 ORDER BY failure DESC LIMIT -1 OFFSET ?2)"""
_TRIM_FAILURES = """DELETE FROM failures WHERE namespace = ?1 AND id NOT IN (
    SELECT failure FROM failed_records WHERE namespace = ?1)"""
ATTEMPTS = f"""SELECT record, number, {_COLUMNS} FROM failed_records JOIN failures
    ON failures.namespace = failed_records.namespace AND failures.id = failed_records.failure
    WHERE failed_records.namespace = ? AND record IN (SELECT value FROM json_each(?)) ORDER BY failure"""  # noqa: S608
LAST = f"""SELECT id, uuid, {_COLUMNS}, (SELECT json_group_array(json_array(record, number)) FROM failed_records
    WHERE namespace = ?1 AND failure = id) FROM failures WHERE namespace = ?1 AND uuid = ?2
    ORDER BY id DESC LIMIT ?3"""  # noqa: S608

Row = tuple[str | float, ...]


def written(namespace: str, batches: Sequence[FailedBatch], bounds: Bounds) -> list[tuple[str, list[Row]]]:
    """The statements of one write."""
    rows: list[Row] = []
    records: list[Row] = []
    for it in batches:
        rows.append((namespace, it.id, it.uuid, *(getattr(it, name) for name in _MEMBERS)))
        records += [(namespace, record, it.id, it.uuid, number) for record, number in it.records]
    names = dict.fromkeys(record[1] for record in records)
    return [
        (_ADD, rows),
        (_ADD_RECORD, records),
        (_TRIM_RECORD, [(namespace, name, bounds.per_record) for name in names]),
    ]


def trimmed(namespace: str, bounds: Bounds, now: float) -> list[tuple[str, list[Row]]]:
    """The statements that forget what is beyond the bounds."""
    return [
        (_TRIM_AGE, [(namespace, int((now - bounds.age) * 1e9))]),
        (_TRIM_MAPPINGS, [(namespace, bounds.per_mapping)]),
        (_TRIM_TOTAL, [(namespace, bounds.total)]),
        (_TRIM_FAILURES, [(namespace,)]),
    ]


def wanted(records: Collection[str]) -> str:
    """Record ids as a parameter of ATTEMPTS."""
    return msgspec.json.encode(list(records)).decode()


def by_record(rows: Iterable[tuple[Any, ...]]) -> dict[str, tuple[Attempt, ...]]:
    """What ATTEMPTS gave."""
    found: dict[str, list[Attempt]] = {}
    for record, number, *rest in rows:
        members = dict(zip(_MEMBERS, rest, strict=True))
        found.setdefault(record, []).append(Attempt(record=record, number=number, **members))
    return {record: tuple(attempts) for record, attempts in found.items()}


def batch(row: tuple[Any, ...]) -> FailedBatch:
    """One row of LAST."""
    identity, uuid, *rest, records = row
    pairs = msgspec.json.decode(records, type=tuple[tuple[str, int], ...])
    return FailedBatch(id=identity, uuid=uuid, records=pairs, **dict(zip(_MEMBERS, rest, strict=True)))


def glance(path: Path, namespace: str, records: Collection[str]) -> dict[str, tuple[Attempt, ...]]:
    """The attempts in a file that is not opened here, without writing anything to it. Nothing where it cannot be read,
    is no such file, or has none."""
    # With nobody at work on it there is nothing but the file, and SQLite shall not make anything beside it.
    alone = not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=1.0)
    except sqlite3.Error:
        return {}
    try:
        return by_record(connection.execute(ATTEMPTS, (namespace, wanted(records))))
    except sqlite3.Error:
        return {}
    finally:
        connection.close()
