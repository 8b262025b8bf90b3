"""Provisioned concurrency of versions and aliases: environments that are started ahead and kept (RT-62)."""

from __future__ import annotations

from datetime import UTC, datetime

from bridge.api import Answer, ApiError, Call, Host, invalid
from bridge.api.book import Provisioned, now
from bridge.api.names import Target, page, target
from bridge.function import LATEST, Function
from bridge.versions import shares

PAGE = 50
TOO_MUCH = "Requested Provisioned Concurrency should not be greater than"
UNPUBLISHED = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."


async def put(host: Host, call: Call) -> Answer:
    """In force at once, and after a restart."""
    count = call.given["ProvisionedConcurrentExecutions"]
    async with host.changing:
        found = _published(host, call, UNPUBLISHED)
        function = found.function
        if LATEST in shares(function, found.qualifier, count):  # of an alias
            raise invalid(UNPUBLISHED)
        _refuse_twice(host, found)
        others = function.provisioned + _total(host, function, besides=found.qualifier)
        if found.invoker.reserved is not None and others + count > found.invoker.reserved:
            raise invalid(f"{TOO_MUCH} the reservedConcurrentExecution for function")
        if others + count > found.invoker.limit:
            raise invalid(f"{TOO_MUCH} max_environments of the function, {found.invoker.limit} by {function.where}")
        config = Provisioned(count, now())
        await host.book.keep_provisioned(_key(found), config)
        host.book.provision(host.versions[function.name])
        return _state(host, found, config)


async def get(host: Host, call: Call) -> Answer:
    found = _published(host, call)
    config = host.book.provisioned.get(_key(found))
    if config is None:
        text = "No Provisioned Concurrency Config found for this function"
        raise ApiError("ProvisionedConcurrencyConfigNotFoundException", text)
    return _state(host, found, config)


async def list_all(host: Host, call: Call) -> Answer:
    found = target(host, call.given["FunctionName"], suffix="")
    each = [Target(found.invoker, qualifier) for qualifier in found.function.qualifiers]
    known = [it for it in each if _key(it) in host.book.provisioned]
    chosen, marker = page(known, lambda it: it.qualifier, call.given.get("Marker"), call.given.get("MaxItems"), PAGE)
    configs = [{"FunctionArn": it.arn, **_state(host, it, host.book.provisioned[_key(it)])} for it in chosen]
    return {"ProvisionedConcurrencyConfigs": configs, "NextMarker": marker}


async def delete(host: Host, call: Call) -> Answer:
    """Twice is as once."""
    async with host.changing:
        found = _published(host, call)
        await host.book.forget_provisioned(_key(found))
        host.book.provision(host.versions[found.function.name])
    return {}


def check_reserved(host: Host, function: Function, concurrency: int) -> None:
    """Raises ApiError when a reserved concurrency leaves no room for what is provisioned (RT-62)."""
    total = _total(host, function)
    if concurrency < total:
        raise invalid(
            f"ReservedConcurrentExecutions {concurrency} should not be lower than function's total provisioned"
            f" concurrency [{total}]."
        )


def _published(
    host: Host, call: Call, unpublished: str = "The function resource provided must be an alias or a published version."
) -> Target:
    """The version or alias that is meant. Raises ApiError."""
    name, qualifier = call.given["FunctionName"], call.given["Qualifier"]
    if qualifier == LATEST:
        raise invalid(unpublished)
    function = target(host, name, suffix="").function
    if not qualifier.isdecimal() and qualifier not in function.qualifiers:
        raise ApiError("ResourceNotFoundException", f"Cannot find alias arn: {function.qualified(qualifier)}")
    return target(host, name, qualifier)


def _refuse_twice(host: Host, found: Target) -> None:
    """An alias and its version cannot both have provisioned concurrency."""
    function = found.function
    given = {it for it in function.qualifiers if f"{function.name}:{it}" in host.book.provisioned}
    if found.qualifier in function.aliases and given & shares(function, found.qualifier, 0).keys():
        text = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
        raise ApiError("ResourceConflictException", text)
    if any(found.qualifier in shares(function, it, 0) for it in given & function.aliases.keys()):
        text = "Version is pointed by a Provisioned Concurrency alias"
        raise ApiError("ResourceConflictException", text)


def _key(found: Target) -> str:
    return f"{found.function.name}:{found.qualifier}"


def _total(host: Host, function: Function, besides: str = "") -> int:
    """All that is provisioned of its versions and aliases."""
    each = (host.book.provisioned.get(f"{function.name}:{it}") for it in function.qualifiers if it != besides)
    return sum(config.count for config in each if config)


def _state(host: Host, found: Target, config: Provisioned) -> Answer:
    """What stands ready right now."""
    versions = host.versions[found.function.name]
    ready, failing = 0, ""
    for version, count in shares(found.function, found.qualifier, config.count).items():
        environments = versions.version(version).environments()
        ready += min(count, environments.idle + environments.busy)
        failing = failing or environments.failing
    done = ready >= config.count
    at = datetime.fromtimestamp(config.modified_at, UTC)
    return {
        "RequestedProvisionedConcurrentExecutions": config.count,
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": "READY" if done else "FAILED" if failing else "IN_PROGRESS",
        "StatusReason": failing if failing and not done else None,
        "LastModified": at.strftime("%Y-%m-%dT%H:%M:%S+0000"),
    }
