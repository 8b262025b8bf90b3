"""Who signed a request: AWS's Signature Version 4, checked with the secrets of the configuration."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping as Dict
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

from bridge.api import ApiError
from bridge.sigv4 import ALGORITHM, signing_key

SKEW = 300.0
"""Seconds that a caller's clock may be off."""
MOST_HEADERS = 50
_CREDENTIAL = re.compile(r"([A-Za-z0-9]{3,128})/([0-9]{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request")
_UNKNOWN = ApiError("UnrecognizedClientException", "The security token included in the request is invalid.", status=403)


class Signed(NamedTuple):
    """What a request claims, before its body is there to be checked."""

    key: str
    scope: str
    headers: tuple[str, ...]
    signature: str
    at: str


class Signatures:
    """Checks requests against ``keys``, access key id -> secret. Neither is ever shown."""

    def __init__(self, keys: Dict[str, str], service: str = "lambda") -> None:
        self._keys = dict(keys)
        self._service = service

    def __repr__(self) -> str:
        return f"<Signatures of {len(self._keys)} keys>"

    def claim(self, headers: Dict[str, str], now: datetime) -> Signed:
        """What can be judged without the body: form, key, clock. Raises ApiError. ``headers`` ignore case."""
        given = headers.get("Authorization")
        if given is None:
            raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token", status=403)
        algorithm, _, rest = given.partition(" ")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        match = _CREDENTIAL.fullmatch(parts.get("Credential", ""))
        names = tuple(parts.get("SignedHeaders", "").split(";"))
        signature = parts.get("Signature", "")
        at = headers.get("X-Amz-Date", "")
        if algorithm != ALGORITHM or not match or not re.fullmatch("[0-9a-f]{64}", signature):
            text = f"Authorization header requires {ALGORITHM} with 'Credential', 'SignedHeaders' and 'Signature'."
            raise ApiError("IncompleteSignatureException", text)
        if not {"host", "x-amz-date"} <= set(names) or len(names) > MOST_HEADERS:
            text = "'Host' and 'X-Amz-Date' must be 'SignedHeaders' in the AWS Credential."
            raise ApiError("InvalidSignatureException", text, status=403)
        key, day, region, service = match.groups()
        if service != self._service:
            text = f"Credential should be scoped to correct service: '{self._service}'."
            raise ApiError("InvalidSignatureException", text, status=403)
        _check_clock(at, day, now)
        if key not in self._keys:
            raise _UNKNOWN
        return Signed(key, f"{day}/{region}/{service}/aws4_request", names, signature, at)

    def check(self, claim: Signed, method: str, raw_path: str, headers: Dict[str, str], body: bytes) -> None:
        """The signature itself. Raises ApiError when it is another."""
        canonical = _canonical(method, raw_path, headers, claim.headers, hashlib.sha256(body).hexdigest())
        right = _signature(self._keys[claim.key], claim.at, claim.scope, canonical)
        if not hmac.compare_digest(right, claim.signature):
            raise ApiError(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret"
                " Access Key and signing method. Consult the service documentation for details.",
                status=403,
            )


def sign(
    key: str,
    secret: str,
    region: str,
    method: str,
    raw_path: str,
    headers: Dict[str, str],
    body: bytes,
    now: datetime,
) -> dict[str, str]:
    """The headers that sign a request with these ones and this body; ``raw_path`` as it goes over the wire."""
    at = f"{now:%Y%m%dT%H%M%SZ}"
    scope = f"{at[:8]}/{region}/lambda/aws4_request"
    signed = {**{name.lower(): value for name, value in headers.items()}, "x-amz-date": at}
    names = tuple(sorted(signed))
    canonical = _canonical(method, raw_path, signed, names, hashlib.sha256(body).hexdigest())
    signature = _signature(secret, at, scope, canonical)
    parts = f"Credential={key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return {"X-Amz-Date": at, "Authorization": f"{ALGORITHM} {parts}"}


def _signature(secret: str, at: str, scope: str, canonical: str) -> str:
    text = "\n".join((ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    day, region, service, _ = scope.split("/")
    return hmac.digest(signing_key(secret, day, region, service), text.encode(), "sha256").hex()


def _check_clock(at: str, day: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        text = "Date must be in ISO-8601 'basic format', in the header X-Amz-Date."
        raise ApiError("IncompleteSignatureException", text) from None
    if not at.startswith(day):
        text = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP."
        raise ApiError("InvalidSignatureException", text, status=403)
    off = (now - signed_at).total_seconds()
    if abs(off) > SKEW:
        what, word = ("expired", "earlier") if off > 0 else ("not yet current", "later")
        text = f"Signature {what}: {at} is {word} than {now:%Y%m%dT%H%M%SZ} by more than {SKEW / 60:.0f} min."
        raise ApiError("InvalidSignatureException", text, status=403)


def _canonical(method: str, raw_path: str, headers: Dict[str, str], names: tuple[str, ...], digest: str) -> str:
    """The text that was signed, as far as we can tell. The path is encoded twice, as every service but S3 has it."""
    path, _, query = raw_path.partition("?")
    pairs = (pair.partition("=")[::2] for pair in query.split("&") if pair)
    encoded = sorted((quote(unquote(key), safe="-_.~"), quote(unquote(value), safe="-_.~")) for key, value in pairs)
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in names]
    return "\n".join((
        method,
        quote(path or "/", safe="/-_.~"),
        "&".join(f"{key}={value}" for key, value in encoded),
        *lines,
        "",
        ";".join(names),
        digest,
    ))  # fmt: skip
