"""How asynchronous invocations of a function are retried and reported: its settings (ASY-20 to ASY-23)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bridge.api import Answer, ApiError, Call, Host, invalid
from bridge.api.book import EventInvokeConfig, now
from bridge.api.names import Named, named, page
from bridge.function import LATEST

PAGE = 50
TARGETS = ("sqs", "sns", "lambda", "events", "s3")
"""DST-1: services of destinations; S3 for failures alone."""


async def put(host: Host, call: Call) -> Answer:
    """Replaces everything (ASY-22)."""
    return await _write(host, call, EventInvokeConfig())


async def update(host: Host, call: Call) -> Answer:
    """Changes what is given (ASY-22)."""
    return await _write(host, call, _existing(host, _function(host, call)))


async def get(host: Host, call: Call) -> Answer:
    said = _function(host, call)
    return _answer(said, _existing(host, said))


async def delete(host: Host, call: Call) -> Answer:
    """Also of what the configuration file says: AWS's defaults hold then."""
    said = _function(host, call)
    _existing(host, said)
    if _filed(host, said) is None:
        await host.book.forget_event_invoke(_key(said), host.queue)
    else:
        await host.book.keep_event_invoke(_key(said), EventInvokeConfig(), host.queue)
    return {}


async def list_all(host: Host, call: Call) -> Answer:
    said = _function(host, call)
    function = host.invokers[said.name].function
    found = [
        (each, config) for it in function.qualifiers if (config := _kept(host, each := said._replace(qualifier=it)))
    ]
    chosen, marker = page(found, lambda it: it[0].qualifier, call.given.get("Marker"), call.given.get("MaxItems"), PAGE)
    return {"FunctionEventInvokeConfigs": [_answer(*it) for it in chosen], "NextMarker": marker}


async def _write(host: Host, call: Call, base: EventInvokeConfig) -> Answer:
    given = call.given
    if not given.keys() & {"MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig"}:
        raise invalid("You must specify at least one of error handling or destination setting.")
    said = _function(host, call)
    changes: dict[str, Any] = {"modified_at": now()}
    if "MaximumRetryAttempts" in given:
        changes["maximum_retry_attempts"] = given["MaximumRetryAttempts"]
    if "MaximumEventAgeInSeconds" in given:
        changes["maximum_event_age"] = given["MaximumEventAgeInSeconds"]
    if "DestinationConfig" in given:
        changes["on_success"], changes["on_failure"] = _destinations(host, said, given["DestinationConfig"])
    config = msgspec.structs.replace(base, **changes)
    await host.book.keep_event_invoke(_key(said), config, host.queue)
    return _answer(said, config)


def _destinations(host: Host, said: Named, config: dict[str, Any]) -> tuple[str, str]:
    """The two ARNs, or empty texts. Raises ApiError (ASY-23)."""
    success = config.get("OnSuccess", {}).get("Destination", "")
    failure = config.get("OnFailure", {}).get("Destination", "")
    for arn, is_failure in ((success, False), (failure, True)):
        service = arn.split(":")[2] if arn.count(":") >= 5 else ""
        if arn and (service not in TARGETS or (service == "s3" and not is_failure)):
            raise invalid(
                "The provided destination config DestinationConfig("
                f"onSuccess={_shown('OnSuccess', success)}, onFailure={_shown('OnFailure', failure)}) is invalid."
            )
        if service == "lambda":
            _check_function(host, said, arn)
    return success, failure


def _check_function(host: Host, said: Named, arn: str) -> None:
    match = re.fullmatch(r"(arn:[^:]+:lambda:[^:]+:[^:]*:function:([^:]+))(?::(.+))?", arn)
    if not match:
        raise invalid(f"The destination ARN {arn} is invalid.")
    unqualified, name, qualifier = match.groups()
    if unqualified == said.arn and (qualifier or LATEST) == (said.qualifier or LATEST):
        raise invalid("You can't specify the function as a destination for itself.")
    invoker = host.invokers.get(name)
    if unqualified.rpartition(":")[0] == said.arn.rpartition(":")[0] and (  # else it is AWS's, which we do not ask
        invoker is None or (qualifier or LATEST) not in invoker.function.qualifiers
    ):
        raise invalid(f"The destination ARN {arn} is invalid.")


def _shown(kind: str, arn: str) -> str:
    return f"{kind}(destination={arn})" if arn else "null"


def _function(host: Host, call: Call) -> Named:
    said = named(host, call.given["FunctionName"], call.given.get("Qualifier"))
    invoker = host.invokers.get(said.name)
    if invoker is None or said.qualifier not in ("", *invoker.function.qualifiers):
        raise ApiError("ResourceNotFoundException", "The function doesn't exist.")
    return said


def _existing(host: Host, said: Named) -> EventInvokeConfig:
    config = _kept(host, said)
    if config is None:
        arn = f"{said.arn}:{said.qualifier or LATEST}"
        raise ApiError("ResourceNotFoundException", f"The function {arn} doesn't have an EventInvokeConfig")
    return config


def _kept(host: Host, said: Named) -> EventInvokeConfig | None:
    """What was set here, else what the configuration file says. One that says nothing was deleted."""
    config = host.book.event_invoke.get(_key(said)) or _filed(host, said)
    return None if config is None or config.settings.empty else config


def _filed(host: Host, said: Named) -> EventInvokeConfig | None:
    """Of the unqualified function alone (ASY-20)."""
    settings = host.invokers[said.name].function.event_invoke
    if settings.empty or said.qualifier not in ("", LATEST):
        return None
    return EventInvokeConfig.of(settings, host.started_at)


def _key(said: Named) -> str:
    return f"{said.name}:{said.qualifier or LATEST}"


def _answer(said: Named, config: EventInvokeConfig) -> Answer:
    """ASY-21."""
    return {
        "LastModified": config.modified_at,
        "FunctionArn": f"{said.arn}:{said.qualifier or LATEST}",
        "MaximumRetryAttempts": config.maximum_retry_attempts,
        "MaximumEventAgeInSeconds": config.maximum_event_age,
        "DestinationConfig": {
            "OnSuccess": {"Destination": config.on_success} if config.on_success else {},
            "OnFailure": {"Destination": config.on_failure} if config.on_failure else {},
        },
    }
