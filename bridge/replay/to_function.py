"""Functions as the target of a replay: what a letter stands for is handed to its function, or to another one, as the
mapping would hand it over. A letter of which the function took everything may be deleted; every other one stays."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from math import inf
from types import TracebackType
from typing import Self, TypeVar

import anyio

from bridge.aws import Aws
from bridge.errors import BridgeError, NotFound, UsageError
from bridge.invocation import Outcome as Invoked, Succeeded
from bridge.lineage import joined
from bridge.mapping import SourceArn
from bridge.pipeline.batcher import PAYLOAD_LIMIT, Batcher
from bridge.record import Record
from bridge.replay.aims import Aim, Aims, Known, whose
from bridge.replay.callers import Caller
from bridge.replay.documents import Pointer
from bridge.replay.handing import Attempt, Handed, Invoke, Terms, attempt, failed, hand_over, stored
from bridge.replay.letter import Letter
from bridge.replay.messages import record
from bridge.replay.pointers import Expired, Reading, Stream
from bridge.replay.target import Outcome, Parcel, Refused, Sent
from bridge.sources.streams import StreamSource

T = TypeVar("T")

MOST_AT_ONCE = 10
"""Messages in one event."""
CONNECT_TIMEOUT = 30.0
"""Seconds until a stream that does not answer is given up for this letter."""
EXPIRED = "expired: the stream does not keep its records any more"
EXPIRED_IN_PART = "expired in part: the stream does not keep all of its records any more"
TOO_LARGE = "too large for an event of a function"


class Left(BridgeError):
    """The letter stays. The message is the reason; ``detail`` is about this letter alone."""

    def __init__(self, reason: str, detail: str = "", *, for_good: bool = True) -> None:
        super().__init__(reason)
        self.detail, self.for_good = detail, for_good


class ToFunction:
    """A ``Target``. An async context manager, around its caller. ``function`` (NAME, NAME:QUALIFIER or an ARN) is the
    one for all letters; empty: each goes to its own."""

    def __init__(self, caller: Caller, aws: Aws, known: Known, function: str = "") -> None:
        self._caller, self._known = caller, known
        self._aims = Aims(caller, aws, known, function)
        self._streams: dict[str, Stream] = {}
        self._connecting = anyio.Lock()
        self.name = f"function {function or 'of each letter'} through {caller.what}"
        mapping = known.mapping
        batches = mapping is not None and mapping.partial and mapping.stream is None
        self.most = min(MOST_AT_ONCE, mapping.batch_size) if mapping is not None and batches else 1
        """A batch of messages fails as a whole, unless its mapping reads which of them did."""

    def __repr__(self) -> str:
        return f"<ToFunction {self.name}>"

    async def __aenter__(self) -> Self:
        await self._caller.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._caller.__aexit__(kind, error, trace)

    def arn(self, letter: Letter) -> str:
        if letter.kind != "plain":
            return self._aims.arn(letter.origin.function_arn, self._known.function)
        queue = self._queue(letter)
        mapping = self._aims.mapping(SourceArn.parse(queue), "") if queue else None
        return self._aims.arn("", whose(mapping) or self._known.function)

    async def check(self, *, dry: bool) -> None:  # noqa: ARG002 - a look at the function changes nothing
        if aim := await self._aims.usual():
            self.name = f"function {aim.arn} through {self._caller.what}"

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        messages: list[Letter] = []
        for letter in [parcel.letter for parcel in parcels]:
            if letter.kind == "plain" and not letter.hindrance:
                messages.append(letter)
                continue
            outcomes += await self._messages(messages)
            messages = []
            outcomes.append(await _or_left(partial(self._document, letter)))
        return outcomes + await self._messages(messages)

    async def _document(self, letter: Letter) -> Outcome:
        if letter.hindrance:
            raise Left(letter.hindrance)
        return await (self._event(letter) if letter.kind == "async" else self._records(letter))

    def _invoke(self, aim: Aim, mapping: str) -> Invoke:
        async def invoke(event: bytes, trace: str) -> Invoked:
            return await self._caller.invoke(aim.function, event, aim.qualifier, mapping=mapping, trace=trace)

        return invoke

    # Asynchronous events.

    async def _event(self, letter: Letter) -> Outcome:
        aim = await self._aims.of(letter.origin.function_arn, self._known.function)
        event = letter.document.event
        if len(event) > PAYLOAD_LIMIT:  # INV-8
            raise Left(TOO_LARGE, f"{len(event)} bytes; the most is {PAYLOAD_LIMIT}")
        header = letter.message.attributes.get("AWSTraceHeader", "")
        trace = joined([header], aim.function.arn, letter.at or 0.0) if header else ""
        outcome = await self._invoke(aim, "")(event, trace)
        if isinstance(outcome, Succeeded):
            return Sent(outcome.request_id, aim.arn)
        return _refused(failed(outcome), aim)

    # Messages of queues.

    async def _messages(self, letters: Sequence[Letter]) -> list[Outcome]:
        """Those of one queue that follow one another go together."""
        outcomes: list[Outcome] = []
        start = 0
        queues = [self._queue(letter) for letter in letters]
        for end in range(1, len(letters) + 1):
            if end == len(letters) or queues[end] != queues[start]:
                run, queue = letters[start:end], queues[start]
                made = await _or_left(partial(self._batch, queue, run))
                outcomes += [made] * len(run) if isinstance(made, Refused) else made
                start = end
        return outcomes

    def _queue(self, letter: Letter) -> str:
        """The ARN of the queue that it was in; of a message that does not say it, the mapping's, else of where it lies;
        empty: nobody knows."""
        own = self._known.mapping
        arns = letter.origin.source_arn, str(own.source_arn) if own else "", self._known.shelf
        return next((arn for arn in arns if _is_queue(arn)), "")

    async def _batch(self, queue: str, letters: Sequence[Letter]) -> list[Outcome]:
        if not queue:
            raise Left("nobody says which queue the message was in, so that its event cannot be made")
        arn = SourceArn.parse(queue)
        await self._aims.learn()
        mapping = self._aims.mapping(arn, "")
        aim = await self._aims.of("", whose(mapping) or self._known.function)
        terms = self._aims.terms(aim, mapping, arn)
        records = [record(letter, arn) for letter in letters]
        batcher = Batcher(queue, self.most, inf)
        batcher.add(terms.kept(records), 0.0)
        fates: dict[int, Outcome] = {}
        for batch in batcher.flush():
            done = await attempt(batch, terms, self._invoke(aim, terms.mapping.name), {})
            fates |= {id(it): _refused(done, aim) for it in batch.records}
            fates |= {id(it): Sent(done.request_id, aim.arn) for it in done.done}
        return [fates.get(id(it), _filtered(terms, aim)) for it in records]

    # Records of streams.

    async def _records(self, letter: Letter) -> Outcome:
        found = letter.document
        pointer = found.pointer
        if pointer is None:
            raise Left("it does not say where its records are")
        await self._aims.learn()
        mapping = self._aims.mapping(pointer.stream, found.function)
        aim = await self._aims.of(found.function, whose(mapping))
        if found.event:
            return await self._stored(letter, pointer, aim)
        if mapping and mapping.stream and mapping.stream.tumbling_window and not aim.chosen:
            raise Left(
                f"the mapping {mapping.name} has tumbling windows, whose state cannot be made again; name a function"
                " that takes single records with --to function:NAME"
            )
        terms = self._aims.terms(aim, mapping, pointer.stream)
        reading = Reading(await self._stream(terms), pointer)
        async with aclosing(reading.pages()) as pages:
            known = pages if terms.known else _no_more_than(pages, pointer)
            invoke = self._invoke(aim, terms.mapping.name)
            handed = await hand_over(known, pointer.shard, terms, invoke, most=terms.mapping.batch_size)
        return _told(handed, pointer, aim, terms, whole=reading.whole)

    async def _stored(self, letter: Letter, pointer: Pointer, aim: Aim) -> Outcome:
        """KIN-85: with the members of its window, if it was of one."""
        try:
            records, extra = stored(letter.document.event, pointer.stream.service)
        except ValueError as error:
            raise Left("its payload is no event of a stream", str(error)) from None
        mapping = self._aims.mapping(pointer.stream, letter.document.function)
        terms = self._aims.terms(aim, mapping, pointer.stream, windowed="window" in extra)
        invoke = self._invoke(aim, terms.mapping.name)
        most = len(records) or 1
        handed = await hand_over(_once(records), pointer.shard, terms, invoke, most=most, extra=extra)
        return _told(handed, pointer, aim, terms, whole=True)

    async def _stream(self, terms: Terms) -> Stream:
        source = terms.source
        assert isinstance(source, StreamSource)  # noqa: S101 - a pointer tells of a stream
        key = f"{terms.mapping.uuid} {source.stream_arn}"
        async with self._connecting:
            if key not in self._streams:
                try:
                    with anyio.fail_after(CONNECT_TIMEOUT):
                        self._streams[key] = Stream(await source.connect())
                except TimeoutError:
                    raise Left(f"the stream {source.stream_arn} does not answer", for_good=False) from None
                except NotFound as error:
                    raise Left(f"the stream {source.stream_arn} does not exist any more", str(error)) from None
            return self._streams[key]


async def _or_left(work: Callable[[], Awaitable[T]]) -> T | Refused:
    """What keeps a letter where it is becomes the reason."""
    try:
        return await work()
    except Left as left:
        return Refused(str(left), left.for_good, alone=left.for_good, detail=left.detail)
    except Expired as error:
        return Refused(EXPIRED, True, alone=True, detail=str(error))
    except BridgeError as error:
        return Refused(str(error), isinstance(error, UsageError | NotFound))


def _is_queue(arn: str) -> bool:
    try:
        return SourceArn.parse(arn).service == "sqs"
    except ValueError:
        return False


def _filtered(terms: Terms, aim: Aim) -> Refused:
    why = f"the filter of mapping {terms.mapping.name} does not let it through"
    return Refused(why, sender_fault=True, alone=True, target=aim.arn)


def _refused(done: Attempt, aim: Aim) -> Refused:
    return Refused(done.failure, target=aim.arn, maybe_sent=done.lost, detail=done.detail)


async def _once(records: Sequence[Record]) -> AsyncGenerator[Sequence[Record]]:
    yield records


async def _no_more_than(
    pages: AsyncGenerator[tuple[Record, ...]], pointer: Pointer
) -> AsyncGenerator[Sequence[Record]]:
    """All of them at once, unless there are more than the letter says. Raises Left then: those between may have been
    filtered out, or be of other lanes, which only the mapping knows (REPLAY-5)."""
    found: list[Record] = []
    async for page in pages:
        found += page
        if len({it.id for it in found}) > pointer.records:
            raise Left(
                "more records lie between its first and its last one than it says, and its mapping, which would tell"
                " them apart, is not known: name its configuration with -c, or its daemon with --api"
            )
    yield found


def _told(handed: Handed, pointer: Pointer, aim: Aim, terms: Terms, *, whole: bool) -> Outcome:
    """What became of a letter about records."""
    last = handed.last
    if last.failure and handed.done:
        detail = f"the function took {handed.done} of {pointer.records} records" + (
            f"; {last.detail}" if last.detail else ""
        )
        return Refused(f"in part: {last.failure}", target=aim.arn, maybe_sent=True, detail=detail)
    if last.failure:
        return _refused(last, aim)
    if not whole:
        detail = f"the function took the {handed.done} that are left of {pointer.records} records"
        return Refused(EXPIRED_IN_PART, True, aim.arn, maybe_sent=handed.done > 0, alone=True, detail=detail)
    if not handed.matched:
        return _filtered(terms, aim)
    detail = (
        ""
        if handed.done == pointer.records
        else f"the function took {handed.done} records; the letter says {pointer.records}"
    )
    return Sent(last.request_id, aim.arn, maybe_twice=handed.done > pointer.records, detail=detail)
