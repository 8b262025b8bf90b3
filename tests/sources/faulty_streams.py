"""Kinesis and DynamoDB Streams of our own, which a test shapes and lets err in ways that no real server knows.

    stream = FaultyKinesis("orders", shards=2)      # or FaultyTable("orders")
    stream.put("key", "body")                       # and split, merge, roll, close, trim, forget: shard_model.py
    stream.refuse("GetRecords", "ExpiredIteratorException", "InternalFailure")  # the next two of them
    stream.cut_off("GetRecords"); stream.blank(3); stream.repeat(1); stream.expire(); stream.hides_children = True
    stream.serve(wire)                              # over HTTP (tests.wire), or
    LocalStreams(stream)                            # as bridge.aws.Aws, in the same loop, whose clock can be owned
    assert stream.rate("GetRecords", shard) <= 5    # most calls in any second

It keeps the services' rules (shard limits, iterators' lives, trimming, what follows the end of a shard) until a test
tells it not to, and gives what their JSON gives: data as base64 text, times as numbers.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping as Dict
from math import floor, inf
from typing import Any, ClassVar, NamedTuple

import anyio
import anyio.lowlevel
import botocore.session

from bridge.function import AwsSettings
from tests.sources.faulty_sqs import CutOff, LocalApi, Refused
from tests.sources.shard_model import Shard, ShardModel, Stored
from tests.wire import Answer, Request, Wire, cut, error

REGION, ACCOUNT = "eu-west-1", "123456789012"
REMEMBERED = 20_000
"""Calls that a stream can tell about; a virtual week has more."""


class Call(NamedTuple):
    """One request; ``at`` is the loop's time, ``shard`` the one that it is about."""

    operation: str
    params: Dict[str, Any]
    at: float
    shard: str


class Iterator(NamedTuple):
    """What a shard iterator says, in its own text."""

    shard: str
    number: int
    """The least sequence number that it gives."""
    at: float
    """Loop time at which it was issued."""
    serial: int

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Iterator:
        shard, number, at, serial = text.split("/")
        return cls(shard, int(number), float(at), int(serial))


