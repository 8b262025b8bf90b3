"""How ``bridge invoke --async`` hands an event to a running daemon: one request of Lambda's Invoke."""

from __future__ import annotations

import http.client
from collections.abc import Mapping as Dict
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import msgspec

from bridge.api.sigv4 import sign
from bridge.errors import Rejected, Unreachable, UsageError

TIMEOUT = 30.0


class _Error(msgspec.Struct):
    """What error responses have in common (ESM-2)."""

    message: str = ""
    Message: str = ""


def accept(url: str, function: str, payload: bytes, environ: Dict[str, str]) -> str:
    """The request id under which the daemon keeps the event. The request is signed with AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY where both are set. Raises UsageError, Unreachable or Rejected, one line each."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise UsageError(f'"{url}" is no address of an API; expected such as http://127.0.0.1:3001')
    path = f"{parts.path.rstrip('/')}/2015-03-31/functions/{quote(function, safe='')}/invocations"
    headers = {"Host": parts.netloc.rpartition("@")[2], "X-Amz-Invocation-Type": "Event"}
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        headers |= sign(key, secret, region, "POST", path, headers, payload, datetime.now(UTC))
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=TIMEOUT)
    try:
        connection.request("POST", path, payload, headers)
        answer = connection.getresponse()
        body = answer.read(1 << 16)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url} does not answer: {error}; is the daemon running, with api.listen set?") from None
    finally:
        connection.close()
    if answer.status != 202:
        raise Rejected(
            f"{function}: {_message(body) or answer.reason}", code=answer.headers.get("x-amzn-ErrorType", "")
        )
    return answer.headers.get("x-amzn-RequestId", "")


def _message(body: bytes) -> str:
    try:
        error = msgspec.json.decode(body, type=_Error)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return error.message or error.Message
