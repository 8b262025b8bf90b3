"""The AWS CLI, unchanged, as people type it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import api_site, api_url
from tests.api.lambda_client import client
from tests.conftest import missing
from tests.e2e.harness import Bridge, eventually
from tests.servers import Server

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:my-queue"
TARGET = "arn:aws:sqs:eu-west-1:123456789012:my-letters"

INVOKE = """aws lambda invoke --function-name my-function --payload '{"key": "value"}'\
 --cli-binary-format raw-in-base64-out output.json"""
INVOKE_EVENT = """aws lambda invoke --function-name my-function --invocation-type Event --payload '{"key": "value"}'\
 --cli-binary-format raw-in-base64-out /dev/null"""
CREATE = f"""aws lambda create-event-source-mapping --function-name my-worker --event-source-arn {QUEUE}\
 --batch-size 10 --maximum-batching-window-in-seconds 5 --function-response-types ReportBatchItemFailures"""
UPDATE = "aws lambda update-event-source-mapping --uuid {} --function-response-types ReportBatchItemFailures"
EVENT_CONFIG = f"""aws lambda put-function-event-invoke-config --function-name my-processor --maximum-retry-attempts 2\
 --maximum-event-age-in-seconds 3600 --destination-config '{{"OnSuccess":{{"Destination":"{TARGET}"}},\
"OnFailure":{{"Destination":"{TARGET}"}}}}'"""
CONCURRENCY = (
    """aws lambda put-function-concurrency --function-name my-api-handler --reserved-concurrent-executions 0"""
)
PROVISIONED = (
    "aws lambda put-provisioned-concurrency-config --function-name my-api-handler --qualifier prod"
    " --provisioned-concurrent-executions 10"
)


class Shell:
    """A shell in which ``aws`` is Debian's, and finds the API by its environment alone."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "123456789012",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_PAGER": "",
        }
        self._url = url

    def __call__(self, command: str) -> Any:
        """What it prints, as JSON."""
        program = shutil.which("aws", path="/usr/bin:/usr/local/bin") or shutil.which("aws")
        script = f'aws() {{ {program} --endpoint-url {self._url} --output json "$@"; }}\n{command}\n'
        done = subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            env=self._env,
            cwd=self.folder,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, roto_server: Server) -> Iterator[tuple[Shell, Bridge]]:
    if not shutil.which("aws"):
        missing("awscli")
    folder = tmp_path_factory.mktemp("cli")
    roto_server.queue(name="my-queue", VisibilityTimeout="5")
    site = api_site(folder, roto_server)
    worker = site.config["functions"]["worker"]
    for name in ("my-function", "my-worker", "my-processor"):
        site.config["functions"][name] = worker
    site.config["functions"]["my-api-handler"] = {
        **worker,
        "max_environments": 10,
        "versions": {"1": {"CodeUri": worker["CodeUri"]}},
        "aliases": {"prod": {"FunctionVersion": "1"}},
    }
    with site.running() as bridge:
        yield Shell(folder, api_url(bridge)), bridge


def test_invoke(shell: tuple[Shell, Bridge]) -> None:
    aws, _ = shell
    assert aws(INVOKE) == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert json.loads((aws.folder / "output.json").read_text()) == {"key": "value"}


def test_invoke_as_event(shell: tuple[Shell, Bridge]) -> None:
    aws, bridge = shell
    before = bridge.metric("bridge_invocations_total", function="my-function")
    assert aws(INVOKE_EVENT) == {"StatusCode": 202}
    eventually(lambda: bridge.metric("bridge_invocations_total", function="my-function") > before)


def test_mappings(shell: tuple[Shell, Bridge]) -> None:
    aws, bridge = shell
    made = aws(CREATE)
    assert (made["State"], made["BatchSize"], made["MaximumBatchingWindowInSeconds"]) == ("Creating", 10, 5)
    each = made["UUID"]
    eventually(lambda: bridge.view(each).state == "Enabled")
    assert aws(UPDATE.format(each))["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    eventually(lambda: bridge.view(each).state == "Enabled")
    listed = aws("aws lambda list-event-source-mappings --function-name my-worker")["EventSourceMappings"]
    assert [it["UUID"] for it in listed] == [each]
    assert aws(f"aws lambda get-event-source-mapping --uuid {each}")["State"] == "Enabled"
    assert aws(f"aws lambda delete-event-source-mapping --uuid {each}")["State"] == "Deleting"


def test_provisioned_concurrency(shell: tuple[Shell, Bridge]) -> None:
    aws, bridge = shell
    put = aws(PROVISIONED)
    assert (put["RequestedProvisionedConcurrentExecutions"], put["Status"]) == (10, "IN_PROGRESS")
    name = "--function-name my-api-handler"
    get = f"aws lambda get-provisioned-concurrency-config {name} --qualifier prod"
    ready = eventually(lambda: (now := aws(get))["Status"] == "READY" and now, every=1.0)
    assert ready["AllocatedProvisionedConcurrentExecutions"] == 10
    assert [it.idle for it in bridge.state().functions if it.name == "my-api-handler"] == [10]
    (listed,) = aws(f"aws lambda list-provisioned-concurrency-configs {name}")["ProvisionedConcurrencyConfigs"]
    assert listed.pop("FunctionArn").endswith(":function:my-api-handler:prod")
    assert listed == ready
    assert aws(f"aws lambda delete-provisioned-concurrency-config {name} --qualifier prod") is None
    assert aws(f"aws lambda list-provisioned-concurrency-configs {name}") == {"ProvisionedConcurrencyConfigs": []}


def test_settings(shell: tuple[Shell, Bridge]) -> None:
    aws, bridge = shell
    config = aws(EVENT_CONFIG)
    assert (config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]) == (2, 3600)
    assert config["DestinationConfig"]["OnFailure"] == {"Destination": TARGET}
    assert aws(CONCURRENCY) == {"ReservedConcurrentExecutions": 0}
    api = client(api_url(bridge))
    with pytest.raises(api.exceptions.TooManyRequestsException):
        api.invoke(FunctionName="my-api-handler")
    assert [it["FunctionName"] for it in aws("aws lambda list-functions")["Functions"]][:3] == [
        "my-api-handler", "my-function", "my-processor",
    ]  # fmt: skip
