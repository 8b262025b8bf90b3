"""A dead-letter queue of SQS as a shelf: receives, keeps hidden what is held, gives back and deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping as Dict, Sequence
from hashlib import md5
from math import inf
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from bridge.errors import RemoteError
from bridge.faults import PASSING, Backoff, persist
from bridge.replay.entries import CALL_TIMEOUT, ENTRIES, EntryFault, ask, batches
from bridge.replay.letter import Letter, Message, message, read
from bridge.replay.queues import Queue
from bridge.replay.shelf import Count

HOLD = 60
"""Seconds that a receive hides a message for; the heartbeat extends it."""
PARKED_HOLD = 300
"""Seconds for which the heartbeat hides what is only kept out of the way; after a kill it comes back as late."""
MOST_HOLD = 43_200 - 5
"""Seconds from the receive, less what its answer may have taken (SQS-82)."""
SAFETY = 5.0
"""How many seconds earlier than a receipt says the queue may take its message back."""
POLL = 1
"""Seconds of a long poll."""
EMPTY_POLLS = 3
"""In a row, with the queue's own count at zero: then it is empty."""
MOST_EMPTY_POLLS = 10
"""In a row: then it hands out nothing more, whatever it counts."""
PATIENCE = 60.0
"""Seconds for which faults of the service are waited out."""
RELEASE_TIMEOUT = 30.0
REQUESTS = 8
"""Batch requests at once."""


class _Held(msgspec.Struct, eq=False):
    """A message that is ours for a while. Loop times."""

    handle: str
    until: float
    last: float
    """It cannot be extended beyond."""
    parked: bool = False


