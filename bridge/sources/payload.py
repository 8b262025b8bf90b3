"""The event that a handler gets: records joined by bytes, never encoded twice."""

from __future__ import annotations

from collections.abc import Mapping as Dict

import msgspec

from bridge.record import Batch


def records_event(batch: Batch, extra: Dict[str, bytes]) -> bytes:
    """``{"Records": [...], ...}``: the records in their order (SQS-70), then ``extra``, which is JSON already."""
    members = b"".join(b"," + msgspec.json.encode(name) + b":" + value for name, value in extra.items())
    pieces = [record.json for record in batch.records] or [b""]
    pieces[0] = b'{"Records":[' + pieces[0]
    pieces[-1] = b"".join((pieces[-1], b"]", members, b"}"))
    return b",".join(pieces)  # the one copy of an event that may have 6 MB
