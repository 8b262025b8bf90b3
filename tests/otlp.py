"""An OTLP/HTTP receiver: what collectors are to exporters, built on the protocol's own definition."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

KINDS = {kind: trace_pb2.Span.SpanKind.Name(kind).removeprefix("SPAN_KIND_") for kind in range(6)}


class Link(NamedTuple):
    trace: str
    span: str
    attributes: dict[str, Any]


class Span(NamedTuple):
    """One span as it came."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    links: list[Link]
    failed: bool
    began: int
    ended: int
    resource: dict[str, Any]
    schema: str

    @property
    def operation(self) -> str:
        return str(self.attributes.get("messaging.operation.type", "invoke"))


class Receiver:
    """Takes traces at ``url``; answers each request with ``status``, after ``delay`` seconds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status, self.delay = 200, 0.0
        self.requests: list[int] = []
        """How many spans came with each request that was taken."""
        self.raw: list[bytes] = []
        self._spans: list[Span] = []

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        spans = list(read(request))
        self.raw.append(body)
        self.requests.append(len(spans))
        self._spans += spans

    def spans(self, operation: str = "") -> list[Span]:
        """Those of one operation, or all, in the order in which they began."""
        return sorted((it for it in self._spans if operation in ("", it.operation)), key=lambda it: it.began)

    def until(self, condition: Callable[[list[Span]], bool], operation: str = "", within: float = 30.0) -> list[Span]:
        deadline = time.monotonic() + within
        while not condition(found := self.spans(operation)):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found


def read(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        about = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    KINDS[span.kind],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _values(span.attributes),
                    [Link(it.trace_id.hex(), it.span_id.hex(), _values(it.attributes)) for it in span.links],
                    span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    about,
                    scope.schema_url,
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {it.key: _value(it.value) for it in attributes}


def _value(value: AnyValue) -> Any:
    return getattr(value, str(value.WhichOneof("value")))


@contextmanager
def receiver() -> Iterator[Receiver]:
    """One on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(taker.delay)
            well = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            status = taker.status if well else 404
            if status == 200:
                taker.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    taker = Receiver(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield taker
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
