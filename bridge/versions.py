"""Which version of a function an invocation gets, by what stands behind the function's name."""

from __future__ import annotations

import msgspec

from bridge.function import LATEST, Function


def resolve(function: Function, qualifier: str, luck: float) -> str | None:
    """The version behind a version's number, an alias, ``$LATEST`` or nothing; none when there is no such. ``luck`` in
    0..1 decides where an alias shares its invocations between two versions."""
    if qualifier in ("", LATEST):
        return LATEST
    if qualifier in function.versions:
        return qualifier
    alias = function.aliases.get(qualifier)
    if alias is None:
        return None
    for version, weight in alias.weights.items():
        if luck < weight:
            return version
        luck -= weight
    return alias.version


def shares(function: Function, qualifier: str, count: int) -> dict[str, int]:
    """How ``count`` environments that are started ahead for a qualifier are divided: version -> number. None for one
    that does not exist."""
    alias = function.aliases.get(qualifier)
    if alias is None:
        return {qualifier: count} if qualifier in function.versions else {}
    others = {version: round(count * weight) for version, weight in alias.weights.items()}
    return {alias.version: count - sum(others.values()), **others}


def at(function: Function, version: str) -> Function:
    """The function as this version of it runs. Debuggers look at ``$LATEST``: a port can be listened on once."""
    if version == LATEST:
        return function
    return msgspec.structs.replace(
        function, version=version, code=function.versions[version], provisioned=0, debug=None
    )
