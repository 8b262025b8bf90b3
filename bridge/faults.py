"""What a failed call to AWS means, by error codes and never by message texts, and the patience that passing faults
need."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bridge.errors import (
    AccessDenied,
    ExpiredCredentials,
    NotFound,
    OverLimit,
    Rejected,
    RemoteError,
    ServiceFault,
    Throttled,
    Unreachable,
)

T = TypeVar("T")

_BY_CODE: dict[type[RemoteError], str] = {
    Throttled: """
        BandwidthLimitExceeded KMSThrottlingException KmsThrottled LimitExceededException PriorRequestNotComplete
        ProvisionedThroughputExceeded ProvisionedThroughputExceededException PurgeQueueInProgress QueueDeletedRecently
        RequestLimitExceeded RequestThrottled RequestThrottledException SlowDown Throttling ThrottlingException
        ThrottledException TooManyRequests TooManyRequestsException TransactionInProgressException 429""",
    OverLimit: "OverLimit",
    ExpiredCredentials: """
        CredentialRetrievalError ExpiredToken ExpiredTokenException InvalidClientTokenId InvalidToken
        LoginRefreshRequired MetadataRetrievalError RefreshWithMFAUnsupportedError RequestExpired SSOTokenLoadError
        TokenRefreshRequired TokenRetrievalError UnauthorizedSSOTokenError UnrecognizedClientException""",
    AccessDenied: """
        AccessDenied AccessDeniedException AuthFailure AuthorizationError IncompleteSignature
        IncompleteSignatureException InvalidAccessKeyId InvalidSignatureException KMSAccessDeniedException
        KMSOptInRequired KmsAccessDenied KmsOptInRequired MissingAuthenticationToken
        MissingAuthenticationTokenException NoCredentialsError NotAuthorized OptInRequired
        PartialCredentialsError ProfileNotFound RequestTimeTooSkewed SignatureDoesNotMatch UnauthorizedOperation
        401 403""",
    NotFound: """
        InvalidAddress KmsNotFound NonExistentQueue NoSuchBucket NotFound NotFoundException QueueDoesNotExist
        ResourceNotFoundException 404""",
    Unreachable: """
        ClientPayloadError ConnectionError HTTPClientError OSError ProxyConnectionError RequestTimeout
        RequestTimeoutException SSLError TimeoutError 408""",
    ServiceFault: """
        InternalError InternalFailure InternalServerError InternalServiceError ResponseParserError ServiceUnavailable
        ServiceUnavailableException""",
    Rejected: """
        EndpointProviderError InvalidRegionError NoRegionError ParamValidationError ReceiptHandleIsInvalid
        UnknownServiceError ValueError""",
}
"""Error codes, HTTP statuses, and the names of the SDK's exceptions (the first one known of a class and its bases)."""

ERRORS: dict[str, type[RemoteError]] = {code: kind for kind, codes in _BY_CODE.items() for code in codes.split()}

_ADVICE = {
    "NoCredentialsError": "set aws.profile, AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "NoRegionError": "set aws.region or AWS_REGION",
    "SSLError": "check the scheme of the endpoint; a private certificate authority goes into AWS_CA_BUNDLE",
    "UnauthorizedSSOTokenError": "run `aws sso login`",
    "SSOTokenLoadError": "run `aws sso login`",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "check the secret key and this machine's clock",
    "InvalidSignatureException": "check the secret key and this machine's clock",
}

_QUOTING = frozenset({
    "SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature", "IncompleteSignatureException",
})  # fmt: skip
"""The message of these repeats the request with its session token."""

_SECRETS = re.compile(r"(//)[^/\s@]*@|((?:signature|credential|security-token) ?[=:] ?)\S+", re.IGNORECASE)
"""Keys in URLs, and what a request is signed with."""

PASSING = (Throttled, OverLimit, ExpiredCredentials, Unreachable, ServiceFault)
"""What may be over after a while, without anybody's help."""
PATIENCE = 1.0
"""Seconds that a call may fail without anybody being told, if the next attempt succeeds."""


