"""X-Ray's trace header: the span that it names, and its lineage, which counts how often a chain of invocations has met
each function (INV-40)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

MOST_FUNCTIONS = 16
"""In one lineage; those met longest ago are forgotten first."""
MOST_HEADER = 4096
"""Characters of a header that is looked into."""
MOST_REST = 1024
"""Characters of its other members; more are dropped, so that the lineage always has room."""
ENTRY = re.compile(r"([0-9a-f]{8}):([0-9]{1,5})")

_MEMBERS = re.compile(r"(?:^|;) *(Root|Parent|Sampled)=([0-9a-zA-Z-]*)").findall
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})").fullmatch
_PARENT = re.compile(r"[0-9a-f]{16}").fullmatch


class Caller(NamedTuple):
    """The span that a header names as the parent of what follows. Ids are lower-case hexadecimal."""

    trace: str
    span: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """As W3C writes it."""
        return f"00-{self.trace}-{self.span}-{int(self.sampled):02}"


def caller(trace: str) -> Caller | None:
    """None where the header names no parent, as one that only counts hops does."""
    members = dict(_MEMBERS(trace[:MOST_HEADER]))
    root, parent = _ROOT(members.get("Root", "")), _PARENT(members.get("Parent", ""))
    if not root or not parent or not int(parent[0], 16) or not int(root[1] + root[2], 16):
        return None
    return Caller(root[1] + root[2], parent[0], members.get("Sampled") == "1")


def hops(trace: str, arn: str) -> int:
    """How many invocations of the function the chain with this trace header has had."""
    return _entries(trace).get(_key(arn), 0)


def new_trace(now: float) -> str:
    """A trace header for an event that came without one, at this time (epoch seconds)."""
    return f"Root=1-{int(now):08x}-{secrets.token_hex(12)};Sampled=0"


def lengthened(trace: str, arn: str) -> str:
    """The header that an invocation of this function gets, and passes on to what it causes: one hop more of it."""
    entries = _entries(trace)
    count = entries.pop(_key(arn), 0) + 1  # last in order: met just now
    kept = [*entries.items(), (_key(arn), count)][-MOST_FUNCTIONS:]
    rest = ";".join(part for part in trace[:MOST_HEADER].split(";") if part and not part.startswith("Lineage="))
    lineage = "Lineage=" + "|".join(f"{key}:{count}" for key, count in kept)
    return f"{rest};{lineage}" if rest and len(rest) <= MOST_REST else lineage


def joined(traces: Iterable[str], arn: str, now: float) -> str:
    """The header of an invocation to which all these chains lead: the one that has met the function most often goes on.
    Without any a new one begins (epoch seconds)."""
    longest = max((trace for trace in traces if trace), key=lambda trace: hops(trace, arn), default="")
    return lengthened(longest or new_trace(now), arn)


def _entries(trace: str) -> dict[str, int]:
    for part in trace[:MOST_HEADER].split(";"):
        name, _, value = part.partition("=")
        if name == "Lineage":
            return {key: int(count) for key, count in ENTRY.findall(value)}
    return {}


def _key(arn: str) -> str:
    return sha256(arn.encode()).hexdigest()[:8]
