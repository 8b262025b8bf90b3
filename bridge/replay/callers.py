"""Who runs functions for a replay: a running daemon through its API, or this process by itself, as ``bridge invoke``
does."""

from __future__ import annotations

import uuid
from collections.abc import Mapping as Dict
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup, TaskStatus

from bridge.aws import Api, Aws, Credentials
from bridge.errors import NotFound, Unreachable, UsageError
from bridge.executors import Executor, Surroundings
from bridge.executors.aws_lambda import LambdaExecutor
from bridge.executors.output import OutputSink
from bridge.executors.versions import Versions
from bridge.faults import Backoff
from bridge.function import AwsSettings, Function
from bridge.invocation import Failed, Invocation, Outcome
from bridge.leash import Leash
from bridge.mapping import Mapping, SourceArn, StreamOptions
from bridge.nearest import did_you_mean
from bridge.sources import SOURCES

PATIENCE = 60.0
"""Seconds that a function may be throttled before a letter is left for this time."""
OVERTIME = 60.0
"""Seconds more than its timeout that a function behind an API may take to answer: its start counts too."""
CALL_TIMEOUT = 10.0
PAGE, MOST_MAPPINGS = 100, 10_000
LONGEST = 900.0
"""Seconds of the longest timeout that a function may have."""


class Invokes(Protocol):
    """Runs one function: an executor, or whoever stands in front of it."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """One attempt."""
        ...


class Caller(Protocol):
    """An async context manager; leaving it ends what still runs."""

    what: str
    """For people: ``the API at http://127.0.0.1:3001``."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    async def find(self, name: str, qualifier: str) -> Function:
        """The function with this name. Raises UsageError when there is none, or no such qualifier; RemoteError."""
        ...

    async def invoke(self, function: Function, payload: bytes, qualifier: str, *, mapping: str, trace: str) -> Outcome:
        """One attempt that runs; throttled ones are tried again for a minute. How the handler fares is the outcome."""
        ...


class OwnCaller:
    """Starts the functions of a configuration in this process's own children. An executor stands ready from the first
    event for it until the caller is left; it runs as many at once as the function may."""

    what = "this process"

    def __init__(self, functions: Dict[str, Function], file: str, aws: Aws, output: OutputSink | None = None) -> None:
        self._functions, self._file = functions, file
        self._aws, self._output = aws, output
        self._leash = Leash()
        self._ready: dict[str, _Slots] = {}
        self._opening = anyio.Lock()
        self._hosts: TaskGroup
        self._over: anyio.Event

    def __repr__(self) -> str:
        return f"<OwnCaller of {self._file}: {list(self._ready.values())!r}>"

    async def __aenter__(self) -> Self:
        await self._leash.__aenter__()
        self._over = anyio.Event()
        self._hosts = anyio.create_task_group()
        await self._hosts.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        try:
            await self._hosts.__aexit__(None, None, None)  # the caller's own error passes as it is, in no group
        finally:
            self._ready.clear()
            await self._leash.__aexit__(kind, error, trace)

    async def find(self, name: str, qualifier: str) -> Function:
        function = self._functions.get(name)
        if function is None:
            raise UsageError(f'{self._file} has no function "{name}"{did_you_mean(name, self._functions)}')
        if qualifier not in ("", *function.qualifiers):
            near = did_you_mean(qualifier, function.qualifiers)
            raise UsageError(f'{self._file}: the function {name} has no version or alias "{qualifier}"{near}')
        return function

    async def invoke(self, function: Function, payload: bytes, qualifier: str, *, mapping: str, trace: str) -> Outcome:
        slots = await self._slots(function)
        invocation = Invocation(payload, str(uuid.uuid4()), mapping, trace, qualifier)
        async with slots.limiter:
            return await patiently(slots.executor, invocation)

    async def _slots(self, function: Function) -> _Slots:
        async with self._opening:
            if function.name not in self._ready:
                self._ready[function.name] = await self._hosts.start(
                    self._host, function, name=f"executor of {function.name}"
                )
            return self._ready[function.name]

    async def _host(self, function: Function, *, task_status: TaskStatus[_Slots]) -> None:
        """An executor is left by the task that entered it."""
        surroundings = Surroundings(self._leash, self._aws.credentials(function.aws), self._output, self._aws)
        async with Versions(function, surroundings) as executor:
            task_status.started(_Slots(executor, function))
            await self._over.wait()


class _Slots:
    """An executor, and how many invocations it runs at once. Reserved concurrency 0 stops mappings, and not somebody
    who asks for a replay by hand."""

    def __init__(self, executor: Executor, function: Function) -> None:
        self.executor = executor
        self.limiter = anyio.Semaphore(function.concurrency or 1)

    def __repr__(self) -> str:
        return f"<{self.executor.function.name}: {self.limiter.value} free>"


