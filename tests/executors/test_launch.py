"""What a child sees of the world: exactly the variables that are promised."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.executors.launch import RUNTIMES, code_folder, command, variables
from bridge.function import AwsSettings
from tests.contracts.executor import answer, invocation
from tests.executors.surroundings import HANDLERS, function, running

OURS = {"PATH": "/bin:/usr/bin", "HOME": "/home/me", "LANG": "de_DE.UTF-8", "TZ": "Europe/Berlin", "SECRET": "x"}


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's own environment."""
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in OURS.items():
        monkeypatch.setenv(name, value)


def seen(keys: dict[str, str] | None = None, **settings: Any) -> dict[str, str]:
    return variables(function("app.handler", **settings), Path("/srv/code"), keys or {}, "127.0.0.1:9001")


def test_exactly_these() -> None:  # RT-20, RT-21, RT-22
    found = seen(runtime="python3.12", memory=256, environment={"TABLE_NAME": "users"})
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", found.pop("AWS_LAMBDA_LOG_STREAM_NAME"))
    assert found == {
        "PATH": "/bin:/usr/bin",
        "HOME": "/home/me",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "TABLE_NAME": "users",
        "_HANDLER": "app.handler",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_REGION": "eu-west-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.12",
        "AWS_LAMBDA_FUNCTION_NAME": "worker",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/worker",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "LAMBDA_TASK_ROOT": "/srv/code",
        "LAMBDA_RUNTIME_DIR": str(RUNTIMES),
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def test_what_is_started_ahead_and_what_is_reloaded() -> None:  # RT-22
    worker = function("app.handler", reload=True)
    found = variables(worker, Path("/srv/code"), {}, "127.0.0.1:9001", scratch=Path("/tmp/x"), provisioned=True)
    assert found["AWS_LAMBDA_INITIALIZATION_TYPE"] == "provisioned-concurrency"
    assert (found["TMPDIR"], found["PYTHONDONTWRITEBYTECODE"]) == ("/tmp/x", "1")


def test_each_environment_has_its_own_log_stream() -> None:
    assert seen()["AWS_LAMBDA_LOG_STREAM_NAME"] != seen()["AWS_LAMBDA_LOG_STREAM_NAME"]


def test_the_functions_own_variables_change_what_may_be_changed() -> None:  # RT-20, RT-21
    changed = {"TZ": "Asia/Tokyo", "LANG": "C", "PATH": "/opt", "AWS_XRAY_CONTEXT_MISSING": "RUNTIME_ERROR"}
    found = seen(environment=changed | {"AWS_REGION": "mars-1", "_HANDLER": "other"})
    assert {name: found[name] for name in changed} == changed
    assert (found["AWS_REGION"], found["_HANDLER"]) == ("eu-west-1", "app.handler")


def test_the_region_is_the_configured_one_else_ours_else_the_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen()["AWS_REGION"] == "eu-west-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert seen()["AWS_REGION"] == "us-east-1"
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert seen()["AWS_REGION"] == "us-west-2"
    found = seen(aws=AwsSettings(region="ap-south-1"))
    assert (found["AWS_REGION"], found["AWS_DEFAULT_REGION"]) == ("ap-south-1", "ap-south-1")


def test_endpoints_come_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    found = seen()
    assert (found["AWS_ENDPOINT_URL"], found["AWS_ENDPOINT_URL_S3"]) == ("http://all", "http://s3")
    urls = {"kinesis": "http://k", "dynamodbstreams": "http://d", "events": "http://e"}
    found = seen(aws=AwsSettings(endpoint_url="http://local", endpoint_urls=urls))
    assert {name: value for name, value in found.items() if "ENDPOINT" in name} == {
        "AWS_ENDPOINT_URL": "http://local",  # the configuration's counts for S3, too
        "AWS_ENDPOINT_URL_KINESIS": "http://k",
        "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": "http://d",
        "AWS_ENDPOINT_URL_EVENTBRIDGE": "http://e",
    }


def test_credentials_come_along_over_everything_else() -> None:
    found = seen({"AWS_ACCESS_KEY_ID": "AKID"}, environment={"AWS_ACCESS_KEY_ID": "mine"})
    assert found["AWS_ACCESS_KEY_ID"] == "AKID"


def test_without_the_chain_nothing_of_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    found = seen(credentials="none", aws=AwsSettings(endpoint_url="http://local"))
    assert not [name for name in found if "ENDPOINT" in name or "KEY" in name or "CREDENTIALS_FULL" in name]
    assert found["AWS_EC2_METADATA_DISABLED"] == "true"
    assert found["AWS_SHARED_CREDENTIALS_FILE"] == found["AWS_CONFIG_FILE"] == "/dev/null"


def test_the_interpreter_is_ours_unless_one_is_named() -> None:
    client = ("-u", str(RUNTIMES / "python.py"))
    assert command(function("app.handler")) == (sys.executable, *client)
    assert command(function("app.handler", python="sh")) in (("/bin/sh", *client), ("/usr/bin/sh", *client))


def test_the_link_of_a_virtual_environment_is_kept(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    assert command(function("app.handler", python=str(tmp_path / "python")))[0] == str(tmp_path / "python")


def test_custom_runtimes_have_no_execution_environment() -> None:  # RT-22
    found = seen(kind="provided", runtime="provided.al2023")
    assert not {"AWS_EXECUTION_ENV", "_X_AMZN_TRACE_ID"} & found.keys()
    assert seen(kind="nodejs", runtime="nodejs20.x")["AWS_EXECUTION_ENV"] == "AWS_Lambda_nodejs20.x"


@pytest.mark.parametrize("kind", ["python", "nodejs", "provided"])
def test_a_wrapper_starts_runtimes_of_aws(kind: str) -> None:  # RT-24
    given = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}
    words = command(function("app.handler", kind=kind, environment=given, node="sh", command=("sh", "-e")))
    assert (words[:3] == ("/usr/bin/env", "--", "/opt/wrapper")) == (kind != "provided")


def test_the_code_folder_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HANDLERS.parent)
    assert code_folder(function("app.handler", code=Path("handlers"))) == HANDLERS


@pytest.mark.anyio
async def test_a_child_sees_nothing_else(tmp_path: Path) -> None:
    tmp_path.joinpath("app.py").write_text("import os\ndef handler(event, context):\n    return dict(os.environ)\n")
    worker = function("app.handler", code=tmp_path, environment={"TABLE_NAME": "users"})
    async with running(worker) as executor:
        told = answer(await executor.invoke(invocation()))
    scratch = Path(told["TMPDIR"])
    expected = variables(worker, tmp_path, {}, told["AWS_LAMBDA_RUNTIME_API"], scratch=scratch)
    told.pop("LC_CTYPE", None)  # Python sets it itself where the locale of LANG is not installed
    stream = "AWS_LAMBDA_LOG_STREAM_NAME"
    assert told | {stream: ""} == expected | {stream: ""}
    assert "SECRET" not in told
