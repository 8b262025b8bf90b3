"""AWS behind one small interface: a client per service, region, endpoint and identity, whose errors are ours. Nothing
else in bridge knows the SDK (aws_sdk.py) or the client of the hot operations (aws_fast.py); they are imported at first
use."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping as Dict
from datetime import datetime
from functools import cache
from importlib import import_module
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

import msgspec

from bridge.errors import ExpiredCredentials, OddAnswer, RemoteError, Unreachable
from bridge.faults import fault, translate
from bridge.function import AwsSettings

if TYPE_CHECKING:
    from bridge.aws_fast import Clock
    from bridge.aws_sdk import SdkClient
    from bridge.telemetry.metrics import ApiMeter

T = TypeVar("T")

OPEN_TIMEOUT = 30.0
"""For finding credentials and making a client."""
RENEW_PAUSE = 1.0
"""Clients of expired credentials are made anew at most this often."""
NO_FILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""Session variables of the SDK: whose credentials are given shall not fail for a profile of somebody else."""


class Api(Protocol):
    """One service at one endpoint with one identity; may be called concurrently, for the life of the process."""

    async def call(self, operation: str, params: Dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """One request, without a retry; ``timeout`` is the deadline for all of it.

        ``operation`` is AWS's name (``ReceiveMessage``). Of services that speak JSON the answer is the JSON as it came:
        blobs stay base64 text, times stay numbers; the Records of GetRecords are not read at all but ``msgspec.Raw``. A
        blob that is the whole body (Invoke's Payload) is bytes, one more than a function may answer at most. In
        ``params`` blobs are bytes and times epoch seconds. Raises RemoteError
        and nothing else.
        """
        ...

    def events(self, operation: str, params: Dict[str, Any], *, timeout: float) -> AsyncGenerator[dict[str, Any]]:
        """One request whose answer is a stream of events, each ``{name: members}`` with members as in ``call``'s
        answers. ``timeout`` is the deadline for the beginning of the answer. Who stops early closes it; who is slow
        slows the service down. Raises RemoteError and nothing else."""
        ...

    def now(self) -> float | None:
        """Epoch seconds by the service's own clock as of its last answer, in whole seconds, rounded down; none where it
        did not tell."""
        ...


class Credentials(msgspec.Struct, frozen=True):
    """Keys of AWS. ``expiry`` (aware) none: they do not expire. Never shown."""

    access_key: str
    secret_key: str
    token: str | None = None
    expiry: datetime | None = None

    def __repr__(self) -> str:
        return f"<Credentials, {f'until {self.expiry.isoformat()}' if self.expiry else 'constant'}>"


class Place(NamedTuple):
    """What is in force for one client, to be shown."""

    service: str
    region: str
    endpoint: str
    identity: str


class Aws:
    """All clients of the process. An async context manager; leaving it closes them.

    ``meter`` counts the requests. ``credentials`` replaces the usual chain of environment and profile, for an endpoint
    that knows its callers without one.
    """

    def __init__(
        self,
        meter: ApiMeter | None = None,
        *,
        credentials: Callable[[AwsSettings], Credentials] | None = None,
    ) -> None:
        self._meter = meter
        self._given = credentials
        self._apis: dict[tuple[object, ...], ServiceApi] = {}
        self._identities: dict[tuple[object, ...], _Identity] = {}

    def __repr__(self) -> str:
        return f"<Aws: {len(self._apis)} clients of {len(self._identities)} identities>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for api in self._apis.values():
            await api.close()

    async def api(self, service: str, settings: AwsSettings, region: str | None = None) -> Api:
        """The same object for the same service, endpoint, identity and region (none: the settings', else the chain's).

        Raises RemoteError when there are no credentials, or the settings make no client; asks the service nothing.
        """
        api = self._api(service, settings, region)
        await api.open()
        return api

    async def renew(self, service: str, settings: AwsSettings, region: str | None = None) -> None:
        """The next call is made by a new client with new connections; calls in flight end on the old one."""
        await self._api(service, settings, region).renew()

    def credentials(self, settings: AwsSettings, region: str | None = None) -> CredentialSource:
        """The credentials that calls with these settings are signed with, for somebody else's calls."""
        return CredentialSource(self._identity(settings, region or settings.region))

    def describe(self) -> tuple[Place, ...]:
        """What is in force: one entry per client made so far."""
        return tuple(api.place for api in self._apis.values() if api.opened)

    def place(self, service: str, settings: AwsSettings, region: str | None = None) -> Place:
        """What is in force for the client that ``api`` gives for the same; what is configured before its first call."""
        return self._api(service, settings, region).place

    def _api(self, service: str, settings: AwsSettings, region: str | None) -> ServiceApi:
        region = region or settings.region
        endpoint = settings.endpoint_urls.get(service) or settings.endpoint_url
        identity = self._identity(settings, region)
        fast = settings.client != "sdk"
        key = (service, region, endpoint, identity, fast)
        if key not in self._apis:
            place = Place(service, region or "", endpoint or "", identity.name)
            self._apis[key] = ServiceApi(place, identity, self._meter, fast=fast)
        return self._apis[key]

    def _identity(self, settings: AwsSettings, region: str | None) -> _Identity:
        given = self._given(settings) if self._given else None
        if given or not settings.role_arn:
            return self._identities.setdefault((settings.profile, given), _Identity(settings.profile, given))
        source = msgspec.structs.replace(settings, role_arn=None)
        endpoint = settings.endpoint_urls.get("sts") or settings.endpoint_url
        role = _Role(settings.role_arn, lambda: self.api("sts", source, region))
        key = (settings.profile, role.arn, region, endpoint)
        return self._identities.setdefault(key, _Identity(settings.profile, None, role))


class CredentialSource:
    """Current credentials, for programs that call AWS on our behalf."""

    def __init__(self, identity: _Identity) -> None:
        self._identity = identity

    async def current(self) -> Credentials | None:
        """Valid now, renewed before they expire; none when the chain has none. Raises RemoteError."""
        return await _attempt(self._identity.credentials(), f"credentials of {self._identity.name}", "their source")


class ServiceApi:
    """``Api`` by the SDK; its hot operations by the fast client, unless ``fast`` is false or the service turns out to
    answer in another way."""

    def __init__(self, place: Place, identity: _Identity, meter: ApiMeter | None, *, fast: bool) -> None:
        from asyncio import Lock, timeout

        self.place = place._replace(endpoint=_without_user(place.endpoint))
        self._configured = place
        self._identity = identity
        self._meter = meter
        self._clock: Clock | None = None
        self._fast = fast
        self._lock = Lock()
        self._within = timeout
        self._client: SdkClient | None = None
        self._renewed_at = float("-inf")
        self._date = ""

    def __repr__(self) -> str:
        way = "fast" if self._fast else "sdk"
        return f"<ServiceApi {' '.join(filter(None, self.place))}, {way}: {self._client or 'no client'}>"

    async def call(self, operation: str, params: Dict[str, Any], *, timeout: float) -> dict[str, Any]:
        began = perf_counter()
        code = "Cancelled"
        client = None
        deadline = self._within(timeout)
        try:
            async with deadline:
                client = self._client or await self._open()
                client.calls += 1
                answer = await self._ask(client, operation, params)
            code = "OK"
        except Exception as error:
            failure = await self._failed(error, operation, client, timeout if deadline.expired() else None)
            code = failure.code
            if failure is error:
                raise
            raise failure from error
        finally:
            await self._done(client)
            self._measure(operation, code, began)
        return answer

    async def events(self, operation: str, params: Dict[str, Any], *, timeout: float) -> AsyncGenerator[dict[str, Any]]:
        from contextlib import aclosing

        began = perf_counter()
        client = None
        deadline = self._within(timeout)
        try:
            async with deadline:
                client = self._client or await self._open()
                client.calls += 1
                stream = await client.events(operation, params)
            self._measure(operation, "OK", began)
            async with aclosing(stream):
                async for event in stream:
                    yield event
        except Exception as error:
            failure = await self._failed(error, operation, client, timeout if deadline.expired() else None)
            self._measure(operation, failure.code, began)
            raise failure from error
        finally:
            await self._done(client)

    async def _failed(
        self, error: Exception, operation: str, client: SdkClient | None, limit: float | None
    ) -> RemoteError:
        failure = _failure(error, f"{self.place.service} {operation}", self.place.endpoint, limit)
        self._note(failure, operation)
        if isinstance(failure, ExpiredCredentials):
            await self._expire(client)
        return failure

    async def _done(self, client: SdkClient | None) -> None:
        if client is not None:
            client.calls -= 1
            if client.retired:
                await client.close()

    def _measure(self, operation: str, code: str, began: float) -> None:
        if self._meter is not None:
            self._meter.observe(self.place.service, operation, code, perf_counter() - began)

    async def _ask(self, client: SdkClient, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        fast = client.fast if self._fast else None
        if fast is not None and operation in fast.operations:
            began = perf_counter()
            try:
                answer = await fast.call(operation, params)
            except OddAnswer as odd:
                self._give_up_fast(operation, odd, perf_counter() - began)
            else:
                self._date = fast.date
                return answer
        answer = await client.call(operation, params)
        meta = answer.pop("ResponseMetadata", {})
        self._date = meta.get("HTTPHeaders", {}).get("date", "")
        return answer

    def now(self) -> float | None:
        from email.utils import parsedate_to_datetime

        try:
            return parsedate_to_datetime(self._date).timestamp()
        except ValueError:
            return None

    @property
    def opened(self) -> bool:
        """Whether there is a client at the moment."""
        return self._client is not None

    async def open(self) -> None:
        """Makes the client unless there is one."""
        if self._client is None:
            await _attempt(self._open(), f"{self.place.service} client of {self._identity.name}", self.place.endpoint)

    async def renew(self) -> None:
        """The next call makes a new client; the present one is closed when its last call is over."""
        client, self._client = self._client, None
        if client is not None:
            client.retired = True
            await client.close()

    async def close(self) -> None:
        """Closes the client, its calls in flight included."""
        client, self._client = self._client, None
        if client is not None:
            await client.close(at_once=True)

    async def _open(self) -> SdkClient:
        from bridge.station import held

        with held("credentials", f"a client of {self.place.service}, with the keys of {self._identity.name}"):
            return await self._opened()

    async def _opened(self) -> SdkClient:
        async with self._lock:
            if self._client is None:
                session = await self._identity.session()
                try:
                    self._client = await self._new(session)
                except BaseException:
                    self._identity.forget(session)  # what it read of files and environment may be mended by then
                    raise
                region, endpoint = self._client.region, _without_user(self._client.endpoint)
                self.place = self._configured._replace(region=region, endpoint=endpoint)
            return self._client

    async def _new(self, session: Any) -> SdkClient:
        from bridge.aws_fast import Clock
        from bridge.aws_sdk import SdkClient

        self._clock = self._clock or Clock()
        service, region, endpoint, _ = self._configured
        return await SdkClient.open(session, service, region, endpoint, clock=self._clock if self._fast else None)

    async def _expire(self, client: SdkClient | None) -> None:
        """Forgets the client and the identity's session, unless somebody did already or has just done."""
        now = perf_counter()
        if client is None or client is not self._client or now - self._renewed_at < RENEW_PAUSE:
            return
        self._renewed_at = now
        self._identity.forget(client.session)
        await self.renew()

    def _give_up_fast(self, operation: str, odd: OddAnswer, seconds: float) -> None:
        """For good: what answers like this is no AWS, or something stands in between."""
        from structlog import get_logger

        if self._meter is not None:
            self._meter.observe(self.place.service, operation, "OddAnswer", seconds)
        if self._fast:
            self._fast = False
            detail = f"{self.place.endpoint} answered {operation} by {odd}: from now on the SDK asks it"
            get_logger().warning("fast_client_given_up", service=self.place.service, detail=detail)

    def _note(self, failure: RemoteError, operation: str) -> None:
        from structlog import get_logger

        fields = {"aws_request_id": failure.request_id} if failure.request_id else {}
        get_logger().debug(
            "request_failed", service=self.place.service, operation=operation, error=failure.code, **fields
        )


class _Identity:
    """Who we are: a session of the SDK, which finds and refreshes credentials."""

    def __init__(self, profile: str | None, given: Credentials | None, role: _Role | None = None) -> None:
        self._profile = profile
        self._given = given
        self._role = role
        self._session: Any = None

    @property
    def name(self) -> str:
        """For people."""
        if self._given:
            return self._given.access_key
        chain = self._profile or "the default chain"
        return f"{chain} as {self._role.arn}" if self._role else chain

    async def session(self) -> Any:
        """The present one, started when there is none."""
        from anyio.to_thread import run_sync

        await run_sync(import_module, "bridge.aws_sdk")  # half a second, which the event loop can use
        if self._session is None:
            self._session = self._start()
        return self._session

    def forget(self, session: Any) -> None:
        """Starts another one next time, unless that has happened already."""
        if self._session is session:
            self._session = None

    def _start(self) -> Any:
        import logging

        from aiobotocore.session import AioSession

        from bridge.aws_sdk import leave_as_written

        # It logs a traceback each time that a refresh fails, which we raise or need not know.
        logging.getLogger("aiobotocore.credentials").setLevel(logging.ERROR)
        if self._given:
            session = AioSession(session_vars=NO_FILES)
            session.set_credentials(self._given.access_key, self._given.secret_key, self._given.token)
        else:
            session = AioSession(profile=self._profile)
        if self._role:
            session.register_component("credential_provider", self._role)
        session.register_component("data_loader", _models())
        leave_as_written(session)
        return session

    async def credentials(self) -> Credentials | None:
        """Valid now; none when there are none."""
        session = await self.session()
        found = await session.get_credentials()
        if found is None:
            self.forget(session)
            return None
        frozen = await found.get_frozen_credentials()
        expiry = getattr(found, "_expiry_time", None)  # the SDK has no public name for it
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token, expiry)


class _Role:
    """Finds credentials for the SDK by assuming a role."""

    def __init__(self, arn: str, sts: Callable[[], Awaitable[Api]]) -> None:
        self.arn = arn
        self._sts = sts

    async def load_credentials(self) -> Any:
        from aiobotocore.credentials import AioDeferredRefreshableCredentials

        return AioDeferredRefreshableCredentials(self._assume, "assume-role")

    async def _assume(self) -> dict[str, str]:
        sts = await self._sts()
        request = {"RoleArn": self.arn, "RoleSessionName": "bridge"}
        answer = (await sts.call("AssumeRole", request, timeout=OPEN_TIMEOUT))["Credentials"]
        names = {"access_key": "AccessKeyId", "secret_key": "SecretAccessKey", "token": "SessionToken"}
        return {name: answer[theirs] for name, theirs in names.items()} | {
            "expiry_time": answer["Expiration"].isoformat()
        }


@cache
def _models() -> Any:
    """The SDK's descriptions of the services: 50 ms of the event loop and megabytes for each session, were they not
    shared."""
    from botocore.loaders import create_loader

    return create_loader(os.environ.get("AWS_DATA_PATH"))


def service_model(service: str, version: str) -> dict[str, Any]:
    """The SDK's description of a service: operations and shapes, as its makers ship it."""
    model: dict[str, Any] = _models().load_service_model(service, "service-2", version)
    return model


async def _attempt(work: Awaitable[T], what: str, endpoint: str) -> T:
    from asyncio import timeout

    deadline = timeout(OPEN_TIMEOUT)
    try:
        async with deadline:
            return await work
    except Exception as error:
        raise _failure(error, what, endpoint, OPEN_TIMEOUT if deadline.expired() else None) from error


def _failure(error: Exception, what: str, endpoint: str, limit: float | None) -> RemoteError:
    """Ours. ``limit``: the deadline in seconds when it has passed."""
    if isinstance(error, RemoteError):  # from assuming a role on the way
        return error
    if isinstance(error, TimeoutError) and limit is not None:
        return fault(Unreachable, what, f"{endpoint} gave no answer within {limit:g} s", "Timeout")
    return translate(error, what, endpoint)


def _without_user(url: str) -> str:
    """The URL as it may be shown."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
