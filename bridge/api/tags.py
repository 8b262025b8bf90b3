"""Tags of mappings and functions (ESM-80, ESM-81)."""

from __future__ import annotations

from bridge.api import Answer, ApiError, Call, Host, invalid
from bridge.api.names import target

MOST = 50


async def list_all(host: Host, call: Call) -> Answer:
    return {"Tags": host.book.tags.get(_key(host, call.given["Resource"]), {})}


async def tag(host: Host, call: Call) -> Answer:
    key = _key(host, call.given["Resource"])
    tags = {**host.book.tags.get(key, {}), **call.given["Tags"]}
    if len(tags) > MOST:
        raise invalid(f"A resource has at most {MOST} tags; these would be {len(tags)}.")
    await host.book.keep_tags(key, tags)
    return {}


async def untag(host: Host, call: Call) -> Answer:
    key = _key(host, call.given["Resource"])
    gone = set(call.given["TagKeys"])
    await host.book.keep_tags(key, {name: it for name, it in host.book.tags.get(key, {}).items() if name not in gone})
    return {}


def _key(host: Host, arn: str) -> str:
    kind, _, name = arn.split(":", 5)[5].partition(":")
    if kind == "event-source-mapping":
        if name in host.book.mappings or any(it.mapping.uuid == name for it in host.supervisor.mappings):
            return name
        raise ApiError("ResourceNotFoundException", f"Event source mapping not found: {arn}")
    if kind == "function":
        return f"function:{target(host, arn, suffix='').function.name}"
    raise invalid(f"There are no tags of a {kind} here.")
