"""Invoke through boto3 (INV-1 to INV-30)."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bridge.lineage import lengthened
from tests.api.lambda_client import refused
from tests.e2e.harness import Bridge, Site, eventually

ARN = "arn:aws:lambda:eu-west-1:{account}:function:"


def invoked(api: Any, payload: bytes, function: str = "worker", **options: Any) -> tuple[bytes, dict[str, Any]]:
    answer = api.invoke(FunctionName=function, Payload=payload, **options)
    return answer["Payload"].read(), answer


def test_an_answer(api: Any) -> None:  # INV-3, INV-4
    payload, answer = invoked(api, b'{"key": "value"}')
    assert json.loads(payload) == {"key": "value"}
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer
    assert "LogResult" not in answer
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/json"


@pytest.mark.parametrize("form", ["worker", "worker:$LATEST", "{arn}", "{arn}:$LATEST", "{account}:function:worker"])
def test_every_form_of_a_name(api: Any, form: str) -> None:  # ESM-8
    arn = api.get_function_configuration(FunctionName="worker")["FunctionArn"]
    name = form.format(arn=arn, account=arn.split(":")[4])
    assert invoked(api, b"1", name)[0] == b"1"


def test_a_handler_that_returns_nothing(api: Any) -> None:  # INV-5
    assert invoked(api, b'{"order": {"nothing": true}}')[0] == b"null"


@pytest.mark.parametrize("payload", [b"", b" "])
def test_no_payload_is_an_empty_object(api: Any, payload: bytes) -> None:  # INV-6
    assert invoked(api, payload)[0] == b"{}"


@pytest.mark.parametrize("payload", [b"{", b"{]", b"nope", b'"\xff"', b"[1] 2", b"[" * 100_000])
def test_what_is_no_json(api: Any, payload: bytes) -> None:  # INV-7
    name, status, message = refused(api.invoke, FunctionName="worker", Payload=payload)
    assert (name, status) == ("InvalidRequestContentException", 400)
    assert message.startswith("Could not parse request body into json: Could not parse payload into json: ")


def test_the_largest_request(api: Any) -> None:  # INV-8
    payload = b'{"order": {"nothing": true}, "fill": "%s"}'
    payload %= b"x" * (6_291_456 - len(payload) + 2)
    assert len(payload) == 6_291_456
    assert invoked(api, payload)[0] == b"null"
    error = refused(api.invoke, FunctionName="worker", Payload=payload + b" ")
    text = "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
    assert error == ("RequestTooLargeException", 413, text)
    text = "Request must be smaller than 1048576 bytes for the InvokeFunction operation"
    event = b'"%s"' % (b"x" * (1_048_576 - 1))
    error = refused(api.invoke, FunctionName="worker", Payload=event, InvocationType="Event")
    assert error == ("RequestTooLargeException", 413, text)


def test_an_answer_that_is_too_large(api: Any) -> None:  # INV-9
    payload, answer = invoked(api, b'{"order": {"answer": "x", "times": 6291557}}')
    assert json.loads(payload) == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")


@pytest.mark.parametrize(
    ("name", "qualifier", "arn"),
    [
        ("nope", None, "nope:$LATEST"),
        ("nope:7", None, "nope:7"),
        ("worker", "prod", "worker:prod"),
        ("worker:prod", None, "worker:prod"),
    ],
)
def test_an_unknown_function(api: Any, name: str, qualifier: str | None, arn: str) -> None:  # INV-10
    options = {"Qualifier": qualifier} if qualifier else {}
    error, status, message = refused(api.invoke, FunctionName=name, **options)
    assert (error, status) == ("ResourceNotFoundException", 404)
    assert message.startswith("Function not found: arn:aws:lambda:eu-west-1:")
    assert message.endswith(f":function:{arn}")


def test_two_qualifiers(api: Any) -> None:
    name, status, _ = refused(api.invoke, FunctionName="worker:$LATEST", Qualifier="prod")
    assert (name, status) == ("InvalidParameterValueException", 400)


def test_the_type_of_an_error_is_told(api: Any) -> None:  # ESM-2
    with pytest.raises(ClientError) as raised:
        api.invoke(FunctionName="nope")
    assert raised.value.response["Type"] == "User"


def test_throttled(api: Any, tmp_path: Path, stage: tuple[Site, Bridge]) -> None:  # INV-11, ESM-5
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(invoked, api, json.dumps({"order": {"until": str(gate)}}).encode(), "narrow")
        stage[1].until(lambda: any(it.busy for it in stage[1].state().functions if it.name == "narrow"))
        with pytest.raises(ClientError) as raised:
            api.invoke(FunctionName="narrow")
        gate.touch()
        assert running.result()[1]["StatusCode"] == 200
    answer: Any = raised.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert answer["Error"] == {"Message": "Rate Exceeded.", "Code": "TooManyRequestsException"}
    assert answer["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"


def test_throttled_without_reserved_concurrency(api: Any, tmp_path: Path, stage: tuple[Site, Bridge]) -> None:
    gate = tmp_path / "gate"
    payload = json.dumps({"order": {"until": str(gate)}}).encode()
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(invoked, api, payload) for _ in range(4)]
        stage[1].until(lambda: [it.busy for it in stage[1].state().functions if it.name == "worker"] == [4])
        with pytest.raises(ClientError) as raised:
            api.invoke(FunctionName="worker")
        gate.touch()
        assert [it.result()[1]["StatusCode"] for it in running] == [200] * 4
    assert raised.value.response["Reason"] == "ConcurrentInvocationLimitExceeded"


def test_dry_run(api: Any) -> None:  # INV-4
    payload, answer = invoked(api, b"1", InvocationType="DryRun")
    assert (payload, answer["StatusCode"]) == (b"", 204)
    assert "ExecutedVersion" not in answer
    assert refused(api.invoke, FunctionName="nope", InvocationType="DryRun")[1] == 404


def test_an_event(api: Any, tmp_path: Path) -> None:  # INV-4, ASY-1, INV-15
    done = tmp_path / "done"
    payload, answer = invoked(api, json.dumps({"order": {"touch": str(done)}}).encode(), InvocationType="Event")
    assert (payload, answer["StatusCode"]) == (b"", 202)
    assert "ExecutedVersion" not in answer
    eventually(done.exists)
    done.unlink()
    old = api.invoke_async(FunctionName="worker", InvokeArgs=json.dumps({"order": {"touch": str(done)}}).encode())
    assert old["Status"] == 202
    eventually(done.exists)


# Function errors.


def test_an_exception(api: Any) -> None:  # INV-20, INV-21
    payload, answer = invoked(api, b'{"order": {"raise": "no such order"}}')
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    error = json.loads(payload)
    assert (error["errorMessage"], error["errorType"]) == ("no such order", "ValueError")
    assert set(error) == {"errorMessage", "errorType", "requestId", "stackTrace"}
    assert error["requestId"] == answer["ResponseMetadata"]["RequestId"]


def test_a_timeout(api: Any, tmp_path: Path) -> None:  # INV-23
    payload, answer = invoked(api, json.dumps({"order": {"until": str(tmp_path / "never")}}).encode(), "slow")
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(payload) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {request_id} Error: Task timed out after 1.00 seconds",
    }


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "Runtime exited without providing a reason"), (127, "Runtime exited with error: exit status 127")],
)
def test_an_exit(api: Any, status: int, text: str) -> None:  # INV-24
    payload, answer = invoked(api, json.dumps({"order": {"exit": status}}).encode())
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert json.loads(payload) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: {text}",
    }


def test_the_log_tail(api: Any) -> None:  # INV-30
    _, answer = invoked(api, b'{"order": {"print": "hello from inside"}}', LogType="Tail")
    tail = base64.b64decode(answer["LogResult"]).decode()
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert tail.startswith(f"START RequestId: {request_id} Version: $LATEST\nhello from inside\nEND RequestId: ")
    assert "\nREPORT RequestId: " in tail
    long = json.dumps({"order": {"print": "x" * 5000, "raise": "late"}}).encode()
    _, answer = invoked(api, long, LogType="Tail")
    assert len(base64.b64decode(answer["LogResult"])) == 4096
    assert answer["FunctionError"] == "Unhandled"


BROKEN = "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member must {}"
KINDS = "satisfy enum value set: [Event, RequestResponse, DryRun]"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"InvocationType": "Later"}, BROKEN.format("Later", "invocationType", KINDS)),
        ({"LogType": "Head"}, BROKEN.format("Head", "logType", "satisfy enum value set: [None, Tail]")),
        ({"Qualifier": "x" * 129}, BROKEN.format("x" * 129, "qualifier", "have length less than or equal to 128")),
    ],
)
def test_broken_constraints(api: Any, options: dict[str, str], text: str) -> None:  # ESM-3, INV-1, INV-2
    assert refused(api.invoke, FunctionName="worker", **options) == ("ValidationException", 400, text)


def test_a_chain_that_runs_in_a_circle(api: Any) -> None:  # INV-40, INV-41
    arn = api.get_function_configuration(FunctionName="worker")["FunctionArn"]
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793"
    for hop in range(17):
        api.meta.events.register("before-sign.lambda.Invoke", with_trace := traced(trace))
        try:
            if hop < 16:
                assert api.invoke(FunctionName="worker")["StatusCode"] == 200
            else:
                name, status, message = refused(api.invoke, FunctionName="worker")
                assert (name, status) == ("RecursiveInvocationException", 400)
                assert "recursive loop" in message
        finally:
            api.meta.events.unregister("before-sign.lambda.Invoke", with_trace)
        trace = lengthened(trace, arn)


def traced(trace: str) -> Any:
    """As the SDK on Lambda does it: the header of whoever calls goes on."""

    def add(request: Any, **_: Any) -> None:
        request.headers["X-Amzn-Trace-Id"] = trace

    return add


def test_a_stop_lets_invocations_end(tmp_path: Path) -> None:
    from tests.api.conftest import api_site, api_url
    from tests.api.lambda_client import client

    gate = tmp_path / "gate"
    site = api_site(tmp_path, None)
    with site.running() as bridge, ThreadPoolExecutor(1) as threads:
        api = client(api_url(bridge))
        running = threads.submit(invoked, api, json.dumps({"order": {"until": str(gate)}}).encode())
        bridge.until(lambda: any(it.busy for it in bridge.state().functions))
        bridge.process.terminate()
        bridge.said("draining")
        gate.touch()
        assert running.result()[1]["StatusCode"] == 200
        assert bridge.wait() == 0
        eventually(lambda: not site.left())
