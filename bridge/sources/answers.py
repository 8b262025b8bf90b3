"""What the APIs of streams answer, read from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from bridge.errors import ServiceFault

T = TypeVar("T")


def parsed(answer: dict[str, Any], kind: type[T]) -> T:
    """Raises ServiceFault for what is no such answer."""
    try:
        return msgspec.convert(answer, kind, strict=False)
    except msgspec.ValidationError as error:
        raise unreadable(error) from error


def records_in(answer: Mapping[str, Any], kind: type[T]) -> list[T]:
    """Those of an answer to GetRecords, which are JSON still (``bridge.aws.Api.call``). Raises ServiceFault."""
    try:
        return msgspec.json.decode(answer.get("Records", b"null"), type=list[kind] | None, strict=False) or []  # type: ignore[valid-type]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise unreadable(error) from error


def unreadable(why: object) -> ServiceFault:
    """What came is no such answer."""
    return ServiceFault(f"the answer cannot be read: {why}", code="ResponseParserError")
