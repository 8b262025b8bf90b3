"""What a handler's answer says about each record of its batch (ReportBatchItemFailures)."""

from __future__ import annotations

from collections.abc import Collection

import msgspec


def failed_ids(payload: bytes, ids: Collection[str]) -> frozenset[str] | None:
    """The ids that the answer to a queue's batch reports as failed; None: the whole batch failed.

    ====================================================  =====================
    no bytes, ``null``, ``{}``, no such key               all succeeded (SQS-41, 45)
    ``batchItemFailures`` null or ``[]``                  all succeeded (SQS-41)
    a list of entries that each name an id of the batch   those failed (SQS-40, 44)
    one entry unknown, empty, null or of another form     all failed (SQS-42, 47, 48)
    not JSON, no object, no list                          all failed (SQS-42, 46)
    ====================================================  =====================
    """
    if not payload:
        return frozenset()
    try:
        answer = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if answer is None:
        return frozenset()
    if not isinstance(answer, dict):
        return None
    entries = answer.get("batchItemFailures")
    if entries is None:
        return frozenset()
    if not isinstance(entries, list):
        return None
    named = frozenset(_identifier(entry) for entry in entries)
    return named if named.issubset(ids) else None


def _identifier(entry: object) -> str:
    """The id that an entry names; of a malformed one the empty string, which no record has."""
    name = entry.get("itemIdentifier") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else ""
