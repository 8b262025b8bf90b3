"""Letters, and functions of the test that they are handed to: real targets, callers and rules, with a scripted stream
at one end and a handler of the test at the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping as Dict, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from bridge.destinations.report import batch_document
from bridge.executors import EXECUTORS, Surroundings
from bridge.function import Function
from bridge.invocation import Failed
from bridge.mapping import Mapping, SourceArn, StreamOptions
from bridge.pipeline.verdict import BatchReport
from bridge.record import Batch, Record
from bridge.replay.aims import Known
from bridge.replay.callers import OwnCaller
from bridge.replay.letter import Attribute, Letter, Message, read
from bridge.replay.target import Outcome, Parcel
from bridge.replay.to_function import ToFunction
from tests.callers import HandlerExecutor
from tests.sources.faulty_streams import LocalStreams

REQUEST = "c9b2c7a1-3c3d-4b8e-9d3f-1d2e3f4a5b6c"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:orders"
DLQ = "arn:aws:sqs:eu-west-1:123456789012:orders-dlq"

Handler = Callable[[Any], Any]


class Near(LocalStreams):
    """Scripted streams as ``bridge.aws.Aws``, without keys."""

    def credentials(self, *_: Any) -> None:
        return None


class World:
    """Functions whose handlers are those of the test, and mappings."""

    def __init__(self, *streams: Any) -> None:
        self.aws: Any = Near(*streams)
        self.handlers: dict[str, Handler] = {}
        self.executors: dict[str, HandlerExecutor] = {}
        self.functions: dict[str, Function] = {}
        self.mappings: dict[str, Mapping] = {}

    def function(self, name: str, handler: Handler = lambda event: None, **options: Any) -> Function:
        self.handlers[name] = handler
        made = Function(name=name, arn=f"{ARN}{name}", kind="of the test", **options)
        self.functions[name] = made
        return made

    def mapping(self, name: str, function: str, source: str, **options: Any) -> Mapping:
        """``options`` of the mapping or of its stream."""
        own = {key: options.pop(key) for key in StreamOptions.__struct_fields__ if key in options}
        arn = SourceArn.parse(source)
        stream = None if arn.service == "sqs" else StreamOptions(**own)
        made = Mapping(name=name, uuid=f"uuid-{name}", function=function, source_arn=arn, stream=stream, **options)
        self.mappings[name] = made
        return made

    @asynccontextmanager
    async def target(self, to: str = "", **known: Any) -> AsyncIterator[ToFunction]:
        def executor(settings: Function, _around: Surroundings) -> HandlerExecutor:
            own = HandlerExecutor(settings, lambda event: self.handlers[settings.name](event))
            return self.executors.setdefault(settings.name, own)

        global MADE
        MADE = executor
        EXECUTORS["of the test"] = "tests.replay.world:made"
        caller = OwnCaller(self.functions, "bridge.yaml", self.aws)
        facts = Known(mappings=self.mappings, shelf=DLQ, **known)
        async with ToFunction(caller, self.aws, facts, to) as target:
            await target.check(dry=False)
            yield target

    async def send(self, *letters: Letter, to: str = "", **known: Any) -> list[Outcome]:
        async with self.target(to, **known) as target:
            return await target.send([Parcel(letter, "token") for letter in letters])

    def events(self, function: str) -> list[Any]:
        """What it was given."""
        return [call.event for call in self.executors[function].calls] if function in self.executors else []


def made(settings: Function, around: Surroundings) -> HandlerExecutor:
    """What EXECUTORS names for functions of the test."""
    return MADE(settings, around)


MADE: Callable[[Function, Surroundings], HandlerExecutor]


def message(body: Any, texts: Dict[str, str] | None = None, *, name: str = "m", **system: str) -> Letter:
    text = body if isinstance(body, str) else json.dumps(body)
    attributes = {name: Attribute("String", value) for name, value in (texts or {}).items()}
    return read(
        Message(id=name, body=text, attributes=system, message_attributes=attributes, receipt=f"r-{name}"), None
    )


def moved(*bodies: str, queue: str = QUEUE) -> list[Letter]:
    """Messages of a queue, which its redrive policy moved."""
    return [message(body, name=f"m{n}", DeadLetterQueueSourceArn=queue) for n, body in enumerate(bodies, 1)]


def pointer(
    near: Any,
    numbers: Sequence[str],
    function: str = "worker",
    *,
    shard: str = "",
    payload: bytes = b"",
    **changes: Any,
) -> Letter:
    """What is written about a batch of records, with other members in what tells where they are."""
    partition = shard or next(iter(near.stream.shards))
    batch = Batch(tuple(Record(number, b"{}", 1_700_000_000.0) for number in numbers), partition, "retry")
    info = near.source().batch_info(batch.partition, batch.span)
    report = BatchReport(
        target="", condition="RetryAttemptsExhausted", batch=batch, function_arn=f"{ARN}{function}", mapping="m",
        attempts=3, request_id=REQUEST, at=1_700_000_000.0, outcome=Failed("function", b"{}", REQUEST),
        info={name: {**members, **changes} for name, members in info.items()}, payload=payload,
    )  # fmt: skip
    return message(batch_document(report, payload=bool(payload)).decode())


def asynchronous(
    event: Any, function: str = "worker:$LATEST", condition: str = "RetriesExhausted", **more: Any
) -> Letter:
    """DST-5."""
    context = {"requestId": REQUEST, "functionArn": f"{ARN}{function}", "condition": condition}
    record = {"version": "1.0", "timestamp": "2026-01-01T00:00:00.000Z", "requestContext": context}
    return message({**record, "requestPayload": event, **more})


def plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
