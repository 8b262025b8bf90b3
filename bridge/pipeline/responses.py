"""What a handler's answer says about each record of its batch (ReportBatchItemFailures)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from bridge.record import Record


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
    answer = _decoded(payload)
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


def finished(payload: bytes, records: Sequence[Record]) -> int | None:
    """How many records of a stream's batch, from the first one on, the answer says are finished; None: the whole batch
    failed.

    ====================================================  ===============================================
    no bytes, ``null``, ``""``, ``{}``, ``[]``            all (KIN-70)
    ``batchItemFailures`` absent, null or ``[]``          all (KIN-70)
    a list of entries that each name a record             those before the first record named (KIN-71)
    one entry unknown, empty, null or of another form     the whole batch failed (KIN-72)
    not JSON, any other value                             the whole batch failed (KIN-72)
    ====================================================  ===============================================
    """
    answer = _decoded(payload)
    if answer is None or answer in ("", [], {}):
        return len(records)
    if not isinstance(answer, dict):
        return None
    entries = answer.get("batchItemFailures")
    if entries is None or entries == []:
        return len(records)
    if not isinstance(entries, list):
        return None
    named = {_identifier(entry) for entry in entries}
    if not named.issubset({record.id for record in records}):
        return None
    return next(number for number, record in enumerate(records) if record.id in named)


def window_state(payload: bytes) -> bytes | None:
    """The ``state`` of an answer within a tumbling window, compact JSON; None: there is none, or it is no object
    (TW-30, TW-31). Numbers and escapes stay as they were written."""
    try:
        answer = msgspec.json.decode(payload, type=_Stateful)
        state = msgspec.json.format(bytes(answer.state), indent=-1)
        state.decode()  # what is no UTF-8 would make the next event one that nobody can read
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if state == b"null":
        return b"{}"
    return state if state.startswith(b"{") else None


class _Stateful(msgspec.Struct):
    state: msgspec.Raw


def _decoded(payload: bytes) -> object:
    """The answer; none when there is none, a false that no handler can mean when it is no JSON."""
    if not payload:
        return None
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
