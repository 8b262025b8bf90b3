"""Dead letters back to the queues that they came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from bridge.aws import Aws
from bridge.errors import AccessDenied, BridgeError, ExpiredCredentials, NotFound, Rejected, ServiceFault, UsageError
from bridge.function import AwsSettings
from bridge.replay.entries import CALL_TIMEOUT, ENTRIES
from bridge.replay.letter import Letter
from bridge.replay.loop import TAKEN, peek
from bridge.replay.queue import SqsShelf
from bridge.replay.queues import Queue, find
from bridge.replay.target import Outcome, Parcel, Refused
from bridge.replay.to_queue import QueueTarget

MOST_QUEUES = 1000


class SourceTarget:
    """Each letter goes where it came from, as its ``DeadLetterQueueSourceArn`` says; one that does not say goes to the
    only queue that can have sent it."""

    most = ENTRIES

    def __init__(self, aws: Aws, settings: AwsSettings, of: Queue, targets: Sequence[QueueTarget], only: str) -> None:
        self._aws, self._settings, self._of = aws, settings, of
        self._targets: dict[str, QueueTarget] = {target.queue.arn: target for target in targets}
        self._unusable: dict[str, str] = {}
        """ARN -> why."""
        self._only = only
        self._lock = anyio.Lock()

    def __repr__(self) -> str:
        return f"<SourceTarget {', '.join(self._targets)}>"

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join(target.name for target in self._targets.values())

    def arn(self, letter: Letter) -> str:
        return letter.origin.source_arn or self._only

    async def check(self, *, dry: bool) -> None:
        for target in self._targets.values():
            await target.check(dry=dry)

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        places: dict[str, list[int]] = {}
        for place, parcel in enumerate(parcels):
            places.setdefault(self.arn(parcel.letter), []).append(place)
        outcomes: list[Outcome] = [Refused("not tried")] * len(parcels)
        for arn, these in places.items():
            for place, outcome in zip(these, await self._send(arn, [parcels[place] for place in these]), strict=True):
                outcomes[place] = outcome
        return outcomes

    async def _send(self, arn: str, parcels: Sequence[Parcel]) -> list[Outcome]:
        target = await self._target(arn)
        if isinstance(target, QueueTarget):
            return await target.send(parcels)
        return [Refused(target, sender_fault=True, target=arn)] * len(parcels)

    async def _target(self, arn: str) -> QueueTarget | str:
        """The queue, or why there is none: one that no letter had named when the run began."""
        async with self._lock:
            if arn not in self._targets and arn not in self._unusable:
                try:
                    self._targets[arn] = await _open(self._aws, self._settings, self._of, arn)
                except BridgeError as error:
                    self._unusable[arn] = str(error)
            return self._targets.get(arn) or self._unusable[arn]


async def source_target(
    aws: Aws, settings: AwsSettings, shelf: SqsShelf, *, messages_only: bool = False
) -> SourceTarget | None:
    """Found before a letter is taken to be sent: the queue that names this one in its redrive policy; if that is not
    one, what the first letters say (they are looked at and given back). Letters that are no messages of queues have no
    part in it; with ``messages_only`` they must not be there. None: there is neither a source nor a letter. Raises
    UsageError when it cannot be told, RemoteError."""
    of = shelf.queue
    listed = await _listed(aws, settings, of)
    if len(listed) == 1:
        return SourceTarget(aws, settings, of, [QueueTarget(listed[0], of)], only=listed[0].arn)
    letters = await peek(shelf, TAKEN)
    if not letters and not listed:
        return None
    others = [letter for letter in letters if letter.kind != "plain"]
    if others and messages_only:
        raise UsageError(
            f"message {others[0].id} stands for what a function did not take, and came from no queue; leave --to away"
            " or give --to function"
        )
    messages = [letter for letter in letters if letter.kind == "plain"]
    # Among letters for functions a message that does not say its queue is left by itself, and keeps none of them.
    silent = [] if others else [letter for letter in messages if not letter.origin.source_arn]
    if silent and listed:
        raise UsageError(
            f"{len(listed)} queues use {of.name} as their dead-letter queue, and message {silent[0].id} does not say"
            f" which it came from; give one with --to: {', '.join(sorted(queue.name for queue in listed))}"
        )
    if silent:
        raise UsageError(
            f"no queue uses {of.name} as its dead-letter queue, and message {silent[0].id} does not say where it came"
            " from; give a queue or a function with --to"
        )
    said = {letter.origin.source_arn for letter in messages if letter.origin.source_arn}
    named = said or {queue.arn for queue in listed}
    targets = [await _open(aws, settings, of, arn) for arn in sorted(named)]
    return SourceTarget(aws, settings, of, targets, only="")


async def _open(aws: Aws, settings: AwsSettings, of: Queue, arn: str) -> QueueTarget:
    if not arn:
        raise UsageError("it does not say which queue it came from; give one with --to")
    target = QueueTarget(await find(aws, settings, arn), of)
    await target.check(dry=True)
    return target


async def _listed(aws: Aws, settings: AwsSettings, of: Queue) -> list[Queue]:
    """The queues whose redrive policy names this one. None where that may not be asked."""
    try:
        urls = await _pages(of, "ListDeadLetterSourceQueues", {"QueueUrl": of.url}, "queueUrls")
    except (AccessDenied, ExpiredCredentials):
        return []
    except (Rejected, NotFound, ServiceFault):  # a server that does not know the operation
        return await _searched(aws, settings, of)
    return [await find(aws, settings, url) for url in urls]


async def _searched(aws: Aws, settings: AwsSettings, of: Queue) -> list[Queue]:
    """The same by looking at every queue."""
    try:
        urls = await _pages(of, "ListQueues", {}, "QueueUrls")
        queues = [await find(aws, settings, url) for url in urls]
    except (Rejected, AccessDenied, NotFound, ServiceFault):
        return []
    return [queue for queue in queues if queue.dead_letters == of.arn]


async def _pages(of: Queue, operation: str, query: dict[str, Any], member: str) -> list[str]:
    found: list[str] = []
    page: dict[str, Any] = {}
    while len(found) < MOST_QUEUES:
        answer = await of.api.call(operation, {**query, **page}, timeout=CALL_TIMEOUT)
        found += answer.get(member) or ()
        if not answer.get("NextToken"):
            break
        page = {"NextToken": answer["NextToken"], "MaxResults": 1000}
    return found
