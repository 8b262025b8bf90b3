"""The SDK's client of one service, and beside it the fast one, which it tells where to call, how to sign, and who
signs."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping as Dict
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import structlog
from aiobotocore.config import AioConfig
from anyio import CancelScope
from anyio.to_thread import run_sync
from botocore.exceptions import NoCredentialsError, ParamValidationError
from botocore.httpsession import ProxyConfiguration, create_urllib3_context, get_cert_path
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies, parse_timestamp

from bridge import __version__
from bridge.aws_fast import OPERATIONS, Clock, FastClient, Target, read_answer
from bridge.aws_http import CONNECT_TIMEOUT, KEEPALIVE
from bridge.errors import Unreachable
from bridge.faults import fault

CONNECTIONS = 10_000
"""At once per client. More than open files allow: a smaller pool would let one mapping's long polls block another's
deletes without a word."""
READ_TIMEOUT = 30.0
"""Between two reads: the longest long poll and 10 s. The deadline of a call is its own."""
READ_TIMEOUTS = {"lambda": 960.0}
"""Of services that are silent for longer: a function may run for 900 s before its answer begins."""
BLOB_LIMIT = 6_291_557
"""Bytes that are read of an answer that is one blob: the longest answer of a function, and one more."""
USER_AGENT = f"bridge/{__version__}"

log = structlog.get_logger()

_opened: ContextVar[list[Any]] = ContextVar("opened")
"""Bodies of answers that the SDK has begun to read for this call, and that it hands on unread."""


class SdkClient:
    """A client of the SDK and how many calls are in flight on it. ``fast``: what carries its hot operations; none where
    there is no such thing."""

    def __init__(self, context: Any, client: Any, session: Any) -> None:
        self.session = session
        self.fast: FastClient | None = None
        self.calls = 0
        self.retired = False
        self.methods: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            operation: getattr(client, name) for name, operation in client.meta.method_to_api_mapping.items()
        }
        self._context = context
        self._meta = client.meta
        self._blobs: dict[str, str | None] = {}
        self._inputs: dict[str, frozenset[str]] = {}

    def __repr__(self) -> str:
        return f"{self.calls} calls" + (", retired" if self.retired else "")

    @classmethod
    async def open(cls, session: Any, service: str, region: str, endpoint: str, *, clock: Clock | None) -> Self:
        """An empty region or endpoint is found by the SDK. ``clock``: there shall be a fast client with this one."""
        credentials = await session.get_credentials()
        if credentials is None:  # the SDK would find out at each request
            raise NoCredentialsError
        options = {"region_name": region or None, "endpoint_url": endpoint or None}
        context = session.create_client(service, config=_config(service, endpoint), **options)
        made = cls(context, await context.__aenter__(), session)
        try:
            if made.speaks_json:
                made._on("before-parse", _take_json)
                if clock is not None and service in OPERATIONS:
                    made.fast = await made._fast(service, credentials, clock)
        except BaseException:
            await made.close()
            raise
        return made

    async def call(self, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        """The answer as the SDK gives it, a streamed blob as bytes, at most BLOB_LIMIT of them. Raises
        ParamValidationError for what this version of the SDK has not heard of."""
        if strange := params.keys() - self._members(operation):
            raise ParamValidationError(report=f"this version of the SDK does not know {', '.join(sorted(strange))}")
        answer = await self.methods[operation](**params)
        if (blob := self._blob(operation)) is not None:
            answer[blob] = await _read(answer[blob])
        return answer

    async def events(self, operation: str, params: Dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """What follows the beginning of an answer that is a stream of events, as the service's JSON has it."""
        opened: list[Any] = []
        token = _opened.set(opened)
        try:
            answer = await self.methods[operation](**params)
        except BaseException:
            for body in opened:  # the SDK forgets those whose beginning it cannot read
                body.close()
            raise
        finally:
            _opened.reset(token)
        model = self._meta.service_model.operation_model(operation)
        return _events(answer[model.output_shape.event_stream_name])

    def _members(self, operation: str) -> frozenset[str]:
        """What the operation takes."""
        if operation not in self._inputs:
            shape = self._meta.service_model.operation_model(operation).input_shape
            self._inputs[operation] = frozenset(shape.members if shape else ())
        return self._inputs[operation]

    def _blob(self, operation: str) -> str | None:
        """The member of the operation's answer that is the whole body, unparsed and not read yet, if it has one."""
        if operation not in self._blobs:
            model = self._meta.service_model.operation_model(operation)
            self._blobs[operation] = model.output_shape.serialization["payload"] if model.has_streaming_output else None
        return self._blobs[operation]

    @property
    def speaks_json(self) -> bool:
        model = self._meta.service_model
        return bool(getattr(model, "resolved_protocol", model.protocol) == "json")  # older ones have but one

    @property
    def region(self) -> str:
        return str(self._meta.region_name)

    @property
    def endpoint(self) -> str:
        """Where it really calls."""
        return str(self._meta.endpoint_url)

    async def close(self, *, at_once: bool = False) -> None:
        """Unless calls are in flight: the last one closes it."""
        if self.calls and not at_once:
            return
        with CancelScope(shield=True):
            try:
                if self.fast:
                    await self.fast.close()
            finally:
                await self._context.__aexit__(None, None, None)

    def _on(self, event: str, handler: Callable[..., None], *, off: bool = False) -> None:
        events = self._meta.events
        change = events.unregister if off else events.register
        change(f"{event}.{self._meta.service_model.service_id.hyphenize()}", handler)

    async def _fast(self, service: str, credentials: Any, clock: Clock) -> FastClient | None:
        aim = await self._aim(min(OPERATIONS[service]))
        prefix, _, _ = aim.headers.pop("X-Amz-Target", "").rpartition(".")
        aim.headers.pop("User-Agent", None)
        target = Target(service, aim.url, aim.region, aim.signing_name, prefix, aim.headers)
        if aim.version != "v4" or not prefix or not target.plain or _has_proxy(aim.url):
            log.debug("fast_client_not_used", service=service, signature=aim.version)
            return None
        tls = await run_sync(_tls, _authorities(self.session), aim.url) if aim.url.startswith("https:") else None
        keys = credentials.get_frozen_credentials
        return FastClient(target, keys, clock, user_agent=USER_AGENT, tls=tls)

    async def _aim(self, operation: str) -> _Aim:
        """What the SDK makes of a request up to its signature. It sends none."""

        def show(request: Any, region_name: str, signing_name: str, signature_version: str, **_: Any) -> None:
            headers = {name: value for name, value in request.headers.items() if isinstance(value, str)}
            raise _Aim(request.url, headers, region_name, signing_name, signature_version)

        self._on("before-sign", show)
        try:
            await self.methods[operation]()
        except _Aim as aim:
            return aim
        finally:
            self._on("before-sign", show, off=True)
        raise AssertionError("the SDK did not sign a request")


