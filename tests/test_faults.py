"""What failed calls mean, and how patient we are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import botocore.exceptions as sdk
import botocore.parsers
import botocore.session
import pytest
from hypothesis import given, strategies as st

from bridge.errors import (
    AccessDenied,
    ExpiredCredentials,
    NotFound,
    OverLimit,
    Rejected,
    RemoteError,
    ServiceFault,
    Throttled,
    Unreachable,
)
from bridge.faults import _BY_CODE, PASSING, Backoff, classify, persist, translate
from tests.clock import SKIPPING

SQS_ERRORS = {
    "BatchEntryIdsNotDistinct": Rejected,
    "BatchRequestTooLong": Rejected,
    "EmptyBatchRequest": Rejected,
    "InvalidAddress": NotFound,
    "InvalidAttributeName": Rejected,
    "InvalidAttributeValue": Rejected,
    "InvalidBatchEntryId": Rejected,
    "InvalidIdFormat": Rejected,
    "InvalidMessageContents": Rejected,
    "InvalidSecurity": Rejected,
    "KmsAccessDenied": AccessDenied,
    "KmsDisabled": Rejected,
    "KmsInvalidKeyUsage": Rejected,
    "KmsInvalidState": Rejected,
    "KmsNotFound": NotFound,
    "KmsOptInRequired": AccessDenied,
    "KmsThrottled": Throttled,
    "MessageNotInflight": Rejected,
    "OverLimit": OverLimit,  # SQS-81
    "PurgeQueueInProgress": Throttled,
    "QueueDeletedRecently": Throttled,
    "QueueDoesNotExist": NotFound,
    "QueueNameExists": Rejected,
    "ReceiptHandleIsInvalid": Rejected,
    "RequestThrottled": Throttled,
    "ResourceNotFoundException": NotFound,
    "TooManyEntriesInBatchRequest": Rejected,
    "UnsupportedOperation": Rejected,
}


def test_every_error_of_the_sqs_model_has_its_meaning() -> None:
    model = botocore.session.get_session().get_service_model("sqs")
    assert {shape.name: classify(shape.name) for shape in model.error_shapes} == SQS_ERRORS


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("com.amazonaws.sqs#QueueDoesNotExist", NotFound),
        ("AWS.SimpleQueueService.NonExistentQueue", NotFound),
        ("AWS.SimpleQueueService.QueueDeletedRecently", Throttled),
        ("KMS.AccessDeniedException", AccessDenied),
        ("KMS.NotFoundException", NotFound),
        ("KMS.ThrottlingException", Throttled),
        ("ThrottlingException", Throttled),
        ("Throttling", Throttled),
        ("ProvisionedThroughputExceededException", Throttled),
        ("AccessDenied", AccessDenied),
        ("AccessDeniedException", AccessDenied),
        ("SignatureDoesNotMatch", AccessDenied),
        ("ExpiredToken", ExpiredCredentials),
        ("ExpiredTokenException", ExpiredCredentials),
        ("RequestExpired", ExpiredCredentials),
        ("InvalidClientTokenId", ExpiredCredentials),
        ("UnrecognizedClientException", ExpiredCredentials),
        ("InternalError", ServiceFault),
        ("ServiceUnavailable", ServiceFault),
        ("RequestTimeout", Unreachable),
        ("InvalidParameterValue", Rejected),
        ("", Rejected),
    ],
)
def test_codes_of_all_spellings(code: str, kind: type[RemoteError]) -> None:
    assert classify(code) is kind


STATUSES: dict[int, type[RemoteError]] = {
    **dict.fromkeys([400, 409, 413], Rejected),
    **dict.fromkeys([401, 403], AccessDenied),
    404: NotFound,
    408: Unreachable,
    429: Throttled,
    **dict.fromkeys([500, 502, 503, 504], ServiceFault),
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_the_status_decides_about_an_unknown_code(status: int, kind: type[RemoteError]) -> None:
    assert classify("Whatever", status) is kind
    assert classify("", status) is kind


def test_a_known_code_weighs_more_than_the_status() -> None:
    assert classify("ThrottlingException", 500) is Throttled
    assert classify("OverLimit", 403) is OverLimit


def test_no_code_has_two_meanings() -> None:
    codes = [code for codes in _BY_CODE.values() for code in codes.split()]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (sdk.EndpointConnectionError(endpoint_url="http://x"), Unreachable, "EndpointConnectionError"),
        (sdk.ConnectTimeoutError(endpoint_url="http://x", error="slow"), Unreachable, "ConnectTimeoutError"),
        (sdk.ReadTimeoutError(endpoint_url="http://x", error="slow"), Unreachable, "ReadTimeoutError"),
        (sdk.ConnectionClosedError(endpoint_url="http://x"), Unreachable, "ConnectionClosedError"),
        (sdk.ProxyConnectionError(proxy_url="http://x"), Unreachable, "ProxyConnectionError"),
        (sdk.SSLError(endpoint_url="https://x", error="self-signed"), Unreachable, "SSLError"),
        (ConnectionResetError("gone"), Unreachable, "ConnectionResetError"),
        (sdk.NoCredentialsError(), AccessDenied, "NoCredentialsError"),
        (sdk.PartialCredentialsError(provider="env", cred_var="x"), AccessDenied, "PartialCredentialsError"),
        (sdk.ProfileNotFound(profile="dev"), AccessDenied, "ProfileNotFound"),
        (sdk.CredentialRetrievalError(provider="p", error_msg="x"), ExpiredCredentials, "CredentialRetrievalError"),
        (sdk.UnauthorizedSSOTokenError(), ExpiredCredentials, "UnauthorizedSSOTokenError"),
        (sdk.NoRegionError(), Rejected, "NoRegionError"),
        (sdk.ParamValidationError(report="x"), Rejected, "ParamValidationError"),
        (botocore.parsers.ResponseParserError("x"), ServiceFault, "ResponseParserError"),
        (AttributeError("deep inside"), ServiceFault, "AttributeError"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_exceptions_of_the_sdk(error: Exception, kind: type[RemoteError], code: str) -> None:
    ours = translate(error, "sqs ReceiveMessage", "http://x")
    assert type(ours) is kind
    assert ours.code == code
    assert str(ours).startswith("sqs ReceiveMessage: ")
    assert "\n" not in str(ours)


def answered(code: str, message: str, status: int = 400) -> sdk.ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return sdk.ClientError(response, "ReceiveMessage")


def test_an_answer_becomes_one_line_of_bounded_length() -> None:
    ours = translate(answered("Odd", "first\nsecond   third " + "x" * 5000), "sqs ReceiveMessage", "")
    assert str(ours).startswith("sqs ReceiveMessage: first second third xxx")
    assert len(str(ours)) < 500


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidSignatureException"])
def test_what_repeats_the_session_token_is_not_passed_on(code: str) -> None:
    told = "The Canonical String for this request should have been 'POST / x-amz-security-token:SECRET'"
    assert "SECRET" not in str(translate(answered(code, told, 403), "sqs ReceiveMessage", ""))


def test_the_line_says_what_to_do() -> None:
    assert "aws.profile" in str(translate(sdk.NoCredentialsError(), "sqs", ""))
    assert "AWS_CA_BUNDLE" in str(translate(sdk.SSLError(endpoint_url="https://x", error="self-signed"), "sqs", ""))
    assert "`aws sso login`" in str(translate(sdk.UnauthorizedSSOTokenError(), "sqs", ""))


@given(st.floats(0.01, 1), st.floats(1, 100), st.integers(1, 30))
def test_delays_double_up_to_the_most(least: float, most: float, count: int) -> None:
    backoff = Backoff(least, most)
    for number in range(count):
        assert 0 <= backoff.next() <= min(least * 2**number, most)
    backoff.reset()
    assert backoff.next() <= least


class TestPersist:
    @pytest.fixture
    def anyio_backend(self) -> Any:
        return SKIPPING

    @staticmethod
    def failing(*faults: RemoteError, took: float = 0.0) -> Callable[[], Any]:
        left = list(faults)

        async def call() -> str:
            await anyio.sleep(took)
            if left:
                raise left.pop(0)
            return "done"

        return call

    @pytest.mark.anyio
    async def test_the_straight_path_says_nothing(self) -> None:
        told: list[str | None] = []
        assert await persist(self.failing(), trouble=told.append) == "done"
        assert told == []

    @pytest.mark.anyio
    async def test_one_fault_is_no_news(self) -> None:
        told: list[str | None] = []
        assert await persist(self.failing(Unreachable("broke")), trouble=told.append) == "done"
        assert told == []

    @pytest.mark.anyio
    async def test_a_first_fault_that_took_its_time_is_told(self) -> None:
        told: list[str | None] = []
        assert await persist(self.failing(Unreachable("no answer"), took=30), trouble=told.append) == "done"
        assert told == ["no answer", None]

    @pytest.mark.anyio
    @pytest.mark.parametrize("kind", PASSING)
    async def test_it_waits_says_so_once_and_goes_on(self, kind: type[RemoteError]) -> None:
        told: list[str | None] = []
        faults = [kind(f"fault {number}") for number in range(40)]
        began = anyio.current_time()
        assert await persist(self.failing(*faults), trouble=told.append) == "done"
        assert told == ["fault 1", None]
        assert anyio.current_time() - began < 40 * 20

    @pytest.mark.anyio
    @pytest.mark.parametrize("kind", [NotFound, AccessDenied, Rejected])
    async def test_what_does_not_pass_is_raised_at_once(self, kind: type[RemoteError]) -> None:
        told: list[str | None] = []
        began = anyio.current_time()
        with pytest.raises(kind, match="for good"):
            await persist(self.failing(kind("for good")), trouble=told.append)
        assert told == []
        assert anyio.current_time() - began < 0.1

    @pytest.mark.anyio
    async def test_the_last_fault_is_raised_when_the_time_is_over(self) -> None:
        told: list[str | None] = []
        faults = [ServiceFault(f"fault {number}") for number in range(1000)]
        until = anyio.current_time() + 60
        with pytest.raises(ServiceFault) as raised:
            await persist(self.failing(*faults, took=0.1), trouble=told.append, until=until)
        assert told == ["fault 1"]
        assert str(raised.value) != "fault 1"
        assert anyio.current_time() < until

    @pytest.mark.anyio
    async def test_it_can_be_cancelled_while_it_waits(self) -> None:
        told: list[str | None] = []
        faults = [Throttled("slow down")] * 1000
        with anyio.move_on_after(30) as scope:
            await persist(self.failing(*faults), trouble=told.append)
        assert scope.cancelled_caught
        assert told == ["slow down"]
