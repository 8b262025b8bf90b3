"""A thin client for the few operations that a busy daemon repeats: the SDK's requests and answers, at a fraction of its
cost. Where to call, how, and with which credentials it is told by the SDK."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping as Dict
from contextlib import suppress
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import structlog

from bridge.aws_http import Broken, HttpClient, Response
from bridge.errors import OddAnswer, Rejected, RemoteError, ServiceFault
from bridge.faults import fault, refusal, unanswered
from bridge.sigv4 import Keys, Signer

OPERATIONS = {
    "dynamodbstreams": frozenset({"DescribeStream", "GetRecords", "GetShardIterator"}),
    "kinesis": frozenset({"DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"}),
    "sqs": frozenset({
        "ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "DeleteMessage", "DeleteMessageBatch",
        "GetQueueAttributes", "GetQueueUrl", "ReceiveMessage", "SendMessage", "SendMessageBatch",
    }),
}  # fmt: skip
"""By service, what it carries: operations whose JSON is their parameters, blobs as base64, times as epoch seconds, and
nothing else."""

WRONG_CLOCK = 60.0
"""Seconds between this machine's clock and the service's from which on the clock is why a signature was refused."""

_CLOCK_CODES = frozenset({
    "AuthFailure", "InvalidSignatureException", "RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
})  # fmt: skip
_PLAIN_PATH = re.compile(r"(/[\w~-][\w.~-]*)*/?", re.ASCII)
_XML = re.compile(rb"\s*<")
_QUERY_ERROR = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<(ErrorResponse|Response|Error)\b")

LISTS = {"GetRecords": "Records"}
"""By operation, the member of its answer that stays JSON: it may have megabytes, and who asks knows its shape."""

_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(dict[str, Any]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_member = msgspec.json.Decoder().decode
log = structlog.get_logger()


def read_answer(operation: str, body: bytes) -> dict[str, Any]:
    """An answer's JSON, the member in LISTS as ``msgspec.Raw``. Raises MsgspecError and UnicodeDecodeError."""
    left = LISTS.get(operation)
    if left is None:
        return _read(body)
    if not body.isascii():
        body.decode()  # what is left as it is would pass unseen
    return {name: value if name == left else _member(value) for name, value in _members(body).items()}


class Clock:
    """A service's clock, as seen from here."""

    def __init__(self) -> None:
        self.ahead = 0.0
        """Seconds."""

    def __repr__(self) -> str:
        return f"<Clock {self.ahead:+.0f} s>"

    def now(self) -> float:
        """Epoch seconds."""
        return time.time() + self.ahead

    def was_wrong(self, at: float, date: str) -> bool:
        """Whether the service's ``date`` (of HTTP) says that now is another time than ``at``. Then it counts."""
        with suppress(ValueError):
            theirs = parsedate_to_datetime(date).timestamp()
            if abs(theirs - at) >= WRONG_CLOCK:
                ahead = theirs - time.time()
                if abs(ahead - self.ahead) >= WRONG_CLOCK:  # else another request has found out
                    log.warning("clock_wrong", ahead=round(ahead), detail="requests are signed by the service's clock")
                    self.ahead = ahead
                return True
        return False


class Target(NamedTuple):
    """Where the requests of a service go, and what is the same in all of them."""

    service: str
    url: str
    region: str
    """That they are signed for."""
    signing_name: str
    prefix: str
    """Of ``X-Amz-Target``."""
    headers: Dict[str, str]

    @property
    def plain(self) -> bool:
        """Whether the URL is sent and signed as it stands here."""
        parts = urlsplit(self.url)
        return bool(_PLAIN_PATH.fullmatch(parts.path)) and not (parts.query or parts.fragment or parts.username)


