"""AWS's Signature Version 4, for requests that differ in little: POST to one URL, the same headers, another body."""

from __future__ import annotations

import hmac
from collections.abc import Mapping as Dict
from hashlib import sha256
from time import gmtime, strftime
from typing import Protocol

ALGORITHM = "AWS4-HMAC-SHA256"


class Keys(Protocol):
    """Who signs."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


class Signer:
    """Signs the requests to one URL.

    ``path`` is sent as it is: it holds nothing that a URL would have to quote. ``headers`` go with every request and
    are signed, like ``Host`` is.
    """

    def __init__(self, *, host: str, path: str, region: str, service: str, headers: Dict[str, str]) -> None:
        self._path, self._region, self._service = path, region, service
        self._constant = {name.lower(): _trimmed(value) for name, value in headers.items()} | {"host": host}
        self._second = -1
        self._stamp = ""
        self._keys: Keys | None = None
        self._day = ""
        # What is the same for all requests of these keys on this day:
        self._key = b""
        self._scope = ""
        self._authorization = ""
        self._template = ""
        self._carried: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Signer {self._service} {self._region}>"  # never its keys

    def sign(self, target: str, body: bytes, keys: Keys, at: float) -> dict[str, str]:
        """The headers that a request needs besides the constant ones. ``target`` is its ``X-Amz-Target``, ``at`` the
        service's time in epoch seconds."""
        second = int(at)
        if second != self._second:
            self._second, self._stamp = second, strftime("%Y%m%dT%H%M%SZ", gmtime(second))
        stamp = self._stamp
        if not stamp.startswith(self._day) or keys != self._keys:
            self._take(keys, stamp[:8])
        canonical = self._template % (stamp, target, sha256(body).hexdigest())
        text = f"{ALGORITHM}\n{stamp}\n{self._scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        return {
            "X-Amz-Date": stamp,
            "X-Amz-Target": target,
            "Authorization": self._authorization + signature,
            **self._carried,
        }

    def _take(self, keys: Keys, day: str) -> None:
        self._keys, self._day = keys, day
        self._carried = {"X-Amz-Security-Token": keys.token} if keys.token else {}
        self._scope = f"{day}/{self._region}/{self._service}/aws4_request"
        self._key = signing_key(keys.secret_key, day, self._region, self._service)
        values = {name: value.replace("%", "%%") for name, value in self._constant.items()}
        values |= {name.lower(): _trimmed(value).replace("%", "%%") for name, value in self._carried.items()}
        values |= {"x-amz-date": "%s", "x-amz-target": "%s"}
        names = ";".join(sorted(values))
        lines = "".join(f"{name}:{values[name]}\n" for name in sorted(values))
        self._template = f"POST\n{self._path}\n\n{lines}\n{names}\n%s"
        self._authorization = (
            f"{ALGORITHM} Credential={keys.access_key}/{self._scope}, SignedHeaders={names}, Signature="
        )


def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """Good for one day (``YYYYMMDD``) and one service of one region."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _trimmed(value: str) -> str:
    """A header's value as it is signed."""
    return " ".join(value.split())
