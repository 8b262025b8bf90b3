"""Functions that run elsewhere, in a real daemon and by ``bridge invoke``: behind a url, and on a Lambda server."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from tests.e2e.harness import Site
from tests.e2e.recorder import Recorder
from tests.servers import ACCOUNT, REGION, Queue, Server, unique

CODE = """
def handler(event, context):
    for record in event["Records"]:
        print("got", record["body"])
    return {"batchItemFailures": [{"itemIdentifier": r["messageId"]} for r in event["Records"] if r["body"] == "bad"]}
"""


@pytest.fixture
def lambda_site(tmp_path: Path, ministack_server: Server) -> Site:
    return Site(tmp_path, ministack_server)


@pytest.fixture(scope="module")
def deployed(ministack_server: Server) -> str:
    """The ARN of a function on the server."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", CODE)
    name = unique("worker")
    ministack_server.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=f"arn:aws:iam::{ACCOUNT}:role/x",
        Handler="app.handler",
        Code={"ZipFile": code.getvalue()},
        Timeout=20,
    )
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def test_a_queue_feeds_a_function_behind_a_url(one_site: Site) -> None:
    queue = one_site.queue(visibility=2, dead_after=2)
    token = one_site.folder / "token"
    token.write_text("hush\n")
    with Recorder() as recorder:
        one_site.config["functions"]["web"] = {
            "url": recorder.url,
            "headers": {"Authorization": {"file": str(token), "prefix": "Bearer "}},
        }
        one_site.mapping(queue, "web")
        with one_site.running() as bridge:
            (poison,) = queue.send("poison")
            bridge.until(lambda: len(recorder.events) == 2)
            letters = one_site.letters_of(queue)
            bridge.until(lambda: letters.counts() == (1, 0))  # SQS-37
            queue.send(*(f"m{n}" for n in range(10)))
            bridge.empties(queue)
            (failed, *_) = bridge.events("invocation_failed")
            assert (failed["error_type"], failed["kind"]) == ("Poison", "function")
            assert bridge.metric("bridge_invocations_total", function="web", outcome="success") >= 1
            assert "hush" not in json.dumps(bridge.log())
    assert {record["messageId"] for record in recorder.records[:2]} == {poison}
    assert sorted(record["body"] for record in recorder.records[2:]) == sorted(f"m{n}" for n in range(10))
    assert {headers["Authorization"] for headers in recorder.headers} == {"Bearer hush"}


def test_an_endpoint_that_is_down_uses_up_no_delivery(one_site: Site) -> None:  # SQS-35
    queue = one_site.queue(visibility=30)
    recorder = Recorder()
    one_site.config["functions"]["web"] = {"url": recorder.url}
    mapping = one_site.mapping(queue, "web")
    with one_site.running() as bridge:
        queue.send("a")
        (line,) = bridge.said("invocation_failed")
        assert (line["kind"], line["error_type"]) == ("unreachable", "Function.Unreachable")
        assert line["message"] == f"{recorder.url} was not called: Connection refused"
        bridge.until(lambda: any(runner.gate.name == "throttled" for runner in bridge.view(mapping).runners))
        with recorder:
            bridge.empties(queue)
            assert len(bridge.events("invocation_failed")) == 1, "it is told once"
    (record,) = recorder.records
    assert record["attributes"]["ApproximateReceiveCount"] == "1"


def test_a_queue_feeds_a_function_on_lambda(lambda_site: Site, deployed: str) -> None:
    queue: Queue = lambda_site.queue(visibility=2, dead_after=1)
    lambda_site.config["functions"]["real"] = {"lambda": deployed}
    lambda_site.mapping(queue, "real", partial=True)
    with lambda_site.running() as bridge:
        queue.send("one", "bad", "two")
        letters = lambda_site.letters_of(queue)
        bridge.until(lambda: letters.counts()[0] == 1)
        bridge.empties(queue)
        lines = {line["line"] for line in bridge.said("handler_output", 3, function="real")}
        assert lines == {"got one", "got bad", "got two"}
        assert bridge.metric("bridge_source_api_requests_total", service="lambda", op="Invoke", code="OK") >= 1


def test_invoke(lambda_site: Site, deployed: str) -> None:
    lambda_site.config["functions"]["real"] = {"lambda": deployed}
    event = json.dumps({"Records": [{"messageId": "x", "body": "bad"}]})
    with Recorder() as recorder:
        lambda_site.config["functions"]["web"] = {"url": recorder.url}
        file = str(lambda_site.write())
        done = lambda_site.cli("invoke", "web", "-c", file, "-e", "-", given=event)
        assert (done.status, json.loads(done.out)) == (0, {"batchItemFailures": []})
        assert recorder.events == [event.encode()]
        failed = lambda_site.cli("invoke", "web", "-c", file, "-e", "-", given='{"x": "poison"}')
        assert (failed.status, json.loads(failed.out)["errorType"]) == (1, "Poison")
    done = lambda_site.cli("invoke", "real", "-c", file, "-e", "-", given=event)
    assert (done.status, json.loads(done.out)) == (0, {"batchItemFailures": [{"itemIdentifier": "x"}]})
    assert "got bad" in done.lines
    down = lambda_site.cli("invoke", "web", "-c", file)
    assert (down.status, json.loads(down.out)["errorType"]) == (1, "Function.Unreachable")
    assert "Traceback" not in down.err


def test_a_header_file_that_is_not_there(one_site: Site) -> None:
    missing = one_site.folder / "nowhere"
    one_site.config["functions"]["web"] = {"url": "http://127.0.0.1:9/", "headers": {"X": {"file": str(missing)}}}
    one_site.mapping(f"arn:aws:sqs:{REGION}:{ACCOUNT}:orders", "web")
    file = str(one_site.write())
    for command in ("run", "invoke web"):
        done = one_site.cli(*command.split(), "-c", file)
        assert done.status == 2, done
        assert f"functions.web.headers.X.file: {missing} cannot be used: No such file or directory" in done.lines[-1]
        assert "Traceback" not in done.err
