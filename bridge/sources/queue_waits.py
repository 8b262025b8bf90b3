"""What waits at a queue while its pollers go on, in words for people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import isinf

from bridge.snapshot import Gate, WaitView
from bridge.sources.groups import Blocked
from bridge.sources.receipts import Receipt, Receipts

MOST_SHOWN = 10
"""Groups; of more the others are counted."""


def waits(queue: str, receipts: Receipts, max_receives: float, now: float) -> Iterator[WaitView]:
    """``now`` is the loop's time."""
    ago = time.time() - now
    groups = sorted(receipts.blocked(now), key=lambda group: group.since)
    for group in groups[:MOST_SHOWN]:
        gate = Gate("group", group.since + ago, _group(group, max_receives, now))
        yield WaitView(f"group {group.name}", gate, group.first.id if group.first else "")
    if more := groups[MOST_SHOWN:]:
        line = f"messages of {len(more)} more groups wait for earlier ones"
        yield WaitView(f"{len(more)} more groups", Gate("group", more[0].since + ago, line))
    if hidden := receipts.hidden(now):
        first = min(hidden, key=lambda receipt: receipt.returns_at)
        line = f"{_count(len(hidden))} failed and hidden; the first comes again in {first.returns_at - now:.1f} s"
        since = min(receipt.received for receipt in hidden) + ago
        yield WaitView(queue, Gate("visibility", since, f"{line}: {_named(first, max_receives)}"), first.id)


def _group(group: Blocked, max_receives: float, now: float) -> str:
    waiting = f"{_count(len(group.parked))} received and waiting" if group.parked else "its later messages wait"
    if group.first is None:
        return f"{waiting} until they are back in the queue"
    named = _named(group.first, max_receives)
    if group.out:
        return f"{waiting} for {named}, which is being handled"
    return f"{waiting} for {named}, which failed and comes again in {max(0.0, group.first.returns_at - now):.1f} s"


def _named(receipt: Receipt, max_receives: float) -> str:
    limit = "" if isinf(max_receives) else f" of {max_receives:.0f}"
    return f"message {receipt.id} attempt {receipt.delivery}{limit}"


def _count(messages: int) -> str:
    return "1 message" if messages == 1 else f"{messages} messages"
