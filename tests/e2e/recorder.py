"""A web server in a thread that keeps the events that are POSTed to it, and answers as it is told."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Any, Self

from tests.threaded import Quiet, serving


class Recorder:
    """The function behind a url. A message body ``poison`` fails the batch. ``port`` is known before it listens."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.events: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of all SQS events so far."""
        return [record for event in tuple(self.events) for record in json.loads(event)["Records"]]

    def __enter__(self) -> Self:
        recorder = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                event = self.rfile.read(int(self.headers["Content-Length"]))
                recorder.events.append(event)
                recorder.headers.append(dict(self.headers.items()))
                failed = b'"poison"' in event
                answer = b'{"errorType": "Poison", "errorMessage": "found"}' if failed else b'{"batchItemFailures": []}'
                self.send_response(500 if failed else 200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        self._serving = serving(Handler, self.port)
        self._serving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.__exit__(kind, error, trace)
