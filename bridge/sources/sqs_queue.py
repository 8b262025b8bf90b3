"""An open SQS queue at work: receives, keeps hidden what is held, deletes and gives back."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Mapping as Dict, Sequence
from hashlib import md5
from math import inf
from typing import Any, NamedTuple

import anyio
import structlog
from anyio.abc import TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint

from bridge.errors import Rejected, RemoteError
from bridge.faults import PASSING, Backoff, classify
from bridge.record import Batch, Page, Record
from bridge.snapshot import WaitView
from bridge.sources import Surroundings, unlimited
from bridge.sources.outbox import ENTRIES, Outbox
from bridge.sources.queue_waits import waits
from bridge.sources.receipts import Receipt, Receipts
from bridge.sources.sqs import CALL_TIMEOUT, Queue, record_json
from bridge.station import countdown, held
from bridge.telemetry.logs import Once

LONGEST_POLL = 20.0
"""SQS-4."""
MOST_HIDDEN = 43_200 - 5
"""Seconds from the receive, less what its answer may have taken (SQS-82)."""
LEAST_EXTENSION = 5
"""Of a queue with a tiny visibility timeout: a heartbeat a second would be late sooner or later."""
NEWS_AFTER = 1.0
"""A fault that is over sooner is no news: a connection that broke while it was idle, a few throttled requests."""
OUTBOX = 1000
"""Deletes without a judgement; more than that, and settling waits."""
LATE_DELETES = 300
"""Seconds after the end of its hidden time for which a message may still be deleted: nobody else may have received it
yet, and what comes to us again meanwhile is not run again (SQS-31)."""
PATIENCE = 0.5
"""Seconds that a few deletes wait for others while requests are on their way."""
CHANGES_PATIENCE = 0.05
CHANGES_REQUESTS = 8

log = structlog.get_logger()


class SqsPartition:
    """One queue. All runners of its mapping share it."""

    state = b""

    def __init__(self, queue: Queue, surroundings: Surroundings, *, linger: float, runners: Callable[[], int]) -> None:
        self.id = queue.name
        self._queue, self._api = queue, queue.api
        self._meter, self._trouble = surroundings.meter, surroundings.trouble
        self._spans = surroundings.spans
        self._log = log.bind(source_arn=queue.arn)
        self._once = Once(self._log)
        visibility = queue.visibility
        self._margin = max(visibility / 3, min(visibility / 2, 1.0))
        """Seconds before the end of its hidden time that a message is extended: time to try again."""
        self._extension = max(visibility, LEAST_EXTENSION)
        self._safety = min(0.5, visibility / 20)
        """How much earlier than a receipt says the queue may take its message back: the answer was on its way."""
        self._receipts = Receipts(fifo=queue.fifo, slack=self._safety)
        self._backoff = Backoff()
        self._failing_since = inf
        self._told = False
        self._stirred = anyio.Event()
        self._scope = anyio.CancelScope(shield=True)
        self._tasks: TaskGroup
        self.works = anyio.Event()
        """Set once ``work`` runs: not before that may anything else be called."""
        self._deletes = Outbox(
            self._send,
            self._delete,
            capacity=OUTBOX,
            requests=lambda: max(1, runners()),
            patience=PATIENCE,
            linger=min(linger, self._margin / 10),
        )
        self._changes = Outbox(
            self._send,
            self._change,
            capacity=OUTBOX,
            requests=lambda: CHANGES_REQUESTS,
            patience=CHANGES_PATIENCE,
        )
        self._request: dict[str, Any] = {
            "QueueUrl": queue.url,
            "MessageAttributeNames": ["All"],  # SQS-3
            "MessageSystemAttributeNames": ["All"],
            "AttributeNames": ["All"],  # the same for servers that know only its older name
        }
        if queue.asks_visibility:
            self._request["VisibilityTimeout"] = visibility  # SQS-28

    def __repr__(self) -> str:
        return f"<SqsPartition {self.id}: {self._receipts!r}, deletes {self._deletes!r}, changes {self._changes!r}>"

    # Its own work.

    async def work(self) -> None:
        """Carries the outboxes and the heartbeat until ``stop``. Shielded: what is on its way goes on while the runners
        are being cancelled."""
        with self._scope:
            async with anyio.create_task_group() as self._tasks:
                self.works.set()
                await self._keep_hidden()

    async def close(self) -> None:
        """Sends what is pending and returns when all of it is judged."""
        await self._deletes.flush()
        self._release(self._receipts.parked)
        await self._changes.flush()

    def stop(self) -> None:
        """Ends ``work``. What was not judged comes again by itself."""
        left = self._deletes.close(), self._changes.close()
        if any(left):
            self._log.warning("settles_cut_short", deletes=left[0], changes=left[1])
        self._scope.cancel()

    async def _keep_hidden(self) -> None:
        """The heartbeat: extends whatever is held and would come back soon (SQS-29), one timer for all of it; and gives
        back parked messages when their group is free."""
        while True:
            now = anyio.current_time()
            due, again = self._receipts.due(now, self._margin, self._margin / 4)
            self._alter(due)
            free, later = self._receipts.free(now)
            self._release(free)
            self._stirred = anyio.Event()
            if self._receipts:
                again = min(again, later, now + self._queue.visibility - self._margin)
            with anyio.CancelScope(deadline=again):
                await self._stirred.wait()

    # Receiving.

    async def fetch(self, limit: int, wait: float, size: Callable[[], float] = unlimited) -> Page:  # noqa: ARG002
        asked = min(limit, ENTRIES)
        messages = await self._receive(asked, wait)
        if messages is None:
            return Page(answered=False)
        # No await from here to the return: a page that came is never lost on the way.
        if not messages:
            self._meter.poll("empty")
            return Page()
        return self._page(messages, asked)

    async def _receive(self, asked: int, wait: float) -> Sequence[dict[str, Any]] | None:
        """Waits out passing faults, all runners with one backoff. None: they lasted as long as it may wait."""
        now = anyio.current_time()
        deadline = now + wait
        patience = deadline if wait else now + LONGEST_POLL
        while True:
            left = int(min(LONGEST_POLL, max(0.0, deadline - now + 0.1)))
            params = {**self._request, "MaxNumberOfMessages": asked, "WaitTimeSeconds": left}
            try:
                answer = await self._api.call("ReceiveMessage", params, timeout=left + CALL_TIMEOUT)
            except RemoteError as error:
                self._meter.poll("error")
                self._meter.poll_error(error.code)
                if not isinstance(error, PASSING):
                    raise
                fault = error
                self._fails(error, since=min(anyio.current_time(), now + left))
            else:
                self._goes_on()
                return answer.get("Messages") or ()
            now = anyio.current_time()
            delay = self._backoff.next()
            pause = max(0.0, min(delay, patience - now))
            with held("endpoint", countdown(f"{fault}; asks again", now + pause)):
                await anyio.sleep(pause)
            if now + delay >= patience:
                return None
            now = anyio.current_time()

    def _fails(self, fault: RemoteError, since: float) -> None:
        """Says what it waits for, once no receive of any runner has been answered for a while."""
        self._failing_since = min(self._failing_since, since)
        if anyio.current_time() - self._failing_since >= NEWS_AFTER:
            self._trouble(str(fault))
            self._told = True

    def _goes_on(self) -> None:
        self._backoff.reset()
        if self._told:
            self._trouble(None)
        self._failing_since, self._told = inf, False

    def _page(self, messages: Sequence[dict[str, Any]], asked: int) -> Page:
        now = anyio.current_time()
        read = {record.receipt: record for message in messages if (record := self._read(message, now))}
        idle = not self._receipts
        admitted = self._receipts.admit(tuple(read), now)
        if idle or len(admitted) < len(read):
            self._stirred.set()
        if len(admitted) > asked:  # a server that gives more than it was asked for
            self._release(admitted[asked:])
        records = tuple([read[receipt] for receipt in admitted[:asked]])
        self._meter.poll("data")
        if not records:
            return Page(caught_up=False)
        lag = max(0.0, time.time() - min([record.arrived_at for record in records]))
        self._meter.polled(len(records), sum([len(record.json) for record in records]))
        self._meter.message_age(lag)
        full = len(messages) >= asked
        return Page(records, caught_up=not full, lag=lag, full=full)

    def _read(self, message: dict[str, Any], now: float) -> Record | None:
        """None: it is damaged. It is left alone, to come again when its visibility ends."""
        try:
            return self._record(message, now)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            code = "MD5Mismatch" if isinstance(error, DamagedBody) else "Unreadable"
            self._meter.poll_error(code)
            told = str(message.get("MessageId"))[:100]
            self._once.log("message_damaged", "message_damaged", error=code, message_id=told)
            return None

    def _record(self, message: dict[str, Any], now: float) -> Record:
        digest = md5(message["Body"].encode(), usedforsecurity=False).hexdigest()
        if message.setdefault("MD5OfBody", digest) != digest:
            raise DamagedBody
        queue = self._queue
        attributes: Dict[str, str] = message.get("Attributes") or {}
        deliveries = int(attributes.get("ApproximateReceiveCount", 1))
        receipt = Receipt(
            id=message["MessageId"],
            handle=message["ReceiptHandle"],
            hidden_until=now + queue.visibility - self._safety,
            returns_at=now + queue.visibility,
            last=now + MOST_HIDDEN,
            received=now,
            delivery=deliveries,
        )
        if queue.fifo:
            receipt.group = attributes.get("MessageGroupId", "")
            receipt.sequence = int(attributes.get("SequenceNumber", 0))
            receipt.exhausted = deliveries >= queue.max_receives
        sent = attributes.get("SentTimestamp")
        return Record(
            id=receipt.id,
            json=record_json(message, queue.arn, queue.region),
            arrived_at=int(sent) / 1000 if sent else time.time(),
            deliveries=deliveries,
            held_until=receipt.hidden_until,
            receipt=receipt,
            trace=attributes.get("AWSTraceHeader", ""),
            traceparent=_traceparent(message.get("MessageAttributes")),
        )

    # Settling.

    async def hold(self, batch: Batch) -> tuple[Record, ...]:
        now = anyio.current_time()
        lost = tuple(record for record in batch.records if not self._receipts.holds(record.receipt, now))
        for record in lost:
            if record.receipt.state == "open":
                self._receipts.drop(record.receipt)
        if lost:
            self._log.warning("messages_lost", count=len(lost), batch_size=len(batch.records))
        return lost

    async def settle(
        self,
        done: Sequence[Record] = (),
        failed: Sequence[Record] = (),
        unstarted: Sequence[Record] = (),
        *,
        state: bytes | None = None,  # noqa: ARG002 - no position, no state
    ) -> None:
        # All of it is on its way before the first await: cancelled or not, the first word about a record counts.
        deleted = [record.receipt for record in done if self._receipts.done(record.receipt)]
        if (settling := self._spans.settling) is not None:
            for receipt in deleted:
                receipt.settling = settling
        self._deletes.put(deleted)
        self._alter([record.receipt for record in failed if self._receipts.failed(record.receipt)])
        self._release([record.receipt for record in unstarted])
        self._stir_parked()
        await cancel_shielded_checkpoint()  # the request goes out before the caller goes on: less latency
        if self._deletes.crowded:
            with held("deletes", lambda: f"{len(self._deletes)} deletes are on their way; {OUTBOX} may be"):
                await self._deletes.room()

    async def finish(self) -> None:
        """A queue never ends."""

    def waits(self) -> tuple[WaitView, ...]:
        """What waits here while runners go on."""
        return tuple(waits(self.id, self._receipts, self._queue.max_receives, anyio.current_time()))

    def _release(self, receipts: Iterable[Receipt]) -> None:
        now = anyio.current_time()
        self._alter([receipt for receipt in receipts if self._receipts.released(receipt, now)])

    def _alter(self, receipts: Iterable[Receipt]) -> None:
        """Has the visibility of each changed to what its state asks for; one change of a message at a time."""
        new = [receipt for receipt in receipts if not receipt.changing]
        for receipt in new:
            receipt.changing = True
        self._changes.put(new)

    def _send(self, request: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.start_soon(request, name="request")

    def _stir_parked(self) -> None:
        if self._receipts.parks:
            self._stirred.set()

    async def _delete(self, batch: Sequence[Receipt]) -> Sequence[Receipt]:
        """One request. Gives what is to be tried again (SQS-31)."""
        entries = [Entry(receipt, receipt.handle) for receipt in batch if receipt.state == "done"]
        with self._spans.delete(self.id, ((it.receipt.id, it.receipt.settling) for it in entries)) as span:
            verdicts = await self._ask("DeleteMessageBatch", entries, CALL_TIMEOUT)
            span.refused([fault.code for fault in verdicts if fault])
        now = anyio.current_time()
        deleted = 0
        again: list[Receipt] = []
        for (receipt, handle, _), fault in zip(entries, verdicts, strict=True):
            wanted = not receipt.stale and now < receipt.hidden_until + LATE_DELETES
            if handle != receipt.handle or (fault and fault.passing and wanted):
                again.append(receipt)
            elif fault:
                self._once.log("delete_failed", "delete_failed", error=fault.code)
                self._receipts.drop(receipt)
            else:
                deleted += receipt in self._receipts
                if twins := self._receipts.deleted(receipt):
                    self._deletes.put(twins)
        if deleted:
            self._once.end("delete_failed")
            self._meter.deleted(deleted)
        self._stir_parked()
        return again

    async def _change(self, batch: Sequence[Receipt]) -> Sequence[Receipt]:
        """One request: extensions, and messages that go back. Gives what is to be tried again."""
        now = anyio.current_time()
        entries: list[Entry] = []
        for receipt in batch:
            if receipt.state != "gone" and receipt.ours(now):
                entries.append(Entry(receipt, receipt.handle, receipt.visibility(now, self._extension)))
            else:
                self._unchanged(receipt)
        leaving = [entry.receipt.state == "leaving" for entry in entries]
        patience = min(CALL_TIMEOUT, max(1.0, self._margin))  # so that an extension can be tried again in time
        verdicts = await self._ask("ChangeMessageVisibilityBatch", entries, patience)
        again: list[Receipt] = []
        for entry, fault, was_leaving in zip(entries, verdicts, leaving, strict=True):
            receipt = entry.receipt
            outdated = entry.handle != receipt.handle or (receipt.state == "leaving" and not was_leaving)
            if outdated or (fault and fault.passing and receipt.state != "gone"):
                again.append(receipt)
            elif fault:
                self._once.log("visibility_change_failed", "visibility_change_failed", error=fault.code)
                receipt.stale = fault.stale
                receipt.last = receipt.hidden_until  # it cannot be extended any more
                self._unchanged(receipt)
            else:
                receipt.hidden_until = now + (entry.visibility or 0)
                self._once.end("visibility_change_failed")
                self._unchanged(receipt)
        return again

    def _unchanged(self, receipt: Receipt) -> None:
        """Nothing about its visibility is on its way any more."""
        receipt.changing = False
        if receipt.state == "leaving":
            self._receipts.drop(receipt)

    async def _ask(self, operation: str, entries: Sequence[Entry], timeout: float) -> Sequence[Fault | None]:
        """One batch request; its judgement of each entry."""
        if not entries:
            return ()
        params = {
            "QueueUrl": self._queue.url,
            "Entries": [entry.request(index) for index, entry in enumerate(entries)],
        }
        try:
            answer = await self._api.call(operation, params, timeout=timeout)
        except RemoteError as error:
            fault = Fault(error.code, passing=isinstance(error, PASSING), stale=False)
            return [fault] * len(entries)
        return judge(answer, len(entries))


def _traceparent(attributes: Dict[str, Dict[str, Any]] | None) -> str:
    """What OpenTelemetry's producers put beside a message; empty: nothing."""
    return attributes.get("traceparent", {}).get("StringValue", "") if attributes else ""


