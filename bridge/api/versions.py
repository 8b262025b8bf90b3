"""Versions and aliases, as the configuration file declares them: they are read here, and changed there."""

from __future__ import annotations

from bridge.api import Answer, ApiError, Call, Host
from bridge.api.functions import configuration
from bridge.api.names import Target, page, target
from bridge.function import LATEST, Function

PAGE = 50


async def list_all(host: Host, call: Call) -> Answer:
    """$LATEST first, as AWS."""
    invoker = target(host, call.given["FunctionName"], suffix="").invoker
    versions = (LATEST, *invoker.function.versions)
    chosen, marker = page(versions, str, call.given.get("Marker"), call.given.get("MaxItems"), PAGE)
    return {"Versions": [configuration(host, Target(invoker, it)) for it in chosen], "NextMarker": marker}


async def list_aliases(host: Host, call: Call) -> Answer:
    """With FunctionVersion: those that name this version."""
    function = target(host, call.given["FunctionName"], suffix="").function
    version = call.given.get("FunctionVersion")
    names = sorted(name for name, alias in function.aliases.items() if version in (None, alias.version))
    chosen, marker = page(names, str, call.given.get("Marker"), call.given.get("MaxItems"), PAGE)
    return {"Aliases": [_alias(function, it) for it in chosen], "NextMarker": marker}


async def get_alias(host: Host, call: Call) -> Answer:
    function = target(host, call.given["FunctionName"], suffix="").function
    name = call.given["Name"]
    if name not in function.aliases:
        raise ApiError("ResourceNotFoundException", f"Cannot find alias arn: {function.qualified(name)}")
    return _alias(function, name)


def _alias(function: Function, name: str) -> Answer:
    alias = function.aliases[name]
    return {
        "AliasArn": function.qualified(name),
        "Name": name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RoutingConfig": {"AdditionalVersionWeights": alias.weights} if alias.weights else None,
    }
