"""Each letter to where it came from: a message to its queue, the record of a failure to its function."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.replay.letter import Letter
from bridge.replay.target import Outcome, Parcel, Refused, Target

NO_FUNCTION = (
    "it stands for what a function did not take, and nobody runs functions here: name a configuration with -c, or a"
    " daemon's API with --api"
)
NO_MESSAGE = (
    "it stands for what a function did not take, and is no message of a queue: --to function hands that to its function"
)
NO_QUEUE = "it does not say which queue it came from; give one with --to"


class OriginTarget:
    """A ``Target`` of two: plain letters go to ``queues``, all others to ``functions``. Where one of them is none, such
    letters stay, and ``why`` is said of those for a function."""

    def __init__(self, queues: Target | None, functions: Target | None, why: str = NO_FUNCTION) -> None:
        self._queues, self._functions, self._why = queues, functions, why
        self.most = min(target.most for target in self._targets)

    def __repr__(self) -> str:
        return f"<OriginTarget {self.name}>"

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join(target.name for target in self._targets if target.name)

    @property
    def _targets(self) -> list[Target]:
        return [target for target in (self._queues, self._functions) if target is not None]

    def arn(self, letter: Letter) -> str:
        target = self._of(letter)
        return target.arn(letter) if target else ""

    async def check(self, *, dry: bool) -> None:
        for target in self._targets:
            await target.check(dry=dry)

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
        why = NO_QUEUE if self._queues is None and parcels[0].letter.kind == "plain" else self._why
        return [Refused(parcel.letter.hindrance or why, sender_fault=True) for parcel in parcels]

    def _of(self, letter: Letter) -> Target | None:
        """None: it stays."""
        if letter.kind != "plain":
            return self._functions
        return None if letter.hindrance else self._queues