class ApiCaller:
    """Asks a Lambda API, such as a running daemon's, for synchronous invocations: the concurrency and the throttling of
    whoever runs the function apply. Requests are signed with ``keys``; none: with those of the AWS chain where there
    are any."""

    def __init__(
        self, url: str, settings: AwsSettings, *, keys: Credentials | None = None, output: OutputSink | None = None
    ) -> None:
        self.url = checked_url(url)
        self.what = f"the API at {shown_url(self.url)}"
        self._settings = AwsSettings(
            region=settings.region or "us-east-1", profile=settings.profile, endpoint_url=self.url
        )
        self._keys, self._output = keys, output
        self._stack = AsyncExitStack()
        self._aws: Aws
        self._leash: Leash
        self._executors: dict[tuple[str, str], LambdaExecutor] = {}

    def __repr__(self) -> str:
        return f"<ApiCaller {shown_url(self.url)}: {len(self._executors)} functions>"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._leash = await stack.enter_async_context(Leash())
            self._aws = await stack.enter_async_context(self._signing(self._keys))
            if self._keys is None and await self._aws.credentials(self._settings).current() is None:
                self._aws = await stack.enter_async_context(self._signing(NOBODY))
            self._stack = stack.pop_all()
        return self

    def _signing(self, keys: Credentials | None) -> Aws:
        return Aws(credentials=lambda _: keys) if keys else Aws()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        while self._executors:
            _, executor = self._executors.popitem()
            await executor.__aexit__(kind, error, trace)
        return await self._stack.__aexit__(kind, error, trace)

    async def answers(self) -> bool:
        """Whether anybody is there. Raises RemoteError for what is no such API, or refuses us."""
        try:
            await (await self._api()).call("ListFunctions", {"MaxItems": 1}, timeout=CALL_TIMEOUT)
        except Unreachable:
            return False
        return True

    async def find(self, name: str, qualifier: str) -> Function:
        request = {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}
        try:
            told = await (await self._api()).call("GetFunctionConfiguration", request, timeout=CALL_TIMEOUT)
        except NotFound as error:
            raise UsageError(f"{self.what} has no such function: {error}") from None
        except Unreachable as error:
            raise Unreachable(f"{error}; is the daemon running, with api.listen set?", code=error.code) from None
        arn = ":".join(str(told["FunctionArn"]).split(":")[:7])
        timeout = float(told.get("Timeout") or LONGEST)
        return Function(name=str(told["FunctionName"]), arn=arn, kind="lambda", lambda_arn=arn, timeout=timeout)

    async def invoke(self, function: Function, payload: bytes, qualifier: str, *, mapping: str, trace: str) -> Outcome:  # noqa: ARG002 - the SDK has no parameter for a trace
        invocation = Invocation(payload, str(uuid.uuid4()), mapping, qualifier=qualifier)
        return await patiently(self._executor(function, qualifier), invocation)

    async def mappings(self) -> list[Mapping]:
        """All that there are behind the API, also those that no configuration has. Raises RemoteError."""
        api = await self._api()
        found: list[Mapping] = []
        query: dict[str, Any] = {"MaxItems": PAGE}
        while len(found) < MOST_MAPPINGS:
            answer = await api.call("ListEventSourceMappings", query, timeout=CALL_TIMEOUT)
            found += [it for told in answer.get("EventSourceMappings") or () if (it := told_mapping(told))]
            if not answer.get("NextMarker"):
                break
            query["Marker"] = answer["NextMarker"]
        return found

    def _executor(self, function: Function, qualifier: str) -> LambdaExecutor:
        key = function.arn, qualifier
        if key not in self._executors:
            asked = Function(
                name=function.name,
                arn=function.arn,
                kind="lambda",
                lambda_arn=function.qualified(qualifier),
                timeout=function.timeout + OVERTIME,
                aws=self._settings,
            )
            self._executors[key] = LambdaExecutor(asked, Surroundings(self._leash, None, self._output, self._aws))
        return self._executors[key]

    async def _api(self) -> Api:
        return await self._aws.api("lambda", self._settings)


def told_mapping(told: Dict[str, Any]) -> Mapping | None:
    """A mapping as the API tells it, as far as its rules matter for records that are handed over; none: its source is
    of a kind that is not known here."""
    try:
        arn = SourceArn.parse(told.get("EventSourceArn") or "")
    except ValueError:
        return None
    if arn.service not in SOURCES:
        return None
    _, *qualifier = str(told["FunctionArn"]).split(":")[6:]
    filters = (told.get("FilterCriteria") or {}).get("Filters") or ()
    window = float(told.get("TumblingWindowInSeconds") or 0)
    return Mapping(
        name=told["UUID"],
        uuid=told["UUID"],
        function=str(told["FunctionArn"]).split(":")[6],
        qualifier=qualifier[0] if qualifier else "",
        source_arn=arn,
        batch_size=int(told.get("BatchSize") or 1),
        patterns=tuple(it["Pattern"] for it in filters),
        partial="ReportBatchItemFailures" in (told.get("FunctionResponseTypes") or ()),
        stream=None if arn.service == "sqs" else StreamOptions(tumbling_window=window),
    )


NOBODY = Credentials("bridge", "bridge")
"""Keys for an API that asks nobody for them, since the SDK signs with some or not at all."""


async def patiently(executor: Invokes, invocation: Invocation) -> Outcome:
    """The outcome; of what was throttled that of a later try."""
    backoff = Backoff(0.5, 10.0)
    until = anyio.current_time() + PATIENCE
    while True:
        outcome = await executor.invoke(invocation)
        delay = backoff.next()
        throttled = isinstance(outcome, Failed) and outcome.kind == "throttled"
        if not throttled or anyio.current_time() + delay >= until:
            return outcome
        await anyio.sleep(delay)


def checked_url(url: str) -> str:
    """Of an API, with its scheme. Raises UsageError."""
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        known = bool(parts.hostname) and parts.scheme in ("http", "https") and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known:
        raise UsageError(f'"{url}" is no address of an API; expected such as http://127.0.0.1:3001')
    return whole


def shown_url(url: str) -> str:
    """Without what is secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
