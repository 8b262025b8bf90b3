"""boto3 as the judge of the API: no validation of its own, no retries, and errors as plain tuples."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers import ACCOUNT, REGION


def client(url: str, key: str = ACCOUNT, secret: str = "secret", **options: Any) -> Any:
    """A Lambda client for a daemon's API. Payloads are read at once: one that nobody reads keeps its connection."""
    made = boto3.client(
        "lambda",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False, **options),
    )
    made.meta.events.register("after-call.lambda.Invoke", _read_payload)
    return made


def _read_payload(parsed: dict[str, Any], **_: Any) -> None:
    if "Payload" in parsed:
        parsed["Payload"] = BytesIO(parsed["Payload"].read())


def refused(call: Any, **parameters: Any) -> tuple[str, int, str]:
    """The error's name, status and message."""
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    answer: Any = raised.value.response
    message = answer["Error"].get("Message") or answer.get("message")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amzn-errortype"] == answer["Error"]["Code"]  # ESM-2
    assert headers["x-amzn-requestid"]
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], message