class FaultyStream(ShardModel):
    """What both kinds share. Times are the loop's, except in what is read, where they are epoch seconds."""

    service: ClassVar[str]
    iterator_life: ClassVar[float]
    most_records: ClassVar[int]
    most_bytes: ClassVar[int]
    reads: float
    """GetRecords a second and shard."""
    expired, throttled, limited = "ExpiredIteratorException", "ProvisionedThroughputExceededException", ""
    """Error codes; ``limited``: of a Limit that is too large."""
    operations: ClassVar[dict[str, Callable[[Any, Dict[str, Any]], Awaitable[dict[str, Any]]]]]

    def __init__(self, name: str = "orders", shards: int = 1, **model: Any) -> None:
        self.name = name
        self.there = True
        """False: no such stream."""
        self.latency = 0.0
        """Seconds that each answer takes after its request was carried out."""
        self.travel: Callable[[], float] | None = None
        """Gives the seconds that each request takes before that."""
        self.shards_a_page = 100
        self.hides_children = False
        """GetRecords does not tell what follows the end of a shard."""
        self.never_ends = False
        """GetRecords of a shard that is read to its end gives one more iterator for ever (KIN-112)."""
        self.calls: deque[Call] = deque(maxlen=REMEMBERED)
        self.counts: Counter[str] = Counter()
        """All calls, by operation."""
        self._refusals: dict[str, list[tuple[str, str]]] = {}
        self._cuts: Counter[str] = Counter()
        self._delays: dict[str, list[float]] = {}
        self._hangs: set[str] = set()
        self._blanks: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._hidden: list[float] = []
        self._serial = 0
        self._valid_from = 0
        self._recent: dict[tuple[str, str], deque[float]] = {}
        self._quiet_until: dict[str, float] = {}
        self._changed = anyio.Event()
        super().__init__(shards, **model)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self.open)} of {len(self.shards)} shards are open>"

    # What a test does and sees.

    @property
    def arn(self) -> str:
        raise NotImplementedError

    def refuse(self, operation: str, *codes: str, shard: str = "") -> None:
        """The next requests of the operation (about this shard only) fail, one for each code."""
        self._refusals.setdefault(operation, []).extend((code, shard) for code in codes)

    def cut_off(self, operation: str, times: int = 1) -> None:
        """The next ones are carried out, but their answers do not arrive."""
        self._cuts[operation] += times

    def slow(self, operation: str, *seconds: float) -> None:
        """The next answers take so long."""
        self._delays.setdefault(operation, []).extend(seconds)

    def hang(self, operation: str) -> None:
        """No answers from now on."""
        self._hangs.add(operation)

    def allow(self, operation: str) -> None:
        """Takes back what ``refuse`` and ``hang`` said."""
        self._refusals.pop(operation, None)
        self._hangs.discard(operation)

    def expire(self) -> None:
        """All iterators that were handed out so far have expired."""
        self._valid_from = self._serial + 1

    def blank(self, times: int = 1, *, shard: str = "") -> None:
        """The next reads give nothing, although something follows (KIN-13)."""
        self._blanks[shard] += times

    def repeat(self, times: int = 1, *, shard: str = "") -> None:
        """The next pages come twice: what they say to read on with gives the same records again."""
        self._repeats[shard] += times

    def hide(self, *shares: float) -> None:
        """The next listings, every second one of them, lack one shard, that at this share of them."""
        for share in shares:
            self._hidden += [share, -1.0]

    def complete(self, shards: list[Shard]) -> list[Shard]:
        """What of them a listing has."""
        if not self._hidden or len(shards) < 2:
            return shards
        missing = floor(self._hidden.pop(0) * len(shards))
        return [shard for number, shard in enumerate(shards) if number != missing]

    def of(self, operation: str, shard: str = "") -> list[Call]:
        return [call for call in self.calls if call.operation == operation and shard in ("", call.shard)]

    def rate(self, operation: str, shard: str = "", *, seconds: float = 1.0) -> int:
        """The most calls that came within so many seconds."""
        recent: deque[float] = deque()
        most = 0
        for call in self.of(operation, shard):
            while recent and recent[0] <= call.at - seconds:
                recent.popleft()
            recent.append(call.at)
            most = max(most, len(recent))
        return most

    async def asked(self, operation: str, count: int = 1, *, shard: str = "", within: float = 60.0) -> list[Call]:
        """Returns when ``count`` requests of the operation have come."""
        with anyio.fail_after(within):
            while len(self.of(operation, shard)) < count:
                await self._changed.wait()
        return self.of(operation, shard)

    def changed(self) -> None:
        event, self._changed = self._changed, anyio.Event()
        event.set()

    # What a client sees.

    def serve(self, wire: Wire) -> None:
        """Answers all operations of a wire from now on."""

        async def answer(request: Request) -> Answer | dict[str, Any]:
            try:
                return await self.handle(request.operation, request.params)
            except Refused as refused:
                return error(refused.code, status=500 if refused.code.startswith(("Internal", "Service")) else 400)
            except CutOff as lost:
                return cut(lost.answer)

        for operation in self.operations:
            wire.on(operation, answer)

    async def handle(self, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        """Raises Refused or CutOff instead of answering."""
        about = params.get("ShardId") or str(params.get("ShardIterator", "")).partition("/")[0]
        self.calls.append(Call(operation, params, anyio.current_time(), about))
        self.counts[operation] += 1
        self.changed()
        await anyio.sleep(self.travel() if self.travel else 0)
        if operation in self._hangs:
            await anyio.sleep_forever()
        self._refuse_as_scripted(operation, about)
        self.age()
        answer = await self.operations[operation](self, params)
        delays = self._delays.get(operation)
        if delay := delays.pop(0) if delays else self.latency:
            await anyio.sleep(delay)
        if self._cuts[operation]:
            self._cuts[operation] -= 1
            raise CutOff(answer)
        return answer

    def _refuse_as_scripted(self, operation: str, about: str) -> None:
        scripted = self._refusals.get(operation, ())
        for entry in scripted:
            if entry[1] in ("", about):
                self._refusals[operation].remove(entry)
                raise Refused(entry[0])
        if not self.there:
            raise Refused("ResourceNotFoundException")

    def shard(self, name: str) -> Shard:
        if name not in self.shards:
            raise Refused("ResourceNotFoundException")
        return self.shards[name]

    def issue(self, shard: Shard, number: int) -> str:
        """A new iterator."""
        self._serial += 1
        return str(Iterator(shard.id, number, anyio.current_time(), self._serial))

    def count_against(self, operation: str, shard: str, most: float, code: str) -> None:
        """Refuses what is more than so many calls in a second."""
        now = anyio.current_time()
        recent = self._recent.setdefault((operation, shard), deque())
        while recent and recent[0] <= now - 1:
            recent.popleft()
        if len(recent) >= most:
            raise Refused(code)
        recent.append(now)

    def start(self, shard: Shard, kind: str, number: str | None, at: float | None) -> int:
        """The least sequence number that an iterator of this type gives."""
        match kind:
            case "TRIM_HORIZON":
                return shard.horizon
            case "LATEST":
                return self.next_number(shard) if shard.last is None else shard.last + 1
            case "AT_TIMESTAMP":
                assert isinstance(at, int | float)
                later = (record.number for record in shard.records if record.at >= at)
                return next(later, self.start(shard, "LATEST", None, None))
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER":
                assert isinstance(number, str)
                return int(number) + (kind == "AFTER_SEQUENCE_NUMBER")
        raise Refused("ValidationException")

    def read(self, params: Dict[str, Any]) -> tuple[Shard, list[Stored], str | None]:
        """A page, and the iterator that continues it: none at the end of a closed shard."""
        limit = params.get("Limit", self.most_records)
        if not 1 <= limit <= self.most_records:
            raise Refused(self.limited)
        iterator = Iterator.parse(params["ShardIterator"])
        shard = self.shard(iterator.shard)
        if self._quiet_until.get(shard.id, -inf) > anyio.current_time():
            raise Refused(self.throttled)
        self.count_against("GetRecords", shard.id, self.reads, self.throttled)
        if anyio.current_time() - iterator.at > self.iterator_life or iterator.serial < self._valid_from:
            raise Refused(self.expired)
        number = self.past_the_trimmed(shard, iterator.number)
        page = self._page(shard, number, limit)
        if page and self._scripted(self._blanks, shard.id):
            return shard, [], self.issue(shard, number)
        if page and self._scripted(self._repeats, shard.id):
            return shard, page, self.issue(shard, number)
        number = page[-1].number + 1 if page else number
        ended = shard.last is not None and shard.since(number) == len(shard.records) and not self.never_ends
        return shard, page, None if ended else self.issue(shard, number)

    def past_the_trimmed(self, shard: Shard, number: int) -> int:
        """Where a read that starts at ``number`` goes on if that is not there any more."""
        raise NotImplementedError

    def _page(self, shard: Shard, number: int, limit: int) -> list[Stored]:
        page: list[Stored] = []
        size = 0
        begin = shard.since(number)
        for record in shard.records[begin : begin + limit]:
            size += record.size
            if page and size > self.most_bytes:
                break
            page.append(record)
        return page

    def _scripted(self, times: Counter[str], shard: str) -> bool:
        for name in (shard, ""):
            if times[name]:
                times[name] -= 1
                return True
        return False

    def quiet(self, shard: Shard, seconds: float) -> None:
        """Its throughput is used up: reads are refused for so long."""
        self._quiet_until[shard.id] = anyio.current_time() + seconds


def sdk_knows_times(stream: FaultyStream) -> bool:
    """Whether the SDK that is installed can ask for a time in it (DDB-7)."""
    model = botocore.session.get_session().get_service_model(stream.service)
    return "Timestamp" in model.operation_model("GetShardIterator").input_shape.members


class LocalStreams:
    """``bridge.aws.Aws`` for streams, and whatever else has such a ``handle``, in the same loop."""

    def __init__(self, *streams: FaultyStream, **others: Any) -> None:
        self._apis = {stream.service: LocalApi(stream) for stream in streams}
        self._apis |= {service: LocalApi(server) for service, server in others.items()}

    async def api(self, service: str, settings: AwsSettings, region: str | None = None) -> LocalApi:
        return self._apis[service]

    async def renew(self, service: str, settings: AwsSettings, region: str | None = None) -> None:
        await anyio.lowlevel.checkpoint()
