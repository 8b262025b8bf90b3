"""Who may change something: a process of this machine, or whoever holds the token; never a web page elsewhere."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
"""A proxy on this machine speaks for somebody who may be anywhere."""


class Refusal(NamedTuple):
    """Why a request is refused: 401 when a token would help, else 403."""

    status: int
    reason: str


class Access:
    """Judges requests that change something. ``host`` is the address that the server was told to listen on."""

    def __init__(self, host: str, token: str) -> None:
        self._host = host.lower()
        self._token = token.encode()

    def refusal(self, peer: str | None, headers: Dict[str, str]) -> Refusal | None:
        """None: the request may go on. ``headers`` must ignore case."""
        if (origin := headers.get("Origin")) is not None and not _same_site(origin, headers):
            return Refusal(403, f"a page of {origin[:100]} may not change anything here")
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return Refusal(403, "a page of another site may not change anything here")
        given = headers.get("Authorization")
        if given is not None and self._token:
            return None if self._is_token(given) else Refusal(401, "the token is wrong")
        if peer is None or not is_loopback(peer) or any(name in headers for name in FORWARDED):
            if self._token:
                return Refusal(401, "this needs the token of admin.token (Authorization: Bearer …)")
            return Refusal(403, "this works only from the machine itself, since admin.token is not set")
        # A name that somebody else's DNS resolves to loopback is how a web page would get here.
        if not self._is_ours(headers.get("Host", "")):
            return Refusal(403, "the Host header names neither loopback nor admin.listen")
        return None

    def _is_token(self, given: str) -> bool:
        scheme, _, token = given.partition(" ")
        right = compare_digest(token.strip().encode(errors="surrogateescape"), self._token)
        return right and scheme.lower() == "bearer"

    def _is_ours(self, host: str) -> bool:
        name = hostname(host)
        return name == "localhost" or is_loopback(name) or (bool(name) and name == self._host)


def is_loopback(address: str) -> bool:
    """Whether ``address`` is an IP address of this machine's loopback interface."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


def _same_site(origin: str, headers: Dict[str, str]) -> bool:
    """Browsers tell the page's site in Origin; only pages of this very server are its own."""
    scheme, _, site = origin.partition("://")
    return scheme in ("http", "https") and site.lower() == headers.get("Host", "").lower() != ""


def hostname(host: str) -> str:
    """The name in a Host header, without port and brackets; empty when it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
