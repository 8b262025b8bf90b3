"""Batch requests of SQS, judged entry by entry: only what an answer names as successful is so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping as Dict, Sequence
from typing import Any, TypeVar

import msgspec

from bridge.aws import Api
from bridge.faults import PASSING, classify

T = TypeVar("T")

ENTRIES = 10
"""The most that one batch request takes (SQS-80)."""
CALL_TIMEOUT = 10.0


class EntryFault(msgspec.Struct, frozen=True):
    """Why an entry is not done."""

    code: str
    message: str = ""
    passing: bool = True
    """It may go through when it is tried again."""
    named: bool = True
    """False: the answer was silent about it, so that it may have been done all the same."""

    def line(self) -> str:
        """For people."""
        return f"{self.message} ({self.code})" if self.message else self.code


UNNAMED = EntryFault("Unnamed", "the answer does not name it", named=False)


def batches(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """The items in order, at most so many at once."""
    return (items[start : start + most] for start in range(0, len(items), most))


async def ask(
    api: Api, operation: str, url: str, entries: Sequence[Dict[str, Any]]
) -> list[Dict[str, Any] | EntryFault]:
    """One request for up to ten entries: for each, in order, its part of the answer or why it failed. Raises
    RemoteError when the request failed as a whole."""
    # Ids of messages can repeat in one batch; places in it cannot.
    numbered = [{"Id": str(place), **entry} for place, entry in enumerate(entries)]
    answer = await api.call(operation, {"QueueUrl": url, "Entries": numbered}, timeout=CALL_TIMEOUT)
    judged: dict[str, Dict[str, Any] | EntryFault] = {
        str(entry.get("Id")): entry for entry in answer.get("Successful") or ()
    }
    for entry in answer.get("Failed") or ():
        judged[str(entry.get("Id"))] = _fault(entry)
    return [judged.get(str(place), UNNAMED) for place in range(len(entries))]


def _fault(entry: Dict[str, Any]) -> EntryFault:
    code = str(entry.get("Code") or "Unknown")[:100]
    message = " ".join(str(entry.get("Message") or "").split())[:200]
    return EntryFault(code, message, passing=not entry.get("SenderFault") or issubclass(classify(code), PASSING))
