"""Records for tests of what is not a source."""

from __future__ import annotations

from math import inf

from bridge.record import Record


def record(name: str = "r", *, size: int = 100, held_until: float = inf) -> Record:
    """One whose JSON has ``size`` bytes."""
    head = b'{"messageId":"' + name.encode() + b'","body":"'
    return Record(id=name, json=head + b"x" * (size - len(head) - 2) + b'"}', arrived_at=0.0, held_until=held_until)


def records(count: int, *, size: int = 100, start: int = 0) -> list[Record]:
    """With the ids ``r0``, ``r1`` …"""
    return [record(f"r{number}", size=size) for number in range(start, start + count)]
