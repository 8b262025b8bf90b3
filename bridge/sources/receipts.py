"""What one consumer holds of a queue: the receipts of what it received, who may have them, and until when.

Decisions only: it is given the time and never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from math import ceil, inf
from typing import Literal

import msgspec

from bridge.sources.groups import Blocked, Groups

MOST_PARKED = 1000
"""Messages kept hidden without being handed out. What comes on top is left alone and comes again by itself."""
PROMPT = 1.0
"""Seconds within which what was given back at once should come again."""

State = Literal["open", "done", "parked", "twin", "leaving", "gone"]


class Receipt(msgspec.Struct, eq=False):
    """One message as one receive handed it out; what a record carries to be settled. Times are the loop's.

    ``open``: handed out to a runner. ``done``: to be deleted. ``parked``: kept hidden, because its group is locked.
    ``twin``: another receipt of a message that is held. ``leaving``: going back to the queue, to come again at
    ``returns_at``. ``gone``: nothing more will be done about it.
    """

    id: str
    handle: str
    hidden_until: float
    """As far as it was extended."""
    returns_at: float
    """When it comes again if it fails: the time it was received with is over then (SQS-25)."""
    last: float
    """It cannot be hidden any longer than that (SQS-82)."""
    received: float = 0.0
    delivery: int = 1
    """Its receive count."""
    group: str = ""
    """Of a FIFO queue only (SQS-62)."""
    sequence: int = 0
    exhausted: bool = False
    """If it fails it goes to the dead-letter queue (SQS-37)."""
    state: State = "open"
    stale: bool = False
    """The queue said that the handle is no good any more."""
    changing: bool = False
    """A change of its visibility is on its way."""
    settling: object = None
    """Of the traces: what it is deleted for."""
    twins: tuple[Receipt, ...] = ()
    """Older receipts of the same message, which the queue handed out again while it was held."""

    def ours(self, now: float) -> bool:
        """Nobody else can have received it."""
        return not self.stale and now < self.hidden_until

    def visibility(self, now: float, extension: int) -> int:
        """The seconds to ask for now: what is left until it is to come again, or else an extension."""
        if self.state == "leaving":
            return max(0, ceil(self.returns_at - now))
        return max(0, min(extension, int(self.last - now)))


class Receipts:
    """All that is held of one queue. ``fifo`` brings the group lock with it. The queue's clock may be ``slack`` seconds
    ahead of what receipts say: the answer that brought them has been on its way for a while."""

    def __init__(self, *, fifo: bool, slack: float = 0.0) -> None:
        self._slack = slack
        self._held: dict[str, Receipt] = {}
        """Open and done, by message id."""
        self._parked: dict[Receipt, None] = {}
        """Parked and twins."""
        self._leaving: dict[str, Receipt] = {}
        self._groups = Groups() if fifo else None
        self._hidden: deque[Receipt] = deque(maxlen=MOST_PARKED)
        """Failed ones of a queue without groups, which come again by themselves."""

    def __repr__(self) -> str:
        return f"<Receipts {len(self._held)} held, {len(self._parked)} parked, {self._groups}>"

    def __len__(self) -> int:
        return len(self._held) + len(self._parked)

    def __iter__(self) -> Iterator[Receipt]:
        """Whatever must stay hidden."""
        return chain(self._held.values(), self._parked)

    def __contains__(self, receipt: Receipt) -> bool:
        return self._held.get(receipt.id) is receipt or receipt in self._parked

    @property
    def parked(self) -> list[Receipt]:
        """In the order in which they came, without twins."""
        return [receipt for receipt in self._parked if receipt.state == "parked"]

    @property
    def parks(self) -> bool:
        """Something may become free when something else is settled."""
        return bool(self._groups and self._parked)

    def holds(self, receipt: Receipt, now: float) -> bool:
        """It was handed out, is not settled, and nobody else can have it."""
        return receipt.state == "open" and receipt.ours(now)

    # What comes.

    def admit(self, page: Sequence[Receipt], now: float) -> Sequence[Receipt]:
        """Those of one receive that may be handed out, in order; the others are parked."""
        fresh: dict[str, Receipt] = {}
        for receipt in page:
            if overtaken := self._leaving.pop(receipt.id, None):
                overtaken.state = "gone"
            if first := self._held.get(receipt.id) or fresh.get(receipt.id):
                self._join(first, receipt)
            else:
                fresh[receipt.id] = receipt
        admitted: Sequence[Receipt] = tuple(fresh.values())
        if self._groups:
            admitted, parked = self._groups.admit(admitted, now)
            for receipt in parked:
                self._park(receipt, "parked")
        for receipt in admitted:
            self._held[receipt.id] = receipt
        return admitted

    def _join(self, first: Receipt, second: Receipt) -> None:
        """A second delivery of what is held must not run beside the first. Its handle, being the newest, is taken
        over (SQS-82); the older one is kept hidden and deleted along with it."""
        first.handle, second.handle = second.handle, first.handle
        first.hidden_until, second.hidden_until = second.hidden_until, first.hidden_until
        first.returns_at, first.last = second.returns_at, second.last
        first.stale, second.stale = False, first.stale
        first.twins = (*first.twins, second)
        self._park(second, "twin")

    def _park(self, receipt: Receipt, state: State) -> None:
        receipt.state = state
        self._parked[receipt] = None
        if len(self._parked) > MOST_PARKED:
            self.drop(receipt)

    # What goes.

    def done(self, receipt: Receipt) -> bool:
        """It is to be deleted; until that is confirmed it stays hidden and its group locked. False: it was settled
        before, or is somebody else's."""
        if receipt.state != "open":
            return False
        if receipt.stale:
            self.drop(receipt)
            return False
        receipt.state = "done"
        return True

    def deleted(self, receipt: Receipt) -> Sequence[Receipt]:
        """The queue confirmed it. Gives its twins, to be deleted as well."""
        twins = [twin for twin in receipt.twins if twin.state == "twin"]
        for twin in twins:
            del self._parked[twin]
            twin.state = "done"
        self.drop(receipt)
        return twins

    def failed(self, receipt: Receipt) -> bool:
        """It comes again when its time is over. Whether the queue has to be told, because it was held for longer."""
        if receipt.state != "open":
            return False
        if receipt.stale:
            self.drop(receipt)
            return False
        if self._groups is None:
            self._hidden.append(receipt)
        extended = receipt.changing or receipt.hidden_until > receipt.returns_at
        # After its last try it does not come back, but the next one of its group comes, maybe by the queue's clock.
        owed_until = receipt.returns_at - self._slack if receipt.exhausted else receipt.returns_at
        self._remove(receipt, "leaving" if extended else "gone", owed_until)
        return extended

    def released(self, receipt: Receipt, now: float) -> bool:
        """It comes again at once. Whether the queue has to be told."""
        if receipt.state not in ("open", "parked"):
            return False
        if receipt.stale:
            self.drop(receipt)
            return False
        receipt.returns_at = now
        self._remove(receipt, "leaving", owed_until=now + PROMPT)
        return True

    def drop(self, receipt: Receipt) -> None:
        """Nothing more is done about it: deleted, lost, or left to come again by itself."""
        self._remove(receipt, "gone", owed_until=None)

    def _remove(self, receipt: Receipt, becomes: State, owed_until: float | None) -> None:
        was, receipt.state = receipt.state, becomes
        if becomes == "leaving":
            self._leaving[receipt.id] = receipt
        elif self._leaving.get(receipt.id) is receipt:
            del self._leaving[receipt.id]
        if was in ("parked", "twin"):
            del self._parked[receipt]
            if was == "parked" and self._groups:
                self._groups.unpark(receipt, owed_until)
        elif self._held.get(receipt.id) is receipt:
            del self._held[receipt.id]
            if self._groups:
                self._groups.leave(receipt, owed_until)
        for twin in receipt.twins:
            if twin.state == "twin":
                self.drop(twin)

    # What time does.

    def due(self, now: float, margin: float, slack: float) -> tuple[list[Receipt], float]:
        """What must be extended now because it would come back within ``margin`` (and ``slack``, to ask for many at
        once), and when to look again. Parked ones whose time is over are dropped."""
        due: list[Receipt] = []
        lapsed: list[Receipt] = []
        again = inf
        for receipt in self:
            if receipt.hidden_until <= now:
                lapsed.append(receipt)
            elif receipt.changing or receipt.stale or receipt.hidden_until + 1 >= receipt.last:
                continue
            elif receipt.hidden_until - margin <= now + slack:
                due.append(receipt)
            else:
                again = min(again, receipt.hidden_until - margin)
        for receipt in lapsed:
            if receipt in self._parked:
                self.drop(receipt)
        return due, again

    def hidden(self, now: float) -> list[Receipt]:
        """The failed messages of a queue without groups that have not come again yet; of many the last ones."""
        return [receipt for receipt in self._hidden if receipt.returns_at > now]

    def blocked(self, now: float) -> list[Blocked]:
        """The groups of which something waits."""
        return self._groups.blocked(now, self._held.values()) if self._groups else []

    def free(self, now: float) -> tuple[list[Receipt], float]:
        """The parked messages whose group is not locked any more, in order, and when to look again."""
        if not self._groups:
            return [], inf
        return self._groups.free(now), self._groups.next_free