class SqsShelf:
    """One dead-letter queue."""

    service = "sqs"

    def __init__(
        self,
        queue: Queue,
        *,
        reader: Callable[[Message, float | None], Letter] = read,
        hold: int = HOLD,
        poll: int = POLL,
    ) -> None:
        self.arn, self.fifo, self.retention = queue.arn, queue.fifo, queue.retention
        self.queue = queue
        self._api, self._url = queue.api, queue.url
        self._read = reader
        self._hold, self._poll = hold, poll
        self.expects: Callable[[], bool] = lambda: False
        """Whether messages that somebody holds may be those of a run of ours that was killed: they are waited for, as
        long as such a run can have hidden them."""
        self._began = 0.0
        self._held: dict[str, _Held] = {}
        self._parked = 0
        self._damaged = 0
        self._empties = 0
        self._ended = False
        self._stirred = anyio.Event()
        self._clock: Callable[[], float] = anyio.current_time
        self._tasks: TaskGroup

    def __repr__(self) -> str:
        return f"<SqsShelf {self.queue.name}: {len(self._held)} held, {self._parked} of them parked>"

    async def __aenter__(self) -> Self:
        self._empties, self._ended, self._began = 0, False, anyio.current_time()
        self._clock = asyncio.get_running_loop().time  # the same, at a fraction of its price
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._keep_hidden, name=f"heartbeat {self.queue.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.move_on_after(RELEASE_TIMEOUT, shield=True):
            await self._give_back(tuple(self._held))
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    # Taking.

    async def count(self) -> Count:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]
        hidden = "ApproximateNumberOfMessagesNotVisible"
        query = {"QueueUrl": self._url, "AttributeNames": [*names, hidden]}
        answer = await self._persist(lambda: self._api.call("GetQueueAttributes", query, timeout=CALL_TIMEOUT))
        found = answer.get("Attributes") or {}
        waiting = sum(int(found.get(name, 0)) for name in names)
        return Count(waiting, int(found.get(hidden, 0)), self._damaged)

    async def take(self, n: int) -> list[Letter]:
        while not self._ended:
            # A poll says nothing while a group is held by ourselves, or may be given back at any moment.
            quiet = len(self._held) == self._parked
            letters = await self._receive(min(n, ENTRIES))
            if letters:
                self._empties = 0
                return letters
            if quiet and await self._is_empty():
                self._ended = True
        return []

    def end(self) -> None:
        self._ended = True

    async def _is_empty(self) -> bool:
        """After a poll without a message. A poll by itself proves nothing, nor does the count: both are asked."""
        self._empties += 1
        if self._empties < EMPTY_POLLS:
            return False
        blocked = self.fifo and self._parked  # what lies behind a parked message of its group is not handed out
        if blocked:
            return True
        count = await self.count()
        waits = anyio.current_time() < self._began + self._hold + POLL
        if waits and count.held > len(self._held) and self.expects():
            await anyio.sleep(POLL - self._poll)
            return False
        return not count.waiting or self._empties >= MOST_EMPTY_POLLS

    async def _receive(self, n: int) -> list[Letter]:
        request = {
            "QueueUrl": self._url,
            "MaxNumberOfMessages": n,
            "WaitTimeSeconds": self._poll,
            "VisibilityTimeout": self._hold,
            "MessageAttributeNames": ["All"],  # SQS-3: without asking none of them comes
            "MessageSystemAttributeNames": ["All"],
            "AttributeNames": ["All"],  # the same for servers that know only its older name
        }
        timeout = self._poll + CALL_TIMEOUT
        answer = await self._persist(lambda: self._api.call("ReceiveMessage", request, timeout=timeout))
        # No await from here to the return: what came is never lost on the way.
        now = anyio.current_time()
        found = [self._taken(received, now) for received in answer.get("Messages") or ()]
        self._stirred.set()
        letters = [letter for letter in found if letter is not None]
        if self.fifo:
            letters.sort(key=lambda letter: letter.message.sequence)
        return letters

    def _taken(self, received: Dict[str, Any], now: float) -> Letter | None:
        """None: it is held already, or damaged. A damaged one is left alone, to come again."""
        try:
            it = message(received)
        except (KeyError, TypeError, ValueError, AttributeError):
            self._damaged += 1
            return None
        digest = md5(it.body.encode(), usedforsecurity=False).hexdigest()
        if received.get("MD5OfBody", digest) != digest:
            self._damaged += 1
            return None
        before = self._held.get(it.id)
        if before is not None:  # a standard queue may hand it out twice; the later receipt counts
            before.handle, before.until, before.last = it.receipt, now + self._hold, now + MOST_HOLD
            return None
        self._held[it.id] = _Held(it.receipt, now + self._hold, now + MOST_HOLD)
        return self._read(it, self.queue.retention)

    # Holding.

    def holds(self, letter: Letter) -> bool:
        held = self._held.get(letter.id)
        return held is not None and self._clock() < held.until - min(SAFETY, self._hold / 4)

    def park(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            held = self._held.get(letter.id)
            if held is not None and not held.parked:
                held.parked = True
                self._parked += 1

    async def _keep_hidden(self) -> None:
        """The heartbeat: extends what would come back soon, many with each request."""
        while True:
            if not self._held:
                self._stirred = anyio.Event()
                await self._stirred.wait()
            await anyio.sleep(self._hold / 8)
            soon = anyio.current_time() + self._hold / 2
            due = [name for name, held in self._held.items() if held.until <= soon and held.until < held.last]
            await self._change(due, lambda held: PARKED_HOLD if held.parked else self._hold)

    async def _change(self, names: Sequence[str], seconds: Callable[[_Held], int]) -> None:
        """Changes for how long messages stay hidden. What fails is tried again at the next beat, or comes back."""
        for some in batches(names, ENTRIES * REQUESTS):
            async with anyio.create_task_group() as tasks:
                for batch in batches(some, ENTRIES):
                    tasks.start_soon(self._change_batch, batch, seconds, name="visibility")

    async def _change_batch(self, names: Sequence[str], seconds: Callable[[_Held], int]) -> None:
        now = anyio.current_time()
        alive = [(name, held) for name in names if (held := self._held.get(name)) and held.last > now]
        hidden = [max(0, min(seconds(held), int(held.last - now))) for _, held in alive]
        entries = [
            {"ReceiptHandle": held.handle, "VisibilityTimeout": time}
            for (_, held), time in zip(alive, hidden, strict=True)
        ]
        if not entries:
            return
        try:
            verdicts = await ask(self._api, "ChangeMessageVisibilityBatch", self._url, entries)
        except RemoteError:
            return
        for (_, held), time, verdict in zip(alive, hidden, verdicts, strict=True):
            if not isinstance(verdict, EntryFault):
                held.until = now + time
            elif not verdict.passing:  # somebody else has it by now
                held.until = held.last = -inf

    # Settling.

    async def release(self, letters: Sequence[Letter]) -> None:
        await self._give_back([letter.id for letter in letters])

    async def _give_back(self, names: Sequence[str]) -> None:
        await self._change(names, lambda _: 0)
        for name in names:
            self._forget(name)

    def _forget(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None and held.parked:
            self._parked -= 1

    async def delete(self, letters: Sequence[Letter]) -> list[str]:
        verdicts: list[str] = []
        for batch in batches(letters, ENTRIES):
            verdicts += await self._delete([self._held.get(it.id) for it in batch], [it.message for it in batch])
        for letter, why in zip(letters, verdicts, strict=True):
            if not why:
                self._forget(letter.id)
        return verdicts

    async def _delete(self, held: Sequence[_Held | None], messages: Sequence[Message]) -> list[str]:
        """For each why it could not be deleted. Deleting twice does no harm, so that silence is asked again."""
        why = ["not tried"] * len(messages)
        left = list(range(len(messages)))
        backoff, deadline = Backoff(), anyio.current_time() + PATIENCE
        while True:
            handles = [it.handle if (it := held[place]) else messages[place].receipt for place in left]
            try:
                entries = [{"ReceiptHandle": handle} for handle in handles]
                verdicts = await ask(self._api, "DeleteMessageBatch", self._url, entries)
            except RemoteError as error:
                passing = isinstance(error, PASSING)
                verdicts = [EntryFault(error.code, str(error), passing=passing) for _ in left]
            for place, verdict in zip(left, verdicts, strict=True):
                why[place] = verdict.line() if isinstance(verdict, EntryFault) else ""
            left = [p for p, it in zip(left, verdicts, strict=True) if isinstance(it, EntryFault) and it.passing]
            delay = backoff.next()
            if not left or anyio.current_time() + delay >= deadline:
                return why
            await anyio.sleep(delay)

    async def _persist(self, call: Callable[[], Any]) -> dict[str, Any]:
        deadline = anyio.current_time() + PATIENCE
        answer: dict[str, Any] = await persist(call, trouble=lambda _: None, until=deadline)
        return answer
