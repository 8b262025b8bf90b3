"""A proxy between a program and a server that writes down each call, and what IAM would have to allow for it."""

from __future__ import annotations

import http.client
import json
import re
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.servers import ACCOUNT, REGION
from tests.threaded import Quiet, serving

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Call(NamedTuple):
    """One request."""

    service: str
    """As it was signed for."""
    key: str
    """Access key id: who signed it."""
    operation: str
    """Of JSON and query protocols."""
    params: dict[str, Any]
    method: str
    path: str


class Proxy:
    """Forwards to ``target``."""

    def __init__(self, target: str) -> None:
        self.calls: list[Call] = []
        self.prefaces: dict[str, bytes] = {}
        """Operation -> what the server leaves out at the beginning of its answers."""
        self._target = urlsplit(target)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        proxy = self

        class Handler(Quiet):
            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = _call(self, body)
                proxy.calls.append(call)
                proxy.answer(self, call, body)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = forward

        self._serving = serving(Handler)
        self._port = self._serving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.__exit__(kind, error, trace)

    def answer(self, handler: BaseHTTPRequestHandler, call: Call, body: bytes) -> None:
        """Streams the answer through as it comes."""
        connection = http.client.HTTPConnection(self._target.hostname or "", self._target.port, timeout=60)
        try:
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in HOP}
            connection.request(call.method, handler.path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP and name.lower() not in ("date", "server"):
                    handler.send_header(name, value)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            if preface := self.prefaces.get(call.operation):
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(preface), preface))
            while call.method != "HEAD" and (chunk := answer.read1(65536)):
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                handler.wfile.flush()
            if call.method != "HEAD":
                handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            handler.close_connection = True  # one of the two has gone: so has the other
        finally:
            connection.close()


def _call(handler: BaseHTTPRequestHandler, body: bytes) -> Call:
    headers, path = handler.headers, unquote(handler.path)
    scope = re.search(r"Credential=([^,]+)", headers.get("Authorization", ""))
    key, *_, service = scope[1].split("/")[:4] if scope else ["", ""]
    operation = headers.get("X-Amz-Target", "").rpartition(".")[2]
    if headers.get("X-Amz-Target", "").startswith("DynamoDBStreams"):
        service = "dynamodbstreams"
    params: dict[str, Any] = {}
    if operation:
        params = json.loads(body or b"{}")
    elif service in ("sns", "sts"):
        params = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        operation = params["Action"]
    return Call(service, key, operation, params, handler.command, path)


class Judge:
    """What each call would need, by AWS's service authorization reference. ``table``: the one stream whose iterators
    are used, since reading from them names none. ``consumers``: by stream and name."""

    def __init__(self, table: str = "", consumers: dict[tuple[str, str], str] | None = None) -> None:
        self._table = table
        self._consumers = consumers or {}

    def needs(self, call: Call) -> tuple[str, str]:
        """Action and resource."""
        needed: tuple[str, str] = getattr(self, f"_{call.service}")(call)
        return needed

    def _sqs(self, call: Call) -> tuple[str, str]:
        name = call.params.get("QueueName") or call.params["QueueUrl"].rpartition("/")[2]
        return f"sqs:{call.operation.removesuffix('Batch')}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"

    def _kinesis(self, call: Call) -> tuple[str, str]:
        stream = call.params.get("ConsumerARN") or call.params["StreamARN"]
        if call.operation == "DescribeStreamConsumer":
            stream = self._consumers[call.params["StreamARN"], call.params["ConsumerName"]]
        return f"kinesis:{call.operation}", stream

    def _dynamodbstreams(self, call: Call) -> tuple[str, str]:
        return f"dynamodb:{call.operation}", call.params.get("StreamArn", self._table)

    def _sns(self, call: Call) -> tuple[str, str]:
        return f"sns:{call.operation}", call.params["TopicArn"]

    def _sts(self, call: Call) -> tuple[str, str]:
        return f"sts:{call.operation}", call.params["RoleArn"]

    def _events(self, call: Call) -> tuple[str, str]:
        name = call.params["Entries"][0]["EventBusName"] if "Entries" in call.params else call.params["Name"]
        bus = name if name.startswith("arn:") else f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{name}"
        return f"events:{call.operation}", bus

    def _s3(self, call: Call) -> tuple[str, str]:
        bucket, _, key = urlsplit(call.path).path.lstrip("/").partition("/")
        action = {"HEAD": "s3:ListBucket", "PUT": "s3:PutObject"}[call.method]
        return action, f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"

    def _lambda(self, call: Call) -> tuple[str, str]:
        parts = urlsplit(call.path)
        if parts.path.rstrip("/").endswith("/event-source-mappings"):
            return "lambda:ListEventSourceMappings", "*"
        _, _, _, function, what = parts.path.split("/")
        action = {
            "invocations": "InvokeFunction", "configuration": "GetFunctionConfiguration",
            "concurrency": "GetFunctionConcurrency",
        }[what]  # fmt: skip
        qualifier = parse_qs(parts.query).get("Qualifier", [""])[0]
        arn = function if function.startswith("arn:") else f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"
        return f"lambda:{action}", f"{arn}:{qualifier}" if qualifier else arn
