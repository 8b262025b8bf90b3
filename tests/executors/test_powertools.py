"""A handler as people write it: the batch processor of Powertools, with its partial failures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.executors.launch import RUNTIMES
from bridge.invocation import Failed
from tests.conftest import missing
from tests.contracts.executor import answer, error, invocation
from tests.executors.surroundings import Lines, function, running

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def installed() -> None:
    from importlib.util import find_spec

    if find_spec("aws_lambda_powertools") is None:
        missing("aws-lambda-powertools")


def event(*poison: bool) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"message-{number}",
                "receiptHandle": "handle",
                "body": json.dumps({"poison": poisoned}),
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1545082649183",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "ApproximateFirstReceiveTimestamp": "1545082649185",
                },
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:orders",
                "awsRegion": "eu-west-1",
            }
            for number, poisoned in enumerate(poison)
        ]
    }


async def test_partial_failures() -> None:  # SQS-40
    variables = {"POWERTOOLS_SERVICE_NAME": "orders"}
    async with running(function("powertools.handler", environment=variables, timeout=30.0), output=Lines()) as executor:
        assert answer(await executor.invoke(invocation(event(False, False)))) == {"batchItemFailures": []}
        assert answer(await executor.invoke(invocation(event(False, True, False, True)))) == {
            "batchItemFailures": [{"itemIdentifier": "message-1"}, {"itemIdentifier": "message-3"}]
        }


async def test_a_batch_that_fails_as_a_whole_is_an_error() -> None:
    async with running(function("powertools.handler", timeout=30.0), output=Lines()) as executor:
        outcome = await executor.invoke(invocation(event(True, True)))
    assert isinstance(outcome, Failed)
    assert error(outcome)["errorType"] == "BatchProcessingError"
    assert "poison in message-0" in error(outcome)["errorMessage"]
    assert not any(str(RUNTIMES) in entry for entry in error(outcome)["stackTrace"])