def classify(code: str, status: int = 400) -> type[RemoteError]:
    """The kind of error that a service means by its code and HTTP status."""
    # SQS has two names for each: `com.amazonaws.sqs#QueueDoesNotExist`, `AWS.SimpleQueueService.NonExistentQueue`;
    # of KMS it passes on `KMS.ThrottlingException`.
    bare = code.rpartition("#")[2].rpartition(".")[2]
    known = ERRORS.get(bare) or ERRORS.get(str(status))
    if known is None:
        return ServiceFault if status >= 500 else Rejected
    return known


def refusal(what: str, status: int, code: str, message: str, request_id: str = "") -> RemoteError:
    """The service answered with an error. An empty ``code`` leaves the HTTP status to tell."""
    text = "the signature was refused" if code in _QUOTING else message or f"HTTP {status}"
    shown = " ".join(code.split())[:100] or str(status)
    return fault(classify(code, status), what, text, shown, _ADVICE.get(code, ""), request_id[:100])


def unanswered(what: str, endpoint: str, text: str, code: str) -> RemoteError:
    """No answer came, or not all of it."""
    return fault(Unreachable, what, f"{endpoint} does not answer: {text}", code, _ADVICE.get(code, ""))


def translate(error: Exception, what: str, endpoint: str) -> RemoteError:
    """Ours for any exception of the SDK. ``what`` is the service and operation."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # a ClientError: the service answered
        told, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
        code, message = str(told.get("Code") or ""), str(told.get("Message") or "")
        return refusal(what, meta.get("HTTPStatusCode", 400), code, message, str(meta.get("RequestId") or ""))
    names = [base.__name__ for base in type(error).__mro__]
    known = next((name for name in names if name in ERRORS), "")
    kind = ERRORS.get(known, ServiceFault)
    text = str(getattr(error, "kwargs", {}).get("error") or error)
    if kind is Unreachable:
        text = f"{endpoint} does not answer: {text}"
    elif not known:
        text = f"the client failed: {text}"
    return fault(kind, what, text, names[0], _ADVICE.get(known, ""))


def fault(
    kind: type[RemoteError], what: str, text: str, code: str, advice: str = "", request_id: str = ""
) -> RemoteError:
    """An error whose one line says what failed, how, with which code, and what to do; what must not be seen is left
    out."""
    line = _SECRETS.sub(r"\1\2", " ".join(text.split()))[:400]
    return kind(f"{what}: {line} ({code})" + (f"; {advice}" if advice else ""), code=code, request_id=request_id)


class Backoff:
    """Delays that double from ``least`` to ``most`` seconds, each with full jitter: callers that failed together do not
    come back together."""

    def __init__(self, least: float = 0.1, most: float = 20.0) -> None:
        self._least, self._most = least, most
        self._reach = least

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = random.uniform(0, self._reach)  # noqa: S311 - jitter
        self._reach = min(self._reach * 2, self._most)
        return delay

    def reset(self) -> None:
        """After a success."""
        self._reach = self._least


async def persist(
    call: Callable[[], Awaitable[T]], *, trouble: Callable[[str | None], None], until: float | None = None
) -> T:
    """The result of ``call``, tried again as long as its faults are PASSING ones.

    ``trouble`` is told in one line what it waits for, once, and none when it goes on. A first fault that came at once
    is not told: a connection that broke while it was idle is no news. ``until`` (``anyio.current_time``): the last
    fault is raised instead of waiting for longer. Other errors are raised at once.
    """
    from anyio import current_time

    began = current_time()
    try:
        return await call()  # the straight path costs next to nothing
    except PASSING as first:
        return await _wait_out(first, call, trouble, until, news=current_time() - began > PATIENCE)


async def _wait_out(
    last: RemoteError,
    call: Callable[[], Awaitable[T]],
    trouble: Callable[[str | None], None],
    until: float | None,
    *,
    news: bool,
) -> T:
    import anyio

    backoff = Backoff()
    told = False
    while True:
        if news and not told:
            trouble(str(last))
            told = True
        delay = backoff.next()
        if until is not None and anyio.current_time() + delay >= until:
            raise last
        await anyio.sleep(delay)
        try:
            answer = await call()
        except PASSING as again:
            last, news = again, True
        else:
            if told:
                trouble(None)
            return answer
