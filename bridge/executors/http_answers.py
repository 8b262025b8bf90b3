"""What the answer of an HTTP endpoint says about the invocation. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping as Dict
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Literal, NamedTuple, Self

import msgspec

LONGEST_PAUSE = 20.0
"""Seconds that a Retry-After is heeded: a batch waits no longer between two tries either."""

Dialect = Literal["lambda", "plain"]
"""``lambda``: the path is that of Invoke (INV-1), which the runtime interface emulator serves as well."""

_INVOKE_PATH = re.compile(r"/2015-03-31/functions/[^/]+/invocations/?").fullmatch
_TIMED_OUT = re.compile(rb"Task timed out after \d+\.\d\d seconds").fullmatch


class Reply(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    function_error: str = ""
    """``X-Amz-Function-Error``."""
    executed_version: str = ""
    """``X-Amz-Executed-Version``: AWS's Invoke gives it (INV-3), the emulator does not."""
    retry_after: str = ""

    @classmethod
    def of(cls, status: int, headers: Dict[str, str], body: bytes) -> Self:
        """``headers`` by any case of letters."""
        names = ("X-Amz-Function-Error", "X-Amz-Executed-Version", "Retry-After")
        return cls(status, body, *(headers.get(name, "").strip() for name in names))

    @property
    def version(self) -> str:
        """The version of the function that ran."""
        return self.executed_version or "$LATEST"


class Finding(NamedTuple):
    """``answer`` and ``error`` have a ``body``; ``timeout``, ``busy`` (it did not run) and ``status`` say in ``text``
    what came."""

    kind: Literal["answer", "error", "timeout", "busy", "status"]
    body: bytes = b""
    text: str = ""


class _ErrorObject(msgspec.Struct):
    """INV-21, with a type, as all of AWS's runtimes post it."""

    errorType: str  # noqa: N815
    errorMessage: str | None  # noqa: N815


def dialect_of(path: str) -> Dialect:
    """How an endpoint with this path answers."""
    return "lambda" if _INVOKE_PATH(path) else "plain"


def judge(reply: Reply, dialect: Dialect) -> Finding:
    """What it means.

    The runtime interface emulator answers 200 also when the function failed, and without the headers of Invoke: it
    passes on the error object, or the bare sentence of a timeout. It answers 400 without a body while it runs another
    invocation, and 502 with the error object when the process ended (aws-lambda-runtime-interface-emulator,
    cmd/aws-lambda-rie/handlers.go and util.go).
    """
    good = 200 <= reply.status < 300
    if reply.function_error:  # INV-3: also of a 200
        return Finding("error", reply.body)
    emulator = dialect == "lambda" and not reply.executed_version
    if reply.status in (429, 503) or (emulator and reply.status == 400 and not reply.body):
        return Finding("busy", text=_shown(reply.status))
    if good and emulator and _TIMED_OUT(reply.body):
        return Finding("timeout", text=reply.body.decode())
    if is_error_object(reply.body) and (emulator or not good):
        return Finding("error", reply.body)
    if good:
        return Finding("answer", reply.body or b"null")  # INV-5
    more = "; redirects are not followed" if 300 <= reply.status < 400 else ""
    return Finding("status", text=f"{_shown(reply.status)}{more}")


def is_error_object(body: bytes) -> bool:
    """Whether it is what a runtime posts about an exception. Answers of handlers do not look like that by accident."""
    if b'"errorType"' not in body:
        return False
    try:
        msgspec.json.decode(body, type=_ErrorObject)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def retry_after(reply: Reply, now: float) -> float:
    """Seconds until it may be asked again, as it wishes, up to LONGEST_PAUSE; 0 if it says nothing that is understood.
    ``now``: epoch seconds."""
    text = reply.retry_after
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), LONGEST_PAUSE)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, min(at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now, LONGEST_PAUSE))


def _shown(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
