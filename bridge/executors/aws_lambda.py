"""Runs a function on AWS Lambda itself, through Invoke."""

from __future__ import annotations

import base64
import io
import time
from types import TracebackType
from typing import Any, Self

from bridge.errors import RemoteError, Throttled
from bridge.executors import Environments, Surroundings
from bridge.executors.calls import CallEnded, Calls
from bridge.executors.failures import Failures
from bridge.executors.http1 import BODY_LIMIT
from bridge.executors.output import log_line
from bridge.function import Function
from bridge.invocation import Failed, FailureKind, Invocation, Outcome, Succeeded

PAYLOAD_LIMIT = 6_291_456  # INV-8
PIECE = 256 * 1024
"""Bytes of an event that are sent at once."""

FINAL = frozenset({
    "InvalidRequestContentException", "RecursiveInvocationException", "RequestTooLargeException",
    "SerializedRequestEntityTooLargeException", "UnsupportedMediaTypeException", "413",
})  # fmt: skip
"""Errors about the event itself, which no later try will cure: they use up an attempt (SQS-36)."""
LOST = frozenset({
    "AioReadTimeoutError", "ClientPayloadError", "ConnectionClosedError", "HTTPClientError", "IncompleteReadError",
    "ReadTimeoutError", "ResponseParserError", "ResponseStreamingError", "Timeout",
})  # fmt: skip
"""What the SDK raises when the answer does not come, or not whole: the function may have run."""
PLATFORM_LINES = ("START RequestId: ", "END RequestId: ", "REPORT RequestId: ", "INIT_START ", "XRAY TraceId: ")


class LambdaExecutor:
    """As many Invokes at once as its caller makes; ``function.timeout`` is how long we wait for each. Lambda's own
    timeout, memory and concurrency apply beside it.
    """

    def __init__(self, function: Function, surroundings: Surroundings) -> None:
        if surroundings.aws is None:
            raise ValueError("functions on AWS need a way there: Surroundings.aws")
        self.function = function
        self._aws = surroundings.aws
        self._sink = log_line if surroundings.output is None else surroundings.output
        self._failures = Failures(function)
        self._calls = Calls()
        self._request = _request(function)

    def __repr__(self) -> str:
        return f"<LambdaExecutor {self.function.name}: {self.function.lambda_arn}, {self.environments().busy} busy>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()

    def environments(self) -> Environments:
        return self._calls.environments

    def provision(self, count: int) -> None:
        self._calls.provision(count)

    async def invoke(self, invocation: Invocation) -> Outcome:
        if len(invocation.payload) > PAYLOAD_LIMIT:  # INV-8, without the way there
            message = f"Request must be smaller than {PAYLOAD_LIMIT} bytes for the InvokeFunction operation"
            return self._failures.told("function", "RequestTooLargeException", message, invocation, 0.0)
        if self._calls.closed:
            return self._not_run("unreachable", invocation, f"the function {self.function.name} is being closed")
        payload = invocation.payload or b"{}"  # INV-6
        # A long event goes out in pieces, between which others get their turn.
        request = {**self._request, "Payload": io.BytesIO(payload) if len(payload) > PIECE else payload}
        if context := invocation.client_context:
            request["ClientContext"] = base64.b64encode(context.encode()).decode()
        answer: dict[str, Any] = {}
        ready = False

        async def call() -> None:
            nonlocal answer, ready
            api = await self._aws.api("lambda", self.function.aws)
            ready = True
            answer = await api.call("Invoke", request, timeout=self.function.timeout)

        began = time.perf_counter()
        try:
            await self._calls.run(call)
        except CallEnded as ended:
            return self._failures.told("function", "Function.ConnectionLost", str(ended), invocation, 0.0)
        except RemoteError as error:
            if not ready:
                return self._not_run("unreachable", invocation, str(error))
            return self._refused(invocation, error, time.perf_counter() - began)
        return self._outcome(invocation, answer, time.perf_counter() - began)

    def _outcome(self, invocation: Invocation, answer: dict[str, Any], duration: float) -> Outcome:
        payload: bytes = answer["Payload"]
        version: str = answer.get("ExecutedVersion") or "$LATEST"  # INV-3
        tail = self._tail(invocation, answer.get("LogResult", ""))
        if len(payload) > BODY_LIMIT:
            return self._failures.too_large(invocation, duration, tail)
        if answer.get("FunctionError"):  # INV-20
            return self._failures.reported(invocation, payload, duration, tail=tail, version=version)
        return Succeeded(payload or b"null", invocation.request_id, version, duration, tail)  # INV-5

    def _refused(self, invocation: Invocation, error: RemoteError, duration: float) -> Failed:
        """Nothing came back of the function itself."""
        if error.code == "Timeout":
            return self._failures.timed_out(invocation, duration, b"")
        if error.code in LOST:
            message = f"{error}; the handler may have run"
            return self._failures.told("function", "Function.ConnectionLost", message, invocation, duration)
        if error.code in FINAL:
            return self._failures.told("function", error.code, str(error), invocation, duration)
        # INV-11, and SQS-35: a service error is tried again with the same batch, as if it had never been sent.
        return self._not_run("throttled" if isinstance(error, Throttled) else "unreachable", invocation, str(error))

    def _not_run(self, kind: FailureKind, invocation: Invocation, why: str) -> Failed:
        error_type = "TooManyRequestsException" if kind == "throttled" else "Function.Unreachable"
        return self._failures.told(kind, error_type, f"{self.function.lambda_arn}: {why}", invocation, 0.0)

    def _tail(self, invocation: Invocation, encoded: str) -> bytes:
        """The end of the function's log (INV-30), whose lines go where those of our own environments go."""
        try:
            tail = base64.b64decode(encoded)
        except ValueError:
            return b""
        for line in tail.decode(errors="replace").splitlines():
            if line and not line.startswith(PLATFORM_LINES):
                self._sink(
                    line,
                    stream="log",
                    function=self.function.name,
                    mapping=invocation.mapping,
                    request_id=invocation.request_id,
                )
        return tail


def _request(function: Function) -> dict[str, str]:
    """What each Invoke of this function says: the ARN without its qualifier, and that by itself (INV-1)."""
    parts = function.lambda_arn.split(":")
    qualifier = {"Qualifier": parts[7]} if len(parts) > 7 else {}
    return {"FunctionName": ":".join(parts[:7]), **qualifier, "InvocationType": "RequestResponse", "LogType": "Tail"}
