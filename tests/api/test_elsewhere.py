"""Functions that run elsewhere, through boto3: what their endpoints say, or nothing at all, as Lambda says it."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.api.conftest import api_url
from tests.api.lambda_client import client, refused
from tests.e2e.harness import Site


class Endpoint(BaseHTTPRequestHandler):
    """Answers with the status that its path names, and with what it was told."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        names = ("Lambda-Runtime-Client-Context", "X-Amz-Client-Context", "Lambda-Runtime-Invoked-Function-Arn")
        body = json.dumps([self.headers.get(name) for name in names]).encode()
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    site = Site(tmp_path_factory.mktemp("elsewhere"))
    site.config["aws"]["account_id"] = "123456789012"
    site.config["api"] = {"listen": "127.0.0.1:0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    site.config["functions"] = {
        "down": {"url": f"{nobody}/200"},
        "cloud": {
            "lambda": "arn:aws:lambda:eu-west-1:123456789012:function:real", "aws": {"endpoint_url": nobody},
        },
        **{f"says-{status}": {"url": f"{url}/{status}"} for status in (200, 429, 500, 503)},
    }  # fmt: skip
    with site.running() as bridge:
        yield client(api_url(bridge), read_timeout=120)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["down", "cloud"])
def test_an_endpoint_that_is_not_to_be_reached(api: Any, name: str) -> None:  # INV-12
    """Nothing ran, and no handler is to blame: an SDK may try again."""
    code, status, message = refused(api.invoke, FunctionName=name)
    assert (code, status) == ("ServiceException", 500)
    assert message.startswith("http://127.0.0.1:" if name == "down" else "arn:aws:lambda:")


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_that_is_busy(api: Any, status: int) -> None:  # INV-11
    assert refused(api.invoke, FunctionName=f"says-{status}") == ("TooManyRequestsException", 429, "Rate Exceeded.")


def test_an_endpoint_that_fails_is_a_function_that_fails(api: Any) -> None:  # INV-20
    answer = api.invoke(FunctionName="says-500")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert json.loads(answer["Payload"].read())["errorType"] == "Function.HttpError"


def test_the_client_context_goes_with_it(api: Any) -> None:  # INV-2, RT-3
    encoded = base64.b64encode(b'{"custom": {"a": "\xc3\xbc"}}').decode()
    told, again, arn = json.load(
        api.invoke(FunctionName="says-200", Qualifier="$LATEST", ClientContext=encoded)["Payload"]
    )
    assert told == '{"custom":{"a":"\\u00fc"}}'
    assert base64.b64decode(again) == told.encode()
    assert arn == "arn:aws:lambda:eu-west-1:123456789012:function:says-200:$LATEST"
    assert json.load(api.invoke(FunctionName="says-200")["Payload"])[:2] == [None, None]


def test_versions_are_for_what_runs_here(api: Any) -> None:  # INV-10
    assert refused(api.invoke, FunctionName="down:1")[:2] == ("ResourceNotFoundException", 404)
    assert refused(
        api.put_provisioned_concurrency_config,
        FunctionName="down",
        Qualifier="1",
        ProvisionedConcurrentExecutions=1,
    )[:2] == ("ResourceNotFoundException", 404)