class _Aim(Exception):
    """Where a request would have gone, and how."""

    def __init__(self, url: str, headers: dict[str, str], region: str, signing_name: str, version: str) -> None:
        super().__init__(url)
        self.url, self.headers = url, headers
        self.region, self.signing_name, self.version = region, signing_name, version


def leave_as_written(session: Any) -> None:
    """What its clients parse themselves, the events of a stream above all, has base64 text for blobs, and the numbers
    that stand for times, as the JSON has."""
    session.get_component("response_parser_factory").set_parser_defaults(
        blob_parser=lambda text: text, timestamp_parser=_time
    )


def _time(written: Any) -> Any:
    """XML has no numbers."""
    return parse_timestamp(written) if isinstance(written, str) else written


def _config(service: str, endpoint: str) -> AioConfig:
    return AioConfig(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUTS.get(service, READ_TIMEOUT),
        tcp_keepalive=True,  # a silent connection lives longer than some gateways remember it
        max_pool_connections=CONNECTIONS,
        connector_args={"keepalive_timeout": KEEPALIVE},
        retries={"total_max_attempts": 1, "mode": "standard"},  # ours are counted and told
        parameter_validation=False,
        user_agent=USER_AGENT,  # else it is composed anew for each request
        proxies={} if _is_loopback(endpoint) else None,  # a proxy would look for the endpoint on its own machine
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _has_proxy(url: str) -> bool:
    """As the SDK finds it for a client with ``_config``. Only the SDK speaks to proxies."""
    return not _is_loopback(url) and ProxyConfiguration(get_environ_proxies(url)).proxy_url_for(url) is not None


def _authorities(session: Any) -> str:
    """The file of the certificate authorities that the SDK trusts."""
    path = get_cert_path(session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or True)
    return str(path)


def _tls(authorities: str, url: str) -> ssl.SSLContext:
    """Verifies the same as the SDK does. Reads the file."""
    context: ssl.SSLContext = create_urllib3_context()
    context.check_hostname = True
    try:
        context.load_verify_locations(authorities)
    except OSError as error:
        text = f"the certificate authorities in {authorities} cannot be read: {error.strerror or error}"
        raise fault(Unreachable, url, text, "SSLError", "look at AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE") from error
    return context


async def _read(body: Any) -> bytes:
    """A streamed blob. The connection is dropped unless it was read to its end."""
    data = bytearray()
    whole = False
    try:
        while len(data) < BLOB_LIMIT and not whole:
            chunk = await body.read(BLOB_LIMIT - len(data))
            data += chunk
            whole = not chunk
    finally:
        if not whole:
            body.close()
    return bytes(data)


async def _events(stream: Any) -> AsyncGenerator[dict[str, Any]]:
    """The connection is dropped when nobody reads on."""
    try:
        async for event in stream:
            yield event
    finally:
        stream.close()


def _take_json(
    operation_model: Any, response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Takes the answer as the service wrote it. The SDK would walk it member by member, decode its blobs, and call
    broken JSON an empty answer."""
    body = response_dict["body"]
    if not isinstance(body, bytes):
        _opened.get([]).append(body)
        return
    if not body:
        return
    if response_dict["status_code"] >= 300:
        _check_error(body)
        return
    try:
        customized_response_dict.update(read_answer(operation_model.name, body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResponseParserError(f"the answer cannot be read: {error}") from error
    response_dict["body"] = b""


def _check_error(body: bytes) -> None:
    """The SDK takes JSON for an object here. What is no JSON at all it leaves to the HTTP status."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if not isinstance(msgspec.json.decode(body), dict):
            raise ResponseParserError("the answer cannot be read: its JSON is no object")
