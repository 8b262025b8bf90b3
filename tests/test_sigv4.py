"""Our signatures, judged by the SDK's."""

from __future__ import annotations

import botocore.auth
import msgspec
from botocore.awsrequest import AWSRequest
from hypothesis import given, settings, strategies as st

from bridge.aws import Credentials
from bridge.sigv4 import Signer, signing_key

HEADERS = {"Content-Type": "application/x-amz-json-1.0", "x-amzn-query-mode": "true"}

printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)
words = st.text(st.sampled_from("abcXYZ019-"), min_size=1, max_size=20)
paths = st.lists(st.from_regex(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*", fullmatch=True), max_size=3).map(
    lambda segments: "/" + "/".join(segments)
)
keys = st.builds(Credentials, words, st.text(min_size=1), st.none() | printable)
params = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
bodies = st.binary() | params.map(msgspec.json.encode)
times = st.floats(0, 4e9)


def judged(url: str, region: str, service: str, headers: dict[str, str], body: bytes, keys: Credentials) -> str:
    """The ``Authorization`` that the SDK gives to a request with these headers."""
    request = AWSRequest("POST", url, headers={**HEADERS, **headers}, data=body)
    request.context["timestamp"] = request.headers["X-Amz-Date"]
    auth = botocore.auth.SigV4Auth(keys, service, region)
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    names = auth.signed_headers(auth.headers_to_sign(request))
    return f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names}, Signature={signature}"


@settings(deadline=None)
@given(paths, words, words, words, st.lists(st.tuples(words, bodies, keys, times), min_size=1, max_size=5))
def test_the_sdk_signs_the_same(
    path: str, region: str, service: str, prefix: str, requests: list[tuple[str, bytes, Credentials, float]]
) -> None:
    """Also when keys and days change under way."""
    signer = Signer(host="sqs.example:8443", path=path, region=region, service=service, headers=HEADERS)
    for operation, body, who, at in [*requests, *requests[:1]]:
        headers = signer.sign(f"{prefix}.{operation}", body, who, at)
        ours = headers.pop("Authorization")
        assert headers["X-Amz-Target"] == f"{prefix}.{operation}"
        assert headers.get("X-Amz-Security-Token") == who.token
        assert ours == judged(f"https://sqs.example:8443{path}", region, service, headers, body, who)


def test_the_key_of_a_day_is_the_one_that_aws_documents() -> None:
    key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"


def test_keys_are_never_shown() -> None:
    signer = Signer(host="h", path="/", region="r", service="s", headers={})
    signer.sign("T", b"", Credentials("AKIDEXAMPLE", "secret-key", "token-value"), 0)
    assert not any(part in repr(signer) for part in ("AKID", "secret-key", "token-value"))
