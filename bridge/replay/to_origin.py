"""Each letter to where it came from: a message to its queue, the record of a failure to its function."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.replay.letter import Letter
from bridge.replay.target import Outcome, Parcel, Refused, Target

NO_MESSAGE = (
    "it stands for what a function did not take, and is no message of a queue: --to function hands that to its function"
)


class OriginTarget:
    """A ``Target`` of two: plain letters go to ``queues``, all others to ``functions``; where that is none, records of
    failures stay, and ``why`` is said of them. Functions are checked when a letter is for one: most
    queues hold none such."""

    def __init__(self, queues: Target, functions: Target | None, why: str) -> None:
        self._queues, self._functions, self._why = queues, functions, why
        self.most = queues.most if queues.name or functions is None else functions.most

    def __repr__(self) -> str:
        return f"<OriginTarget {self.name}>"

    @property
    def name(self) -> str:
        """For people."""
        return self._queues.name or (self._functions.name if self._functions else "")

    def arn(self, letter: Letter) -> str:
        target = self._of(letter)
        return target.arn(letter) if target else ""

    async def check(self, *, dry: bool) -> None:
        await self._queues.check(dry=dry)

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Runs of letters that go the same way, one after the other."""
        outcomes: list[Outcome] = []
        start = 0
        for end in range(1, len(parcels) + 1):
            if end == len(parcels) or self._of(parcels[end].letter) is not self._of(parcels[start].letter):
                outcomes += await self._send(parcels[start:end])
                start = end
        return outcomes

    async def _send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        target = self._of(parcels[0].letter)
        if target is not None:
            return await target.send(parcels)
        return [Refused(parcel.letter.hindrance or self._why, sender_fault=True, alone=True) for parcel in parcels]

    def _of(self, letter: Letter) -> Target | None:
        """None: it stays. An event that lies there as it was, without a record around it, may go to a queue as well."""
        if letter.kind != "plain" and self._functions:
            return self._functions
        whole = letter.document.kind in ("plain", "event", "notification")
        return self._queues if whole and not letter.hindrance else None
