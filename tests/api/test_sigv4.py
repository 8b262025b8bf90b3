"""Who may call: signatures, made by botocore, checked by us."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from multidict import CIMultiDict

from bridge.api import ApiError
from bridge.api.sigv4 import Signatures
from tests.api.conftest import api_site, api_url
from tests.api.lambda_client import client, refused
from tests.e2e.harness import Bridge

KEY, SECRET = "AKIDEXAMPLE", "a/secret+of=40characters"
URL = "http://127.0.0.1:3001/2015-03-31/functions/{}/invocations"


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    site = api_site(tmp_path_factory.mktemp("sigv4"), None)
    site.config["api"] |= {"auth": "sigv4", "access_keys": {KEY: "${THE_SECRET}", "OTHERKEY": "other"}}
    with site.start(env={"THE_SECRET": SECRET}).ready() as bridge:
        yield bridge
        assert SECRET not in json.dumps(bridge.log())


def test_boto3_with_the_right_secret(bridge: Bridge) -> None:
    api = client(api_url(bridge), KEY, SECRET)
    assert api.invoke(FunctionName="worker", Payload=b'"signed"')["Payload"].read() == b'"signed"'
    arn = api.get_function_configuration(FunctionName="worker")["FunctionArn"]
    assert api.invoke(FunctionName=arn, Qualifier="$LATEST")["StatusCode"] == 200  # encoded in path and query
    assert api.list_tags(Resource=arn)["Tags"] == {}
    api.tag_resource(Resource=arn, Tags={"a b": "ü"})
    api.untag_resource(Resource=arn, TagKeys=["a b", "c=e"])
    assert "JOURNAL" in api.get_function_configuration(FunctionName="worker")["Environment"]["Variables"]


def test_who_is_refused(bridge: Bridge) -> None:
    api = client(api_url(bridge), KEY, SECRET + "x")
    assert refused(api.invoke, FunctionName="worker")[:2] == ("InvalidSignatureException", 403)
    api = client(api_url(bridge), "AKIDUNKNOWN", SECRET)
    text = "The security token included in the request is invalid."
    assert refused(api.list_functions) == ("UnrecognizedClientException", 403, text)
    api = client(api_url(bridge), KEY, "other")  # another key's secret
    assert refused(api.list_functions)[:2] == ("InvalidSignatureException", 403)
    assert bridge.said("api_denied")
    address = urlsplit(api_url(bridge))
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    connection.request("GET", "/2015-03-31/functions")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")
    assert answer.read() == b'{"message":"Missing Authentication Token"}'
    connection.close()


# Piece by piece.

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def signed(
    monkeypatch: pytest.MonkeyPatch, at: datetime = NOW, url: str = URL.format("worker"), body: bytes = b"{}"
) -> Any:
    """A request as botocore signs it at that time."""
    request = AWSRequest("POST", url, data=body, headers={"X-Amz-Log-Type": " Tail  of "})
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: at)
    SigV4Auth(Credentials(KEY, SECRET), "lambda", "eu-west-1").add_auth(request)
    headers = CIMultiDict(request.headers.items())
    headers["Host"] = urlsplit(url).netloc
    return request, headers


def judged(request: Any, headers: Any, body: bytes = b"{}", now: datetime = NOW) -> str:
    """The error's name and message, or nothing."""
    signatures = Signatures({KEY: SECRET})
    parts = urlsplit(request.url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        signatures.check(signatures.claim(headers, now), "POST", path, headers, body)
    except ApiError as error:
        return f"{error.name}: {error.message}"
    return ""


@pytest.mark.parametrize(
    "name", ["worker", "arn%3Aaws%3Alambda%3Aeu-west-1%3A1%3Afunction%3Ax", "w?Qualifier=%24LATEST&A=~%2B%20"]
)
def test_it_signs_what_botocore_signs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path, _, query = name.partition("?")
    request, headers = signed(monkeypatch, url=URL.format(path) + (f"?{query}" if query else ""))
    assert judged(request, headers) == ""


def test_what_is_signed_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    request, headers = signed(monkeypatch)
    assert judged(request, headers) == ""
    wrong = "InvalidSignatureException: The request signature we calculated does not match"
    assert judged(request, headers, b"{ }").startswith(wrong)
    headers["Host"] = "127.0.0.1:3002"
    assert judged(request, headers).startswith(wrong)
    request, headers = signed(monkeypatch)
    request.url += "x"
    assert judged(request, headers).startswith(wrong)


@pytest.mark.parametrize(("off", "word"), [(301, "expired"), (-301, "not yet current")])
def test_clocks(monkeypatch: pytest.MonkeyPatch, off: int, word: str) -> None:
    request, headers = signed(monkeypatch)
    assert judged(request, headers, now=NOW + timedelta(seconds=off)).startswith(
        f"InvalidSignatureException: Signature {word}"
    )
    assert judged(request, headers, now=NOW + timedelta(seconds=300 if off > 0 else -300)) == ""


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("AWS4-HMAC-SHA256 ", "Bearer ", "IncompleteSignatureException"),
        ("Signature=", "Sig=", "IncompleteSignatureException"),
        ("/aws4_request", "", "IncompleteSignatureException"),
        ("/lambda/", "/sqs/", "InvalidSignatureException"),
        ("host;", "", "InvalidSignatureException"),
        ("20260301", "20260302", "InvalidSignatureException"),
        (KEY, "AKIDUNKNOWN", "UnrecognizedClientException"),
    ],
)
def test_malformed_ones(monkeypatch: pytest.MonkeyPatch, old: str, new: str, name: str) -> None:
    request, headers = signed(monkeypatch)
    headers["Authorization"] = headers["Authorization"].replace(old, new)
    assert judged(request, headers).startswith(f"{name}: ")


def test_without_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    request, headers = signed(monkeypatch)
    headers["X-Amz-Date"] = "yesterday"
    assert judged(request, headers).startswith("IncompleteSignatureException: ")


def test_nothing_shows_a_secret() -> None:
    assert SECRET not in repr(Signatures({KEY: SECRET}))


def test_the_secret_is_not_shown_by_commands(tmp_path: Path) -> None:
    site = api_site(tmp_path, None)
    site.config["api"] |= {"auth": "none", "access_keys": {KEY: SECRET}}
    done = site.cli("validate", "-c", str(site.write()))
    assert done.status == 2
    assert SECRET not in done.out + done.err
