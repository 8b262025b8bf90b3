"""Functions: list, get, their configuration and their reserved concurrency."""

from __future__ import annotations

from datetime import UTC, datetime

from bridge.api import Answer, ApiError, Call, Host
from bridge.api.names import Target, page, target
from bridge.api.provisioned import check_reserved
from bridge.function import LATEST
from bridge.versions import at, resolve

PAGE = 50


async def list_all(host: Host, call: Call) -> Answer:
    """AWS's default and most: 50 a page."""
    given = call.given
    invokers = [host.invokers[name] for name in sorted(host.invokers)]
    found = [Target(invoker, "") for invoker in invokers]
    if given.get("FunctionVersion") == "ALL":
        found = [Target(it, version) for it in invokers for version in (LATEST, *it.function.versions)]
    chosen, marker = page(found, lambda it: it.arn, given.get("Marker"), given.get("MaxItems"), PAGE)
    return {"Functions": [configuration(host, it) for it in chosen], "NextMarker": marker}


async def get(host: Host, call: Call) -> Answer:
    found = target(host, call.given["FunctionName"], call.given.get("Qualifier"), suffix="")
    reserved = found.invoker.reserved
    code = at(found.function, _version(found)).code
    return {
        "Configuration": configuration(host, found),
        "Code": {"RepositoryType": "file", "Location": code.as_uri()} if found.function.runtime else None,
        "Concurrency": None if reserved is None else {"ReservedConcurrentExecutions": reserved},
        "Tags": host.book.tags.get(f"function:{found.function.name}"),
    }


async def get_configuration(host: Host, call: Call) -> Answer:
    return configuration(host, target(host, call.given["FunctionName"], call.given.get("Qualifier"), suffix=""))


async def put_concurrency(host: Host, call: Call) -> Answer:
    """In force at once, and after a restart."""
    concurrency = call.given["ReservedConcurrentExecutions"]
    async with host.changing:
        invoker = _unqualified(host, call).invoker
        check_reserved(host, invoker.function, concurrency)
        await host.book.keep_reserved(invoker.function.name, concurrency)
        invoker.reserve(concurrency)
    return {"ReservedConcurrentExecutions": concurrency}


async def get_concurrency(host: Host, call: Call) -> Answer:
    return {"ReservedConcurrentExecutions": _unqualified(host, call).invoker.reserved}


async def delete_concurrency(host: Host, call: Call) -> Answer:
    """Unreserved from now on, also where the configuration file reserves some."""
    async with host.changing:
        invoker = _unqualified(host, call).invoker
        function = invoker.function
        if function.reserved_concurrency is None:
            await host.book.forget_reserved(function.name)
        else:
            await host.book.keep_reserved(function.name, None)
        invoker.reserve(None)
    return {}


def _unqualified(host: Host, call: Call) -> Target:
    found = target(host, call.given["FunctionName"], suffix="")
    if found.qualifier:
        raise ApiError("InvalidParameterValueException", "This operation is permitted on Lambda functions only.")
    return found


def configuration(host: Host, found: Target) -> Answer:
    """FunctionConfiguration, of the version that the qualifier names."""
    function = found.function
    answer = {
        "FunctionName": function.name,
        "FunctionArn": found.arn,
        "Runtime": function.runtime or None,
        "Handler": function.handler or None,
        "Timeout": int(function.timeout),
        "MemorySize": function.memory,
        "LastModified": datetime.fromtimestamp(host.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
        "Version": _version(found),
        "Environment": _environment(host, found),
        "TracingConfig": {"Mode": "PassThrough"},
        "PackageType": "Zip" if function.runtime else None,
        "State": "Active",
        "LastUpdateStatus": "Successful",
    }
    return {key: value for key, value in answer.items() if value is not None}


def _version(found: Target) -> str:
    """An alias stands for its own version, whatever share another has."""
    return resolve(found.function, found.qualifier, 1.0) or LATEST


def _environment(host: Host, found: Target) -> Answer | None:
    """Variables may be secrets: only callers who signed get them."""
    variables = dict(found.function.environment)
    if not variables:
        return None
    if host.settings.api_keys is not None:
        return {"Variables": variables}
    text = "Environment variables are shown only with api.auth: sigv4."
    return {"Error": {"ErrorCode": "AccessDeniedException", "Message": text}}
