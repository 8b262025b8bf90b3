"""Which queue QUEUE means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import UsageError
from bridge.function import AwsSettings
from bridge.replay.finding import resolve
from bridge.replay.queues import region_of
from bridge.settings import Settings
from tests.configured import RUNTIME, settings
from tests.replay.post import Box, Post, redrives

pytestmark = pytest.mark.anyio

ARN = "arn:aws:sqs:eu-west-1:123456789012"
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"


def configured(folder: Path) -> Settings:
    return settings(
        folder,
        f"""
aws: {{region: eu-west-1, endpoint_url: "http://127.0.0.1:4566"}}
functions:
  worker: {{Runtime: {RUNTIME}, Handler: app.handler, CodeUri: ., DeadLetterConfig: {{TargetArn: "{ARN}:async-dlq"}}}}
  plain: {{Runtime: {RUNTIME}, Handler: app.handler, CodeUri: .}}
  both:
    Runtime: {RUNTIME}
    Handler: app.handler
    CodeUri: .
    DeadLetterConfig: {{TargetArn: "{ARN}:one"}}
    EventInvokeConfig: {{DestinationConfig: {{OnFailure: {{Destination: "{ARN}:two"}}}}}}
mappings:
  orders: {{FunctionName: worker, EventSourceArn: "{ARN}:orders"}}
  bare: {{FunctionName: plain, EventSourceArn: "{ARN}:bare"}}
  clicks:
    FunctionName: worker
    EventSourceArn: {STREAM}
    StartingPosition: LATEST
    DestinationConfig: {{OnFailure: {{Destination: "{ARN}:clicks-failed"}}}}
  silent: {{FunctionName: plain, EventSourceArn: {STREAM}2, StartingPosition: LATEST}}
""",
    )


def post() -> Any:
    dead = Box("orders-dlq")
    return Post(dead, Box("orders", attributes=redrives(dead)), Box("bare"))


@pytest.mark.parametrize(
    ("word", "place", "meant"),
    [
        ("orders", f"{ARN}:orders-dlq", "mapping orders"),
        ("clicks", f"{ARN}:clicks-failed", "mapping clicks"),
        ("worker", f"{ARN}:async-dlq", "DeadLetterConfig of function worker"),
        ("orders-dlq", "orders-dlq", ""),
        (f"{ARN}:any", f"{ARN}:any", ""),
        ("http://127.0.0.1:9324/queue/any", "http://127.0.0.1:9324/queue/any", ""),
    ],
)
async def test_names_of_the_configuration_come_first(tmp_path: Path, word: str, place: str, meant: str) -> None:
    found = await resolve(post(), word, configured(tmp_path), AwsSettings())
    assert (found.word, found.meant) == (place, meant)


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("bare", "mapping bare: bare has no redrive policy"),
        ("silent", "mapping silent has no on-failure destination"),
        ("plain", "function plain has neither DeadLetterConfig nor an on-failure destination"),
        ("both", f'"both" means several places: {ARN}:one of DeadLetterConfig .*, {ARN}:two of on-failure'),
    ],
)
async def test_what_has_none_or_several(tmp_path: Path, word: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        await resolve(post(), word, configured(tmp_path), AwsSettings())


async def test_without_a_configuration() -> None:
    given = AwsSettings(region="eu-central-1")
    assert await resolve(post(), "orders", None, given) == await resolve(post(), "orders", None, given)
    assert (await resolve(post(), "orders", None, given)).word == "orders"


@pytest.mark.parametrize(
    ("url", "given", "endpoint"),
    [
        ("http://localhost:9324/000000000000/q", "", "http://localhost:9324"),
        ("http://localhost:9324/000000000000/q", "http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/q", "", None),
        ("https://queue.amazonaws.com/123456789012/q", "", None),
    ],
)
async def test_a_url_says_where_the_endpoint_is(url: str, given: str, endpoint: str | None) -> None:
    found = await resolve(post(), url, None, AwsSettings(endpoint_url=given or None))
    assert found.aws.endpoint_url == endpoint


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/1/q", "eu-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ("https://vpce-1a.sqs.eu-west-1.vpce.amazonaws.com/1/q", "eu-west-1"),
        ("http://sqs.eu-west-1.localhost:4566/1/q", ""),
        ("http://127.0.0.1:9324/1/q", ""),
    ],
)
def test_the_region_of_a_url(url: str, region: str) -> None:
    assert region_of(url) == region


async def test_the_command_line_goes_before_the_configuration(tmp_path: Path) -> None:
    given = AwsSettings(region="us-east-2", endpoint_url="http://127.0.0.1:1")
    found = await resolve(post(), f"{ARN}:any", configured(tmp_path), given)
    assert (found.aws.region, found.aws.endpoint_url) == ("us-east-2", "http://127.0.0.1:1")
