"""The short loop of a replay: takes letters, journals, sends, journals, deletes, journals; and looks at letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from bridge.errors import RemoteError, first_cause
from bridge.replay.journal import Journal, Open, State
from bridge.replay.letter import Letter
from bridge.replay.pace import Pace
from bridge.replay.plan import STOP_AFTER, Plan, Selection
from bridge.replay.ready import Ready
from bridge.replay.shelf import Shelf
from bridge.replay.summary import Fate, Summary, What
from bridge.replay.target import Outcome, Parcel, Refused, Sent, Target

TAKEN = 10
"""Letters that are taken at once."""
MOST_REMEMBERED = 1_000_000
"""Letters of this run that are recognised when they come again."""
MOST_HELD = 100_000
"""Letters that are held because they are not meant: a queue keeps no more than 120,000 hidden."""
BEHIND = "behind a failed message of its group"
AHEAD = ("sending", "unknown")
"""States of which nobody knows whether the letter has arrived."""


def _nobody(_: object) -> None:
    """Nobody asked."""


async def replay(
    plan: Plan,
    shelf: Shelf,
    target: Target,
    journal: Journal | None,
    *,
    stop: anyio.Event | None = None,
    on_progress: Callable[[Summary], None] = _nobody,
    on_fate: Callable[[Fate], None] = _nobody,
) -> Summary:
    """Carries out the plan and says what became of it. ``target`` was checked, ``shelf`` is not entered, ``journal``
    is open (a dry run has none). ``stop`` interrupts it: what is on its way is finished, the rest given back; so does
    cancelling, except that what is on its way may have to be done again. Raises StateError and InvalidPattern."""
    run = _Run(plan, shelf, target, journal, stop or anyio.Event(), on_progress, on_fate)
    try:
        async with shelf:
            await run.go()
    except BaseExceptionGroup as errors:
        raise first_cause(errors) from None
    return run.summary


async def peek(
    shelf: Shelf, most: int, selection: Selection | None = None, stop: anyio.Event | None = None
) -> list[Letter]:
    """Up to so many letters that are meant, in the order in which the shelf gives them. They are held until all are
    there, and then given back; a queue counts that as a receive. Raises RemoteError."""
    found: list[Letter] = []
    await look(shelf, most, selection, found.extend, stop)
    return found


async def look(
    shelf: Shelf,
    most: float,
    selection: Selection | None,
    show: Callable[[Sequence[Letter]], None],
    stop: anyio.Event | None = None,
) -> int:
    """The same without keeping them: ``show`` gets some at a time. Gives how many there were."""
    shown = 0
    async with shelf:
        while shown < most and not (stop and stop.is_set()):
            taken = await shelf.take(int(min(TAKEN, most - shown)))
            if not taken:
                break
            shelf.park(taken)
            meant = [letter for letter in taken if selection is None or letter in selection]
            show(meant)
            shown += len(meant)
    return shown


class _Run:
    """One replay while it goes on."""

    def __init__(
        self,
        plan: Plan,
        shelf: Shelf,
        target: Target,
        journal: Journal | None,
        stop: anyio.Event,
        on_progress: Callable[[Summary], None],
        on_fate: Callable[[Fate], None],
    ) -> None:
        self.summary = Summary()
        self._plan, self._shelf, self._target, self._journal = plan, shelf, target, journal
        self._stop, self._on_progress, self._on_fate = stop, on_progress, on_fate
        self._selection = Selection(plan, shelf.arn)
        self._leaves = plan.keep or plan.defer
        """What was sent is not deleted."""
        self._wanted = None if plan.ids is None else set(plan.ids)
        self._halt = anyio.Event()
        self._pace = Pace(0 if plan.dry_run else plan.rate, self._halt)
        self._chunk = self._pace.chunk(target.most)
        self._ready = Ready(ordered=shelf.fifo)
        self._known: dict[int, str] = {}
        """Hash of a message id -> ``new``: what this run made; ``sent``, ``failed``, ``aside``: what it did with it."""
        self._asked = 0
        """Letters that are being asked for."""
        self._all_taken = False
        self._aside = 0
        self._row = 0
        """Failures in a row."""
        self._stuck = 0
        """Deletes that failed in a row."""
        self._returns = 0
        """Letters in a row that had come back."""
        self._rounds = 0
        """Letters in a row that had been there before."""
        self._changed = anyio.Event()

    async def go(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, name="stop")
            async with anyio.create_task_group() as workers:
                for number in range(max(1, self._plan.concurrency)):
                    workers.start_soon(self._work, name=f"worker {number}")
            tasks.cancel_scope.cancel()
        if self._journal and not (self._plan.defer or self._plan.finish_only):
            self._journal.ended(complete=self.summary.complete)
        try:
            count = await self._shelf.count()
        except RemoteError:
            return
        self.summary.left, self.summary.damaged = count.waiting + count.held, count.damaged

    async def _watch(self) -> None:
        await self._stop.wait()
        self.summary.interrupted = True
        self._end()

    def _give_up(self, why: str, *, broken: bool = False) -> None:
        self.summary.stopped = self.summary.stopped or why
        self.summary.broken = self.summary.broken or broken
        self._end()

    def _end(self) -> None:
        """Nothing more is taken or sent."""
        self._halt.set()
        self._shelf.end()
        self._shelf.park(self._ready.clear())
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
        self._on_progress(self.summary)

    async def _work(self) -> None:
        while True:
            if letters := self._ready.next(self._chunk):
                try:
                    await self._handle(letters)
                finally:
                    self._ready.end(letters)
                    self._notify()
            elif room := self._room():
                await self._take(room)
            elif len(self._ready) or self._asked:
                await self._changed.wait()
            else:
                return

    # Taking.

    def _room(self) -> int:
        """How many letters may be taken now."""
        if self._all_taken or self._halt.is_set() or self._is_complete():
            return 0
        in_hand = len(self._ready) + self._asked
        room = max(1, self._plan.concurrency) * self._chunk - in_hand
        if self._plan.most is not None:
            room = min(room, self._plan.most - self.summary.matched - self._asked)
        return min(room, TAKEN)

    def _is_complete(self) -> bool:
        """All that was asked for by name has been there."""
        if self._plan.finish_only:
            return not any(it.state == "sent" for it in self._journal.open.values()) if self._journal else True
        return self._wanted is not None and not self._wanted

    async def _take(self, room: int) -> None:
        self._asked += room
        try:
            letters = await self._shelf.take(room)
        except RemoteError as error:
            self._give_up(str(error), broken=True)
            return
        finally:
            self._asked -= room
        self._all_taken = self._all_taken or not letters
        over = [letter for letter in letters if not self._admit(letter)]
        self._notify()
        if over:
            await self._delete(over, resumed=True)

    def _admit(self, letter: Letter) -> bool:
        """Where it goes. False: it was sent already, and has only to be deleted."""
        if self._wanted is not None:
            self._wanted.discard(letter.id)
        known = self._known.get(hash(letter.id))
        if known == "new":
            self._came_back(letter)
            return True
        self._returns = 0
        if known is not None:
            return self._again(letter, known)
        self._rounds = 0
        self.summary.read += 1
        before = self._before(letter)
        if before is not None and not self._leaves and before.state in ("sent", "done"):
            return False
        if self._halt.is_set():
            self._shelf.park([letter])
        elif letter not in self._selection:
            self._put_aside(letter)
        elif before is not None and self._is_kept(letter, before):
            self._shelf.park([letter])
            self._tell(letter, "kept", reason="an earlier run has sent it")
        elif self._ready.stopped(letter):
            self._leave(letter, BEHIND)
        else:
            self.summary.matched += 1
            self._ready.add(letter)
        return True

    def _again(self, letter: Letter, known: str) -> bool:
        """This run was done with it: its delete failed, or it could not be kept hidden."""
        self._shelf.park([letter])
        self._rounds += 1
        if self._rounds > len(self._known):  # nothing but such letters
            self._all_taken = True
            self._shelf.end()
        return known != "sent" or self._leaves

    def _before(self, letter: Letter) -> Open | None:
        """How far earlier runs came with it."""
        return self._journal.open.get(letter.message.id) if self._journal else None

    def _is_kept(self, letter: Letter, before: Open) -> bool:
        """An earlier run that was interrupted sent it to the same place, and left it."""
        if not self._leaves or before.state not in ("kept", "sent", "done"):
            return False
        return before.target == self._target.arn(letter)

    def _came_back(self, letter: Letter) -> None:
        self._shelf.park([letter])
        self.summary.came_back += 1
        self._returns += 1
        self._tell(letter, "came_back", reason="sent by this run, and dead again")
        if self._returns >= STOP_AFTER:
            self._give_up(
                f"{self._returns} replayed messages in a row were dead letters again: the cause is not mended"
            )

    def _put_aside(self, letter: Letter) -> None:
        """It is not meant."""
        self._shelf.park([letter])
        self._remember(letter.id, "aside")
        self._aside += 1
        if self._aside >= MOST_HELD:
            self._give_up(f"{self._aside} letters are held that were not meant; the rest has not been looked at")

    def _leave(self, letter: Letter, why: str) -> None:
        self._shelf.park([letter])
        self.summary.skipped[why] += 1
        self._tell(letter, "skipped", reason=why)

    # Sending.

    async def _handle(self, letters: Sequence[Letter]) -> None:
        if not await self._pace.wait(len(letters)):
            self._shelf.park(letters)
            return
        held = [letter for letter in letters if self._shelf.holds(letter)]
        self.summary.matched -= len(letters) - len(held)  # somebody else may have those, or they come again
        if not held:
            return
        if self._plan.dry_run or self._journal is None:
            self._shelf.park(held)
            for letter in held:
                self._tell(letter, "would_send", target=self._target.arn(letter))
            return
        await self._send(held, self._journal)

    async def _send(self, letters: Sequence[Letter], journal: Journal) -> None:
        known = [self._before(letter) for letter in letters]
        parcels = [Parcel(letter, self._token(letter, it)) for letter, it in zip(letters, known, strict=True)]
        again = {letter.id for letter, it in zip(letters, known, strict=True) if it and it.state in AHEAD}
        await journal.sending([(it.letter, it.token, self._target.arn(it.letter)) for it in parcels])
        outcomes = await self._target.send(parcels)
        judged = list(zip(letters, outcomes, strict=True))
        await journal.judged((letter, self._after(it), it.target, _new_id(it), _told(it)) for letter, it in judged)
        sent: list[Letter] = []
        for letter, outcome in judged:
            if isinstance(outcome, Sent):
                self._sent(letter, outcome, again=letter.id in again)
                sent.append(letter)
            else:
                self._failed(letter, outcome)
        if self._leaves:
            self._shelf.park(sent)
        elif sent:
            await self._delete(sent)

    def _token(self, letter: Letter, before: Open | None) -> str:
        return before.token if before and before.token else self._plan.token(self._shelf.arn, letter.id)

    def _after(self, outcome: Outcome) -> State:
        if isinstance(outcome, Sent):
            return "kept" if self._plan.keep else "sent"
        return "unknown" if outcome.maybe_sent else "failed"

    def _sent(self, letter: Letter, outcome: Sent, *, again: bool) -> None:
        self._row = 0
        self.summary.sent += 1
        twice = again or outcome.maybe_twice
        if twice:
            self.summary.duplicate(letter)
        self._remember(letter.id, "sent")
        self._remember(outcome.new_id, "new")
        what: What = "kept" if self._plan.keep else "sent"
        if self._on_fate is _nobody:
            return
        self._on_fate(
            Fate(
                letter=letter,
                what=what,
                new_id=outcome.new_id,
                target=outcome.target,
                detail=outcome.detail,
                maybe_twice=twice,
            )
        )

    def _failed(self, letter: Letter, outcome: Refused) -> None:
        if not outcome.alone:
            self._row += 1
        summary = self.summary
        summary.failed[outcome.reason] += 1
        if outcome.maybe_sent:
            summary.duplicate(letter)
        self._remember(letter.id, "failed")
        self._shelf.park([letter])
        self._on_fate(
            Fate(
                letter=letter,
                what="failed",
                target=outcome.target,
                reason=outcome.reason,
                detail=outcome.detail,
                maybe_twice=outcome.maybe_sent,
            )
        )
        for behind in self._ready.stop(letter):
            self._leave(behind, BEHIND)
        most = self._plan.most_failures
        if self._row >= STOP_AFTER:
            self._give_up(f"the target failed {self._row} times in a row, last: {outcome.reason}")
        elif most is not None and summary.failed.total() >= most:
            self._give_up(f"{summary.failed.total()} messages failed, and no more than {most} may")

    async def _delete(self, letters: Sequence[Letter], *, resumed: bool = False) -> None:
        reasons = await self._shelf.delete(letters)
        gone: list[str] = []
        for letter, why in zip(letters, reasons, strict=True):
            if why:
                self._undeleted(letter, why)
                continue
            self._stuck = 0
            gone.append(letter.id)
            self.summary.deleted += 1
            if resumed:
                self.summary.resumed += 1
                self._tell(letter, "deleted", reason="an earlier run has sent it")
        if self._journal:
            self._journal.done(gone)

    def _undeleted(self, letter: Letter, why: str) -> None:
        self.summary.undeleted[why] += 1
        self._shelf.park([letter])
        self._tell(letter, "undeleted", reason=why)
        self._stuck += 1
        if self._stuck >= STOP_AFTER:
            self._give_up(f"{self._stuck} originals in a row could not be deleted, last: {why}")

    def _remember(self, message_id: str, what: str) -> None:
        self._known[hash(message_id)] = what
        if len(self._known) > MOST_REMEMBERED:
            del self._known[next(iter(self._known))]

    def _tell(
        self, letter: Letter, what: What, *, target: str = "", reason: str = "", maybe_twice: bool = False
    ) -> None:
        self._on_fate(Fate(letter=letter, what=what, target=target, reason=reason, maybe_twice=maybe_twice))


def _new_id(outcome: Outcome) -> str:
    return outcome.new_id if isinstance(outcome, Sent) else ""


def _told(outcome: Outcome) -> str:
    if isinstance(outcome, Refused):
        return outcome.reason
    return "perhaps twice" if outcome.maybe_twice else "ok"
