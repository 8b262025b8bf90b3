"""The fast client: what it carries is what the SDK would have sent, and what it does not understand the SDK gets."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from email.utils import formatdate
from time import gmtime, strftime, time
from typing import Any

import anyio
import botocore.serialize
import botocore.session
import msgspec
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from structlog.testing import capture_logs

from bridge.aws import Aws, Credentials
from bridge.aws_fast import OPERATIONS, host_of
from bridge.errors import AccessDenied, NotFound, Rejected, RemoteError, ServiceFault
from bridge.telemetry.metrics import Metrics
from tests.aws.calls import by_sdk, receive, settings, sqs
from tests.servers import ACCOUNT, REGION
from tests.test_sigv4 import judged
from tests.wire import GARBAGE, Answer, Request, Wire, error

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]

QUERY_ONLY = Answer(
    '<?xml version="1.0"?><ErrorResponse><Error><Code>InvalidAction</Code></Error></ErrorResponse>', 400
)


# Who carries what.


async def test_it_is_the_default_for_the_hot_operations(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    wire.on("ListQueues", {"QueueUrls": []})
    for operation in [*sorted(OPERATIONS["sqs"]), "ListQueues"]:
        wire.on(operation, {})
        await api.call(operation, {}, timeout=5)
    assert {request.operation for request in wire.requests if by_sdk(request)} == {"ListQueues"}


async def test_it_can_be_switched_off_for_one_mapping(aws: Aws, wire: Wire) -> None:
    await receive(await sqs(aws, wire, client="sdk"))
    await receive(await sqs(aws, wire, client="fast"))
    assert [by_sdk(request) for request in wire.requests] == [True, False]


@pytest.mark.parametrize("endpoint", ["/?a=b", "/a%20b", "/a/../b", "//a"])
async def test_an_odd_endpoint_is_left_to_the_sdk(aws: Aws, wire: Wire, endpoint: str) -> None:
    api = await aws.api("sqs", settings(endpoint_url=wire.url + endpoint), REGION)
    await receive(api)
    assert by_sdk(wire.requests[0])


# The same request.

MODEL = botocore.session.get_session().get_service_model("sqs")
ATTRIBUTE = st.fixed_dictionaries({"DataType": st.text(), "StringValue": st.text(), "BinaryValue": st.binary()})
BATCHES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "ReceiveMessage": {"AttributeNames": st.lists(st.text()), "MaxNumberOfMessages": st.integers(0, 10)},
    "DeleteMessageBatch": {
        "Entries": st.lists(st.fixed_dictionaries({"Id": st.text(), "ReceiptHandle": st.text()})),
    },
    "ChangeMessageVisibilityBatch": {
        "Entries": st.lists(st.fixed_dictionaries({"Id": st.text(), "VisibilityTimeout": st.integers(0, 43200)})),
    },
    "SendMessage": {"MessageBody": st.text(), "MessageAttributes": st.dictionaries(st.text(), ATTRIBUTE)},
}


@hypothesis_settings(deadline=None)
@given(st.sampled_from(sorted(BATCHES)), st.data())
def test_the_body_is_what_the_sdk_writes(operation: str, data: st.DataObject) -> None:
    params = data.draw(st.fixed_dictionaries({"QueueUrl": st.text(), **BATCHES[operation]}))
    serializer = botocore.serialize.create_serializer("json", include_validation=False)
    theirs = serializer.serialize_to_request(params, MODEL.operation_model(operation))
    assert msgspec.json.decode(msgspec.json.encode(params)) == msgspec.json.decode(theirs["body"])


def test_it_carries_only_what_json_carries_unchanged() -> None:
    """No member of another name, no time, which the SDK would write in another form."""

    def check(shape: Any) -> None:
        assert shape.type_name in ("structure", "list", "map", "string", "integer", "blob", "boolean"), shape
        for member in getattr(shape, "members", {}).values():
            assert "name" not in member.serialization, member
            check(member)
        for inner in ("member", "key", "value"):
            if hasattr(shape, inner):
                check(getattr(shape, inner))

    for operation in OPERATIONS["sqs"]:
        check(MODEL.operation_model(operation).input_shape)


@pytest.mark.parametrize("path", ["", "/", "/other", "/a/b.c/"])
async def test_the_request_is_what_the_sdk_sends(aws: Aws, wire: Wire, path: str) -> None:
    for client in ("fast", "sdk"):
        await receive(await aws.api("sqs", settings(endpoint_url=wire.url + path, client=client), REGION))
    ours, theirs = wire.requests
    assert (ours.path, ours.params) == (theirs.path, theirs.params)
    differ = {"authorization", "x-amz-date", "user-agent", "content-length"}  # our JSON has no spaces
    extra = {"amz-sdk-request", "amz-sdk-invocation-id", "accept"}
    assert ours.headers.keys() == theirs.headers.keys() - extra
    assert {name: theirs.headers[name] for name in ours.headers if name not in differ} == {
        name: value for name, value in ours.headers.items() if name not in differ
    }


@pytest.mark.parametrize("name", ["127.0.0.1", "LocalHost"])
async def test_the_request_is_signed_as_the_sdk_signs_it(
    aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the token")
    url = wire.url.replace("127.0.0.1", name)
    await receive(await aws.api("sqs", settings(endpoint_url=url), REGION))
    (request,) = wire.requests
    assert request.headers["x-amz-security-token"] == "the token"
    signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {"X-Amz-Date" if name == "x-amz-date" else name: request.headers[name] for name in signed}
    del headers["content-type"], headers["x-amzn-query-mode"]  # the judge has them already
    body = msgspec.json.encode(request.params)
    keys = Credentials(ACCOUNT, "secret", "the token")
    assert request.headers["authorization"] == judged(f"{url}/", REGION, "sqs", headers, body, keys)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://sqs.eu-west-1.amazonaws.com", "sqs.eu-west-1.amazonaws.com"),
        ("https://LocalHost:443/x", "localhost"),
        ("http://localhost:443", "localhost:443"),
        ("http://127.0.0.1:4566", "127.0.0.1:4566"),
        ("http://[::1]:4566", "[::1]:4566"),
        ("http://[::1]:80/", "[::1]"),
    ],
)
def test_the_host_that_is_signed(url: str, host: str) -> None:
    assert host_of(url) == host
    assert botocore.auth._host_from_url(url) == host


async def test_parameters_that_are_no_json_are_refused_here(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    with pytest.raises(Rejected, match="sqs ReceiveMessage: no request"):
        await api.call("ReceiveMessage", {"QueueUrl": object()}, timeout=5)
    assert wire.requests == []


# What it does not understand.


@pytest.mark.parametrize(
    "odd",
    [
        QUERY_ONLY,
        Answer("<ErrorResponse><Error/></ErrorResponse>", 403),
        Answer("<?xml version='1.0'?>\n<ReceiveMessageResponse/>"),
        Answer("<html>please log in</html>"),
        Answer("", 301, {"location": "http://127.0.0.1:9/elsewhere"}),
        Answer("", 304),
    ],
    ids=str,
)
async def test_the_sdk_takes_over_for_good(wire: Wire, odd: Answer) -> None:
    metrics = Metrics()
    wire.once("ReceiveMessage", odd)
    async with Aws(metrics.api_meter()) as aws:
        api = await sqs(aws, wire)
        with capture_logs() as lines:
            assert await receive(api) == {"Messages": []}  # asked again, by the SDK
            await receive(api)
            await aws.renew("sqs", settings(endpoint_url=wire.url), REGION)
            await receive(api)
        assert [by_sdk(request) for request in wire.requests] == [False, True, True, True]
        (line,) = [line for line in lines if line["event"] == "fast_client_given_up"]
        assert wire.url in line["detail"]
        other = await aws.api("sqs", settings(endpoint_url=wire.url), "us-west-2")
        await receive(other)
        assert not by_sdk(wire.requests[-1])
    labels = {"service": "sqs", "op": "ReceiveMessage"}
    value = metrics.registry.get_sample_value
    assert value("bridge_source_api_requests_total", {**labels, "code": "OddAnswer"}) == 1
    assert value("bridge_source_api_requests_total", {**labels, "code": "OK"}) == 4


async def test_calls_in_flight_find_out_by_themselves(aws: Aws, wire: Wire) -> None:
    api = await sqs(aws, wire)
    both = anyio.Event()

    async def odd(request: Request) -> Answer:
        if len(wire.requests) == 5:
            both.set()
        await both.wait()
        return QUERY_ONLY

    wire.once("ReceiveMessage", *[odd] * 5)
    answers: list[dict[str, Any]] = []

    async def work() -> None:
        answers.append(await receive(api))

    with capture_logs() as lines, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(work)
    assert answers == [{"Messages": []}] * 5
    assert [line["event"] for line in lines] == ["fast_client_given_up"]


@pytest.mark.parametrize("answer", [Answer("<html>bad gateway</html>", 502), Answer("no", 503), GARBAGE, Answer("[]")])
async def test_a_passing_fault_is_no_reason_to_give_up(aws: Aws, wire: Wire, answer: Answer) -> None:
    api = await sqs(aws, wire)
    wire.once("ReceiveMessage", answer)
    with pytest.raises(ServiceFault):
        await receive(api)
    await receive(api)
    assert not any(map(by_sdk, wire.requests))


async def test_a_redirect_is_not_followed_with_our_signature(aws: Aws, wire: Wire) -> None:
    async with Wire() as other:
        other.on("ReceiveMessage", {"Messages": []})
        wire.on("ReceiveMessage", Answer("", 307, {"location": other.url}))
        await receive(await sqs(aws, wire))
        assert all(map(by_sdk, other.requests))


# The clock.


def strict(ahead: float, code: str = "InvalidSignatureException") -> Callable[[Request], Any]:
    """A service whose clock is ``ahead``, and who takes only what was signed within five minutes of it."""

    async def answer(request: Request) -> Answer | dict[str, Any]:
        now = time() + ahead
        earliest, latest = (formatted(now + tolerance) for tolerance in (-300, 300))
        if earliest <= request.headers["x-amz-date"] <= latest:
            return {"Messages": []}
        told = f"Signature expired: 'x-amz-security-token:SECRET' is not between {earliest} and {latest}"
        refused = error(code, status=403, message=told)
        return msgspec.structs.replace(refused, headers={"date": formatdate(now, usegmt=True)})

    return answer


def formatted(at: float) -> str:
    return strftime("%Y%m%dT%H%M%SZ", gmtime(at))


@pytest.mark.parametrize("code", ["InvalidSignatureException", "RequestTimeTooSkewed", "SignatureDoesNotMatch"])
@pytest.mark.parametrize("ahead", [-86_400.0, 1000.0])
async def test_a_wrong_clock_is_put_right(aws: Aws, wire: Wire, ahead: float, code: str) -> None:
    wire.on("ReceiveMessage", strict(ahead, code))
    api = await sqs(aws, wire)
    with capture_logs() as lines:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(receive, api)
        assert await receive(api) == {"Messages": []}
    assert 7 <= len(wire.requests) <= 11  # one more for each of the first, none later
    (line,) = [line for line in lines if line["event"] == "clock_wrong"]
    assert abs(line["ahead"] - ahead) < 5
    wire.on("ReceiveMessage", strict(0))  # and somebody sets it
    assert await receive(api) == {"Messages": []}


async def test_a_refused_signature_at_the_right_time_is_no_matter_of_clocks(aws: Aws, wire: Wire) -> None:
    refused = error("SignatureDoesNotMatch", status=403, message="should have been 'x-amz-security-token:SECRET'")
    wire.on("ReceiveMessage", msgspec.structs.replace(refused, headers={"date": formatdate(usegmt=True)}))
    api = await sqs(aws, wire)
    with pytest.raises(AccessDenied, match="check the secret key") as raised:
        await receive(api)
    assert "SECRET" not in str(raised.value)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("date", ["", "nonsense", "Mon, 99 Foo 2030 00:00:00 GMT"])
async def test_without_a_date_there_is_nothing_to_learn(aws: Aws, wire: Wire, date: str) -> None:
    refused = error("RequestTimeTooSkewed", status=403)
    wire.on("ReceiveMessage", msgspec.structs.replace(refused, headers={"date": date}))
    with pytest.raises(AccessDenied, match="set this machine's clock"):
        await receive(await sqs(aws, wire))
    assert len(wire.requests) == 1


async def test_a_clock_that_never_fits_is_an_error(aws: Aws, wire: Wire) -> None:
    years = iter(range(2000, 2100, 10))

    async def mad(request: Request) -> Answer:
        refused = error("RequestTimeTooSkewed", status=403)
        return msgspec.structs.replace(refused, headers={"date": f"Mon, 03 Jan {next(years)} 00:00:00 GMT"})

    wire.on("ReceiveMessage", mad)
    with pytest.raises(AccessDenied):
        await receive(await sqs(aws, wire))
    assert len(wire.requests) == 2


# Words.


async def test_errors_name_the_request_and_no_secret(aws: Aws, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "TOKEN-VALUE")
    api = await sqs(aws, wire)
    refused = error("com.amazonaws.sqs#QueueDoesNotExist", message="Credential=AKIDSHOWN/x, Signature=abc123 is odd")
    wire.once("ReceiveMessage", msgspec.structs.replace(refused, headers={"x-amzn-requestid": "id-1"}))
    with capture_logs() as lines, pytest.raises(NotFound) as raised:
        await receive(api)
    (line,) = [line for line in lines if line["event"] == "request_failed"]
    assert line["aws_request_id"] == raised.value.request_id == "id-1"
    await wire.down()
    with pytest.raises(RemoteError) as broken:
        await receive(api)
    signature = wire.requests[0].headers["authorization"].rpartition("=")[2]
    for failure in (raised.value, broken.value):
        shown = "".join(traceback.format_exception(failure)) + repr(failure) + repr(api)
        assert not any(word in shown for word in ("TOKEN-VALUE", "AKIDSHOWN", "abc123", signature))
    assert "request id id-1" in "".join(traceback.format_exception(raised.value))
