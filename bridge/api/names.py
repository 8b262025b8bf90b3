"""Which function a caller means (ESM-8, INV-10), and pages of lists."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from bridge.api import ApiError, Host, invalid
from bridge.config.mappings import FUNCTION_NAME
from bridge.function import LATEST, Function
from bridge.invoker import Invoker

T = TypeVar("T")

ACCOUNT = "000000000000"


class Target(NamedTuple):
    """A function in service. ``qualifier`` is what the caller said, or empty."""

    invoker: Invoker
    qualifier: str

    @property
    def function(self) -> Function:
        return self.invoker.function

    @property
    def arn(self) -> str:
        """With the qualifier that the caller gave (ESM-10)."""
        return self.function.qualified(self.qualifier)


class Named(NamedTuple):
    """What a caller said."""

    name: str
    qualifier: str
    arn: str
    """Of that function, whether there is one or not; without qualifier."""


def named(host: Host, text: str, qualifier: str | None = None) -> Named:
    """Reads FunctionName and Qualifier. Raises ApiError when they contradict each other."""
    match = re.fullmatch(FUNCTION_NAME, text)
    if not match:
        return Named(text, qualifier or "", f"{_prefix(host)}:{text}")
    inside = match["qualifier"] or ""
    if inside and qualifier and inside != qualifier:
        raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
    name = match["name"]
    invoker = host.invokers.get(name)
    if invoker:
        arn = invoker.function.arn
    elif match["region"] and match["account"]:
        arn = f"arn:aws:lambda:{match['region']}:{match['account']}:function:{name}"
    else:
        arn = f"{_prefix(host)}:{name}"
    return Named(name, inside or qualifier or "", arn)


def target(host: Host, text: str, qualifier: str | None = None, *, suffix: str = LATEST) -> Target:
    """The function in service; ResourceNotFoundException when there is none (INV-10). ``suffix`` stands in the message
    when no qualifier was given."""
    said = named(host, text, qualifier)
    invoker = host.invokers.get(said.name)
    if invoker is None or said.qualifier not in ("", *invoker.function.qualifiers):
        ending = said.qualifier or suffix
        arn = f"{said.arn}:{ending}" if ending else said.arn
        raise ApiError("ResourceNotFoundException", f"Function not found: {arn}")
    return Target(invoker, said.qualifier)


def _prefix(host: Host) -> str:
    """Of the ARNs of functions that are not there: as those that are."""
    for invoker in host.invokers.values():
        return invoker.function.arn.rpartition(":")[0]
    aws = host.settings.aws
    region = aws.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return f"arn:aws:lambda:{region}:{aws.account_id or ACCOUNT}:function"


def page(
    items: Sequence[T], key: Callable[[T], str], marker: str | None, most: int | None, limit: int
) -> tuple[list[T], str | None]:
    """The items after the marker, at most ``most`` and ``limit``, and the next page's marker. An item that is gone by
    then does not move the others."""
    start = 0
    if marker:
        index, name = _unmark(marker)
        found = (number + 1 for number, item in enumerate(items) if key(item) == name)
        start = next(found, index)
    end = start + min(most or limit, limit)
    chosen = list(items[start:end])
    if end >= len(items) or not chosen:
        return chosen, None
    return chosen, base64.urlsafe_b64encode(f"{end}:{key(chosen[-1])}".encode()).decode()


def _unmark(marker: str) -> tuple[int, str]:
    try:
        index, _, name = base64.b64decode(marker.encode(), b"-_", validate=True).decode().partition(":")
        return int(index), name
    except (binascii.Error, ValueError):
        raise invalid("The marker is none that a list operation of this service has given.") from None
