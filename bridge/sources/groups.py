"""The group lock of a FIFO queue: which message may be handed out now, kept by us even if the server errs (SQS-55..59).

Decisions only: it is given the time and never waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from bridge.sources.receipts import Receipt


class Debt(NamedTuple):
    """A message that failed and is expected back: later ones of its group wait for it (SQS-56)."""

    sequence: int
    until: float
    """From then on somebody else may have got it, or the dead-letter queue (SQS-61)."""
    receipt: Receipt


class Group(msgspec.Struct, eq=False):
    """One message group, as far as we are concerned with it."""

    out: int = 0
    """Messages handed out and not settled."""
    owed: dict[str, Debt] = msgspec.field(default_factory=dict)
    parked: list[Receipt] = msgspec.field(default_factory=list)

    def waits_for_earlier(self, receipt: Receipt) -> bool:
        """Something before it is owed or parked."""
        return any(debt.sequence < receipt.sequence for debt in self.owed.values()) or any(
            other.sequence < receipt.sequence for other in self.parked
        )

    def forgive(self, now: float) -> None:
        """Drops the debts whose time is over."""
        for message_id in [message_id for message_id, debt in self.owed.items() if debt.until <= now]:
            del self.owed[message_id]


class Blocked(NamedTuple):
    """A group of which something waits."""

    name: str
    first: Receipt | None
    """What the others wait for, as far as it is known here."""
    out: bool
    """That is being handled; else it is owed."""
    parked: Sequence[Receipt]
    """Those that are here; more may wait in the queue."""

    @property
    def since(self) -> float:
        """The loop's time."""
        known = [self.first] if self.first else []
        return float(min(receipt.received for receipt in (*self.parked, *known)))


class Groups:
    """All groups of one queue of which something is out, owed or parked. Parked: received, but kept hidden."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._parking: set[str] = set()
        self._indebted: set[str] = set()

    def __repr__(self) -> str:
        return f"<Groups {len(self._groups)} known, {len(self._parking)} with parked messages>"

    def admit(self, page: Sequence[Receipt], now: float) -> tuple[list[Receipt], list[Receipt]]:
        """Those of one receive that may be handed out together, each group in its order, and those to be parked.

        A message has to wait while something of its group is out since an earlier receive, and for what comes before
        it in the group.
        """
        admitted: list[Receipt] = []
        parked: list[Receipt] = []
        opened: set[str] = set()
        for receipt in in_group_order(page):
            name = receipt.group
            group = self._groups.setdefault(name, Group())
            group.forgive(now)
            group.owed.pop(receipt.id, None)
            if (group.out and name not in opened) or group.waits_for_earlier(receipt):
                group.parked.append(receipt)
                parked.append(receipt)
                self._parking.add(name)
            else:
                group.out += 1
                admitted.append(receipt)
                opened.add(name)
        return admitted, parked

    def leave(self, receipt: Receipt, owed_until: float | None) -> None:
        """A message that was handed out is not ours any more. None: it does not come again."""
        self._groups[receipt.group].out -= 1
        self._owe(receipt, owed_until)

    def unpark(self, receipt: Receipt, owed_until: float | None) -> None:
        """A parked message is not ours any more."""
        self._groups[receipt.group].parked.remove(receipt)
        self._owe(receipt, owed_until)

    def blocked(self, now: float, out: Iterable[Receipt]) -> list[Blocked]:
        """The groups of which something waits; ``out`` is all that is handed out."""
        waiting = sorted(self._parking | {name for name in self._indebted if self._owes(name, now)})
        firsts: dict[str, Receipt] = {}
        for receipt in out:
            if receipt.group not in firsts or receipt.sequence < firsts[receipt.group].sequence:
                firsts[receipt.group] = receipt
        return [self._blocked(name, firsts.get(name)) for name in waiting]

    def _owes(self, name: str, now: float) -> bool:
        return any(debt.until > now for debt in self._groups[name].owed.values())

    def _blocked(self, name: str, out: Receipt | None) -> Blocked:
        group = self._groups[name]
        owed = min(group.owed.values(), key=lambda debt: debt.sequence, default=None)
        first = out or (owed.receipt if owed else None)
        return Blocked(name, first, out is not None, tuple(group.parked))

    def _owe(self, receipt: Receipt, until: float | None) -> None:
        if until is not None:
            self._groups[receipt.group].owed[receipt.id] = Debt(receipt.sequence, until, receipt)
            self._indebted.add(receipt.group)
        self._tidy(receipt.group)

    def free(self, now: float) -> list[Receipt]:
        """The parked messages that may go back to the queue: nothing of their group is out, and nothing before them
        is owed, in order. They count as parked until ``unpark``."""
        for name in tuple(self._indebted):
            self._groups[name].forgive(now)
            self._tidy(name)
        free: list[Receipt] = []
        for group in map(self._groups.__getitem__, self._parking):
            first_debt = min((debt.sequence for debt in group.owed.values()), default=inf)
            if not group.out:
                free += sorted((one for one in group.parked if one.sequence < first_debt), key=_sequence)
        return free

    @property
    def next_free(self) -> float:
        """When ``free`` may have something that it does not have now; inf when only a settle can free something."""
        debts = (
            debt.until
            for group in map(self._groups.__getitem__, self._parking)
            if not group.out
            for debt in group.owed.values()
        )
        return min(debts, default=inf)

    def _tidy(self, name: str) -> None:
        group = self._groups[name]
        if not group.parked:
            self._parking.discard(name)
        if not group.owed:
            self._indebted.discard(name)
            if not group.out and not group.parked:
                del self._groups[name]


def in_group_order(page: Sequence[Receipt]) -> Sequence[Receipt]:
    """The receipts in the order of the page, but each group's own in the order of its sequence numbers."""
    by_group: dict[str, list[Receipt]] = {}
    for receipt in page:
        by_group.setdefault(receipt.group, []).append(receipt)
    turns = {name: iter(sorted(members, key=_sequence)) for name, members in by_group.items()}
    return [next(turns[receipt.group]) for receipt in page]


def _sequence(receipt: Receipt) -> int:
    return receipt.sequence
