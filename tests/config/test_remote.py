"""Functions behind a url and on lambda: what they may say, and what each wrong combination is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.executors import EXECUTORS
from bridge.function import Endpoint, HeaderFile
from tests.config.test_functions import worker
from tests.configured import problem, problems, settings, warnings

EMULATOR = "http://worker:8080/2015-03-31/functions/function/invocations"
REAL = "arn:aws:lambda:eu-central-1:123456789012:function:real"


def url(options: str = "", where: str = "https://host/path") -> str:
    return f"functions: {{worker: {{url: '{where}', {options}}}}}\n"


def on_lambda(options: str = "", arn: str = REAL) -> str:
    return f"functions: {{worker: {{lambda: '{arn}', {options}}}}}\n"


def test_a_url_function(tmp_path: Path) -> None:
    text = url("Timeout: 30, ReservedConcurrentExecutions: 2, max_environments: 5", EMULATOR)
    function = worker(tmp_path, text)
    assert function.endpoint == Endpoint(url=EMULATOR)
    assert (function.kind, function.timeout, function.concurrency) == ("url", 30.0, 2)
    assert function.kind in EXECUTORS
    assert function.arn == "arn:aws:lambda:us-east-1:000000000000:function:worker"
    assert function.where == str(tmp_path / "bridge.yaml:1")
    assert worker(tmp_path, url()).timeout == 3.0


@pytest.mark.parametrize(
    "where",
    ["http://h", "https://h:1/", "http://[::1]:8080/x?y=z", "http://127.0.0.1:65535/a%20b"],
)
def test_urls(tmp_path: Path, where: str) -> None:
    assert worker(tmp_path, url(where=where)).endpoint == Endpoint(url=where)


@pytest.mark.parametrize(
    "where",
    ["h", "ftp://h/x", "http://", "http://h:0/", "http://h:x/", "http://h:70000/", "http://h/a b", "http://h/#a"],
)
def test_what_is_no_url(tmp_path: Path, where: str) -> None:
    assert "functions.worker.url: " in problem(tmp_path, url(where=where))
    assert "is no URL; expected one such as http://worker:8080/" in problem(tmp_path, url(where=where))


def test_a_url_shows_no_secret(tmp_path: Path) -> None:
    found = problem(tmp_path, url(where="http://me:hush@host/x"))
    assert found.endswith("url: holds a user name, which would be shown; put an Authorization header under headers")
    assert "hush" not in problem(tmp_path, url(where="ftp://host/x?key=hush"))
    loaded = settings(tmp_path, url("headers: {X-Key: hush}", "http://host/x?key=hush"))
    assert "hush" not in repr(loaded) + repr(loaded.functions["worker"].endpoint)


def test_headers(tmp_path: Path) -> None:
    text = url("headers: {X-Key: '${KEY}', X-N: 5, Authorization: {file: token, prefix: 'Bearer '}, X: {file: /t}}")
    loaded = settings(tmp_path, text, {"KEY": "hush"})
    endpoint = loaded.functions["worker"].endpoint
    assert endpoint is not None
    assert endpoint.headers == {
        "X-Key": "hush",
        "X-N": "5",
        "Authorization": HeaderFile(tmp_path / "token", "Bearer "),
        "X": HeaderFile(Path("/t")),
    }


@pytest.mark.parametrize(
    ("headers", "part"),
    [
        ("'X Y': hush", "X Y: is no name of a header"),
        ("'': hush", ": is no name of a header"),
        ("content-LENGTH: hush", "content-LENGTH: is a header that the bridge itself sets; remove it"),
        ("Lambda-Runtime-Trace-Id: hush", "Lambda-Runtime-Trace-Id: is a header that the bridge itself sets"),
        ('X: "hush\\nY: 1"', "X: a header's value has printable ASCII characters only"),
        ("X: {file: /t, prefix: hüsh}", "X: a header's value has printable ASCII characters only"),
        ("X: {prefix: hush}", "X: file is missing, for example /run/"),
        ("X: {fil: /t}", 'X.fil: unknown option; did you mean "file"?'),
        ("X: [hush]", "X: expected "),
    ],
)
def test_headers_that_are_none(tmp_path: Path, headers: str, part: str) -> None:
    found = [line for line in problems(tmp_path, url(f"headers: {{{headers}}}")) if part in line]
    assert len(found) == 1
    assert "hush" not in found[0]
    assert "functions.worker.headers." in found[0]


def test_trust(tmp_path: Path) -> None:
    endpoint = worker(tmp_path, url("ca_file: ca.pem")).endpoint
    assert endpoint == Endpoint(url="https://host/path", ca_file=tmp_path / "ca.pem")
    assert worker(tmp_path, url("verify: true")).endpoint == Endpoint(url="https://host/path")
    assert worker(tmp_path, url("verify: false")).endpoint == Endpoint(url="https://host/path", verify=False)
    (told,) = [line for line in warnings(tmp_path, url("verify: false")) if "verify" in line]
    assert "can read and answer events" in told
    assert "has no meaning with `verify: false`" in problem(tmp_path, url("verify: false, ca_file: x"))
    assert "only with an https url" in problem(tmp_path, url("verify: true", "http://host"))
    assert "only with an https url" in problem(tmp_path, url("ca_file: x", "http://host"))


def test_a_lambda_function(tmp_path: Path) -> None:
    function = worker(tmp_path, on_lambda("max_environments: 5, aws: {profile: other}"))
    assert (function.kind, function.lambda_arn, function.concurrency) == ("lambda", REAL, 5)
    assert function.kind in EXECUTORS
    assert function.timeout == 900.0, "Lambda has a timeout of its own"
    assert (function.aws.region, function.aws.profile) == ("eu-central-1", "other")
    assert worker(tmp_path, on_lambda("Timeout: 3")).timeout == 3.0
    text = "aws: {region: us-west-2}\n" + on_lambda(arn=f"{REAL}:live")
    assert worker(tmp_path, text).aws.region == "eu-central-1"
    assert worker(tmp_path, text).lambda_arn == f"{REAL}:live"


@pytest.mark.parametrize(
    "arn",
    ["real", "arn:x", REAL + ":", REAL + ":a:b", REAL.replace("lambda", "sqs"), REAL.replace("123456789012", "1"),
     REAL.replace("eu-central-1", ""), REAL + " "],
)  # fmt: skip
def test_what_is_no_arn(tmp_path: Path, arn: str) -> None:
    found = problem(tmp_path, on_lambda(arn=arn))
    assert "functions.worker.lambda: " in found
    assert "is no ARN of a function; expected one such as arn:aws:lambda:" in found


@pytest.mark.parametrize("arn", [f"{REAL}:$LATEST", f"{REAL}:7", REAL.replace("aws", "aws-cn")])
def test_arns(tmp_path: Path, arn: str) -> None:
    assert worker(tmp_path, on_lambda(arn=arn)).lambda_arn == arn


def test_the_region_is_the_arns(tmp_path: Path) -> None:
    found = problem(tmp_path, on_lambda("aws: {region: eu-west-1}"))
    assert found == f"bridge.yaml:1: functions.worker.aws.region: eu-west-1 is not the region of {REAL}; remove it"


@pytest.mark.parametrize(
    "option",
    ["Runtime: python3.11", "Handler: app.handler", "CodeUri: .", "MemorySize: 256", "python: sh",
     "Environment: {Variables: {AB: x}}", "idle_timeout: 5", "credentials: none"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["url", "lambda"])
def test_what_belongs_to_processes(tmp_path: Path, kind: str, option: str) -> None:
    text = url(option) if kind == "url" else on_lambda(option)
    where = "behind its url" if kind == "url" else "on AWS Lambda"
    key = option.partition(":")[0]
    assert problem(tmp_path, text) == (
        f"bridge.yaml:1: functions.worker.{key}: a function with `{kind}` runs {where}, with its own settings;"
        " remove one of the two"
    )


def test_command_beside_a_url(tmp_path: Path) -> None:
    assert any("functions.worker.command: " in line for line in problems(tmp_path, url("command: [./x]")))


def test_both(tmp_path: Path) -> None:
    found = problem(tmp_path, url(f"lambda: '{REAL}'"))
    assert found.endswith("functions.worker.lambda: a function runs behind a url or on lambda; remove one of the two")


@pytest.mark.parametrize("option", ["headers: {X: y}", "verify: true", "ca_file: x"])
def test_what_belongs_to_urls(tmp_path: Path, option: str) -> None:
    key = option.partition(":")[0]
    for text in (on_lambda(option), f"functions: {{worker: {{{option}}}}}"):
        assert any(
            line.endswith(f"functions.worker.{key}: has a meaning only together with url; remove it")
            for line in problems(tmp_path, text)
        )
