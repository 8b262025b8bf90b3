"""Invoke and InvokeAsync (spec/invocation.md, part A)."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import msgspec
import structlog

from bridge.api import Answer, ApiError, Call, Host, invalid
from bridge.api.names import Target, target
from bridge.errors import Throttled
from bridge.executors.failures import parse_error
from bridge.invocation import Failed, Invocation, Outcome, Succeeded
from bridge.lineage import hops, joined
from bridge.pipeline.events import MOST_HOPS
from bridge.telemetry.spans import NO_SPAN

log = structlog.get_logger()

MOST_REQUEST = 6_291_456
MOST_EVENT = 1_048_576
"""INV-8: bytes of a payload; an asynchronous one's."""
MOST_RESPONSE = 6_291_556
RECURSIVE = (
    "Lambda has detected your function being invoked in a recursive loop with other Amazon Web Services resources and"
    " stopped your function's invocation."
)
MOST_CONTEXT = 3583
"""INV-2: bytes of the client context."""


async def invoke(host: Host, call: Call) -> Answer:
    """INV-1 to INV-11."""
    given = call.given
    found = target(host, given["FunctionName"], given.get("Qualifier"))
    kind = given.get("InvocationType", "RequestResponse")
    payload = checked(given["Payload"], MOST_EVENT if kind == "Event" else MOST_REQUEST)
    if kind == "DryRun":
        return {"StatusCode": 204}
    if kind == "Event":
        await _accept(host, found, payload, call)
        return {"StatusCode": 202}
    outcome = await _run(host, found, payload, call, _context(given.get("ClientContext")))
    answer = _answer(outcome)
    if given.get("LogType") == "Tail":  # INV-30
        answer["LogResult"] = base64.b64encode(outcome.log_tail).decode()
    return answer


async def invoke_async(host: Host, call: Call) -> Answer:
    """INV-15."""
    found = target(host, call.given["FunctionName"])
    await _accept(host, found, checked(call.given["InvokeArgs"], MOST_EVENT), call)
    return {"Status": 202}


def checked(payload: bytes, most: int) -> bytes:
    """The event as the handler will get it. Raises ApiError: too large (INV-8), no JSON (INV-7)."""
    if len(payload) > most:
        raise too_large(most)
    if not payload.strip():
        return b"{}"  # INV-6
    try:
        payload.decode()
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"Could not parse request body into json: Could not parse payload into json: {error}"
        raise ApiError("InvalidRequestContentException", text) from None
    return payload


def _context(encoded: str | None) -> str:
    """The client context as handlers get it (INV-2, RT-3): JSON on one line of ASCII. Raises ApiError."""
    if not encoded:
        return ""
    if len(encoded) > MOST_CONTEXT:
        raise invalid(f"The client context is {len(encoded)} bytes; the most is {MOST_CONTEXT}.")
    try:
        context = json.loads(base64.b64decode(encoded, validate=True))
    except (ValueError, RecursionError):
        context = None
    if not isinstance(context, dict):
        text = "Client context must be a valid Base64-encoded JSON object."
        raise ApiError("InvalidRequestContentException", text)
    return json.dumps(context, separators=(",", ":"))


def too_large(most: int) -> ApiError:
    """INV-8."""
    text = f"Request must be smaller than {most} bytes for the InvokeFunction operation"
    return ApiError("RequestTooLargeException", text)


async def _accept(host: Host, found: Target, payload: bytes, call: Call) -> None:
    if host.queue is None:
        raise ApiError("ServiceException", "Asynchronous invocation is not available: this bridge has no queue for it.")
    try:
        await host.queue.accept(found.function.name, found.qualifier, payload, call.request_id, trace=call.trace_id)
    except Throttled as error:
        more = {"Reason": "CallerRateLimitExceeded"}
        raise ApiError("TooManyRequestsException", f"Rate Exceeded. {error}", more=more) from None


async def _run(host: Host, found: Target, payload: bytes, call: Call, context: str) -> Outcome:
    """One attempt, at once or not at all (INV-11, INV-13)."""
    invoker, arn = found.invoker, found.function.arn
    if hops(call.trace_id, arn) >= MOST_HOPS:  # INV-41
        raise ApiError("RecursiveInvocationException", RECURSIVE)
    if not invoker.try_acquire():
        raise throttled(reserved=invoker.reserved is not None)
    asked = found.function, found.qualifier, call.request_id, call.trace_id
    try:
        with host.traces.invocation(*asked) if host.traces else NO_SPAN as span:
            invocation = Invocation(
                payload,
                call.request_id,
                trace_id=span.header(joined([call.trace_id], arn, time.time())),
                qualifier=found.qualifier,
                client_context=context,
            )
            outcome = await invoker.invoke(invocation)
            span.ended(outcome)
    finally:
        invoker.release()
    if isinstance(outcome, Failed) and (refusal := _refusal(outcome)):
        raise refusal
    return outcome


def _refusal(outcome: Failed) -> ApiError | None:
    """What is said to a caller whose event was never run, for no fault of the function (INV-11, INV-12)."""
    if outcome.kind in ("throttled", "reserved_zero"):
        return throttled(reserved=outcome.kind == "reserved_zero")
    told = parse_error(outcome.error)
    if outcome.kind == "unreachable" and not told.errorType.startswith("Runtime."):  # INV-25: those are the function's
        return ApiError("ServiceException", told.errorMessage)
    return None


def throttled(*, reserved: bool) -> ApiError:
    """INV-11."""
    prefix = "ReservedFunction" if reserved else ""
    more = {"Reason": f"{prefix}ConcurrentInvocationLimitExceeded"}
    return ApiError("TooManyRequestsException", "Rate Exceeded.", more=more)


def _answer(outcome: Outcome) -> dict[str, Any]:
    """INV-3 to INV-5, INV-20."""
    answer: dict[str, Any] = {"ExecutedVersion": outcome.version}
    if isinstance(outcome, Succeeded):
        if len(outcome.payload) <= MOST_RESPONSE:
            return {**answer, "Payload": outcome.payload or b"null"}
        return {**answer, "FunctionError": "Unhandled", "Payload": _oversize()}
    return {**answer, "FunctionError": "Unhandled", "Payload": outcome.error}


def _oversize() -> bytes:
    """INV-9."""
    text = f"Response payload size exceeded maximum allowed payload size ({MOST_RESPONSE} bytes)."
    return msgspec.json.encode({"errorMessage": text, "errorType": "Function.ResponseSizeTooLarge"})