class DamagedBody(ValueError):
    """The MD5 of a message's body is not what the queue says."""


class Entry(NamedTuple):
    """One entry of a batch request. Its id is its index: message ids may repeat."""

    receipt: Receipt
    handle: str
    """As it was when the request was made."""
    visibility: int | None = None

    def request(self, index: int) -> dict[str, Any]:
        entry: dict[str, Any] = {"Id": str(index), "ReceiptHandle": self.handle}
        if self.visibility is not None:
            entry["VisibilityTimeout"] = self.visibility
        return entry


class Fault(NamedTuple):
    """Why an entry failed. ``passing``: it may succeed later. ``stale``: its receipt handle is no good any more."""

    code: str
    passing: bool
    stale: bool


UNANSWERED = Fault("NoVerdict", passing=True, stale=False)


def judge(answer: Dict[str, Any], count: int) -> list[Fault | None]:
    """What a batch answer says about each of ``count`` entries: none where it succeeded. An entry that it does not
    name may be tried again."""
    verdicts: list[Fault | None] = [UNANSWERED] * count
    for entry in answer.get("Successful") or ():
        if (index := int(entry["Id"])) < count:
            verdicts[index] = None
    for entry in answer.get("Failed") or ():
        if (index := int(entry["Id"])) < count:
            kind = classify(entry.get("Code", ""), 400 if entry.get("SenderFault") else 500)
            passing = issubclass(kind, PASSING)
            verdicts[index] = Fault(entry.get("Code", ""), passing, stale=issubclass(kind, Rejected))
    return verdicts