class FastClient:
    """One service at one endpoint with one identity, by JSON over HTTP. Connects to nothing before the first call.

    ``keys`` gives credentials that are valid now. ``tls`` is what an https URL is verified by.
    """

    def __init__(
        self,
        target: Target,
        keys: Callable[[], Awaitable[Keys]],
        clock: Clock,
        *,
        user_agent: str,
        tls: SSLContext | None = None,
    ) -> None:
        self.operations = OPERATIONS[target.service]
        self.date = ""
        """Of HTTP, in the last answer."""
        self._target, self._keys, self._clock = target, keys, clock
        self._targets = {operation: f"{target.prefix}.{operation}" for operation in self.operations}
        host, path = host_of(target.url), urlsplit(target.url).path or "/"
        self._signer = Signer(
            host=host, path=path, region=target.region, service=target.signing_name, headers=target.headers
        )
        constant = {**target.headers, "Host": host, "User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._http = HttpClient(target.url, constant, tls)

    def __repr__(self) -> str:
        return f"<FastClient {self._target.service} {self._target.url}>"

    async def close(self) -> None:
        """Drops its connections."""
        await self._http.close()

    async def call(self, operation: str, params: Dict[str, Any]) -> dict[str, Any]:
        """One request of ``operations``; another one when the first was refused because of this machine's clock.

        Raises RemoteError, OddAnswer, and what ``keys`` raises.
        """
        try:
            body = _write(params)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise fault(Rejected, self._what(operation), f"no request: {error}", "ParamValidationError") from error
        answer, at = await self._post(operation, body)
        if answer.status >= 300 and self._clock_was_wrong(operation, answer, at):
            answer, _ = await self._post(operation, body)
        if answer.status >= 300:
            raise self._refusal(operation, answer)
        if not answer.body:
            return {}
        try:
            return read_answer(operation, answer.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            if _XML.match(answer.body):
                raise OddAnswer(f"XML, HTTP {answer.status}") from error
            raise self._unreadable(operation, str(error)) from error

    async def _post(self, operation: str, body: bytes) -> tuple[Response, float]:
        """The answer, and as of when its request was signed."""
        keys = await self._keys()
        at = self._clock.now()
        headers = self._signer.sign(self._targets[operation], body, keys, at)
        try:
            answer = await self._http.post(headers, body)
        except Broken as error:
            raise unanswered(self._what(operation), self._target.url, str(error), error.code) from error
        self.date = answer.headers.get("date", "")
        return answer, at

    def _clock_was_wrong(self, operation: str, answer: Response, at: float) -> bool:
        code, _ = self._error(operation, answer)
        return code in _CLOCK_CODES and self._clock.was_wrong(at, answer.headers.get("date", ""))

    def _refusal(self, operation: str, answer: Response) -> RemoteError:
        code, message = self._error(operation, answer)
        request_id = answer.headers.get("x-amzn-requestid", "")
        return refusal(self._what(operation), answer.status, code, message, request_id)

    def _error(self, operation: str, answer: Response) -> tuple[str, str]:
        """Code and message, empty where the answer does not tell."""
        if answer.status < 400 or _QUERY_ERROR.match(answer.body):
            raise OddAnswer(f"HTTP {answer.status}" if answer.status < 400 else f"XML, HTTP {answer.status}")
        try:
            told = msgspec.json.decode(answer.body) if answer.body else {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return "", ""  # of a proxy or a load balancer: the status tells
        if not isinstance(told, dict):
            raise self._unreadable(operation, f"expected an object, got {type(told).__name__}")
        code, message = told.get("__type"), told.get("message", told.get("Message"))
        code = code.partition(":")[0].rpartition("#")[2] if isinstance(code, str) else ""
        older = answer.headers.get("x-amzn-query-error", "").split(";")  # "AWS.SimpleQueueService.…;Sender"
        if len(older) == 2 and older[0]:
            code = older[0]
        return code, message if isinstance(message, str) else ""

    def _unreadable(self, operation: str, why: str) -> RemoteError:
        return fault(ServiceFault, self._what(operation), f"the answer cannot be read: {why}", "ResponseParserError")

    def _what(self, operation: str) -> str:
        return f"{self._target.service} {operation}"


def host_of(url: str) -> str:
    """As it stands in the header and in the signature."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    host = f"[{name}]" if ":" in name else name
    usual = {"http": 80, "https": 443}[parts.scheme]
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"
